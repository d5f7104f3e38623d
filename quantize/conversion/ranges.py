"""The ranges that need no photos: those of the input, and of its scaling.

A calibrated flatbuffer holds the smallest and the largest value that each activation
had on the calibration photos. For the input they are known: 0 and 255, and so is what
comes out of the scaling behind it (times, plus, minus or over a constant). Set to
these, a dark calibration set cannot clip bright photos there, and the input's scale is
exactly 1 with zero point 0. The ranges further in can only be observed: photos unlike
those of the device still cost accuracy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from quantize.tflite import flatbuffer

BLACK, WHITE = 0.0, 255.0

Span = tuple[float, float]


def span_input(calibrated: bytes) -> bytes:
    """The calibrated flatbuffer with 0..255 as its input's range, and what follows."""
    tree = flatbuffer.parse(calibrated)
    graph = tree.subgraphs[0]
    place, span = graph.inputs[0], (BLACK, WHITE)
    _set_range(graph.tensors[place], span)
    while True:
        users = [op for op in graph.operators if place in list(op.inputs)]
        after = _scaled(tree, graph, users[0], place, span) if len(users) == 1 else None
        if after is None:
            return flatbuffer.pack(tree)
        place, span = users[0].outputs[0], after
        _set_range(graph.tensors[place], span)


def _set_range(tensor: Any, span: Span) -> None:
    if tensor.quantization is None:
        tensor.quantization = flatbuffer.schema().QuantizationParametersT()
    tensor.quantization.min, tensor.quantization.max = [span[0]], [span[1]]


def _scaled(tree: Any, graph: Any, op: Any, place: int, span: Span) -> Span | None:
    """The range behind a scaling operator; None for any other operator."""
    name = flatbuffer.op_name(tree.operatorCodes[op.opcodeIndex])
    inputs = list(op.inputs)
    if name not in ("MUL", "ADD", "SUB", "DIV") or len(inputs) != 2:
        return None
    if name in ("SUB", "DIV") and inputs[0] != place:
        return None  # a constant minus the photo is no scaling anyone builds
    constant = _constant(tree, graph.tensors[inputs[1 - inputs.index(place)]])
    if constant is None or op.builtinOptions.fusedActivationFunction:
        return None
    if name == "DIV" and not constant.all():
        return None
    apply = {"MUL": np.multiply, "ADD": np.add, "SUB": np.subtract, "DIV": np.divide}
    ends = np.concatenate([apply[name](np.float32(end), constant) for end in span])
    return float(ends.min()), float(ends.max())


def _constant(tree: Any, tensor: Any) -> npt.NDArray[np.float32] | None:
    """The float32 values, flat, or None where it isn't a constant."""
    data = tree.buffers[tensor.buffer].data
    if data is None or flatbuffer.type_name(tensor.type) != "FLOAT32":
        return None
    return np.frombuffer(bytes(data), np.float32)
