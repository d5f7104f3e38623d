"""Two sets of answers to the same photos: is the one better, or is it chance?

Of right and wrong: McNemar's test (1947) in its exact, two-sided, binomial form, where
only photos that one of the two gets right and the other wrong count. Of losses: the
one-standard-error rule (Breiman et al. 1984, "Classification and Regression Trees"),
with the error of the paired difference.

It does not know: what gave the answers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

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


def as_good(losses: npt.NDArray[np.floating], best: npt.NDArray[np.floating]) -> bool:
    """Whether the mean of losses [N] is within one standard error of the best's."""
    more = losses - best
    return bool(more.mean() <= more.std(ddof=1) / len(more) ** 0.5)
