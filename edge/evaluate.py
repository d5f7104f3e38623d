"""Metrics of a classifier: accuracy, balanced accuracy, confusion, calibration error,
and how often it answers `unknown` for photos of none of its labels.

A file may have a second output, `familiarity`; below the threshold in its card the
answer is `unknown`. All is measured through the runner that ships. Intervals cover the
sampling of these photos: photos of another place or season may give figures outside
them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge.errors import EdgegraftError, PhotoError
from edge.text import listed

if TYPE_CHECKING:
    from edge.classifier import Classifier

_Path = str | os.PathLike[str]

CONFIDENCE_95 = 1.959964  # the normal quantile of a two-sided 95 % interval
BINS = 15  # of the calibration error, as Guo et al. 2017
HALF_NORMAL = (2 / math.pi) ** 0.5  # mean distance of a standard normal from 0
NO_FAMILIARITY = (
    "this model cannot say unknown: expected a file with the output familiarity and "
    "its threshold in the card"
)


@dataclass(frozen=True)
class Evaluation:
    """Accuracy with its 95 % interval, confusion (rows are the truth), per label.

    `probabilities` is float32 [N, L] and `truth` int64 [N], photo by photo.
    `familiarity` is float32 [N] of a model with that output (else None), `refused` how
    many of these photos a model that can say `unknown` answers so. Accuracy and
    confusion count the likeliest label, whether a photo is refused or not;
    `answered_right` are the photos whose right label the device answers.
    """

    labels: tuple[str, ...]
    photos: int
    accuracy: float
    interval: tuple[float, float]
    confusion: list[list[int]]
    per_class: list[dict[str, Any]]
    probabilities: npt.NDArray[np.float32]
    truth: npt.NDArray[np.int64]
    calibration_error: float
    familiarity: npt.NDArray[np.float32] | None = None
    refused: int | None = None
    answered_right: int | None = None
    failures: tuple[tuple[str, str], ...] = ()

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """bool [N]: is the likeliest label the true one?"""
        predicted = self.probabilities.argmax(axis=1) if self.photos else self.truth
        return np.asarray(predicted == self.truth)

    @property
    def tested(self) -> list[dict[str, Any]]:
        """The rows of `per_class` with photos: the others have no recall."""
        return [row for row in self.per_class if row["photos"]]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """`per_class` for a table: None in place of the figures of labels without
        photos, which were not measured."""
        empty = dict.fromkeys(("precision", "recall", "f1"))
        return [row if row["photos"] else {**row, **empty} for row in self.per_class]

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the labels (macro recall): each label counts the same."""
        return _mean([row["recall"] for row in self.tested])

    @property
    def balanced_interval(self) -> tuple[float, float]:
        """The 95 % interval of the balanced accuracy.

        Wilson's intervals of the recalls, combined by MOVER (Zou and Donner 2008,
        "Construction of confidence limits about effect measures", Statistics in
        Medicine 27:1693): it stays wide for a label with a few photos, all right.
        """
        mean, rows = self.balanced_accuracy, self.tested
        if not rows:
            return (0.0, 1.0)
        ends = [(row["recall"], *wilson(row["right"], row["photos"])) for row in rows]
        below = sum((recall - low) ** 2 for recall, low, _ in ends)
        above = sum((high - recall) ** 2 for recall, _, high in ends)
        return (mean - below**0.5 / len(rows), mean + above**0.5 / len(rows))

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the labels."""
        return _mean([row["f1"] for row in self.tested])

    @property
    def balanced_probability(self) -> float:
        """The mean probability given to the true label, each label counting the same.

        On few photos it ranks models better than counting right answers does.
        """
        if not self.photos:
            return 0.0
        true = self.probabilities[np.arange(self.photos), self.truth]
        return float(np.mean([true[self.truth == k].mean() for k in set(self.truth)]))

    @property
    def weakest(self) -> dict[str, Any]:
        """The row of `per_class` with the lowest recall, of equals the most photos."""
        rows = self.tested or self.per_class
        return min(rows, key=lambda row: (row["recall"], -row["photos"]))

    def to_dict(self) -> dict[str, Any]:
        """For JSON: everything but the arrays."""
        return {
            "labels": list(self.labels),
            "photos": self.photos,
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "balanced_accuracy": self.balanced_accuracy,
            "balanced_interval": list(self.balanced_interval),
            "balanced_probability": self.balanced_probability,
            "macro_f1": self.macro_f1,
            "weakest_label": self.weakest["label"],
            "calibration_error": self.calibration_error,
            "refused": self.refused,
            "answered_right": self.answered_right,
            "confusion": self.confusion,
            "per_class": self.per_class,
            "failures": [
                {"photo": path, "reason": reason} for path, reason in self.failures
            ],
        }


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


def wilson(correct: float, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion (Wilson 1927); (0, 1) of nothing.

    `correct` may be a mean over several draws, which need not be whole.
    """
    if total == 0:
        return (0.0, 1.0)
    p, square = correct / total, CONFIDENCE_95 * CONFIDENCE_95
    center = (p + square / (2 * total)) / (1 + square / total)
    spread = (p * (1 - p) / total + square / (4 * total * total)) ** 0.5
    half = CONFIDENCE_95 * spread / (1 + square / total)
    low = 0.0 if correct == 0 else center - half  # exact at the ends
    return (low, 1.0 if correct == total else center + half)


