"""A `.tflite` file as the schema's object tree (`ModelT`): parsed, counted, packed.

The generated schema comes with LiteRT (TensorFlow has the same one); only this file
imports it. The tree keeps all operator options, also those of custom operators.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from edge.errors import EdgegraftError, ModelError

IDENTIFIER = b"TFL3"
_ALIGNMENT = 16  # of weights, in bytes
_HEADER = 8  # root offset, then the identifier


@functools.cache
def schema() -> Any:
    """The generated schema module; EdgegraftError when nothing installed has it."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError:
        try:
            from tensorflow.lite.python import schema_py_generated
        except ImportError:
            raise EdgegraftError(
                "reading a .tflite file as objects needs ai-edge-litert or "
                "tensorflow; run: pip install ai-edge-litert"
            ) from None
    return schema_py_generated


@functools.cache
def _names(enum: str) -> dict[int, str]:
    members = vars(getattr(schema(), enum))
    return {v: k for k, v in members.items() if not k.startswith("_")}


def type_name(tensor_type: int) -> str:
    """``UINT8`` for 3, and so on."""
    return _names("TensorType").get(tensor_type, f"type {tensor_type}")


def op_name(code: Any) -> str:
    """The name of an operator code: ``CONV_2D``, or a custom operator's own."""
    builtin = max(code.builtinCode or 0, code.deprecatedBuiltinCode or 0)
    name = _names("BuiltinOperator").get(builtin, f"operator {builtin}")
    return text(code.customCode) if name == "CUSTOM" else name


def op(tree: Any, operator: Any) -> tuple[str, int]:
    """(name, version) of an operator of the tree."""
    code = tree.operatorCodes[operator.opcodeIndex]
    return op_name(code), int(code.version)


def text(value: bytes | str | None) -> str:
    """A name of the schema as text: it may be bytes, text or None."""
    if value is None:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def parse(model: bytes) -> Any:
    """The `ModelT` of a flatbuffer; a zip behind it is ignored.

    ModelError when the bytes are no TFLite model or end too early.
    """
    if len(model) < _HEADER or model[4:_HEADER] != IDENTIFIER:
        raise ModelError(
            f"expected a TFLite model ({IDENTIFIER.decode()} at byte 4), "
            f"got {len(model)} bytes that begin with {model[:_HEADER]!r}"
        )
    types = schema()
    try:
        tree = types.ModelT.InitFromObj(types.Model.GetRootAs(model, 0))
    except Exception as error:  # the generated reader raises many kinds
        raise ModelError(
            f"expected a whole TFLite model, got a damaged one "
            f"({type(error).__name__}: {error}); export it again"
        ) from None
    if not tree.subgraphs or not tree.operatorCodes or not tree.buffers:
        raise ModelError("expected a TFLite model with a graph, got an empty one")
    for buffer in tree.buffers:  # stored after the flatbuffer in files over 2 GB
        if getattr(buffer, "offset", 0) > 1:
            end = buffer.offset + buffer.size
            buffer.data = np.frombuffer(model[buffer.offset : end], np.uint8)
            buffer.offset = buffer.size = 0
    for operator in (op for graph in tree.subgraphs for op in graph.operators or ()):
        for side in ("inputs", "outputs"):  # None where there are none
            if getattr(operator, side) is None:
                setattr(operator, side, [])
    return tree


