"""Exponential moving average of a network's weights, better than the last weights.

Averaging: Polyak and Juditsky 1992. The decay starts small, so that the untrained
weights are forgotten quickly, as in TensorFlow's `ExponentialMovingAverage`. Batch
norm's statistics are averaged with the weights.
"""

from __future__ import annotations

import math
from typing import Any

from backbones.keras import tensorflow


def decay_for(epochs: float, steps: int) -> float:
    """The decay a step, for a time constant of `epochs` epochs of `steps` steps."""
    return math.exp(-1 / max(1.0, epochs * steps))


class Average:
    """Averages of `weights`, a list of variables; `saved` is their checkpoint."""

    def __init__(self, weights: list[Any], decay: float) -> None:
        tf = tensorflow()
        self._weights, self._decay = weights, decay
        self.values = [tf.Variable(weight, trainable=False) for weight in weights]
        self.count = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.saved = tf.train.Checkpoint(values=self.values, count=self.count)

    def restart(self) -> None:
        """Start again from the current weights."""
        self.count.assign(0)
        for value, weight in zip(self.values, self._weights, strict=True):
            value.assign(weight)

    def update(self) -> None:
        """Add the weights of this step; call inside `tf.function`."""
        tf = tensorflow()
        self.count.assign_add(1)
        count = tf.cast(self.count, tf.float32)
        decay = tf.minimum(self._decay, (1 + count) / (10 + count))
        for value, weight in zip(self.values, self._weights, strict=True):
            # in this form a frozen weight stays bit-identical
            value.assign_add((tf.cast(weight, value.dtype) - value) * (1 - decay))

    def swap(self) -> None:
        """Exchange the weights and their averages; a second call undoes it."""
        for value, weight in zip(self.values, self._weights, strict=True):
            current = weight.numpy()
            weight.assign(value)
            value.assign(current)