def calibration_error(
    probabilities: npt.NDArray[np.float32], truth: npt.ArrayLike, bins: int = BINS
) -> float:
    """Expected calibration error, 0..1, less its bias on few photos: the mean distance
    of confidence (the best label's probability) from accuracy, over equal-width bins
    of confidence (Naeini et al. 2015).

    probabilities [N, L], truth [N]. A perfectly calibrated model has an error above 0
    on few photos, 5 points on 150. Its mean square follows from the probabilities and
    is subtracted in quadrature; 0.0 where no more than that is left, or for no photos.
    """
    table = np.asarray(probabilities, np.float64)
    if not len(table):
        return 0.0
    confidence = table.max(axis=1)
    correct = table.argmax(axis=1) == np.asarray(truth)
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    error = bias = spread = 0.0
    for index in range(bins):
        inside = bin_of == index
        count = int(inside.sum())
        if not count:
            continue
        in_bin = confidence[inside]
        weight = count / len(table)
        error += weight * abs(float(correct[inside].mean() - in_bin.mean()))
        # variance of the bin's accuracy
        variance = max(float((in_bin * (1 - in_bin)).sum()) / count**2, 0.0)
        bias += weight * HALF_NORMAL * variance**0.5
        spread += weight**2 * (1 - HALF_NORMAL**2) * variance
    return math.sqrt(max(error**2 - bias**2 - spread, 0.0))


def score(
    probabilities: npt.ArrayLike, truth: npt.ArrayLike, labels: Sequence[str]
) -> Evaluation:
    """Metrics of probabilities [N, L] against the true label numbers [N]."""
    table = np.asarray(probabilities, np.float32)
    true = np.asarray(truth, np.int64)
    count = len(labels)
    if table.shape != (len(true), count):
        raise EdgegraftError(
            f"expected probabilities of shape [{len(true)}, {count}] "
            f"(photos, labels), got {list(table.shape)}"
        )
    if len(true) and not (true.min() >= 0 and true.max() < count):
        raise EdgegraftError(f"expected true labels from 0 to {count - 1}")
    predicted = table.argmax(axis=1) if len(true) else true
    cell = (true * count + predicted).astype(np.intp)  # a 32-bit system takes no int64
    confusion = np.bincount(cell, minlength=count * count).reshape(count, count)
    correct, total = int(np.trace(confusion)), len(true)
    return Evaluation(
        labels=tuple(labels),
        photos=total,
        accuracy=correct / total if total else 0.0,
        interval=wilson(correct, total),
        confusion=confusion.tolist(),
        per_class=[_class_row(confusion, i, label) for i, label in enumerate(labels)],
        probabilities=table,
        truth=true,
        calibration_error=calibration_error(table, true),
    )