def pack(tree: Any) -> bytes:
    """The flatbuffer of a `ModelT`; one tree always gives the same bytes."""
    builder = _aligned_builder()
    builder.Finish(tree.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _aligned_builder() -> Any:
    """A builder that aligns byte vectors to 16 bytes and writes equal vectors once.

    The schema demands the alignment (``data:[ubyte] (force_align: 16)``), which the
    generated Python ignores, and kernels that read weights in place rely on it.

    Offsets of a flatbuffer may share a target. An int8 file has eight bytes of zero
    point for each channel of each weight and bias, all of them 0: a tenth of
    MobileNetV2 1.0, a fifth of 0.35. Interpreters copy these numbers while loading.
    """
    import flatbuffers

    class Builder(flatbuffers.Builder):
        def __init__(self, size: int) -> None:
            super().__init__(size)
            self._written: dict[tuple[str, bytes], int] = {}

        def CreateNumpyVector(self, x: Any) -> int:
            if x.dtype != np.uint8:
                key = x.dtype.str, x.tobytes()
                if key not in self._written:
                    self._written[key] = int(super().CreateNumpyVector(x))
                return self._written[key]
            self.StartVector(1, x.size, _ALIGNMENT)
            self.head -= x.size
            self.Bytes[self.head : self.head + x.size] = x.tobytes()
            return int(self.EndVector())

    return Builder(1 << 20)


def set_metadata(tree: Any, name: str, data: bytes | None) -> None:
    """Set a named metadata buffer of the tree, or remove it for None; idempotent."""
    types = schema()
    entries = list(tree.metadata or [])
    entry = next((e for e in entries if text(e.name) == name), None)
    if data is None:
        if entry is not None:
            tree.metadata = [e for e in entries if e is not entry] or None
            if entry.buffer == len(tree.buffers) - 1:
                tree.buffers = tree.buffers[:-1]
            else:  # later buffers must keep their indices
                tree.buffers[entry.buffer].data = None
        return
    if entry is None:
        entry = types.MetadataT()
        entry.name = name
        entry.buffer = len(tree.buffers)
        tree.buffers = [*tree.buffers, types.BufferT()]
        tree.metadata = [*entries, entry]
    tree.buffers[entry.buffer].data = np.frombuffer(data, np.uint8)


def multiply_adds(tree: Any) -> int:
    """Multiply-adds of one run of a file's (first) graph; `tree` is `parse`'s.

    Convolutions and matrix products are counted, as papers do (Sandler et al. 2018,
    table 4: MobileNetV2 1.0 at 224 has 300 million), without additions, activations,
    pooling and quantization. Equal counts do not mean equal time: a depthwise
    multiply-add takes longer than a pointwise one. An operator whose shapes are not
    fixed counts nothing.
    """
    return sum(count for _, count in multiply_adds_by_operator(tree))


def multiply_adds_by_operator(tree: Any) -> list[tuple[str, int]]:
    """(name, multiply-adds) of every operator of the first graph, in its order."""
    graph = tree.subgraphs[0]
    counts = []
    for operator in graph.operators:
        name, _ = op(tree, operator)
        inputs = [_shape(graph, index) for index in operator.inputs]
        output = _shape(graph, operator.outputs[0])
        counts.append((name, _multiply_adds(name, inputs, output)))
    return counts


def _multiply_adds(
    name: str, inputs: Sequence[Sequence[int]], output: Sequence[int]
) -> int:
    """Layouts after TensorFlow Lite's kernels: weights [out, h, w, in] (convolutions,
    `in` already divided by the groups), [1, h, w, channels] (depthwise), [out, in]."""
    if name in ("CONV_2D", "FULLY_CONNECTED"):
        return prod(output) * prod(inputs[1][1:])
    if name == "DEPTHWISE_CONV_2D":
        return prod(output) * prod(inputs[1][1:3])
    if name == "CONV_3D":  # weights [depth, h, w, in, out]
        return prod(output) * prod(inputs[1][:-1])
    if name == "TRANSPOSE_CONV":  # inputs: output shape, weights, image
        return prod(inputs[2]) * prod(inputs[1][:3])
    if name == "BATCH_MATMUL":
        # out [.., n, m] from [.., n, k] and [.., k, m]; either may be transposed, so
        # k follows from the sizes: (n k) (k m) / (n m) = k squared.
        rows, columns = output[-2:]
        inner = prod(inputs[0][-2:]) * prod(inputs[1][-2:])
        return prod(output) * round((inner / max(rows * columns, 1)) ** 0.5)
    return 0


def _shape(graph: Any, index: int) -> tuple[int, ...]:
    """The shape of a tensor, without negative sizes; () for an omitted input."""
    shape = graph.tensors[index].shape if index >= 0 else None
    return () if shape is None else tuple(max(int(side), 0) for side in shape)
