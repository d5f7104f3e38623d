"""Training examples: rows of decoded photos, targets, weights; augmentation.png.

A target is a class, or, from a teacher, a probability for every class. Class imbalance
is compensated by weights (inverse class frequency; King and Zeng 2001, "Logistic
Regression in Rare Events Data") or by sampling every class equally often.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from backbones.keras import tensorflow
from data.augment import augment, mix, preset
from data.split import interleaved
from data.store import release
from finetune.figures import draw_sheet

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

BALANCES = ("none", "weights", "sampling")


class Batch(NamedTuple):
    """The input of a step: images uint8 [n, S, S, 3], targets float32 [n, L], weights
    float32 [n], hints float32 [n, width], of width 0 where there are none."""

    images: npt.NDArray[np.uint8]
    targets: Floats
    weights: Floats
    hints: Floats


@dataclass(frozen=True)
class Examples:
    """Rows of a pixel array and their targets.

    array: uint8 [N, S, S, 3], maybe memory-mapped. rows, truth: int64 [n].
    soft: float32 [n, L], a teacher's probabilities, which replace the one-hot truth
    and its smoothing; None without a teacher. hints: float32 [n, width], the
    teacher's features (`finetune.distill`), or None. weights: float32 [n], sample
    weights of the loss; None for equal weights.
    """

    array: npt.NDArray[np.uint8]
    rows: Ints
    truth: Ints
    soft: Floats | None = None
    weights: Floats | None = None
    hints: Floats | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, indices: Ints) -> npt.NDArray[np.uint8]:
        """A copy of these examples' photos, uint8 [len(indices), S, S, 3]."""
        photos = np.asarray(self.array[self.rows[indices]])
        release(self.array)
        return photos

    def targets(self, indices: Ints, classes: int, smoothing: float) -> Floats:
        """Target probabilities, float32 [len(indices), classes]."""
        if self.soft is not None:
            return self.soft[indices]
        one_hot = np.eye(classes, dtype=np.float32)[self.truth[indices]]
        return np.asarray(one_hot * (1 - smoothing) + smoothing / classes, np.float32)

    def batch(self, indices: Ints, classes: int, smoothing: float) -> Batch:
        """The batch of these examples."""
        count, weights, hints = len(indices), self.weights, self.hints
        return Batch(
            self.pixels(indices),
            self.targets(indices, classes, smoothing),
            np.ones(count, np.float32) if weights is None else weights[indices],
            np.zeros((count, 0), np.float32) if hints is None else hints[indices],
        )


def class_weights(truth: Ints, classes: int) -> Floats:
    """Weight of each class, inverse to its count, 1 on average over the photos."""
    counts = np.bincount(truth, minlength=classes)
    present = np.count_nonzero(counts)
    weights = len(truth) / (present * np.maximum(counts, 1))
    return np.asarray(weights, np.float32)


def unbalance(truth: Ints, classes: int) -> float:
    """The ratio of the largest class to the smallest."""
    counts = np.bincount(truth, minlength=classes)
    return float(counts.max() / max(1, counts.min()))


def order(truth: Ints, classes: int, balance: str, random: np.random.Generator) -> Ints:
    """Indices of the examples of one epoch, shuffled: int64 [len(truth)].

    balance "sampling": every class equally often (within one photo); photos of a small
    class are repeated, each once before any comes again.
    """
    if balance != "sampling":
        return random.permutation(len(truth))
    present = np.unique(truth)
    per_class = math.ceil(len(truth) / len(present))
    drawn = []
    for label in present:
        members = np.flatnonzero(truth == label)
        repeats = math.ceil(per_class / len(members))
        shuffled = [random.permutation(members) for _ in range(repeats)]
        drawn.append(np.concatenate(shuffled)[:per_class])
    return random.permutation(np.concatenate(drawn))[: len(truth)]


# -- augmentation.png ------------------------------------------------------------------
SHEET_ROWS, SHEET_VARIANTS = 4, 7
SHEET_TILE = 1.25  # inches


def _of_all_classes(examples: Examples, classes: int) -> Any:
    """Indices of `SHEET_ROWS` examples, of different classes where possible."""
    queues = [np.flatnonzero(examples.truth == label) for label in range(classes)]
    return np.array(interleaved(queues, SHEET_ROWS), np.int64)


def augmented_variants(
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

    variants = [variant(tf.constant(index)) for index in range(SHEET_VARIANTS)]
    return [(np.uint8(np.round(p)), np.asarray(t)) for p, t in variants]


def _caption(target: Any, labels: Sequence[str]) -> str:
    """The target of a mixed photo; empty where it has one label."""
    likeliest = np.argsort(-target)
    parts = [f"{target[k]:.0%} {labels[k]}" for k in likeliest if target[k] >= 0.005]
    return " + ".join(parts) if len(parts) > 1 else ""


def draw_augmented(
    path: Path, examples: Examples, labels: Sequence[str], preset_name: str, seed: int
) -> None:
    """augmentation.png: a row for each of some photos, itself and augmented variants,
    with their targets where the preset mixes photos."""
    indices = _of_all_classes(examples, len(labels))
    photos = examples.pixels(indices)
    variants = augmented_variants(examples, indices, len(labels), preset_name, seed)
    pictures, captions = [], []
    for row, index in enumerate(indices):
        pictures += [photos[row], *(p[row] for p, _ in variants)]
        captions.append(labels[examples.truth[index]])
        captions += [_caption(targets[row], labels) for _, targets in variants]
    heading = f"Augmentation '{preset_name}': a photo as it is, and as training sees it"
    draw_sheet(
        path, pictures, captions, heading, across=1 + SHEET_VARIANTS, tile=SHEET_TILE
    )
