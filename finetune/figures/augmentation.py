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
from finetune.figures.style import INK, MUTED, save
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
    from matplotlib.figure import Figure

    chosen = _chosen(examples, len(labels))
    variants = vary(examples, chosen, len(labels), how, seed)
    height = CELL * 1.12 * len(chosen) + 0.4
    figure = Figure(
        figsize=(CELL * (1 + VARIANTS), height), dpi=110, layout="constrained"
    )
    figure.suptitle(
        f"Augmentation '{how}': a photo as it is, and as training sees it",
        x=0.01,
        ha="left",
        fontsize=10,
        color=INK,
        weight="bold",
    )
    grid = figure.subplots(len(chosen), 1 + VARIANTS, squeeze=False)
    originals = examples.pixels(chosen)
    for row, number in enumerate(chosen):
        label = labels[examples.truth[number]]
        grid[row][0].imshow(originals[row])
        grid[row][0].set_title(label, fontsize=7.5, color=INK, weight="bold")
        for column, (pixels, targets) in enumerate(variants, start=1):
            grid[row][column].imshow(pixels[row])
            grid[row][column].set_title(
                _answer(targets[row], labels), fontsize=6.5, color=MUTED
            )
    for axes in grid.ravel():
        axes.axis("off")
    save(figure, path)
