"""Reading a `.tflite` file in Python, before an interpreter does.

TensorFlow Lite's interpreters trust a model file. `check` walks the flatbuffer, so
that a truncated download, a photo or a web page is named as such; `edge.model_file`
runs the network in a child process. Operators, dynamic input sizes and TFLite Metadata
(pixel scaling, label files) are read here too, for files without a card.

Sources: the flatbuffer binary format (flatbuffers.dev/internals), TensorFlow Lite's
schema.fbs, version 3, and metadata_schema.fbs of TFLite Support.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edge.errors import ModelError

Buffer = bytes | memoryview

IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
_SMALLEST = 64

_U16 = struct.Struct("<H")
_I32 = struct.Struct("<i")
_U32 = struct.Struct("<I")

# Field numbers in schema.fbs
_MODEL_VERSION, _MODEL_CODES, _MODEL_SUBGRAPHS = 0, 1, 2
_MODEL_BUFFERS, _MODEL_METADATA, _MODEL_SIGNATURES = 4, 6, 7
_GRAPH_TENSORS, _GRAPH_INPUTS, _GRAPH_OUTPUTS, _GRAPH_OPERATORS = 0, 1, 2, 3
_TENSOR_SHAPE, _TENSOR_BUFFER, _TENSOR_NAME, _TENSOR_SIGNATURE = 0, 2, 3, 7
_OPERATOR_CODE, _OPERATOR_INPUTS, _OPERATOR_OUTPUTS = 0, 1, 2
_CODE_OLD, _CODE_CUSTOM, _CODE_BUILTIN = 0, 1, 3
_BUFFER_DATA, _BUFFER_OFFSET = 0, 1
# and in metadata_schema.fbs
_METADATA_GRAPHS, _GRAPH_INPUT_META, _GRAPH_OUTPUT_META = 3, 2, 3
_TENSOR_META_UNITS, _TENSOR_META_FILES = 4, 6
_UNIT_KIND, _UNIT_OPTIONS = 0, 1
_NORMALIZATION, _THRESHOLDING = 1, 3
_FILE_NAME, _FILE_KIND, _FILE_LOCALE = 0, 2, 3
_AXIS_LABELS = 2
METADATA_NAME = "TFLITE_METADATA"
_METADATA_IDENTIFIER = b"M001"

# Operators after which probabilities are still probabilities: DEQUANTIZE, RESHAPE,
# SQUEEZE, CAST, QUANTIZE
_PASS_THROUGH = {6, 22, 43, 53, 114}
_SOFTMAX, _LOGISTIC = 25, 14

_NUMBERED = re.compile(r"\s*(\d+)\s*[:,\s]\s*(\S.*)")  # a label line: 7 cat, 7: cat


class _OutOfBounds(Exception):
    """An offset or index that leaves the file."""


@dataclass(frozen=True)
class Metadata:
    """What TFLite Metadata says of a classifier; empty where there is none.

    `mean` and `std`, one number or one for each channel: the network wants
    ``(pixel - mean) / std``. `label_files`: for each output the names of its label
    files, best first. `thresholds`: for each output the score below which a label
    is to be left out, or None.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    label_files: tuple[tuple[str, ...], ...] = ()
    thresholds: tuple[float | None, ...] = ()


def check(model: Buffer, where: str) -> Table:
    """The root table; ModelError when `model` is not a whole TFLite flatbuffer."""
    size = len(model)
    if size == 0:
        raise ModelError(f"{where}: expected a .tflite model, got an empty file")
    head = bytes(model[:32])
    if head[4:8] != IDENTIFIER:
        from edge.files import kind_of

        kind = kind_of(head) or "something else"
        raise ModelError(f"{where}: expected a .tflite model, got {kind}")
    try:
        if size < _SMALLEST:
            raise _OutOfBounds("it ends after the first bytes")
        file = _File(model)
        root = Table(file, file.uint32(0))
        _check_model(root)
    except (_OutOfBounds, struct.error) as error:
        raise ModelError(
            f"{where}: damaged or truncated .tflite model "
            f"({size:,} bytes: {error}); copy or export it again"
        ) from None
    return root


def custom_operators(root: Table) -> list[str]:
    """Names of the operators that TensorFlow Lite itself does not have."""
    names = [code.text(_CODE_CUSTOM) for code in root.tables(_MODEL_CODES)]
    return sorted({name for name in names if name})


