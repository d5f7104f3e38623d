"""Fixed variations of photos, the same ones at any size of picture.

A teacher that has learnt a photo by heart answers it with certainty and teaches
nothing but its label; a variation it has not seen it must judge. Every random number
of a variation is drawn from (seed, view, place in the list) and none from the size, so
a teacher at 224 and a student at 96 pixels see the same crop, turn and light.

Does not know: teachers, labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from backbones.keras import tensorflow
from data.augment import Augmentation, augment

_BATCH = 64  # part of what is drawn: both sizes must use the same
_APART = 1_000_003  # between the seeds of two views

Pixels = npt.NDArray[np.uint8]


def unmixed(how: Augmentation) -> Augmentation:
    """What of an augmentation concerns one photo at a time."""
    return replace(how, mixup=0.0, cutmix=0.0)


def batches(
    array: Pixels, rows: npt.NDArray[np.int64], how: Augmentation, seed: int, view: int
) -> Iterator[Pixels]:
    """One variation of each row of uint8 [N, S, S, 3], in order, uint8 [n, S, S, 3].

    View 0 is the photo itself.
    """
    tf = tensorflow()
    varied = tf.function(
        lambda images, drawn: augment(tf.cast(images, tf.float32), unmixed(how), drawn),
        reduce_retracing=True,
    )
    for first in range(0, len(rows), _BATCH):
        some = array[rows[first : first + _BATCH]]
        if view:
            drawn = tf.constant([seed, view * _APART + first], tf.int32)
            some = np.rint(varied(tf.constant(some), drawn).numpy()).astype(np.uint8)
        yield some
