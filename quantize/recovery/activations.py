"""Statistics of a float graph's activations on photos.

The maximum of each channel, the clipped range with the smallest rounding error, and the
shift of the probabilities when a single operator is quantized.

The range of least mean squared error is that of Banner et al. 2019 (arXiv:1810.05723),
searched rather than derived, as ACIQ's assumption of a bell curve does not hold after a
ReLU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones.keras import tensorflow
from quantize.recovery.graph import Graph, rounded

Photos = npt.NDArray[np.uint8]
BATCH = 8  # photos; all activations of a batch are in memory at once
# Fractions of the observed range to try. Below a third, clipping loses more than it
# gains, even for activations with a long tail.
FRACTIONS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.33)


def _batches(photos: Photos) -> Iterator[Any]:
    """float32 [n, H, W, 3] each."""
    for start in range(0, len(photos), BATCH):
        yield tensorflow().constant(photos[start : start + BATCH], "float32")


def largest(
    graph: Graph, photos: Photos, tensors: Sequence[int]
) -> dict[int, npt.NDArray[np.float32]]:
    """Tensor index -> the largest absolute value of each channel, float32 [C]."""
    tf = tensorflow()

    @tf.function(reduce_retracing=True)
    def step(images: Any) -> Any:
        values = graph.run(images)
        return [
            tf.reduce_max(tf.abs(values[t]), tuple(range(len(values[t].shape) - 1)))
            for t in tensors
        ]

    maxima: list[Any] = []
    for batch in _batches(photos):
        new = [maximum.numpy() for maximum in step(batch)]
        maxima = [np.maximum(*pair) for pair in zip(maxima or new, new, strict=True)]
    return dict(zip(tensors, maxima, strict=True))


def clip(graph: Graph, photos: Photos) -> int:
    """Narrow each range of `graph` to that of least squared error on photos; returns
    how many were narrowed. The input keeps its 0..255."""
    tf = tensorflow()
    tensors = [
        node.output
        for node in graph.nodes
        if node.output in graph.ranges and node.kind not in ("SOFTMAX", "LOGISTIC")
    ]

    @tf.function(reduce_retracing=True)
    def step(images: Any) -> Any:
        values = graph.run(images)
        return [
            tf.stack(
                [
                    tf.reduce_sum(
                        tf.math.squared_difference(
                            values[t], rounded(tf, values[t], low * f, high * f)
                        )
                    )
                    for f in FRACTIONS
                ]
            )
            for t in tensors
            for low, high in [graph.ranges[t]]
        ]

    errors = np.zeros((len(tensors), len(FRACTIONS)))
    for batch in _batches(photos):
        errors += np.array([error.numpy() for error in step(batch)], np.float64)
    narrowed = 0
    for tensor, row in zip(tensors, errors, strict=True):
        fraction = FRACTIONS[int(row.argmin())]
        low, high = graph.ranges[tensor]
        graph.ranges[tensor] = (low * fraction, high * fraction)
        narrowed += fraction < 1
    return narrowed


def answer_shifts(graph: Graph, photos: Photos, output: str) -> dict[str, float]:
    """Name of an operator's output -> shift of the probabilities if it alone is int8.

    The shift is the mean total variation distance over photos, 0..1. `output`: the
    signature's name of the probabilities.
    """
    tf = tensorflow()
    probabilities = graph.outputs[output]

    @tf.function(reduce_retracing=True)
    def step(images: Any, mask: Any) -> Any:
        return graph.run(images, fake_quant=mask)[probabilities]

    masks = np.eye(len(graph.nodes), dtype=bool)
    shifts = np.zeros(len(graph.nodes))
    for batch in _batches(photos):
        exact = step(batch, tf.constant(np.zeros(len(graph.nodes), bool))).numpy()
        for index, mask in enumerate(masks):
            quantized = step(batch, tf.constant(mask)).numpy()
            shifts[index] += np.abs(quantized - exact).sum() / 2
    names = [graph.names[node.output] for node in graph.nodes]
    return dict(zip(names, (shifts / len(photos)).tolist(), strict=True))
