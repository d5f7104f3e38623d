"""Two classifiers on the same photos: is one better, or is the difference chance?

Right and wrong: McNemar's test (1947), exact, two-sided, binomial: only photos count
that one classifier gets right and the other wrong. The difference of two accuracies:
the interval of Agresti and Min 2005 ("Simple improved confidence intervals for
comparing matched proportions"), which adds two photos, one to each side, so that a
handful of photos that are all answered alike is not taken for certainty. Losses: the
one-standard-error rule (Breiman et al. 1984, "Classification and Regression Trees")
with the error of the paired difference.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge.evaluate import CONFIDENCE_95

ADDED = 2.0  # photos that the interval of Agresti and Min adds

Right = npt.NDArray[np.bool_]


class Flips(NamedTuple):
    """Photos that only the first had right, only the second; p of such a difference."""

    lost: int
    gained: int
    p: float


def mcnemar(before: Right, after: Right) -> Flips:
    """Compare two rows of right and wrong, bool [N] each, photo by photo."""
    from scipy.stats import binomtest

    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    flips = lost + gained
    return Flips(lost, gained, float(binomtest(gained, flips).pvalue) if flips else 1.0)


def interval(gains: npt.NDArray[np.floating]) -> tuple[float, float]:
    """The 95 % interval of the mean gain; gains [N]: each photo's, from -1 to 1."""
    photos = len(gains) + ADDED
    mean = float(gains.sum()) / photos
    half = CONFIDENCE_95 * (variance(gains) / photos) ** 0.5
    return mean - half, mean + half


def variance(gains: npt.NDArray[np.floating]) -> float:
    """Of one photo's gain, with the two photos that `interval` adds."""
    photos = len(gains) + ADDED
    mean = float(gains.sum()) / photos
    return (float((gains**2).sum()) + ADDED / 2) / photos - mean**2


def within_one_error(
    losses: npt.NDArray[np.floating], best: npt.NDArray[np.floating]
) -> bool:
    """Whether the mean of losses [N] is within one standard error of the best's."""
    more = losses - best
    return bool(more.mean() <= more.std(ddof=1) / len(more) ** 0.5)
