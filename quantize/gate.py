"""The gate: does an int8 file still answer as the float32 file of its run does?

Three questions, all about the files themselves:

- Agreement: on which share of photos do both files give the same label? This needs no
  labels, but new photos: a network is surer of those it was trained on (MobileNetV2
  0.35 fine-tuned on trashnet: plain int8 agrees on 99.8 % of training, 94 % of
  validation and 91 % of test photos). As few validation photos tell little, random
  crops and mirror images of them (`views`) count as much as they do. On nine networks
  fine-tuned on trashnet (90 validation and 327 test photos) the estimate is 0.9 points
  off the test photos' agreement on average for repaired files, 1.3 for plain ones
  (tests/benchmarks/int8_loss.py).
- Recall: does a label lose more photos than chance would take, of validation and
  training (one-sided sign test, Bonferroni over labels)? A file that loses a label is
  rejected, however many others it has.
- Accuracy on validation photos and views, as a second look: a file that is shown to
  lose more than `max_drop` (the lower end of the drop's 90 % interval; a photo and its
  views are one observation) is rejected, too. On 90 photos a drop of a point is chance:
  rejected for that, repaired files gave way to plain ones that agree less.

Photos unlike those of the run are not judged at all.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge.text import listed

AGREEMENT = 0.99  # the default target
MAX_DROP = 0.01  # of accuracy on validation photos and views
VIEWS, MOST = 4, 1000  # views of a validation photo; photos and views together
TRAINING = 200  # training photos that tell whether a label is lost
SMALLEST_CROP = 0.75  # side of a view
CHANCE = 0.05  # a label is lost if chance alone would do that less often
ONE_SIDED = 1.645  # standard errors: 95 % of a normal distribution lie above -1.645
_ROUNDING = 1e-9

Probabilities = npt.NDArray[np.float32]
Right = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Fidelity:
    """How near a file's answers are to float32's, on new photos.

    `agreement`: share of photos and views with the same label, 0..1. `shift`: mean
    total variation distance of the probabilities, 0..1. `lost_labels`: labels whose
    recall falls beyond chance. `drop`: accuracy lost on photos and views, and
    `drop_low` the lower end of its 90 % interval. `photos`: validation photos and views
    compared.
    """

    agreement: float
    shift: float
    lost_labels: tuple[str, ...]
    drop: float
    drop_low: float
    photos: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "lost_labels": list(self.lost_labels)}


@dataclass(frozen=True)
class Gate:
    """What a file must meet. `agreement` and `max_drop` are fractions, 0..1."""

    agreement: float = AGREEMENT
    max_drop: float = MAX_DROP

    def why_rejected(self, found: Fidelity) -> str:
        """Why a file must not be used, "" if it may."""
        if found.lost_labels:
            return (
                f"recall of {listed(found.lost_labels)} falls beyond chance "
                f"(sign test, p < {CHANCE})"
            )
        if found.drop_low > self.max_drop:
            return (
                f"loses {100 * found.drop:.1f} points against float32 on validation "
                f"({100 * found.drop_low:.1f} or more, with 95 % confidence), at most "
                f"{100 * self.max_drop:g} allowed (--max-drop)"
            )
        return ""

    def reached(self, found: Fidelity) -> bool:
        """Whether a file needs no repair."""
        differs = max(1 - self.agreement, 1 / found.photos)  # one may always
        near = found.agreement >= 1 - differs - _ROUNDING
        return near and not self.why_rejected(found)


def fidelity(
    float32: Probabilities,
    file: Probabilities,
    truth: npt.NDArray[np.int64],
    validation: int,
    labels: tuple[str, ...],
) -> Fidelity:
    """Compare a file's probabilities [N, L] with float32's on the same photos.

    The first `validation` photos are from the validation part, the others up to the
    length of `truth` (label numbers) from training; behind them are views of the
    validation photos, which take turns.
    """
    near = np.r_[:validation, len(truth) : len(float32)]
    labelled = np.resize(truth[:validation], len(near))
    before, after = float32.argmax(axis=1), file.argmax(axis=1)
    moved = np.abs(file[near] - float32[near]).sum(axis=1) / 2
    was_right, is_right = before[: len(truth)] == truth, after[: len(truth)] == truth
    lost = [
        label
        for number, label in enumerate(labels)
        if _falls(was_right[truth == number], is_right[truth == number], len(labels))
    ]
    drop, error = _mean(
        (before[near] == labelled).astype(float) - (after[near] == labelled),
        validation,
    )
    return Fidelity(
        agreement=float((before == after)[near].mean()),
        shift=float(moved.mean()),
        lost_labels=tuple(lost),
        drop=drop,
        drop_low=drop - ONE_SIDED * error,
        photos=len(near),
    )


def _mean(values: npt.NDArray[np.float64], photos: int) -> tuple[float, float]:
    """(mean, standard error) of values of photos and, in turn, of views of them."""
    photo = np.arange(len(values)) % photos
    means = np.bincount(photo, weights=values) / np.bincount(photo)
    error = means.std(ddof=1) / photos**0.5 if photos > 1 else 0.0
    return float(values.mean()), float(error)


def views(
    photos: npt.NDArray[np.uint8], count: int, *, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """`count` random crops of photos uint8 [N, H, W, 3], resized back, about half of
    them mirrored: uint8 [count, H, W, 3]. The photos take turns."""
    height, width = photos.shape[1:3]
    draw = np.random.default_rng(seed)
    found = np.empty((count, height, width, 3), np.uint8)
    for place in range(count):
        image = Image.fromarray(photos[place % len(photos)])
        side = draw.uniform(SMALLEST_CROP, 1)
        left, top = draw.uniform(size=2) * (1 - side) * (width, height)
        box = (left, top, left + side * width, top + side * height)
        image = image.resize((width, height), Image.Resampling.BILINEAR, box)
        found[place] = np.asarray(image)[:, :: draw.choice((1, -1))]
    return found


def _falls(before: Right, after: Right, labels: int) -> bool:
    """Whether more photos of one label go wrong than right beyond chance."""
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    flips = lost + gained
    chance = sum(comb(flips, n) for n in range(lost, flips + 1)) / 2**flips
    return lost > gained and chance < CHANCE / labels