def open_size(root: Table) -> bool:
    """Does the first input leave its height or width open?"""
    graph = root.tables(_MODEL_SUBGRAPHS)[0]
    inputs = graph.ints(_GRAPH_INPUTS)
    if not inputs:
        return False
    tensor = graph.tables(_GRAPH_TENSORS)[inputs[0]]
    return -1 in tensor.ints(_TENSOR_SIGNATURE)[1:]


def activation(root: Table, output: int) -> str | None:
    """``softmax`` or ``sigmoid`` where that computes tensor `output`; else None."""
    graph = root.tables(_MODEL_SUBGRAPHS)[0]
    codes = [
        max(code.byte(_CODE_OLD), code.uint32(_CODE_BUILTIN))
        for code in root.tables(_MODEL_CODES)
    ]
    producers: dict[int, tuple[int, tuple[int, ...]]] = {}  # tensor: code, inputs
    for operator in graph.tables(_GRAPH_OPERATORS):
        code = codes[operator.uint32(_OPERATOR_CODE)]
        producer = code, operator.ints(_OPERATOR_INPUTS)
        producers |= dict.fromkeys(operator.ints(_OPERATOR_OUTPUTS), producer)
    visited: set[int] = set()
    while output in producers and output not in visited:
        visited.add(output)
        code, inputs = producers[output]
        if code in (_SOFTMAX, _LOGISTIC):
            return "softmax" if code == _SOFTMAX else "sigmoid"
        if code not in _PASS_THROUGH or not inputs:
            return None
        output = inputs[0]
    return None


def read_metadata(root: Table) -> Metadata:
    """TFLite Metadata of a model; what cannot be read counts as not there."""
    try:
        for record in root.tables(_MODEL_METADATA):
            if record.text(0) == METADATA_NAME:
                buffers = root.tables(_MODEL_BUFFERS)
                return _metadata(buffers[record.uint32(1)].data(_BUFFER_DATA))
    except (_OutOfBounds, struct.error, IndexError):
        pass
    return Metadata()


