"""Outputs of a network over many photos, in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones.keras import tensorflow
from data.store import release

BATCH = 64


class Forward:
    """A network in inference mode, traced once however often its weights change."""

    def __init__(self, model: Any) -> None:
        tf = tensorflow()
        spec = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)

        @tf.function(input_signature=[spec])
        def run(images: Any) -> Any:
            output = model(tf.cast(images, tf.float32), training=False)
            return tf.cast(output, tf.float32)

        self._run = run

    def compute(
        self,
        array: npt.NDArray[np.uint8],
        rows: Sequence[int] | npt.NDArray[np.int64],
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> npt.NDArray[np.float32]:
        """The output for these rows of uint8 [N, H, W, 3]: float32 [len(rows), D].

        Only one batch of floats is in memory at a time.
        """
        rows = np.asarray(rows)
        outputs = []
        for start in range(0, len(rows), BATCH):
            batch = array[rows[start : start + BATCH]]
            release(array)
            outputs.append(self._run(batch).numpy())
            if progress:
                progress(min(start + BATCH, len(rows)), len(rows))
        return np.concatenate(outputs)


def compute(
    model: Any,
    array: npt.NDArray[np.uint8],
    rows: Sequence[int] | npt.NDArray[np.int64],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float32]:
    """`Forward(model).compute`, for a network that is used once."""
    return Forward(model).compute(array, rows, progress=progress)
