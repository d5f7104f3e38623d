"""WiSE-FT: the average of the probe's and the fine-tuned weights, set on validation.

Weights on the straight line between the two, (1 - alpha) * probe + alpha * fine-tuned,
do better than either end, and lose less on photos that differ from the training ones
(Wortsman et al. 2022, arXiv:2109.01903). Each alpha is scored by its log loss on the
validation part, at its own best temperature: accuracies of a few hundred photos differ
by chance alone. Losses do, too, so of the alphas whose loss is within one standard
error of the lowest (`finetune.paired`) the nearest to `USUAL` is chosen. 0 keeps the
probe. The gain over the probe is measured by tests/benchmarks/finetune_gain.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.head.probe import fit_temperature, log_losses
from finetune.paired import within_one_standard_error

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
USUAL = 0.75


@dataclass(frozen=True)
class Point:
    """One alpha, 0..1, and its scores on the validation part."""

    alpha: float
    val_loss: float  # nats, at its best temperature
    val_accuracy: float


def between(
    start: Sequence[npt.NDArray[Any]], end: Sequence[npt.NDArray[Any]], alpha: float
) -> list[npt.NDArray[Any]]:
    """(1 - alpha) * start + alpha * end; the ends are returned to the bit."""
    if alpha in (0.0, 1.0):
        return list(end if alpha else start)
    return [
        np.asarray(a + (b - a) * alpha, a.dtype)
        for a, b in zip(start, end, strict=True)
    ]


def choose(
    logits: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]
) -> tuple[Point, tuple[Point, ...]]:
    """The chosen point and all that were tried, in the order of `ALPHAS`.

    logits: [A, N, L] of N photos that were not trained on, at each alpha. Of two points
    equally near to `USUAL` the one nearer the probe is chosen.
    """
    tried, losses = [], []
    for alpha, own in zip(ALPHAS, logits, strict=True):
        calibrated = own / np.float32(fit_temperature(own, truth))
        losses.append(log_losses(calibrated, truth))
        right = own.argmax(axis=1) == truth
        tried.append(Point(alpha, float(losses[-1].mean()), float(right.mean())))
    lowest = min(losses, key=lambda loss: float(loss.mean()))
    good = [
        point
        for point, loss in zip(tried, losses, strict=True)
        if within_one_standard_error(loss, lowest)
    ]
    return min(good, key=lambda point: abs(point.alpha - USUAL)), tuple(tried)
