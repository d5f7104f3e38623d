"""Training examples: rows of decoded photos, their targets, their weights.

A target is a class, or, from a teacher, a probability for every class. Unbalanced
classes are met by weights (each photo counts inversely to how often its class occurs;
King and Zeng 2001, "Logistic Regression in Rare Events Data") or by sampling (every
class is drawn equally often).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data.store import release

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
    teacher's features (`finetune.distill.hints`), or None. weights: float32 [n], how
    much each photo counts in the loss; None means all alike.
    """

    array: npt.NDArray[np.uint8]
    rows: Ints
    truth: Ints
    soft: Floats | None = None
    weights: Floats | None = None
    hints: Floats | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, chosen: Ints) -> npt.NDArray[np.uint8]:
        """A copy of these examples' photos, uint8 [len(chosen), S, S, 3]."""
        copied = np.asarray(self.array[self.rows[chosen]])
        release(self.array)
        return copied

    def targets(self, chosen: Ints, classes: int, smoothing: float) -> Floats:
        """Target probabilities, float32 [len(chosen), classes]."""
        if self.soft is not None:
            return self.soft[chosen]
        one_hot = np.eye(classes, dtype=np.float32)[self.truth[chosen]]
        return np.asarray(one_hot * (1 - smoothing) + smoothing / classes, np.float32)

    def importance(self, chosen: Ints) -> Floats:
        """The weights of these examples, float32 [len(chosen)]."""
        if self.weights is None:
            return np.ones(len(chosen), np.float32)
        return self.weights[chosen]

    def batch(self, chosen: Ints, classes: int, smoothing: float) -> Batch:
        """These examples as a step takes them."""
        hints = self.hints
        return Batch(
            self.pixels(chosen),
            self.targets(chosen, classes, smoothing),
            self.importance(chosen),
            np.zeros((len(chosen), 0), np.float32) if hints is None else hints[chosen],
        )


def class_weights(truth: Ints, classes: int) -> Floats:
    """Weight of each class, inverse to its count, 1 on average over the photos."""
    counts = np.bincount(truth, minlength=classes)
    present = np.count_nonzero(counts)
    weights = len(truth) / (present * np.maximum(counts, 1))
    return np.asarray(weights, np.float32)


def unbalance(truth: Ints, classes: int) -> float:
    """How many photos the largest class has for one of the smallest."""
    counts = np.bincount(truth, minlength=classes)
    return float(counts.max() / max(1, counts.min()))


def order(truth: Ints, classes: int, balance: str, random: np.random.Generator) -> Ints:
    """The examples of one epoch, shuffled: int64, as many as there are.

    balance "sampling": every class equally often (to one photo); a small class's
    photos come several times, all of them before one comes again.
    """
    if balance != "sampling":
        return random.permutation(len(truth))
    present = np.unique(truth)
    share = -(-len(truth) // len(present))
    drawn = []
    for number in present:
        own = np.flatnonzero(truth == number)
        rounds = [random.permutation(own) for _ in range(-(-share // len(own)))]
        drawn.append(np.concatenate(rounds)[:share])
    return random.permutation(np.concatenate(drawn))[: len(truth)]
