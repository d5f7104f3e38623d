"""What photos do inside a float graph.

The largest value of each channel, the clipped range of each activation that has the
least rounding error, and how far the probabilities move when a single operator is
rounded.

Source: the range of least mean squared error is that of Banner et al. 2019
(arXiv:1810.05723), searched rather than derived, as ACIQ's assumption of a bell curve
does not hold behind a ReLU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quantize.recovery.graph import Graph, rounded

Photos = npt.NDArray[np.uint8]
BATCH = 8  # photos; all activations of a batch are in memory at once
# Fractions of the observed range that are tried. Below a third, even activations with a
# long tail lose more by clipping than they gain.
SHRUNK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.33)


def largest(
    graph: Graph, photos: Photos, places: Sequence[int]
) -> dict[int, npt.NDArray[np.float32]]:
    """place -> the largest absolute value of each channel, float32 [C]."""
    from backbones.keras import tensorflow

    tf = tensorflow()

    @tf.function(reduce_retracing=True)
    def step(images: Any) -> Any:
        values = graph.run(images)
        return [
            tf.reduce_max(tf.abs(values[p]), tuple(range(len(values[p].shape) - 1)))
            for p in places
        ]

    found: list[Any] = []
    for start in range(0, len(photos), BATCH):
        some = step(tf.constant(photos[start : start + BATCH], tf.float32))
        now = [one.numpy() for one in some]
        found = [np.maximum(*pair) for pair in zip(found or now, now, strict=True)]
    return dict(zip(places, found, strict=True))


def clip(graph: Graph, photos: Photos) -> int:
    """Narrow each range of `graph` to that of least error; how many were narrowed.

    The error is that of rounding inside plus that of clipping outside, over `photos`.
    The input keeps its 0..255.
    """
    from backbones.keras import tensorflow

    tf = tensorflow()
    places = [
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
                            values[p], rounded(tf, values[p], low * part, high * part)
                        )
                    )
                    for part in SHRUNK
                ]
            )
            for p in places
            for low, high in [graph.ranges[p]]
        ]

    errors = np.zeros((len(places), len(SHRUNK)))
    for start in range(0, len(photos), BATCH):
        batch = tf.constant(photos[start : start + BATCH], tf.float32)
        errors += np.array([one.numpy() for one in step(batch)], np.float64)
    narrowed = 0
    for place, row in zip(places, errors, strict=True):
        part = SHRUNK[int(row.argmin())]
        low, high = graph.ranges[place]
        graph.ranges[place] = (low * part, high * part)
        narrowed += part < 1
    return narrowed


def answer_shifts(graph: Graph, photos: Photos, output: str) -> dict[str, float]:
    """Name of an operator's output -> shift of the probabilities if it alone is int8.

    The shift is the mean total variation distance over photos, 0..1. `output`: the
    signature's name of the probabilities.
    """
    from backbones.keras import tensorflow

    tf = tensorflow()
    place = graph.outputs[output]

    @tf.function(reduce_retracing=True)
    def step(images: Any, mask: Any) -> Any:
        return graph.run(images, fake_quant=mask)[place]

    masks = np.eye(len(graph.nodes), dtype=bool)
    moved = np.zeros(len(graph.nodes))
    for start in range(0, len(photos), BATCH):
        batch = tf.constant(photos[start : start + BATCH], tf.float32)
        want = step(batch, tf.constant(np.zeros(len(graph.nodes), bool))).numpy()
        for number, mask in enumerate(masks):
            got = step(batch, tf.constant(mask)).numpy()
            moved[number] += np.abs(got - want).sum() / 2
    names = [graph.names[node.output] for node in graph.nodes]
    return dict(zip(names, (moved / len(photos)).tolist(), strict=True))
