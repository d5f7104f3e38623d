"""Is this file a whole TFLite model? Asked before native code reads it.

TensorFlow Lite's interpreters trust a model file: a truncated or damaged one can
read outside the file and end the process. This walks the flatbuffer's skeleton
(operator codes, subgraphs, tensors, operators, buffers, metadata, signatures) in
Python and checks that every offset and index stays inside, and that constants are as
long as their shapes say.

Source: the flatbuffer binary format (flatbuffers.dev/internals) and TensorFlow
Lite's schema.fbs, version 3. It does not know: the options of each operator, or
whether weights make sense; a flipped bit in a weight passes.
"""

from __future__ import annotations

import math
import struct
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
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_BUFFER, _TENSOR_NAME, _TENSOR_QUANT = range(5)
_QUANT_SCALES, _QUANT_ZEROS, _QUANT_AXIS = 2, 3, 6
_OPERATOR_CODE, _OPERATOR_INPUTS, _OPERATOR_OUTPUTS = 0, 1, 2
_BUFFER_DATA, _BUFFER_OFFSET = 0, 1
# TensorType -> bytes of an element, of the types that image networks hold
_WIDTHS = {0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 6: 1, 7: 2, 9: 1, 10: 8, 15: 4}
_LAST_TYPE = 63  # far above the newest of the schema: a torn number, not a new type
# TensorType -> where its zero point may lie
_ZERO_POINTS = {3: (0, 255), 9: (-128, 127)}
# A bias has the product of two scales; what is beyond ends the kernels' arithmetic
_LEAST_SCALE, _MOST_SCALE = 1e-25, 1e5
_MOST_ELEMENTS = 1 << 31  # the interpreters count in 32 bits


class _Outside(Exception):
    """An offset or index that leaves the file."""


def check(model: Buffer, where: str) -> None:
    """ModelError when `model` is not a whole TFLite flatbuffer."""
    size = len(model)
    if size == 0:
        raise ModelError(f"{where}: expected a .tflite model, got an empty file")
    head = bytes(model[:8])
    if head[4:8] != IDENTIFIER:
        raise ModelError(f"{where}: expected a .tflite model, got {_kind(head)}")
    try:
        if size < _SMALLEST:
            raise _Outside("it ends after the first bytes")
        _check_model(_File(model))
    except (_Outside, struct.error) as error:
        raise ModelError(
            f"{where}: damaged or truncated .tflite model "
            f"({size:,} bytes: {error}); copy or export it again"
        ) from None


def _kind(head: bytes) -> str:
    for start, kind in (
        (b"PK", "a zip"),
        (b"\x89HDF", "an HDF5 file (Keras weights?); convert it first"),
        (b"\xff\xd8", "a JPEG photo"),
        (b"\x89PNG", "a PNG photo"),
        (b"<", "a web page or XML"),
        (b"version ", "a Git LFS pointer; run git lfs pull"),
    ):
        if head.startswith(start):
            return kind
    return "a file without its TFL3 mark"


class _File:
    """Bounds-checked reading of flatbuffer parts by their absolute position."""

    def __init__(self, data: Buffer) -> None:
        self.data = data
        self.size = len(data)

    def u32(self, at: int) -> int:
        if not 0 <= at <= self.size - 4:
            raise _Outside(f"offset {at:,} lies outside")
        return int(_U32.unpack_from(self.data, at)[0])

    def table(self, at: int) -> _Table:
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
        return _Table(self, at, vtable, length, room)

    def vector(self, at: int, width: int) -> tuple[int, int]:
        """Position of the first element and count of a vector at `at`."""
        count = self.u32(at)
        if at + 4 + count * width > self.size:
            raise _Outside(f"list of {count:,} at {at:,} is cut off")
        return at + 4, count

    def ints(self, at: int) -> tuple[int, ...]:
        start, count = self.vector(at, 4)
        return struct.unpack_from(f"<{count}i", self.data, start)


class _Table:
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

    def tables(self, number: int) -> list[_Table]:
        at = self.target(number)
        if at is None:
            return []
        start, count = self.file.vector(at, 4)
        places = range(start, start + 4 * count, 4)
        return [self.file.table(place + self.file.u32(place)) for place in places]


