"""The operators of a file: their tensor types and multiply-adds.

The converter silently keeps an operator float if it has no integer form, and a weight
that it cannot quantize: `check` finds both. `multiply_adds` counts convolutions and
matrix products as papers do (Sandler et al. 2018, table 4: MobileNetV2 1.0 at 224 has
300 million), without additions, activations, pooling and quantization. Equal counts do
not mean equal time: a depthwise multiply-add takes longer than a pointwise one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import prod
from typing import Any

from edge.errors import EdgegraftError, ModelError
from quantize.recipes import FLOAT_TENSORS, Variant
from quantize.tflite import flatbuffer

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
# The converter keeps smaller weights float in `dynamic` files
SMALLEST_SHRUNK = 1024  # elements
_BRANCHES = ("IF", "WHILE", "CALL_ONCE")  # operators with subgraphs
_CONVERTERS = ("QUANTIZE", "DEQUANTIZE")  # around layers that stay float


def check(record: Variant, tree: Any, kept_float: Collection[str] = ()) -> None:
    """ModelError, naming operator and tensor, where a type is not the variant's.

    `kept_float`: names of the tensors whose operators were to stay float.
    """
    graph = tree.subgraphs[0]
    producers = {index: op for op in graph.operators for index in op.outputs}
    for operator in graph.operators:
        name, _ = flatbuffer.op(tree, operator)
        output = flatbuffer.text(graph.tensors[operator.outputs[0]].name)
        if output in kept_float or (kept_float and name in _CONVERTERS):
            continue
        _check_floats(record, graph, operator, name)
        if name in WEIGHTED:
            _check_weighted(record, tree, operator, name, producers)


def refuse_branches(tree: Any) -> None:
    """EdgegraftError, naming operator and tensor, for a graph with subgraphs.

    Branches and loops have no integer form. A `tf.cond` on a constant, such as whether
    a TF-Hub module is in training, has been folded before.
    """
    if len(tree.subgraphs) == 1:
        return
    graph = tree.subgraphs[0]
    branches = [
        f"{name} ({flatbuffer.text(graph.tensors[index].name)})"
        for op in graph.operators
        if (name := flatbuffer.op(tree, op)[0]) in _BRANCHES
        for index in op.outputs[:1]
    ]
    raise EdgegraftError(
        "expected a network without branches, loops and variables inside, got "
        f"{', '.join(branches) or 'some'}; build it without tf.cond, tf.while_loop and "
        "tf.Variable in a Lambda layer, or save the module with the branch it needs"
    )


def behind_input(tree: Any) -> Any:
    """The output of the first operator on the input: the quantized pixels."""
    graph = tree.subgraphs[0]
    for operator in graph.operators:
        if graph.inputs[0] in list(operator.inputs):
            return graph.tensors[operator.outputs[0]]
    raise ModelError("expected an operator on the input, got none")


def _check_floats(record: Variant, graph: Any, operator: Any, name: str) -> None:
    if record.float_ops is None or name in record.float_ops:
        return
    for index in [*operator.outputs, *operator.inputs]:
        if index < 0:  # an omitted optional input
            continue
        tensor = graph.tensors[index]
        kind = flatbuffer.type_name(tensor.type)
        if kind in FLOAT_TENSORS:
            raise ModelError(
                f"operator {name} works on {kind} (tensor "
                f"{flatbuffer.text(tensor.name)!r:.80}); no integer form of it was made"
            )


def _check_weighted(
    record: Variant, tree: Any, operator: Any, name: str, producers: dict[int, Any]
) -> None:
    graph = tree.subgraphs[0]
    weights = operator.inputs[1]
    activation = operator.inputs[2 if name == "TRANSPOSE_CONV" else 0]
    output = graph.tensors[operator.outputs[0]]
    for tensor in (graph.tensors[activation], output):
        kind = flatbuffer.type_name(tensor.type)
        if kind != record.activations:
            raise ModelError(
                f"expected {name} on {record.activations}, got {kind} "
                f"(tensor {flatbuffer.text(output.name)!r:.80})"
            )
    producer = producers.get(weights)
    if producer is not None and flatbuffer.op(tree, producer)[0] == "DEQUANTIZE":
        weights = producer.inputs[0]
    tensor = graph.tensors[weights]
    kind = flatbuffer.type_name(tensor.type)
    size = prod(int(side) for side in tensor.shape)
    small = record.weights == "INT8" and not record.calibrated
    if kind != record.weights and not (small and size < SMALLEST_SHRUNK):
        raise ModelError(
            f"expected the weights of {name} as {record.weights}, got {kind} "
            f"(tensor {flatbuffer.text(tensor.name)!r:.80})"
        )


def multiply_adds(tree: Any) -> int:
    """Multiply-adds of one run of a file's (first) graph; `tree` is
    `flatbuffer.parse`'s. An operator whose shapes are not fixed counts nothing."""
    return sum(count for _, count in multiply_adds_by_operator(tree))


def multiply_adds_by_operator(tree: Any) -> list[tuple[str, int]]:
    """(name, multiply-adds) of every operator of the first graph, in its order."""
    graph = tree.subgraphs[0]
    counts = []
    for operator in graph.operators:
        name, _ = flatbuffer.op(tree, operator)
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
