"""What the layers of a file work on: read back, operator by operator.

A converter that has no integer form of an operator keeps it float without a word,
and one that cannot shrink a weight stores it as it was. Both are found here.

It does not know: whether the numbers are right, only of which type they are.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edge.errors import EdgegraftError, ModelError
from quantize.recipes import FLOAT_TENSORS, Variant
from quantize.tflite import flatbuffer

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
# The converter leaves smaller weights float in `dynamic` files: nothing to gain.
SMALLEST_SHRUNK = 1024  # elements
_BRANCHES = ("IF", "WHILE", "CALL_ONCE")  # operators that hold graphs of their own
_EDGES = ("QUANTIZE", "DEQUANTIZE")  # around layers that stay float


def check(record: Variant, tree: Any, kept_float: Collection[str] = ()) -> None:
    """ModelError, naming operator and tensor, where a type is not the variant's.

    `kept_float`: names of the tensors whose operators were to stay float.
    """
    graph = tree.subgraphs[0]
    makers = {place: op for op in graph.operators for place in op.outputs}
    for operator in graph.operators:
        name, _ = flatbuffer.op(tree, operator)
        made = flatbuffer.text(graph.tensors[operator.outputs[0]].name)
        if made in kept_float or (kept_float and name in _EDGES):
            continue
        _check_floats(record, graph, operator, name)
        if name in WEIGHTED:
            _check_weighted(record, tree, operator, name, makers)


def refuse_branches(tree: Any) -> None:
    """EdgegraftError, naming operator and tensor, for a graph with graphs inside.

    Branches and loops have no integer form. A `tf.cond` on a constant, such as whether
    a TF-Hub module is in training, is gone by now.
    """
    if len(tree.subgraphs) == 1:
        return
    graph = tree.subgraphs[0]
    found = [op for op in graph.operators if flatbuffer.op(tree, op)[0] in _BRANCHES]
    named = [
        f"{flatbuffer.op(tree, op)[0]} ({flatbuffer.text(graph.tensors[place].name)})"
        for op in found
        for place in op.outputs[:1]
    ]
    raise EdgegraftError(
        "expected a network without branches, loops and variables inside, got "
        f"{', '.join(named) or 'some'}; build it without tf.cond, tf.while_loop and "
        "tf.Variable in a Lambda layer, or save the module with the branch it needs"
    )


def behind_input(tree: Any) -> Any:
    """The tensor that the first operator on the input makes (the pixels, quantized)."""
    graph = tree.subgraphs[0]
    for operator in graph.operators:
        if graph.inputs[0] in list(operator.inputs):
            return graph.tensors[operator.outputs[0]]
    raise ModelError("expected an operator on the input, got none")


def _check_floats(record: Variant, graph: Any, operator: Any, name: str) -> None:
    if record.float_ops is None or name in record.float_ops:
        return
    for place in [*operator.outputs, *operator.inputs]:
        if place < 0:  # an optional input left out
            continue
        kind = flatbuffer.type_name(graph.tensors[place].type)
        if kind in FLOAT_TENSORS:
            tensor = flatbuffer.text(graph.tensors[place].name)
            raise ModelError(
                f"operator {name} works on {kind} (tensor {tensor!r:.80}); "
                "no integer form of it was made"
            )


def _check_weighted(
    record: Variant, tree: Any, operator: Any, name: str, makers: dict[int, Any]
) -> None:
    graph = tree.subgraphs[0]
    image, weights = _operands(operator, name)
    made = graph.tensors[operator.outputs[0]]
    for place in (image, operator.outputs[0]):
        kind = flatbuffer.type_name(graph.tensors[place].type)
        if kind != record.activations:
            raise ModelError(
                f"expected {name} on {record.activations}, got {kind} "
                f"(tensor {flatbuffer.text(made.name)!r:.80})"
            )
    maker = makers.get(weights)
    if maker is not None and flatbuffer.op(tree, maker)[0] == "DEQUANTIZE":
        weights = maker.inputs[0]
    tensor = graph.tensors[weights]
    kind = flatbuffer.type_name(tensor.type)
    size = 1
    for side in tensor.shape:
        size *= int(side)
    small = record.weights == "INT8" and not record.calibrated
    if kind != record.weights and not (small and size < SMALLEST_SHRUNK):
        raise ModelError(
            f"expected the weights of {name} as {record.weights}, got {kind} "
            f"(tensor {flatbuffer.text(tensor.name)!r:.80})"
        )


def _operands(operator: Any, name: str) -> tuple[int, int]:
    """Places of (activation, weights); a transposed convolution has its own order."""
    inputs = list(operator.inputs)
    if name == "TRANSPOSE_CONV":
        return inputs[2], inputs[1]
    return inputs[0], inputs[1]