def _check_model(file: _File) -> None:
    model = file.table(file.u32(0))
    if model.number(_MODEL_VERSION) != SCHEMA_VERSION:
        raise _Outside(f"schema version {model.number(_MODEL_VERSION)}, expected 3")
    codes = model.tables(_MODEL_CODES)
    buffers = model.tables(_MODEL_BUFFERS)
    lengths = [
        None if buffer.field(_BUFFER_OFFSET, 8) else buffer.span(_BUFFER_DATA)
        for buffer in buffers
    ]
    for record in model.tables(_MODEL_METADATA):
        record.span(0)
        if record.number(1) >= len(buffers):
            raise _Outside("metadata without its buffer")
    subgraphs = model.tables(_MODEL_SUBGRAPHS)
    if not subgraphs or not codes:
        raise _Outside("no network inside")
    tensors = [_check_subgraph(graph, len(codes), lengths) for graph in subgraphs]
    for signature in model.tables(_MODEL_SIGNATURES):
        signature.span(2)
        graph = signature.number(4)
        if graph >= len(subgraphs):
            raise _Outside("a signature without its network")
        for entry in signature.tables(0) + signature.tables(1):
            entry.span(0)
            if entry.number(1) >= tensors[graph]:
                raise _Outside("a signature names a tensor that is not there")


def _check_subgraph(graph: _Table, codes: int, lengths: list[int | None]) -> int:
    """Checks one network; returns its number of tensors. `lengths`: bytes of each
    buffer, None for one that lies behind the flatbuffer."""
    tensors = graph.tables(_GRAPH_TENSORS)
    for tensor in tensors:
        tensor.span(_TENSOR_NAME)
        shape = tensor.ints(_TENSOR_SHAPE)
        place = tensor.number(_TENSOR_BUFFER)
        if place >= len(lengths):
            raise _Outside("a tensor without its buffer")
        kind = tensor.byte(_TENSOR_TYPE)
        _check_size(shape, kind, lengths[place])
        quantization = tensor.target(_TENSOR_QUANT)
        if quantization is not None:
            _check_scales(graph.file.table(quantization), shape, kind)
    _check_indices(graph.ints(_GRAPH_INPUTS), 0, len(tensors))
    _check_indices(graph.ints(_GRAPH_OUTPUTS), 0, len(tensors))
    for operator in graph.tables(_GRAPH_OPERATORS):
        if operator.number(_OPERATOR_CODE) >= codes:
            raise _Outside("an operator without its code")
        _check_indices(operator.ints(_OPERATOR_INPUTS), -1, len(tensors))
        _check_indices(operator.ints(_OPERATOR_OUTPUTS), 0, len(tensors))
    return len(tensors)


def _check_size(shape: tuple[int, ...], kind: int, length: int | None) -> None:
    if kind > _LAST_TYPE:
        raise _Outside(f"a tensor of type {kind}, which there is not")
    if any(side < 0 for side in shape) or math.prod(shape) > _MOST_ELEMENTS:
        raise _Outside(f"a tensor of shape {list(shape)}")
    width = _WIDTHS.get(kind)
    if length and width is not None and math.prod(shape) * width != length:
        raise _Outside(
            f"{length:,} bytes for a tensor of shape {list(shape)}, "
            f"{math.prod(shape) * width:,} expected"
        )


def _check_scales(numbers: _Table, shape: tuple[int, ...], kind: int) -> None:
    """One scale in all, or one for each place on an axis; zero points of the type."""
    for field in (0, 1):
        numbers.span(field, 4)
    scales = numbers.values(_QUANT_SCALES, "f")
    zeros = numbers.values(_QUANT_ZEROS, "q")
    # 0 stands for a channel whose weights are all zero, as converters write it
    dead = len(scales) > 1
    if not all(
        _LEAST_SCALE < scale < _MOST_SCALE or (dead and scale == 0) for scale in scales
    ):
        raise _Outside(f"a scale of {min(scales):g} to {max(scales):g}")
    low, high = _ZERO_POINTS.get(kind, (0, 0))
    if scales and not all(low <= zero <= high for zero in zeros):
        raise _Outside(f"a zero point of {min(zeros):,} to {max(zeros):,}")
    if len(scales) <= 1 and len(zeros) <= 1:
        return
    axis = numbers.number(_QUANT_AXIS)
    fits = axis < len(shape) and len(scales) == shape[axis]
    if not fits or len(zeros) not in (0, 1, len(scales)):
        raise _Outside(f"{len(scales)} scales for a tensor of shape {list(shape)}")


def _check_indices(indices: tuple[int, ...], low: int, count: int) -> None:
    if indices and not (low <= min(indices) and max(indices) < count):
        raise _Outside("a tensor that is not there is used")
