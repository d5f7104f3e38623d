"""augmentation.png: examples of augmented photos.

A row for each photo: the photo itself, then several augmented variants, with their
targets where photos are mixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backbones.keras import tensorflow
from data.augment import augment, mix, preset
from data.split import interleaved
from finetune.figures.contact_sheet import draw_sheet
from finetune.loop.examples import Examples

ROWS, VARIANTS = 4, 7
CELL = 1.25  # inches


def _chosen(examples: Examples, classes: int) -> Any:
    """Indices of `ROWS` examples, of different classes where possible."""
    queues = [np.flatnonzero(examples.truth == label) for label in range(classes)]
    return np.array(interleaved(queues, ROWS), np.int64)


def vary(
    examples: Examples, indices: Any, classes: int, preset_name: str, seed: int
) -> list[tuple[Any, Any]]:
    """Variants of these photos: pairs of uint8 [n, S, S, 3] and targets [n, L]."""
    tf = tensorflow()
    photos = tf.constant(examples.pixels(indices), tf.float32)
    targets = tf.constant(examples.targets(indices, classes, 0.0))
    augmentation = preset(preset_name)

    @tf.function
    def variant(index: Any) -> Any:
        key = tf.stack([seed, index])
        return mix(augment(photos, augmentation, key), targets, augmentation, key)

    variants = [variant(tf.constant(index)) for index in range(VARIANTS)]
    return [(np.uint8(np.round(p)), np.asarray(t)) for p, t in variants]


def _caption(target: Any, labels: Sequence[str]) -> str:
    """The target of a mixed photo; empty where it has one label."""
    order = np.argsort(-target)
    parts = [f"{target[k]:.0%} {labels[k]}" for k in order if target[k] >= 0.005]
    return " + ".join(parts) if len(parts) > 1 else ""


def draw(
    path: Path, examples: Examples, labels: Sequence[str], preset_name: str, seed: int
) -> None:
    """Write the sheet for a preset."""
    indices = _chosen(examples, len(labels))
    photos = examples.pixels(indices)
    variants = vary(examples, indices, len(labels), preset_name, seed)
    pictures, captions = [], []
    for row, index in enumerate(indices):
        pictures += [photos[row], *(p[row] for p, _ in variants)]
        captions.append(labels[examples.truth[index]])
        captions += [_caption(targets[row], labels) for _, targets in variants]
    heading = f"Augmentation '{preset_name}': a photo as it is, and as training sees it"
    draw_sheet(path, pictures, captions, heading, across=1 + VARIANTS, tile=CELL)
