"""augmentation.png: what training does to photos, so that a person can judge it.

A row a photo, the photo itself first, then what augmentation makes of it in several
steps, with the answer that the network is to learn where photos are mixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backbones.keras import tensorflow
from data.augment import augment, mix, preset
from finetune.figures.contact_sheet import draw_sheet
from finetune.loop.examples import Examples

ROWS, VARIANTS = 4, 7
CELL = 1.25  # inches


def _chosen(examples: Examples, classes: int) -> Any:
    """Photos of as many classes as there are rows for."""
    firsts = [np.flatnonzero(examples.truth == number) for number in range(classes)]
    turn = [own[k] for k in range(ROWS) for own in firsts if k < len(own)]
    return np.array(turn[:ROWS], np.int64)


def vary(
    examples: Examples, chosen: Any, classes: int, how: str, seed: int
) -> list[tuple[Any, Any]]:
    """Variants of these photos: pairs of uint8 [n, S, S, 3] and targets [n, L]."""
    tf = tensorflow()
    photos = tf.constant(examples.pixels(chosen), tf.float32)
    targets = tf.constant(np.eye(classes, dtype=np.float32)[examples.truth[chosen]])
    kind = preset(how)

    @tf.function
    def variant(number: Any) -> Any:
        key = tf.stack([seed, number])
        return mix(augment(photos, kind, key), targets, kind, key)

    found = [variant(tf.constant(number)) for number in range(VARIANTS)]
    return [(np.uint8(np.round(p)), np.asarray(t)) for p, t in found]


def _answer(target: Any, labels: Sequence[str]) -> str:
    order = np.argsort(-target)
    parts = [f"{target[k]:.0%} {labels[k]}" for k in order if target[k] >= 0.005]
    return " + ".join(parts) if len(parts) > 1 else ""


def draw(
    path: Path, examples: Examples, labels: Sequence[str], how: str, seed: int
) -> None:
    """Write the sheet for the preset `how`."""
    chosen = _chosen(examples, len(labels))
    variants = vary(examples, chosen, len(labels), how, seed)
    pictures, captions = [], []
    for row, number in enumerate(chosen):
        pictures += [examples.pixels(chosen)[row], *(p[row] for p, _ in variants)]
        captions.append(labels[examples.truth[number]])
        captions += [_answer(targets[row], labels) for _, targets in variants]
    heading = f"Augmentation '{how}': a photo as it is, and as training sees it"
    across = 1 + VARIANTS
    draw_sheet(path, pictures, captions, heading, across=across, tile=CELL)
