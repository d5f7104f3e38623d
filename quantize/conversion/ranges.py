"""The ranges that are known without photos: those of the input and of its scaling.

A calibrated flatbuffer has the smallest and the largest value of each activation on the
calibration photos. For the input they are known, 0 and 255, and so are those after its
scaling (a multiplication, addition, subtraction or division by a constant). With these,
dark calibration photos do not clip bright ones, and the input's scale is exactly 1 with
zero point 0. The other ranges can only be observed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from quantize.tflite import flatbuffer

BLACK, WHITE = 0.0, 255.0

Span = tuple[float, float]


def span_input(calibrated: bytes) -> bytes:
    """The calibrated flatbuffer with the known ranges of the input and its scaling."""
    tree = flatbuffer.parse(calibrated)
    graph = tree.subgraphs[0]
    index, span = graph.inputs[0], (BLACK, WHITE)
    while True:
        tensor = graph.tensors[index]
        if tensor.quantization is None:
            tensor.quantization = flatbuffer.schema().QuantizationParametersT()
        tensor.quantization.min, tensor.quantization.max = [span[0]], [span[1]]
        readers = [op for op in graph.operators if index in list(op.inputs)]
        scaled = None
        if len(readers) == 1:
            scaled = _scaled(tree, graph, readers[0], index, span)
        if scaled is None:
            return flatbuffer.pack(tree)
        index, span = readers[0].outputs[0], scaled


def _scaled(tree: Any, graph: Any, op: Any, index: int, span: Span) -> Span | None:
    """The range of the output of a scaling operator; None for any other operator."""
    name = flatbuffer.op_name(tree.operatorCodes[op.opcodeIndex])
    inputs = list(op.inputs)
    if name not in ("MUL", "ADD", "SUB", "DIV") or len(inputs) != 2:
        return None
    if name in ("SUB", "DIV") and inputs[0] != index:
        return None  # a constant minus the photo
    constant = _constant(tree, graph.tensors[inputs[1 - inputs.index(index)]])
    if constant is None or op.builtinOptions.fusedActivationFunction:
        return None
    if name == "DIV" and not constant.all():
        return None
    apply = {"MUL": np.multiply, "ADD": np.add, "SUB": np.subtract, "DIV": np.divide}
    ends = np.concatenate([apply[name](np.float32(end), constant) for end in span])
    return float(ends.min()), float(ends.max())


def _constant(tree: Any, tensor: Any) -> npt.NDArray[np.float32] | None:
    """The float32 values of a constant, flat; None for other tensors."""
    data = tree.buffers[tensor.buffer].data
    if data is None or flatbuffer.type_name(tensor.type) != "FLOAT32":
        return None
    return np.frombuffer(bytes(data), np.float32)
