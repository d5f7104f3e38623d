"""How far to go from the probe to the fine-tuned weights: validation says.

Points on the straight line between the two answer better than either end, and lose
less on photos that differ from the training ones (WiSE-FT: Wortsman et al. 2022,
arXiv:2109.01903). Each is judged by its log loss on the validation part, at its own
best temperature: accuracies of a few hundred photos differ by chance alone. So do
losses, if less, so `USUAL` of the way is kept unless validation says otherwise: of the
shares whose loss is within one standard error of the lowest (`finetune.paired`) the
nearest to it. 0 keeps the probe. What a run gains over its probe, in accuracy and in
log loss, is measured by tests/benchmarks/finetune_gain.py.

Does not know: how the weights came about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.head import temperature
from finetune.head.probe import log_losses
from finetune.paired import as_good

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
USUAL = 0.75


@dataclass(frozen=True)
class Point:
    """A share of the way, 0..1, and what it does on the validation part."""

    share: float
    val_loss: float  # nats, at its best temperature
    val_accuracy: float


def between(
    start: Sequence[npt.NDArray[Any]], end: Sequence[npt.NDArray[Any]], share: float
) -> list[npt.NDArray[Any]]:
    """Weights at `share` of the way; the ends are given back to the bit."""
    if share in (0.0, 1.0):
        return list(end if share else start)
    return [
        np.asarray(a + (b - a) * share, a.dtype)
        for a, b in zip(start, end, strict=True)
    ]


def choose(
    logits_at: Callable[[float], npt.NDArray[np.float32]], truth: npt.NDArray[np.int64]
) -> tuple[Point, tuple[Point, ...]]:
    """The point that is kept and all that were tried, in the order of `SHARES`.

    logits_at: share -> the validation part's logits [N, L]. Of two as near to `USUAL`
    the one nearer the probe is kept.
    """
    tried, losses = [], []
    for share in SHARES:
        logits = logits_at(share)
        degrees = np.float32(temperature.temperature(logits, truth))
        losses.append(log_losses(logits / degrees, truth))
        right = logits.argmax(axis=1) == truth
        tried.append(Point(share, float(losses[-1].mean()), float(right.mean())))
    best = min(losses, key=lambda one: float(one.mean()))
    good = [p for p, one in zip(tried, losses, strict=True) if as_good(one, best)]
    return min(good, key=lambda point: abs(point.share - USUAL)), tuple(tried)