def evaluate(
    classifier: Classifier,
    photos: Iterable[tuple[_Path, str]],
    *,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score a classifier on (path, label) pairs; unreadable photos are listed.

    `progress` gets the number of photos done. EdgegraftError when a label is not
    one of the model's, or when no photo could be read.
    """
    indices = {label: index for index, label in enumerate(classifier.labels)}
    rows: list[npt.NDArray[np.float32]] = []
    familiarities: list[float] = []
    truth: list[int] = []
    failures: list[tuple[str, str]] = []

    def with_known_labels() -> Iterator[tuple[_Path, str]]:
        for path, label in photos:
            if label not in indices:
                raise EdgegraftError(
                    f"{path!s}: label {label!r} is not one of the model's: "
                    f"{listed(classifier.labels)}; rename it: --rename "
                    f"{label}=NAME"
                )
            yield path, label

    for label, outputs in _run_each(
        classifier, with_known_labels(), failures, progress
    ):
        rows.append(outputs["probabilities"][0])
        familiarities += map(float, outputs.get("familiarity", ()))
        truth.append(indices[label])
    if not rows:
        raise EdgegraftError(
            f"expected photos to evaluate on, got none that can be read "
            f"({len(failures)} unreadable)"
        )
    result = replace(
        score(np.stack(rows), truth, classifier.labels), failures=tuple(failures)
    )
    if familiarities:
        result = replace(result, familiarity=np.array(familiarities, np.float32))
    threshold = classifier.card.familiarity_threshold if classifier.card else None
    has_threshold = threshold is not None and bool(familiarities)
    if not has_threshold and classifier.score_threshold is None:
        return result
    best = result.probabilities.max(axis=1)
    values: Sequence[float | None] = familiarities or [None] * len(best)
    pairs = zip(best, values, strict=True)
    known = np.array([classifier.is_known(float(p), value) for p, value in pairs])
    return replace(
        result,
        refused=int((~known).sum()),
        answered_right=int((known & result.right).sum()),
    )


def count_refusals(
    known: npt.ArrayLike, unknown: npt.ArrayLike, threshold: float
) -> Refusal:
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
    photos: Iterable[_Path],
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
    unlabelled = ((path, "") for path in photos)
    for _, outputs in _run_each(classifier, unlabelled, failures, progress):
        familiarities.append(float(outputs["familiarity"][0]))
        confidences.append(float(outputs["probabilities"].max()))
    if not familiarities:
        raise EdgegraftError(
            f"expected unknown photos, got none that can be read "
            f"({len(failures)} unreadable)"
        )
    return replace(
        count_refusals(
            known.familiarity, np.array(familiarities, np.float32), threshold
        ),
        mean_confidence=float(np.mean(confidences)),
        failures=tuple(failures),
    )


def _run_each(
    classifier: Classifier,
    photos: Iterable[tuple[_Path, str]],
    failures: list[tuple[str, str]],
    progress: Callable[[int], None] | None,
) -> Iterator[tuple[str, dict[str, npt.NDArray[np.float32]]]]:
    """The label and the outputs of each (path, label); of what cannot be read, path and
    reason are added to `failures`. `progress` gets the number of photos done."""
    from edge.preprocess import load_pixels

    for done, (path, label) in enumerate(photos, 1):
        try:
            pixels = load_pixels(path, classifier.recipe)
        except PhotoError as error:
            failures.append((str(path), error.reason))
        else:
            yield label, classifier.run(pixels[None])
        if progress is not None:
            progress(done)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (latency, accuracy) that no other beats in both, by latency."""
    best, front = -1.0, []
    order = sorted(range(len(points)), key=lambda k: (points[k][0], -points[k][1]))
    for index in order:
        if points[index][1] > best:
            best = points[index][1]
            front.append(index)
    return front


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _class_row(confusion: npt.NDArray[Any], i: int, label: str) -> dict[str, Any]:
    correct = int(confusion[i, i])
    predicted, photos = int(confusion[:, i].sum()), int(confusion[i].sum())
    precision = correct / predicted if predicted else 0.0
    recall = correct / photos if photos else 0.0
    both = precision + recall
    return {
        "label": label,
        "right": correct,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / both if both else 0.0,
        "photos": photos,
    }