def read_label_file(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The labels of a text file; ModelError when it is missing or has none."""
    where = os.fspath(path)
    try:
        with open(path, "rb") as file:
            return parse_labels(file.read(), where)
    except OSError as error:
        raise ModelError(f"{where}: {error.strerror or error}") from None


def parse_labels(content: bytes, where: str) -> tuple[str, ...]:
    """Labels from text: one a line, ``number name`` on every line, or a list or a
    dictionary as JSON and Python write them (number to name, or name to number).

    UTF-8 with or without its mark, else Latin-1. Empty lines at the end are left out.
    Numbers count only when every line has one and together they are 0 to n-1.
    """
    if b"\0" in content:
        raise ModelError(f"{where}: expected a text file of labels")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if not any(lines):
        raise ModelError(f"{where}: expected one label on each line, got none")
    if (lines[0][0], lines[-1][-1]) in (("{", "}"), ("[", "]")):
        return _literal_labels(text, where)
    matches = [_NUMBERED.fullmatch(line) for line in lines]
    pairs = {int(m[1]): m[2] for m in matches if m}
    if len(pairs) == len(lines) and sorted(pairs) == list(range(len(lines))):
        return tuple(pairs[index] for index in range(len(lines)))
    return tuple(lines)


def _literal_labels(text: str, where: str) -> tuple[str, ...]:
    """Of a list of names, or of a dictionary of names and the numbers 0 to n-1."""
    import json
    from ast import literal_eval

    value: Any = None
    for read in (json.loads, literal_eval):
        try:
            value = read(text.strip().removeprefix("\ufeff"))
            break
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    if isinstance(value, dict):
        pairs = [(str(key), str(item)) for key, item in value.items()]
        for names in (dict(pairs), {item: key for key, item in pairs}):
            ordered = [names.get(str(index)) for index in range(len(pairs))]
            if None not in ordered:
                value = ordered
                break
    if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        return tuple(value)
    raise ModelError(
        f"{where}: expected labels as a list of names, or with the numbers 0 to n-1, "
        f"got {' '.join(text.split())!r:.60}"
    )


def _metadata(data: bytes) -> Metadata:
    if data[4:8] != _METADATA_IDENTIFIER:
        return Metadata()
    file = _File(data)
    graphs = Table(file, file.uint32(0)).tables(_METADATA_GRAPHS)
    if not graphs:
        return Metadata()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    for tensor in graphs[0].tables(_GRAPH_INPUT_META)[:1]:
        for options in _units(tensor, _NORMALIZATION):
            mean, std = options.values(0, "f"), options.values(1, "f")
    outputs = graphs[0].tables(_GRAPH_OUTPUT_META)
    return Metadata(
        mean,
        std,
        tuple(tuple(_label_files(tensor)) for tensor in outputs),
        tuple(_threshold(tensor) for tensor in outputs),
    )


def _units(tensor: Table, kind: int) -> Iterator[Table]:
    for unit in tensor.tables(_TENSOR_META_UNITS):
        options = unit.child(_UNIT_OPTIONS)
        if unit.byte(_UNIT_KIND) == kind and options is not None:
            yield options


def _label_files(tensor: Table) -> list[str]:
    """Files of axis labels, those of no language in particular first."""
    files = [
        file
        for file in tensor.tables(_TENSOR_META_FILES)
        if file.byte(_FILE_KIND) == _AXIS_LABELS
    ]
    files.sort(key=lambda file: bool(file.text(_FILE_LOCALE)))
    return [file.text(_FILE_NAME) for file in files]


def _threshold(tensor: Table) -> float | None:
    for options in _units(tensor, _THRESHOLDING):
        at = options.position(0, 4)
        if at is not None:
            return float(struct.unpack_from("<f", options.file.data, at)[0])
    return None


class _File:
    """Bounds-checked reading of flatbuffer parts by their absolute position."""

    def __init__(self, data: Buffer) -> None:
        self.data = data
        self.size = len(data)

    def uint32(self, at: int) -> int:
        if not 0 <= at <= self.size - 4:
            raise _OutOfBounds(f"offset {at:,} lies outside")
        return int(_U32.unpack_from(self.data, at)[0])

    def vector(self, at: int, width: int) -> tuple[int, int]:
        """Position of the first element and count of a vector at `at`."""
        count = self.uint32(at)
        if at + 4 + count * width > self.size:
            raise _OutOfBounds(f"list of {count:,} at {at:,} is cut off")
        return at + 4, count


class Table:
    """One table of a flatbuffer: its fields by their index in the schema."""

    def __init__(self, file: _File, at: int) -> None:
        if not 0 <= at <= file.size - 4:
            raise _OutOfBounds(f"table at {at:,} lies outside")
        vtable = at - _I32.unpack_from(file.data, at)[0]
        if not 0 <= vtable <= file.size - 4:
            raise _OutOfBounds(f"table at {at:,} has its fields outside")
        vtable_size = _U16.unpack_from(file.data, vtable)[0]
        table_size = _U16.unpack_from(file.data, vtable + 2)[0]
        if vtable_size < 4 or vtable_size % 2 or vtable + vtable_size > file.size:
            raise _OutOfBounds(f"table at {at:,} has a wrong field list")
        if table_size < 4 or at + table_size > file.size:
            raise _OutOfBounds(f"table at {at:,} is cut off")
        self.file, self.at, self.vtable = file, at, vtable
        self.vtable_size, self.table_size = vtable_size, table_size

    def position(self, field: int, width: int) -> int | None:
        """The absolute position of a field, or None when it has its default."""
        slot = 4 + 2 * field
        if slot >= self.vtable_size:
            return None
        offset: int = _U16.unpack_from(self.file.data, self.vtable + slot)[0]
        if offset == 0:
            return None
        if offset + width > self.table_size:
            raise _OutOfBounds(f"table at {self.at:,} has a field outside")
        return self.at + offset

    def target(self, field: int) -> int | None:
        """Where an offset field (a table, vector or string) points to."""
        at = self.position(field, 4)
        if at is None:
            return None
        offset = self.file.uint32(at)
        if offset == 0:
            raise _OutOfBounds(f"table at {self.at:,} points at itself")
        return at + offset

    def uint32(self, field: int) -> int:
        at = self.position(field, 4)
        return 0 if at is None else self.file.uint32(at)

    def byte(self, field: int) -> int:
        at = self.position(field, 1)
        return 0 if at is None else int(self.file.data[at])

    def vector(self, field: int, width: int = 1) -> tuple[int, int]:
        """Position and count of a vector's or string's elements, its end checked."""
        at = self.target(field)
        return (0, 0) if at is None else self.file.vector(at, width)

    def values(self, field: int, code: str) -> tuple[Any, ...]:
        """A vector of 32-bit integers ("i") or floats ("f")."""
        start, count = self.vector(field, 4)
        return struct.unpack_from(f"<{count}{code}", self.file.data, start)

    def ints(self, field: int) -> tuple[int, ...]:
        return self.values(field, "i")

    def data(self, field: int) -> bytes:
        """A vector of bytes."""
        start, count = self.vector(field)
        return bytes(self.file.data[start : start + count])

    def text(self, field: int) -> str:
        """A string; what is no UTF-8 in it is replaced."""
        return self.data(field).decode("utf-8", "replace")

    def child(self, field: int) -> Table | None:
        """A table inside this one."""
        at = self.target(field)
        return None if at is None else Table(self.file, at)

    def tables(self, field: int) -> list[Table]:
        start, count = self.vector(field, 4)
        positions = range(start, start + 4 * count, 4)
        return [Table(self.file, at + self.file.uint32(at)) for at in positions]


def _check_model(model: Table) -> None:
    """_OutOfBounds unless all that is read later lies inside the file, except metadata,
    which `read_metadata` checks."""
    if model.uint32(_MODEL_VERSION) != SCHEMA_VERSION:
        raise _OutOfBounds(f"schema version {model.uint32(_MODEL_VERSION)}, expected 3")
    codes = model.tables(_MODEL_CODES)
    for code in codes:
        code.byte(_CODE_OLD)
        code.uint32(_CODE_BUILTIN)
        code.text(_CODE_CUSTOM)
    buffers = model.tables(_MODEL_BUFFERS)
    for buffer in buffers:
        if buffer.position(_BUFFER_OFFSET, 8) is None:  # else it lies behind
            buffer.vector(_BUFFER_DATA)
    for record in model.tables(_MODEL_METADATA):
        record.vector(0)
        if record.uint32(1) >= len(buffers):
            raise _OutOfBounds("metadata without its buffer")
    subgraphs = model.tables(_MODEL_SUBGRAPHS)
    if not subgraphs or not codes:
        raise _OutOfBounds("no network inside")
    tensors = [_check_graph(graph, len(codes), len(buffers)) for graph in subgraphs]
    for signature in model.tables(_MODEL_SIGNATURES):
        signature.vector(2)
        graph = signature.uint32(4)
        if graph >= len(subgraphs):
            raise _OutOfBounds("a signature without its network")
        for entry in signature.tables(0) + signature.tables(1):
            entry.vector(0)
            if entry.uint32(1) >= tensors[graph]:
                raise _OutOfBounds("a signature names a tensor that is not there")


def _check_graph(graph: Table, codes: int, buffers: int) -> int:
    """Checks one network; returns its number of tensors."""
    tensors = graph.tables(_GRAPH_TENSORS)
    for tensor in tensors:
        tensor.vector(_TENSOR_NAME)
        tensor.ints(_TENSOR_SHAPE)
        tensor.ints(_TENSOR_SIGNATURE)
        if tensor.uint32(_TENSOR_BUFFER) >= buffers:
            raise _OutOfBounds("a tensor without its buffer")
    _check_indices(graph.ints(_GRAPH_INPUTS), 0, len(tensors))
    _check_indices(graph.ints(_GRAPH_OUTPUTS), 0, len(tensors))
    for operator in graph.tables(_GRAPH_OPERATORS):
        if operator.uint32(_OPERATOR_CODE) >= codes:
            raise _OutOfBounds("an operator without its code")
        _check_indices(operator.ints(_OPERATOR_INPUTS), -1, len(tensors))
        _check_indices(operator.ints(_OPERATOR_OUTPUTS), 0, len(tensors))
    return len(tensors)


def _check_indices(indices: tuple[int, ...], low: int, count: int) -> None:
    if indices and not (low <= min(indices) and max(indices) < count):
        raise _OutOfBounds("a tensor that is not there is used")
