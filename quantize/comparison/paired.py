"""Two files on the same photos: what one gets right and the other wrong.

Photos that both get right, or both wrong, say nothing about the difference. The
results are of photos like these; they do not show which file is better elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.errors import EdgegraftError
from edge.evaluate import CONFIDENCE_95, Evaluation
from finetune.paired import mcnemar

MARGIN = 0.01  # of balanced accuracy: a smaller difference does not matter
SIGNIFICANT = 0.05  # the level of McNemar's test


@dataclass(frozen=True)
class Paired:
    """Photos that only the reference got right (`lost`), only this file (`gained`),
    and the p-value of McNemar's exact, two-sided test."""

    lost: int
    gained: int
    p: float

    @property
    def significant(self) -> bool:
        return self.p < SIGNIFICANT

    def to_dict(self) -> dict[str, Any]:
        return {"lost": self.lost, "gained": self.gained, "p": self.p}


@dataclass(frozen=True)
class Difference:
    """Balanced accuracy of one file less that of another, with its 95 % interval.

    `photos` is the number that both were measured on; `paired` has the first file as
    its reference.
    """

    value: float
    low: float
    high: float
    photos: int
    paired: Paired

    @property
    def shown(self) -> bool:
        """Is one of the two shown to be better?"""
        return self.low > 0 or self.high < 0

    def within(self, margin: float) -> bool:
        """Are the two shown to be equal, but for `margin`?"""
        return -margin <= self.low and self.high <= margin

    def photos_needed(self, margin: float) -> int:
        """About how many photos would show a difference as large as this one, or that
        it is within `margin`, to two digits: the interval shrinks with their root."""
        half = (self.high - self.low) / 2
        size = abs(self.value)
        target = max(size, margin - size)
        needed = self.photos * (half / target) ** 2 if target else float("inf")
        if not math.isfinite(needed) or needed <= 0:
            return self.photos
        step = 10 ** max(0, math.floor(math.log10(needed)) - 1)
        return math.ceil(needed / step) * step

    def to_dict(self) -> dict[str, Any]:
        interval = {"value": self.value, "low": self.low, "high": self.high}
        return {**interval, **self.paired.to_dict()}


def paired(reference: Evaluation, other: Evaluation) -> Paired:
    """McNemar's exact test; EdgegraftError for evaluations of other photos."""
    _refuse_other_photos(reference, other)
    return Paired(*mcnemar(reference.right, other.right))


def difference(first: Evaluation, second: Evaluation) -> Difference:
    """Balanced accuracy of `first` less that of `second`.

    The interval of each label is that of Bonett and Price 2012 ("Adjusted Wald
    confidence interval for a difference of binomial proportions based on paired
    data", Journal of Educational and Behavioral Statistics 37:479); labels are
    independent, so their variances add. EdgegraftError for other photos.
    """
    pair = paired(first, second)
    middles, variances = [], []
    for label in np.unique(first.truth):
        own = first.truth == label
        count = int(own.sum())
        only_first = int((first.right & ~second.right & own).sum())
        only_second = int((~first.right & second.right & own).sum())
        one, two = (only_first + 1) / (count + 2), (only_second + 1) / (count + 2)
        middles.append(one - two)
        variances.append((one + two - (one - two) ** 2) / (count + 2))
    labels = max(len(middles), 1)
    middle = sum(middles) / labels
    half = CONFIDENCE_95 * sum(variances) ** 0.5 / labels
    return Difference(
        first.balanced_accuracy - second.balanced_accuracy,
        middle - half,
        middle + half,
        first.photos,
        pair,
    )


def _refuse_other_photos(first: Evaluation, second: Evaluation) -> None:
    if not np.array_equal(first.truth, second.truth):
        raise EdgegraftError(
            "expected two files measured on the same photos, got evaluations with "
            f"other labels ({first.photos:,} and {second.photos:,} photos)"
        )
