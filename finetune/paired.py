"""Paired comparison of two classifiers on the same photos.

Correctness: McNemar's exact two-sided test (1947) on the photos that one classifier
gets right and the other wrong. Difference of accuracies: the interval of Agresti and
Min 2005 ("Simple improved confidence intervals for comparing matched proportions"),
which adds two photos, one to each side, so that a few photos with equal answers do not
give an interval of width 0. Losses: the one-standard-error rule (Breiman et al. 1984,
"Classification and Regression Trees") with the error of the paired difference.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge.evaluate import CONFIDENCE_95

SIGNIFICANT = 0.05  # the level of McNemar's test
PSEUDO_PHOTOS = 2.0  # that the interval of Agresti and Min adds

Right = npt.NDArray[np.bool_]


class McNemar(NamedTuple):
    """Photos that only the first classifier (`lost`), only the second (`gained`) got
    right, and the p-value of McNemar's exact, two-sided test."""

    lost: int
    gained: int
    p: float

    @property
    def significant(self) -> bool:
        return self.p < SIGNIFICANT


def mcnemar(before: Right, after: Right) -> McNemar:
    """Compare two rows of right and wrong, bool [N] each, photo by photo."""
    from scipy.stats import binomtest

    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    flips = lost + gained
    p = float(binomtest(gained, flips).pvalue) if flips else 1.0
    return McNemar(lost, gained, p)


def interval(gains: npt.NDArray[np.floating]) -> tuple[float, float]:
    """The 95 % interval of the mean gain; gains [N]: each photo's, from -1 to 1."""
    photos = len(gains) + PSEUDO_PHOTOS
    mean = float(gains.sum()) / photos
    half = CONFIDENCE_95 * (variance(gains) / photos) ** 0.5
    return mean - half, mean + half


def variance(gains: npt.NDArray[np.floating]) -> float:
    """Variance of one photo's gain, with the two photos that `interval` adds."""
    photos = len(gains) + PSEUDO_PHOTOS
    mean = float(gains.sum()) / photos
    return (float((gains**2).sum()) + PSEUDO_PHOTOS / 2) / photos - mean**2


def within_one_standard_error(
    losses: npt.NDArray[np.floating], best: npt.NDArray[np.floating]
) -> bool:
    """Whether the mean of losses [N] is within one standard error of the best's."""
    excess = losses - best
    return bool(excess.mean() <= excess.std(ddof=1) / len(excess) ** 0.5)
