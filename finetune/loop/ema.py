"""The moving average of a network's weights, which does better than the last weights.

Polyak and Juditsky 1992; as an exponential moving average, with a start that forgets
the untrained weights quickly, as TensorFlow's own `ExponentialMovingAverage` does.
Batch norm's statistics are averaged with the weights, since they belong to them.
"""

from __future__ import annotations

import math
from typing import Any

from backbones.keras import tensorflow


def decay_for(epochs: float, steps: int) -> float:
    """The decay of a step, for a memory of so many epochs of `steps` steps."""
    return math.exp(-1 / max(1.0, epochs * steps))


class Average:
    """Averages of `weights` (a list of variables), kept beside them.

    All of it is checkpointed: `values` and `count`.
    """

    def __init__(self, weights: list[Any], decay: float) -> None:
        tf = tensorflow()
        self._weights, self._decay = weights, decay
        self.values = [tf.Variable(weight, trainable=False) for weight in weights]
        self.count = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.saved = tf.train.Checkpoint(values=self.values, count=self.count)

    def restart(self) -> None:
        """Begin anew at the weights as they are."""
        self.count.assign(0)
        for value, weight in zip(self.values, self._weights, strict=True):
            value.assign(weight)

    def update(self) -> None:
        """Take the weights of this step in; call inside `tf.function`."""
        tf = tensorflow()
        self.count.assign_add(1)
        count = tf.cast(self.count, tf.float32)
        decay = tf.minimum(self._decay, (1 + count) / (10 + count))
        for value, weight in zip(self.values, self._weights, strict=True):
            # in this form a weight that is not trained stays what it is, to the bit
            value.assign_add((tf.cast(weight, value.dtype) - value) * (1 - decay))

    def swap(self) -> None:
        """Exchange the weights and their averages; a second call takes it back."""
        for value, weight in zip(self.values, self._weights, strict=True):
            last = weight.numpy()
            weight.assign(value)
            value.assign(last)
