"""How often a model answers `unknown` for photos of none of its labels.

A file may have a second output, `familiarity`; below the threshold in its card the
answer is `unknown`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
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
    """How many photos of none of its labels a model calls unknown.

    `refused` of `photos`, and `known_refused` of the `known` ones, which do show a
    label. `auroc` is the probability that a known photo looks more familiar than one of
    these (0.5: by chance, 1: always), `threshold` what it calls unknown below;
    both None for a model that cannot refuse. `mean_confidence` is what the best label
    gets from the unknown, None where it was not measured.
    """

    photos: int
    refused: int
    known: int
    known_refused: int
    auroc: float | None = None
    threshold: float | None = None
    mean_confidence: float | None = None
    failures: tuple[tuple[str, str], ...] = ()

    @property
    def share(self) -> float:
        """Of the unknown photos, refused; 0..1."""
        return self.refused / self.photos

    @property
    def interval(self) -> tuple[float, float]:
        """Where that share lies with 95 % confidence (Wilson)."""
        return wilson(self.refused, self.photos)

    @property
    def known_share(self) -> float:
        """Of the photos that do show a label, refused; 0..1."""
        return self.known_refused / self.known

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "photos": self.photos,
            "refused": self.refused,
            "share": self.share,
            "interval": list(self.interval),
            "known": self.known,
            "known_refused": self.known_refused,
            "auroc": self.auroc,
            "threshold": self.threshold,
            "mean_confidence": self.mean_confidence,
            "failures": [
                {"photo": path, "reason": reason} for path, reason in self.failures
            ],
        }


def count(known: npt.ArrayLike, unknown: npt.ArrayLike, threshold: float) -> Refusal:
    """The refusals by the familiarity of known [N] and of unknown photos [M]."""
    known, unknown = np.asarray(known), np.asarray(unknown)
    return Refusal(
        photos=len(unknown),
        refused=int(np.sum(unknown < threshold)),
        known=len(known),
        known_refused=int(np.sum(known < threshold)),
        auroc=auroc(known, unknown),
        threshold=threshold,
    )


def auroc(known: npt.ArrayLike, unknown: npt.ArrayLike) -> float:
    """Area under the ROC curve, 0..1: the probability that a value of `known` [N] is
    above one of `unknown` [M], ties half (Mann and Whitney 1947)."""
    positives, negatives = np.sort(np.asarray(known)), np.asarray(unknown)
    if not len(positives) or not len(negatives):
        raise EdgegraftError("expected values of known and of unknown photos, got none")
    lower = np.searchsorted(positives, negatives, "left")
    upper = np.searchsorted(positives, negatives, "right")
    wins = len(positives) - upper + (upper - lower) / 2
    return float(wins.sum() / (len(positives) * len(negatives)))


def can_refuse(classifier: Classifier) -> float:
    """The threshold of familiarity; EdgegraftError for a model that has none."""
    threshold = classifier.card.familiarity_threshold if classifier.card else None
    if threshold is None or "familiarity" not in classifier.roles:
        raise EdgegraftError(NO_FAMILIARITY)
    return threshold


def refusal(
    classifier: Classifier,
    photos: Iterable[str | os.PathLike[str]],
    known: Evaluation,
    *,
    progress: Callable[[int], None] | None = None,
) -> Refusal:
    """Count the refusals among photos of none of the labels; `known` is for `auroc`.

    EdgegraftError for a model that cannot say unknown, or when no photo can be read.
    """
    threshold = can_refuse(classifier)
    if known.familiarity is None:
        raise EdgegraftError(NO_FAMILIARITY)
    familiarities: list[float] = []
    confidences: list[float] = []
    failures: list[tuple[str, str]] = []
    for done, path in enumerate(photos, 1):
        try:
            outputs = classifier.run(load_pixels(path, classifier.recipe)[None])
        except PhotoError as error:
            failures.append((str(path), error.reason))
        else:
            familiarities.append(float(outputs["familiarity"][0]))
            confidences.append(float(outputs["probabilities"].max()))
        if progress is not None:
            progress(done)
    if not familiarities:
        raise EdgegraftError(
            f"expected unknown photos, got none that can be read "
            f"({len(failures)} unreadable)"
        )
    return replace(
        count(known.familiarity, np.array(familiarities, np.float32), threshold),
        mean_confidence=float(np.mean(confidences)),
        failures=tuple(failures),
    )
