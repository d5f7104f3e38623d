"""Paired comparison of two files on the same photos.

Only photos that one gets right and the other wrong matter. The results hold for photos
of the same distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.errors import EdgegraftError
from edge.evaluate import CONFIDENCE_95, Evaluation
from finetune.paired import McNemar, mcnemar

MARGIN = 0.01  # of balanced accuracy: a smaller difference does not matter


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
    paired: McNemar

    @property
    def significant(self) -> bool:
        """Whether the difference is significant."""
        return self.low > 0 or self.high < 0

    def equivalent(self, margin: float) -> bool:
        """Whether the two are shown to be equal within `margin`."""
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
        return {**interval, **self.paired._asdict()}


def paired(reference: Evaluation, other: Evaluation) -> McNemar:
    """McNemar's exact test; EdgegraftError for evaluations of other photos."""
    if not np.array_equal(reference.truth, other.truth):
        raise EdgegraftError(
            "expected two files measured on the same photos, got evaluations with "
            f"other labels ({reference.photos:,} and {other.photos:,} photos)"
        )
    return mcnemar(reference.right, other.right)


def difference(first: Evaluation, second: Evaluation) -> Difference:
    """Balanced accuracy of `first` less that of `second`.

    The interval of each label is that of Bonett and Price 2012 ("Adjusted Wald
    confidence interval for a difference of binomial proportions based on paired
    data", Journal of Educational and Behavioral Statistics 37:479); labels are
    independent, so their variances add. EdgegraftError for other photos.
    """
    pair = paired(first, second)
    differences, variances = [], []
    for label in np.unique(first.truth):
        of_label = first.truth == label
        count = int(of_label.sum())
        only_first = int((first.right & ~second.right & of_label).sum())
        only_second = int((~first.right & second.right & of_label).sum())
        p1, p2 = (only_first + 1) / (count + 2), (only_second + 1) / (count + 2)
        differences.append(p1 - p2)
        variances.append((p1 + p2 - (p1 - p2) ** 2) / (count + 2))
    labels = max(len(differences), 1)
    centre = sum(differences) / labels
    half = CONFIDENCE_95 * sum(variances) ** 0.5 / labels
    return Difference(
        first.balanced_accuracy - second.balanced_accuracy,
        centre - half,
        centre + half,
        first.photos,
        pair,
    )
