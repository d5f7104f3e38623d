"""Outputs of a network over many photos, computed once, in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones.keras import tensorflow
from data.store import release

BATCH = 64


def compute(
    model: Any,
    array: npt.NDArray[np.uint8],
    rows: Sequence[int] | npt.NDArray[np.int64],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float32]:
    """The model's output for these rows of uint8 [N, H, W, 3]: float32 [len(rows), D].

    In inference mode; only one batch of floats is in memory at a time.
    """
    tf = tensorflow()

    @tf.function(input_signature=[tf.TensorSpec((None, *array.shape[1:]), tf.uint8)])
    def forward(images: Any) -> Any:
        return tf.cast(model(tf.cast(images, tf.float32), training=False), tf.float32)

    rows = np.asarray(rows)
    outputs = []
    for start in range(0, len(rows), BATCH):
        batch = array[rows[start : start + BATCH]]
        release(array)
        outputs.append(forward(tf.constant(batch)).numpy())
        if progress:
            progress(min(start + BATCH, len(rows)), len(rows))
    return np.concatenate(outputs)
