"""The gate: does an int8 file still answer as the float32 file of its run does?

Three questions, all about the files themselves:

- Agreement: on which share of photos do both files give the same label? This needs no
  labels, so training photos help: a photo on which float32 is uncertain shows much,
  wherever it is from. But a network is surer of its training photos than of new ones
  (MobileNetV2 0.35 fine-tuned on trashnet: plain int8 agrees on 100 % of training and
  91 % of validation photos). So photos are grouped by float32's margin between its two
  best labels, and each group weighs as much as it does among the validation photos
  (post-stratification; Cochran, Sampling Techniques, 1977, section 5A.9).
- Recall: does a label lose more photos than chance would take (one-sided sign test,
  Bonferroni over labels)? A file that loses a label is rejected, however many others
  it has.
- Accuracy on validation, as a second look: a drop over `max_drop` rejects, too.

The agreement is an estimate: with few validation photos of small margin it varies by
points. Photos unlike those of the run are not judged at all.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

AGREEMENT = 0.99  # the default target
MAX_DROP = 0.01  # of accuracy on the validation part
JUDGE_PHOTOS = 1000  # all of validation, filled up with training photos
CHANCE = 0.05  # a label is lost if chance alone would do that less often
# Margins of the groups: most photos are beyond the last, most changes before the second
MARGINS = (0.05, 0.1, 0.2, 0.4, 0.7)
_ROUNDING = 1e-9  # a drop of exactly `max_drop` is allowed

Probabilities = npt.NDArray[np.float32]
Right = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Fidelity:
    """How near a file's answers are to float32's, on new photos.

    `agreement`: share of photos with the same label, 0..1. `shift`: mean total
    variation distance of the probabilities, 0..1. `lost_labels`: labels whose recall
    falls beyond chance. `drop`: accuracy lost on validation. `photos`: compared.
    """

    agreement: float
    shift: float
    lost_labels: tuple[str, ...]
    drop: float
    photos: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "lost_labels": list(self.lost_labels)}


@dataclass(frozen=True)
class Gate:
    """What a file must meet. `agreement` and `max_drop` are fractions, 0..1."""

    agreement: float = AGREEMENT
    max_drop: float = MAX_DROP

    def allowed_drop(self, photos: int) -> float:
        """The accuracy a file may lose on so many photos: at least one photo, or 0."""
        return (max(self.max_drop, 1 / photos) if self.max_drop else 0.0) + _ROUNDING

    def why_rejected(self, found: Fidelity, validation: int) -> str:
        """Why a file must not be used, "" if it may; on `validation` photos."""
        if found.lost_labels:
            return (
                f"recall of {', '.join(found.lost_labels)} falls beyond chance "
                f"(sign test, p < {CHANCE})"
            )
        allowed = self.allowed_drop(validation)
        if found.drop > allowed:
            return (
                f"loses {100 * found.drop:.1f} points against float32 on validation, "
                f"at most {100 * allowed:.1f} allowed (--max-drop)"
            )
        return ""

    def reached(self, found: Fidelity, validation: int) -> bool:
        """Whether a file needs no repair."""
        differs = max(1 - self.agreement, 1 / validation)  # one photo may always
        near = found.agreement >= 1 - differs - _ROUNDING
        return near and not self.why_rejected(found, validation)


def fidelity(
    float32: Probabilities,
    file: Probabilities,
    truth: npt.NDArray[np.int64],
    validation: int,
    labels: tuple[str, ...],
) -> Fidelity:
    """Compare a file's probabilities [N, L] with float32's on the same photos.

    The first `validation` photos are from the validation part, the others from
    training. `truth`: label numbers [N], for recall and drop only.
    """
    ordered = np.sort(float32, axis=1)
    group = np.digitize(ordered[:, -1] - ordered[:, -2], MARGINS)
    counts = np.bincount(group, minlength=len(MARGINS) + 1)
    new = np.bincount(group[:validation], minlength=len(counts))
    weights = (new / counts.clip(1))[group]
    before, after = float32.argmax(axis=1), file.argmax(axis=1)
    was_right, is_right = before == truth, after == truth
    lost = [
        label
        for number, label in enumerate(labels)
        if _falls(was_right[truth == number], is_right[truth == number], len(labels))
    ]
    right = was_right[:validation].mean() - is_right[:validation].mean()
    return Fidelity(
        agreement=float(np.average(before == after, weights=weights)),
        shift=float(np.average(np.abs(file - float32).sum(1) / 2, weights=weights)),
        lost_labels=tuple(lost),
        drop=float(right),
        photos=len(truth),
    )


def _falls(before: Right, after: Right, labels: int) -> bool:
    """Whether more photos of one label go wrong than right beyond chance."""
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    flips = lost + gained
    chance = sum(comb(flips, n) for n in range(lost, flips + 1)) / 2**flips
    return lost > gained and chance < CHANCE / labels
