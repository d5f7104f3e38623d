"""Few photos: one head fitted to training and validation photos, cross-validated.

A few validation photos are too few to evaluate a head or its temperature, and are
needed for training where there are only dozens. So each photo is predicted by heads
that were not fitted to it (4-fold cross-validation on the frozen features; copies share
a fold). These out-of-fold predictions choose the penalty and the temperature, and
estimate the accuracy; then one head is fitted to all photos. The penalty is the
strongest whose loss, each at its own temperature, is within one standard error of the
lowest (`finetune.paired`).

Cross-validated on 2,000 photos of cats and dogs (MobileNetV2 1.0, 30 draws): with 10,
20 and 50 a label 97.5, 98.1 and 98.2 % right and a calibration error of 4, 2 and 1
points, where a split of the same photos had 97.3, 97.8 and 98.1 %, and 18, 13 and 7.
Augmented views of the photos (12 to 30 draws) added at most 0.1 point, features of
length 1 lost 0.5, their square roots brought nothing. A fine-tuned backbone was trained
on the photos, so it is fine-tuned in folds, too (`finetune.loop.folds`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.photos import Photo
from data.split import Split, connected_groups
from edge.evaluate import wilson
from finetune.head import probe
from finetune.loop.examples import Floats, Ints
from finetune.paired import within_one_standard_error

FEW = 100  # validation photos that are enough for a temperature
MAX_PHOTOS = 1000  # photos in all; with more it costs more time than it gains
FOLDS = 4

Fold = tuple[Ints, Ints]  # the rows that are trained on, those that are held out


def applies(train: int, val: int) -> bool:
    """Whether so many training and validation photos are few enough."""
    return val < FEW and train + val <= MAX_PHOTOS


@dataclass(frozen=True)
class CrossFit:
    """kernel [D, L], bias [L] of the head that was fitted to all N photos.

    logits: float32 [N, L], out of fold. The temperature is fitted to them; neither the
    head nor the logits are divided by it.
    """

    kernel: Floats
    bias: Floats
    strength: float
    logits: Floats
    temperature: float


@dataclass(frozen=True)
class CrossValidated:
    """Photos predicted by heads that were not fitted to them, and how many right.

    `by_label`: label, photos and right of each; empty in runs that did not record it.
    """

    photos: int
    right: int
    by_label: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def from_logits(
        cls, logits: Floats, truth: Ints, labels: Sequence[str]
    ) -> CrossValidated:
        """From out-of-fold logits float32 [N, L]; truth [N] indexes `labels`."""
        right = logits.argmax(axis=1) == truth
        rows = tuple(
            {"label": label, "photos": int(own.sum()), "right": int(right[own].sum())}
            for index, label in enumerate(labels)
            if (own := truth == index).any()
        )
        return cls(len(truth), int(right.sum()), rows)

    @classmethod
    def from_record(cls, config: Mapping[str, Any]) -> CrossValidated | None:
        """From run.json; None where the head is not cross-fit."""
        calibration = config.get("calibration") or {}
        if not calibration.get("cross_fit"):
            return None
        record = calibration["cross_fit"]
        rows = tuple(record.get("by_label") or ())
        return cls(calibration["photos"], record["right"], rows)

    @property
    def accuracy(self) -> float:
        return self.right / self.photos

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.right, self.photos)

    @property
    def weakest(self) -> Mapping[str, Any] | None:
        """The row with the lowest recall, of equals the most photos."""

        def recall(row: Mapping[str, Any]) -> tuple[float, int]:
            return row["right"] / max(row["photos"], 1), -row["photos"]

        return min(self.by_label, key=recall, default=None)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"cross-validated {self.accuracy:.1%} (95 % interval {low:.1%} to "
            f"{high:.1%})"
        )

    def to_card(self) -> dict[str, Any]:
        """For a model file's card."""
        return {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "photos": self.photos,
        }

    def to_dict(self) -> dict[str, Any]:
        """For metrics.json."""
        by_label = list(self.by_label)
        return {**self.to_card(), "right": self.right, "by_label": by_label}


def copy_groups(
    photos: Sequence[Photo],
    digests: Mapping[Path, str],
    near_duplicates: Sequence[tuple[Path, Path]],
) -> list[int]:
    """A group index for each photo; copies and near-duplicates have the same one.

    digests: the sha256 of each photo; near_duplicates: pairs of paths.
    """
    chains = connected_groups(photos, digests, near_duplicates)
    group = {photo.path: index for index, chain in enumerate(chains) for photo in chain}
    return [group[photo.path] for photo in photos]


def learned_groups(
    split: Split, near_duplicates: Sequence[tuple[Path, Path]]
) -> list[int]:
    """`copy_groups` of the training, then the validation photos of a split."""
    photos = [*split.part("train"), *split.part("val")]
    digests = {row.photo.path: row.sha256 for row in split.rows}
    return copy_groups(photos, digests, near_duplicates)


def make_folds(
    truth: Ints, groups: Sequence[int], classes: int, seed: int
) -> list[Fold] | None:
    """The folds of photos with class indices `truth` [N]; photos with the same number
    in `groups` [N] share one. None where a label is too rare for every fold."""
    from sklearn.model_selection import StratifiedGroupKFold

    group_of, labels = np.asarray(groups), np.unique(truth)
    if len(labels) < classes:
        return None
    if any(len(np.unique(group_of[truth == label])) < FOLDS for label in labels):
        return None
    split = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    folds = [(a, b) for a, b in split.split(group_of, truth, group_of) if len(b)]
    if any(len(np.unique(truth[train])) < len(labels) for train, _ in folds):
        return None
    return folds


def fit(
    features: Floats,
    truth: Ints,
    classes: int,
    *,
    groups: Sequence[int],
    weights: Floats | None = None,
    seed: int = 0,
    strengths: Sequence[float] = probe.STRENGTHS,
) -> CrossFit | None:
    """From features float32 [N, D]; None where a label has fewer groups than FOLDS.

    groups [N]: photos with the same number share a fold. weights: float32 [N], sample
    weights of the head's loss; None for equal weights. strengths: the penalties to try,
    strong to weak.
    """
    folds = make_folds(truth, groups, classes, seed)
    if folds is None:
        return None
    tried = []
    for strength in strengths:
        logits = np.zeros((len(truth), classes), np.float32)
        for train, held_out in folds:
            kernel, bias = probe.head(
                features[train],
                truth[train],
                classes,
                strength,
                weights=None if weights is None else weights[train],
            )
            logits[held_out] = features[held_out] @ kernel + bias
        fitted = probe.fit_temperature(logits, truth)
        losses = probe.log_losses(logits / np.float32(fitted), truth)
        tried.append((strength, logits, fitted, losses))
    lowest = min((losses for *_, losses in tried), key=lambda x: float(x.mean()))
    strength, logits, fitted, _ = next(
        entry for entry in tried if within_one_standard_error(entry[3], lowest)
    )
    kernel, bias = probe.head(features, truth, classes, strength, weights=weights)
    return CrossFit(kernel, bias, strength, logits, fitted)
