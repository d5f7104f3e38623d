"""The gate: does an int8 file predict the same as the float32 file of its run?

Three criteria:

- Agreement: the fraction of photos with the same label. This needs no labels, but new
  photos: a network is more confident on those it was trained on (MobileNetV2 0.35
  fine-tuned on trashnet: plain int8 agrees on 99.8 % of training, 94 % of validation
  and 91 % of test photos). As validation photos are few, random crops and mirror images
  of them (`views`) count as much as they do. On nine networks fine-tuned on trashnet
  (90 validation and 327 test photos) the estimate is 0.6 points off the test photos'
  agreement on average for repaired files, 1.1 for plain ones
  (tests/benchmarks/int8_loss.py).
- Recall: a file that loses significantly many validation and training photos of a label
  (one-sided sign test, Bonferroni over labels) is rejected, and so is one that finds no
  photo of a label of which float32 finds `FOUND` or more: with many labels, no test of
  a rare one is significant.
- Accuracy on validation photos and views: a file that loses significantly more than
  `max_drop` (the lower end of the drop's 90 % interval; a photo and its views are one
  observation) is rejected. On 90 photos a drop of a point is chance: a stricter rule
  replaced repaired files by plain ones that agree less.

Out-of-distribution photos are not tested.

exports.json of a run keeps the verdicts: how close each exported file comes to float32,
and by what. `quantize.export` writes it, a comparison shows it. A record holds for the
file that it was written for, known by its digest.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge.records import EXPORTS, Record, read_record
from edge.text import listed
from finetune.run import Run

EXPORTS_FILE = "exports.json"
AGREEMENT = 0.99  # the default target
MAX_DROP = 0.01  # of accuracy on validation photos and views
VIEWS, MAX_PICTURES = 4, 1000  # views of a validation photo; photos and views together
TRAINING = 200  # training photos of the recall test
SMALLEST_CROP = 0.75  # side of a view
CHANCE = 0.05  # significance level of the recall test
FOUND = 3  # photos of a label; losing all of them is no chance where 99 % agree
ONE_SIDED = 1.645  # standard errors: 95 % of a normal distribution lie above -1.645
_ROUNDING = 1e-9

Probabilities = npt.NDArray[np.float32]
Right = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Fidelity:
    """How close a file's predictions are to float32's, on new photos.

    `agreement`: fraction of photos and views with the same label. `shift`: mean total
    variation distance of the probabilities, 0..1. `lost_labels`: labels with a
    significant loss of recall, or a total one. `drop`: accuracy lost on photos and
    views, and `drop_low` the lower end of its 90 % interval. `photos`: validation
    photos and views compared.
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
    """The limits of a file. `agreement` and `max_drop` are fractions, 0..1.

    in_sample: the network was trained on the photos that judge. On these, files agree
    more than on new photos, so no repaired or plain file is said to reach the target:
    the repairs are tried, and the closest is taken.
    """

    agreement: float = AGREEMENT
    max_drop: float = MAX_DROP
    in_sample: bool = False

    def why_rejected(self, result: Fidelity) -> str:
        """Why a file must not be used, "" if it may."""
        if result.lost_labels:
            return (
                f"recall of {listed(result.lost_labels)} falls beyond chance "
                f"(sign test, p < {CHANCE}), or to 0"
            )
        if result.drop_low > self.max_drop:
            return (
                f"loses {100 * result.drop:.1f} points against float32 on validation "
                f"({100 * result.drop_low:.1f} or more, with 95 % confidence), at most "
                f"{100 * self.max_drop:g} allowed (--max-drop)"
            )
        return ""

    def reached(self, result: Fidelity) -> bool:
        """Whether a file needs no repair."""
        if self.in_sample and result.shift > 0:
            return False
        allowed = max(1 - self.agreement, 1 / result.photos)  # one photo at least
        agrees = result.agreement >= 1 - allowed - _ROUNDING
        return agrees and not self.why_rejected(result)


