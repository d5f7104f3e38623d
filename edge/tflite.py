"""What a device reads of a `.tflite` file by itself, before native code does.

TensorFlow Lite's interpreters trust a model file. `check` walks the flatbuffer's
skeleton in Python, so that a torn download, a photo or a web page is named as such;
whether the network runs is tried in a child process (`edge.model_file`). Operators,
open sizes and TFLite Metadata (how pixels are scaled, which file holds the labels) are
read here too, for files that have no card of ours.

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
_TENSOR_META_NAME, _TENSOR_META_UNITS, _TENSOR_META_FILES = 0, 4, 6
_UNIT_KIND, _UNIT_OPTIONS = 0, 1
_NORMALIZATION, _THRESHOLDING = 1, 3
_FILE_NAME, _FILE_KIND, _FILE_LOCALE = 0, 2, 3
_AXIS_LABELS = 2
METADATA_NAME = "TFLITE_METADATA"
_METADATA_IDENTIFIER = b"M001"

# Operators that leave the meaning of a classifier's output as it is, by their number
_PASSING = {
    6: "DEQUANTIZE",
    22: "RESHAPE",
    43: "SQUEEZE",
    53: "CAST",
    114: "QUANTIZE",
}
_SOFTMAX, _LOGISTIC = 25, 14

_NUMBERED = re.compile(r"\s*(\d+)\s*[:,\s]\s*(\S.*)")  # a label line: 7 cat, 7: cat


class _Outside(Exception):
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

        got = kind_of(head) or "something else"
        raise ModelError(f"{where}: expected a .tflite model, got {got}")
    try:
        if size < _SMALLEST:
            raise _Outside("it ends after the first bytes")
        file = _File(model)
        root = file.table(file.u32(0))
        _check_model(root)
    except (_Outside, struct.error) as error:
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
    """``softmax`` or ``sigmoid`` where that makes tensor `output`; else None."""
    graph = root.tables(_MODEL_SUBGRAPHS)[0]
    codes = [
        max(code.byte(_CODE_OLD), code.number(_CODE_BUILTIN))
        for code in root.tables(_MODEL_CODES)
    ]
    makers: dict[int, tuple[int, tuple[int, ...]]] = {}
    for operator in graph.tables(_GRAPH_OPERATORS):
        made = operator.ints(_OPERATOR_OUTPUTS)
        code = codes[operator.number(_OPERATOR_CODE)]
        makers |= dict.fromkeys(made, (code, operator.ints(_OPERATOR_INPUTS)))
    visited: set[int] = set()
    while output in makers and output not in visited:
        visited.add(output)
        code, inputs = makers[output]
        if code in (_SOFTMAX, _LOGISTIC):
            return "softmax" if code == _SOFTMAX else "sigmoid"
        if code not in _PASSING or not inputs:
            return None
        output = inputs[0]
    return None


def read_metadata(root: Table) -> Metadata:
    """TFLite Metadata of a model; what cannot be read counts as not there."""
    try:
        for record in root.tables(_MODEL_METADATA):
            if record.text(0) == METADATA_NAME:
                buffers = root.tables(_MODEL_BUFFERS)
                return _metadata(buffers[record.number(1)].data(_BUFFER_DATA))
    except (_Outside, struct.error, IndexError):
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
        return tuple(pairs[number] for number in range(len(lines)))
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
            ordered = [names.get(str(number)) for number in range(len(pairs))]
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
    graphs = file.table(file.u32(0)).tables(_METADATA_GRAPHS)
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
        (bool(file.text(_FILE_LOCALE)), place, file.text(_FILE_NAME))
        for place, file in enumerate(tensor.tables(_TENSOR_META_FILES))
        if file.byte(_FILE_KIND) == _AXIS_LABELS
    ]
    return [name for _, _, name in sorted(files)]


def _threshold(tensor: Table) -> float | None:
    for options in _units(tensor, _THRESHOLDING):
        at = options.field(0, 4)
        if at is not None:
            return float(struct.unpack_from("<f", options.file.data, at)[0])
    return None


class _File:
    """Bounds-checked reading of flatbuffer parts by their absolute position."""

    def __init__(self, data: Buffer) -> None:
        self.data = data
        self.size = len(data)

    def u32(self, at: int) -> int:
        if not 0 <= at <= self.size - 4:
            raise _Outside(f"offset {at:,} lies outside")
        return int(_U32.unpack_from(self.data, at)[0])

    def table(self, at: int) -> Table:
        if not 0 <= at <= self.size - 4:
            raise _Outside(f"table at {at:,} lies outside")
        vtable = at - _I32.unpack_from(self.data, at)[0]
        if not 0 <= vtable <= self.size - 4:
            raise _Outside(f"table at {at:,} has its fields outside")
        length = _U16.unpack_from(self.data, vtable)[0]
        room = _U16.unpack_from(self.data, vtable + 2)[0]
        if length < 4 or length % 2 or vtable + length > self.size:
            raise _Outside(f"table at {at:,} has a wrong field list")
        if room < 4 or at + room > self.size:
            raise _Outside(f"table at {at:,} is cut off")
        return Table(self, at, vtable, length, room)

    def vector(self, at: int, width: int) -> tuple[int, int]:
        """Position of the first element and count of a vector at `at`."""
        count = self.u32(at)
        if at + 4 + count * width > self.size:
            raise _Outside(f"list of {count:,} at {at:,} is cut off")
        return at + 4, count

    def ints(self, at: int) -> tuple[int, ...]:
        start, count = self.vector(at, 4)
        return struct.unpack_from(f"<{count}i", self.data, start)


class Table:
    """One table of a flatbuffer: its fields by their number in the schema."""

    def __init__(self, file: _File, at: int, vtable: int, length: int, room: int):
        self.file, self.at, self.vtable = file, at, vtable
        self.length, self.room = length, room

    def field(self, number: int, width: int) -> int | None:
        """The absolute position of a field, or None when it has its default."""
        slot = 4 + 2 * number
        if slot >= self.length:
            return None
        offset: int = _U16.unpack_from(self.file.data, self.vtable + slot)[0]
        if offset == 0:
            return None
        if offset + width > self.room:
            raise _Outside(f"table at {self.at:,} has a field outside")
        return self.at + offset

    def target(self, number: int) -> int | None:
        """Where an offset field (a table, vector or string) points to."""
        at = self.field(number, 4)
        if at is None:
            return None
        offset = self.file.u32(at)
        if offset == 0:
            raise _Outside(f"table at {self.at:,} points at itself")
        return at + offset

    def number(self, number: int) -> int:
        at = self.field(number, 4)
        return 0 if at is None else self.file.u32(at)

    def byte(self, number: int) -> int:
        at = self.field(number, 1)
        return 0 if at is None else int(self.file.data[at])

    def ints(self, number: int) -> tuple[int, ...]:
        at = self.target(number)
        return () if at is None else self.file.ints(at)

    def span(self, number: int, width: int = 1) -> int:
        """Elements in a vector or string, its end checked."""
        at = self.target(number)
        return 0 if at is None else self.file.vector(at, width)[1]

    def values(self, number: int, code: str) -> tuple[Any, ...]:
        """A vector of floats ("f") or 64-bit integers ("q")."""
        at = self.target(number)
        if at is None:
            return ()
        start, count = self.file.vector(at, struct.calcsize(code))
        return struct.unpack_from(f"<{count}{code}", self.file.data, start)

    def text(self, number: int) -> str:
        """A string; what is no UTF-8 in it is replaced."""
        at = self.target(number)
        if at is None:
            return ""
        start, count = self.file.vector(at, 1)
        return bytes(self.file.data[start : start + count]).decode("utf-8", "replace")

    def data(self, number: int) -> bytes:
        """A vector of bytes."""
        at = self.target(number)
        if at is None:
            return b""
        start, count = self.file.vector(at, 1)
        return bytes(self.file.data[start : start + count])

    def child(self, number: int) -> Table | None:
        """A table inside this one."""
        at = self.target(number)
        return None if at is None else self.file.table(at)

    def tables(self, number: int) -> list[Table]:
        at = self.target(number)
        if at is None:
            return []
        start, count = self.file.vector(at, 4)
        places = range(start, start + 4 * count, 4)
        return [self.file.table(place + self.file.u32(place)) for place in places]


def _check_model(model: Table) -> None:
    """_Outside unless all that is read of a model later lies inside the file; metadata
    apart, which `read_metadata` checks."""
    if model.number(_MODEL_VERSION) != SCHEMA_VERSION:
        raise _Outside(f"schema version {model.number(_MODEL_VERSION)}, expected 3")
    codes = model.tables(_MODEL_CODES)
    for code in codes:
        code.byte(_CODE_OLD)
        code.number(_CODE_BUILTIN)
        code.text(_CODE_CUSTOM)
    buffers = model.tables(_MODEL_BUFFERS)
    for buffer in buffers:
        if buffer.field(_BUFFER_OFFSET, 8) is None:  # else it lies behind
            buffer.span(_BUFFER_DATA)
    for record in model.tables(_MODEL_METADATA):
        record.span(0)
        if record.number(1) >= len(buffers):
            raise _Outside("metadata without its buffer")
    subgraphs = model.tables(_MODEL_SUBGRAPHS)
    if not subgraphs or not codes:
        raise _Outside("no network inside")
    tensors = [_check_graph(graph, len(codes), len(buffers)) for graph in subgraphs]
    for signature in model.tables(_MODEL_SIGNATURES):
        signature.span(2)
        graph = signature.number(4)
        if graph >= len(subgraphs):
            raise _Outside("a signature without its network")
        for entry in signature.tables(0) + signature.tables(1):
            entry.span(0)
            if entry.number(1) >= tensors[graph]:
                raise _Outside("a signature names a tensor that is not there")


def _check_graph(graph: Table, codes: int, buffers: int) -> int:
    """Checks one network; returns its number of tensors."""
    tensors = graph.tables(_GRAPH_TENSORS)
    for tensor in tensors:
        tensor.span(_TENSOR_NAME)
        tensor.ints(_TENSOR_SHAPE)
        tensor.ints(_TENSOR_SIGNATURE)
        if tensor.number(_TENSOR_BUFFER) >= buffers:
            raise _Outside("a tensor without its buffer")
    _check_indices(graph.ints(_GRAPH_INPUTS), 0, len(tensors))
    _check_indices(graph.ints(_GRAPH_OUTPUTS), 0, len(tensors))
    for operator in graph.tables(_GRAPH_OPERATORS):
        if operator.number(_OPERATOR_CODE) >= codes:
            raise _Outside("an operator without its code")
        _check_indices(operator.ints(_OPERATOR_INPUTS), -1, len(tensors))
        _check_indices(operator.ints(_OPERATOR_OUTPUTS), 0, len(tensors))
    return len(tensors)


def _check_indices(indices: tuple[int, ...], low: int, count: int) -> None:
    if indices and not (low <= min(indices) and max(indices) < count):
        raise _Outside("a tensor that is not there is used")
