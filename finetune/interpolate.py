"""How far to go from the probe to the fine-tuned weights: validation says.

Points on the straight line between the two answer better than either end, and lose
less on photos that differ from the training ones (WiSE-FT: Wortsman et al. 2022,
arXiv:2109.01903). The share of the way is the one with the lowest log loss on the
validation part, each at its own best temperature; 0 keeps the probe. Log loss, since
the accuracies of a few hundred photos differ by chance alone. What a run gains over
its probe is measured by tests/benchmarks/finetune_gain.py.

Does not know: how the weights came about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune import calibrate
from finetune.probe import log_loss

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


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
    """The best point and all that were tried; a tie goes to the one nearer the probe.

    logits_at: share -> the validation part's logits [N, L].
    """
    tried = []
    for share in SHARES:
        logits = logits_at(share)
        degrees = calibrate.temperature(logits, truth)
        tried.append(
            Point(
                share,
                log_loss(logits / np.float32(degrees), truth),
                float((logits.argmax(axis=1) == truth).mean()),
            )
        )
    return min(tried, key=lambda point: round(point.val_loss, 6)), tuple(tried)