def fidelity(
    float32: Probabilities,
    file: Probabilities,
    truth: npt.NDArray[np.int64],
    validation: int,
    labels: tuple[str, ...],
) -> Fidelity:
    """Compare a file's probabilities [N, L] with float32's on the same photos.

    The first `validation` photos are from the validation part, the others up to the
    length of `truth` (class indices) from training; then follow views of the validation
    photos, in turns.
    """
    new = np.r_[:validation, len(truth) : len(float32)]
    new_truth = np.resize(truth[:validation], len(new))
    before, after = float32.argmax(axis=1), file.argmax(axis=1)
    distances = np.abs(file[new] - float32[new]).sum(axis=1) / 2
    was_right, is_right = before[: len(truth)] == truth, after[: len(truth)] == truth
    lost = [
        label
        for index, label in enumerate(labels)
        if _falls(was_right[truth == index], is_right[truth == index], len(labels))
    ]
    drop, error = _mean_error(
        (before[new] == new_truth).astype(float) - (after[new] == new_truth),
        validation,
    )
    return Fidelity(
        agreement=float((before == after)[new].mean()),
        shift=float(distances.mean()),
        lost_labels=tuple(lost),
        drop=drop,
        drop_low=drop - ONE_SIDED * error,
        photos=len(new),
    )


def _mean_error(values: npt.NDArray[np.float64], photos: int) -> tuple[float, float]:
    """(mean, standard error) of values of photos and then, in turns, of their views."""
    photo_of = np.arange(len(values)) % photos
    means = np.bincount(photo_of, weights=values) / np.bincount(photo_of)
    error = means.std(ddof=1) / photos**0.5 if photos > 1 else 0.0
    return float(values.mean()), float(error)


def views(
    photos: npt.NDArray[np.uint8], count: int, *, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """`count` random crops of photos uint8 [N, H, W, 3], resized back, about half of
    them mirrored: uint8 [count, H, W, 3], of the photos in turns."""
    height, width = photos.shape[1:3]
    random = np.random.default_rng(seed)
    crops = np.empty((count, height, width, 3), np.uint8)
    for index in range(count):
        image = Image.fromarray(photos[index % len(photos)])
        side = random.uniform(SMALLEST_CROP, 1)
        left, top = random.uniform(size=2) * (1 - side) * (width, height)
        box = (left, top, left + side * width, top + side * height)
        image = image.resize((width, height), Image.Resampling.BILINEAR, box)
        crops[index] = np.asarray(image)[:, :: random.choice((1, -1))]
    return crops


def _falls(before: Right, after: Right, labels: int) -> bool:
    """Whether significantly more photos of a label were lost than gained, or all."""
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    if lost >= FOUND and not after.any():
        return True
    flips = lost + gained
    p_value = sum(comb(flips, n) for n in range(lost, flips + 1)) / 2**flips
    return lost > gained and p_value < CHANCE / labels


# -- exports.json ---------------------------------------------------------------------


def read_exports(run: Run) -> dict[str, Record]:
    """The records by variant, none before the export; EdgegraftError for a damaged
    file."""
    try:
        records = read_record(run.exports / EXPORTS_FILE, EXPORTS, inside=run.folder)
    except FileNotFoundError:
        return {}
    return {variant: record for variant, record in records.items() if record}


def export_figures(record: Record) -> dict[str, Any]:
    """Target, what was reached, by which repair, and its cost, as plain values.

    `repair` is None for files that are not repaired. Its seconds are those of all
    repairs that were tried.
    """
    measured, tried = record.get("fidelity") or {}, record.get("ladder") or ()
    verdict = "reached" if record.get("target_reached") else "missed"
    if record.get("in_sample") and verdict == "missed":
        verdict = "in-sample"
    return {
        "target_agreement": record.get("target_agreement"),
        "verdict": "rejected" if record.get("rejected") else verdict,
        "new_agreement": measured.get("agreement"),
        "new_shift": measured.get("shift"),
        "repair": record.get("rung") if tried else None,
        "repair_seconds": sum(rung.get("seconds") or 0 for rung in tried)
        if tried
        else None,
        "float_layers": len(record.get("kept_float") or ()) or None,
    }
