"""How often is the model right, how well does it know? Counted through the runner
that ships: accuracy, confusion, calibration error.

It does not know: Keras, TensorFlow, where photos come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge.errors import EdgegraftError, PhotoError

if TYPE_CHECKING:
    import os

    from edge.classifier import Classifier

CONFIDENCE_95 = 1.959964  # the normal quantile of a two-sided 95 % interval
BINS = 15  # of the calibration error, as Guo et al. 2017


@dataclass(frozen=True)
class Evaluation:
    """Accuracy with its 95 % interval, confusion (rows are the truth), per class.

    `probabilities` is float32 [N, L] and `truth` int64 [N], photo by photo;
    `calibration_error` see there. `familiarity` is float32 [N] of a model that tells
    it (else None), `refused` how many of these photos it calls unknown. Accuracy and
    confusion count the likeliest label, whether a photo is refused or not;
    `answered_right` are the photos whose right label the device gives as its answer.
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

    def to_dict(self) -> dict[str, Any]:
        """For JSON: everything but the arrays."""
        return {
            "labels": list(self.labels),
            "photos": self.photos,
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "calibration_error": self.calibration_error,
            "refused": self.refused,
            "answered_right": self.answered_right,
            "confusion": self.confusion,
            "per_class": self.per_class,
            "failures": [
                {"photo": path, "reason": reason} for path, reason in self.failures
            ],
        }


def wilson(correct: float, total: int, z: float = CONFIDENCE_95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927); (0, 1) of nothing.

    `correct` may be a mean over several draws, which need not be whole.
    """
    if total == 0:
        return (0.0, 1.0)
    share, square = correct / total, z * z
    middle = (share + square / (2 * total)) / (1 + square / total)
    spread = (share * (1 - share) / total + square / (4 * total * total)) ** 0.5
    half = z * spread / (1 + square / total)
    low = 0.0 if correct == 0 else middle - half  # exact at the ends
    return (low, 1.0 if correct == total else middle + half)


def calibration_error(
    probabilities: npt.NDArray[np.float32], truth: npt.ArrayLike, bins: int = BINS
) -> float:
    """Expected calibration error, 0..1: how far the confidence of the best label is
    from how often it is right, over equal-width bins of confidence.

    probabilities [N, L], truth [N]; Naeini et al. 2015. 0.0 of nothing.
    """
    table = np.asarray(probabilities)
    if not len(table):
        return 0.0
    confidence = table.max(axis=1)
    right = table.argmax(axis=1) == np.asarray(truth)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    error = 0.0
    for number in range(bins):
        inside = place == number
        if inside.any():
            gap = abs(float(right[inside].mean()) - float(confidence[inside].mean()))
            error += float(inside.mean()) * gap
    return error


def score(
    probabilities: npt.ArrayLike, truth: npt.ArrayLike, labels: Sequence[str]
) -> Evaluation:
    """Metrics of probabilities [N, L] against the true label numbers [N]."""
    table = np.asarray(probabilities, np.float32)
    right = np.asarray(truth, np.int64)
    count = len(labels)
    if table.ndim != 2 or table.shape != (len(right), count):
        raise EdgegraftError(
            f"expected probabilities of shape [{len(right)}, {count}] "
            f"(photos, labels), got {list(table.shape)}"
        )
    if len(right) and not (right.min() >= 0 and right.max() < count):
        raise EdgegraftError(f"expected true labels from 0 to {count - 1}")
    guess = table.argmax(axis=1) if len(right) else right
    cell = (right * count + guess).astype(np.intp)  # a 32-bit system takes no int64
    confusion = np.bincount(cell, minlength=count * count)
    confusion = confusion.reshape(count, count)
    correct, total = int(np.trace(confusion)), len(right)
    return Evaluation(
        labels=tuple(labels),
        photos=total,
        accuracy=correct / total if total else 0.0,
        interval=wilson(correct, total),
        confusion=confusion.tolist(),
        per_class=[_class_row(confusion, i, label) for i, label in enumerate(labels)],
        probabilities=table,
        truth=right,
        calibration_error=calibration_error(table, right),
    )


def evaluate(
    classifier: Classifier,
    photos: Iterable[tuple[str | os.PathLike[str], str]],
    *,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score a classifier on (path, label) pairs; unreadable photos are listed.

    `progress` gets the number of photos done. EdgegraftError when a label is not
    one of the model's, or when no photo could be read.
    """
    from edge.preprocess import load_pixels

    numbers = {label: number for number, label in enumerate(classifier.labels)}
    rows: list[npt.NDArray[np.float32]] = []
    familiar: list[float] = []
    truth: list[int] = []
    failures: list[tuple[str, str]] = []
    for done, (path, label) in enumerate(photos, 1):
        if label not in numbers:
            raise EdgegraftError(
                f"{path!s}: label {label!r} is not one of the model's: "
                f"{', '.join(classifier.labels[:20])}"
            )
        try:
            pixels = load_pixels(path, classifier.recipe)
        except PhotoError as error:
            failures.append((str(path), error.reason))
        else:
            out = classifier.run(pixels[None])
            rows.append(out["probabilities"][0])
            familiar += [float(value) for value in out.get("familiarity", ())]
            truth.append(numbers[label])
        if progress is not None:
            progress(done)
    if not rows:
        raise EdgegraftError(
            f"expected photos to evaluate on, got none that can be read "
            f"({len(failures)} unreadable)"
        )
    result = replace(
        score(np.stack(rows), truth, classifier.labels), failures=tuple(failures)
    )
    if not familiar:
        return result
    limit = classifier.card.familiarity_threshold if classifier.card else None
    result = replace(result, familiarity=np.array(familiar, np.float32))
    if limit is None:
        return result
    known = np.array(familiar) >= limit
    right = result.probabilities.argmax(axis=1) == result.truth
    return replace(
        result,
        refused=int((~known).sum()),
        answered_right=int((known & right).sum()),
    )


def _class_row(confusion: npt.NDArray[Any], i: int, label: str) -> dict[str, Any]:
    hit = int(confusion[i, i])
    said, photos = int(confusion[:, i].sum()), int(confusion[i].sum())
    precision = hit / said if said else 0.0
    recall = hit / photos if photos else 0.0
    both = precision + recall
    return {
        "label": label,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / both if both else 0.0,
        "photos": photos,
    }
