"""How often is the model right? Counted through the runner that ships.

It does not know: Keras, TensorFlow, where photos come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge.errors import EdgegraftError, PhotoError

if TYPE_CHECKING:
    import os

    from edge.classifier import Classifier

CONFIDENCE_95 = 1.959964  # the normal quantile of a two-sided 95 % interval


@dataclass(frozen=True)
class Evaluation:
    """Accuracy with its 95 % interval, confusion (rows are the truth), per class.

    `probabilities` is float32 [N, L] and `truth` int64 [N], photo by photo.
    """

    labels: tuple[str, ...]
    photos: int
    accuracy: float
    interval: tuple[float, float]
    confusion: list[list[int]]
    per_class: list[dict[str, Any]]
    probabilities: npt.NDArray[np.float32]
    truth: npt.NDArray[np.int64]
    failures: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON: everything but the arrays."""
        return {
            "labels": list(self.labels),
            "photos": self.photos,
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "confusion": self.confusion,
            "per_class": self.per_class,
            "failures": [
                {"photo": path, "reason": reason} for path, reason in self.failures
            ],
        }


def wilson(correct: int, total: int, z: float = CONFIDENCE_95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927); (0, 1) of nothing."""
    if total == 0:
        return (0.0, 1.0)
    share, square = correct / total, z * z
    middle = (share + square / (2 * total)) / (1 + square / total)
    spread = (share * (1 - share) / total + square / (4 * total * total)) ** 0.5
    half = z * spread / (1 + square / total)
    low = 0.0 if correct == 0 else middle - half  # exact at the ends
    return (low, 1.0 if correct == total else middle + half)


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
    confusion = np.bincount(right * count + guess, minlength=count * count)
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
    from dataclasses import replace

    from edge.preprocess import load_pixels

    numbers = {label: number for number, label in enumerate(classifier.labels)}
    rows: list[npt.NDArray[np.float32]] = []
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
            rows.append(classifier.probabilities(pixels[None])[0])
            truth.append(numbers[label])
        if progress is not None:
            progress(done)
    if not rows:
        raise EdgegraftError(
            f"expected photos to evaluate on, got none that can be read "
            f"({len(failures)} unreadable)"
        )
    result = score(np.stack(rows), truth, classifier.labels)
    return replace(result, failures=tuple(failures))


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
