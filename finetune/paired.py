"""Two sets of answers to the same photos: is the one better, or is it chance?

McNemar's test (1947) in its exact, two-sided, binomial form: only photos that one of
the two gets right and the other wrong count.

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
