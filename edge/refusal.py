"""Does a model say unknown of what it never learned?

A file may have a second output, `familiarity`; below the threshold in its card the
answer is `unknown`. Here that is counted on photos of nothing it knows.

It does not know: how familiarity is computed, where photos come from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.classifier import Classifier
from edge.errors import EdgegraftError, PhotoError
from edge.evaluate import Evaluation, wilson
from edge.preprocess import load_pixels

NO_FAMILIARITY = (
    "this model cannot say unknown: expected a file with the output familiarity and "
    "its threshold in the card"
)


@dataclass(frozen=True)
class Refusal:
    """What a model does with photos of nothing it learned: how many it calls unknown.

    `refused` of `photos`, with the 95 % `interval` of that share. `auroc` is the
    chance that a photo of a known label looks more familiar than one of these
    (0.5: it cannot tell, 1: always). `mean_confidence` is what the best label gets.
    """

    photos: int
    refused: int
    interval: tuple[float, float]
    auroc: float
    threshold: float
    mean_confidence: float
    failures: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "photos": self.photos,
            "refused": self.refused,
            "share": self.refused / self.photos,
            "interval": list(self.interval),
            "auroc": self.auroc,
            "threshold": self.threshold,
            "mean_confidence": self.mean_confidence,
            "failures": [
                {"photo": path, "reason": reason} for path, reason in self.failures
            ],
        }


def auroc(known: npt.ArrayLike, unknown: npt.ArrayLike) -> float:
    """Area under the ROC curve, 0..1: the chance that a value of `known` [N] is above
    one of `unknown` [M], ties half (Mann and Whitney 1947)."""
    above, below = np.sort(np.asarray(known)), np.asarray(unknown)
    if not len(above) or not len(below):
        raise EdgegraftError("expected values of known and of unknown photos, got none")
    lower = np.searchsorted(above, below, "left")
    upper = np.searchsorted(above, below, "right")
    wins = len(above) - upper + (upper - lower) / 2
    return float(wins.sum() / (len(above) * len(below)))


def can_refuse(classifier: Classifier) -> float:
    """The threshold of familiarity; EdgegraftError for a model that has none."""
    limit = classifier.card.familiarity_threshold if classifier.card else None
    if limit is None or "familiarity" not in classifier.roles:
        raise EdgegraftError(NO_FAMILIARITY)
    return limit


def refusal(
    classifier: Classifier,
    photos: Iterable[str | os.PathLike[str]],
    known: Evaluation,
    *,
    progress: Callable[[int], None] | None = None,
) -> Refusal:
    """What becomes of photos that show none of the labels; `known` is for `auroc`.

    EdgegraftError for a model that cannot say unknown, or when no photo can be read.
    """
    limit = can_refuse(classifier)
    if known.familiarity is None:
        raise EdgegraftError(NO_FAMILIARITY)
    values: list[float] = []
    sure: list[float] = []
    failures: list[tuple[str, str]] = []
    for done, path in enumerate(photos, 1):
        try:
            out = classifier.run(load_pixels(path, classifier.recipe)[None])
        except PhotoError as error:
            failures.append((str(path), error.reason))
        else:
            values.append(float(out["familiarity"][0]))
            sure.append(float(out["probabilities"].max()))
        if progress is not None:
            progress(done)
    if not values:
        raise EdgegraftError(
            f"expected unknown photos, got none that can be read "
            f"({len(failures)} unreadable)"
        )
    refused = sum(value < limit for value in values)
    return Refusal(
        photos=len(values),
        refused=refused,
        interval=wilson(refused, len(values)),
        auroc=auroc(known.familiarity, np.array(values, np.float32)),
        threshold=limit,
        mean_confidence=float(np.mean(sure)),
        failures=tuple(failures),
    )
