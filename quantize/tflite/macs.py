"""Multiply-adds of a model file: how much arithmetic one photo costs.

Counted from the shapes in the flatbuffer, operator by operator, as papers count them
(Sandler et al. 2018, table 4: MobileNetV2 1.0 at 224 has 300 million): convolutions
and matrix products, one multiply-add for each weight that meets each output value.
Additions, activations, pooling and (de)quantizing are left out, by that convention.

It does not know: how long any of it takes. A depthwise multiply-add costs a processor
more than a pointwise one, so equal counts do not mean equal times.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from quantize.tflite import flatbuffer


def multiply_adds(tree: Any) -> int:
    """Multiply-adds of one run of a file's (first) graph; `tree` is
    `flatbuffer.parse`'s. An operator whose shapes are not fixed counts nothing."""
    return sum(count for _, count in by_operator(tree))


def by_operator(tree: Any) -> list[tuple[str, int]]:
    """(name, multiply-adds) of every operator of the first graph, in its order."""
    graph = tree.subgraphs[0]
    found = []
    for operator in graph.operators:
        name, _ = flatbuffer.op(tree, operator)
        inputs = [_shape(graph, place) for place in operator.inputs]
        output = _shape(graph, operator.outputs[0])
        found.append((name, _count(name, inputs, output)))
    return found


def _count(name: str, inputs: Sequence[Sequence[int]], output: Sequence[int]) -> int:
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


def _shape(graph: Any, place: int) -> tuple[int, ...]:
    """Of a tensor; () for an optional input that is left out; no negative sides."""
    shape = graph.tensors[place].shape if place >= 0 else None
    return () if shape is None else tuple(max(int(side), 0) for side in shape)
