"""The calibration photos of an int8 file, which set its ranges: from train only.

They are balanced over the labels. The order within a label depends on the photo's bytes
and the seed, not on names and folders. From a larger pool, photos far apart in the
network's features are taken (`select_diverse`), so that rare photos set ranges, too.
Copies, byte for byte or pixel for pixel, and photos of a single colour add no ranges
and are refused (`copies`, `sift`); calibration.csv lists them with the reason.

How many: on MobileNetV2 0.35 at 160 (cats and dogs, plain int8, 300 validation photos)
the mean total variation distance from float32 was 3.4 to 4.1 points for every size of
16, 50, 100, 200 and 400 photos, spread or drawn, without a trend. 200 leaves room for
more labels and costs seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.split import Row, Split, interleaved
from edge import files
from edge.errors import EdgegraftError

COUNT = 200
MIN_PHOTOS = 2  # different photos
POOL = 2  # size of the pool, as a multiple; each photo costs a forward pass
COLUMNS = ("path", "label", "sha256", "refused")


@dataclass(frozen=True)
class Refused:
    """A photo not used for calibration: the copy of another (`copy_of`), in bytes or
    pixels, or (None) of a single colour."""

    row: Row
    copy_of: Row | None = None
    alike: str = ""

    @property
    def reason(self) -> str:
        if self.copy_of is None:
            return "of one colour"
        path = self.copy_of.photo.path
        return f"a copy of {path.parent.name}/{path.name}, {self.alike}"


def choose(split: Split, count: int = COUNT, *, seed: int = 0) -> tuple[Row, ...]:
    """`count` photos of the training part, balanced over the labels where possible.

    All of them when there are fewer. EdgegraftError for a count below the number of
    labels, or a training part without photos.
    """
    labels = split.labels
    if count < len(labels):
        raise EdgegraftError(
            f"expected at least {len(labels)} calibration photos, one of each label, "
            f"got {count}"
        )
    queues: dict[str, list[Row]] = {label: [] for label in labels}
    digests = set()
    for row in sorted(split.rows, key=lambda row: _order(seed, row)):
        if row.part == "train" and row.sha256 not in digests:
            digests.add(row.sha256)
            queues[row.photo.label].append(row)
    if not digests:
        raise EdgegraftError(
            "expected calibration photos in the training part, got an empty part"
        )
    return tuple(interleaved(queues.values(), count))


def pool(split: Split, count: int = COUNT, *, seed: int = 0) -> tuple[Row, ...]:
    """The photos from which `select_diverse` takes `count`; errors as `choose`."""
    choose(split, count, seed=seed)
    return choose(split, POOL * count, seed=seed)


def copies(split: Split, rows: Sequence[Row]) -> tuple[Refused, ...]:
    """The training photos that are byte-for-byte copies of one of `rows`."""
    first = {row.sha256: row for row in rows}
    return tuple(
        Refused(row, first[row.sha256], "byte for byte")
        for row in split.rows
        if row.part == "train" and first.get(row.sha256, row) != row
    )


def sift(
    rows: Sequence[Row], pixels: Sequence[npt.NDArray[np.uint8]]
) -> tuple[tuple[Row, ...], tuple[Refused, ...]]:
    """(usable rows, refused ones): copies, and photos of a single colour.

    `pixels`: uint8 [H, W, 3] of each row, as the network sees it. EdgegraftError when
    fewer than `MIN_PHOTOS` are usable: these would clip the activations of others.
    """
    usable: list[Row] = []
    refused: list[Refused] = []
    originals: dict[bytes, Row] = {}
    for row, photo in zip(rows, pixels, strict=True):
        if (photo == photo[0, 0]).all():
            refused.append(Refused(row))
            continue
        first = originals.setdefault(hashlib.sha256(photo.tobytes()).digest(), row)
        if first is row:
            usable.append(row)
        else:
            refused.append(Refused(row, first, "pixel for pixel"))
    if len(usable) < MIN_PHOTOS:
        raise EdgegraftError(
            f"expected calibration photos that show different things, got {len(rows)} "
            f"({summary(refused)}); calibrate with photos like those the device "
            "will see"
        )
    return tuple(usable), tuple(refused)


def summary(refused: Sequence[Refused]) -> str:
    """The counts by reason: ``2 of one colour, 1 a copy of another``."""
    blank = sum(photo.copy_of is None for photo in refused)
    copies = len(refused) - blank
    copied = "a copy of another" if copies == 1 else "copies of others"
    reasons = ((blank, "of one colour"), (copies, copied))
    return ", ".join(f"{count} {text}" for count, text in reasons if count) or "none"


def _order(seed: int, row: Row) -> str:
    return hashlib.sha256(f"calibration:{seed}:{row.sha256}".encode()).hexdigest()


def select_diverse(
    rows: Sequence[Row], features: npt.NDArray[np.float32], count: int
) -> tuple[Row, ...]:
    """`count` of the rows that cover the feature space, balanced over the labels.

    `features`: float32 [len(rows), D]. Within a label the first is the one nearest to
    the mean, each further one the farthest from those taken: the greedy 2-approximation
    of the k-center problem (Gonzalez 1985). Photos with the features of one that is
    taken (copies saved again) come last.
    """
    labels = list(dict.fromkeys(row.photo.label for row in rows))
    queues = []
    for label in labels:
        indices = [i for i, row in enumerate(rows) if row.photo.label == label]
        order = _farthest_first(features[indices], min(count, len(indices)))
        queues.append([rows[indices[i]] for i in order])
    return tuple(interleaved(queues, count))


def _farthest_first(features: npt.NDArray[np.float32], count: int) -> list[int]:
    """The first `count` indices of a farthest-first walk over features [N, D]."""
    start = int(np.linalg.norm(features - features.mean(axis=0), axis=1).argmin())
    order = [start]
    distance = np.linalg.norm(features - features[start], axis=1)
    distance[start] = -1.0
    while len(order) < count:
        farthest = int(distance.argmax())
        order.append(farthest)
        new_distance = np.linalg.norm(features - features[farthest], axis=1)
        distance = np.minimum(distance, new_distance)
        distance[order] = -1.0
    return order


def write_csv(
    path: Path, rows: Sequence[Row], root: Path, refused: Sequence[Refused] = ()
) -> None:
    """calibration.csv: path (from `root`, with slashes), label, sha256, and why it was
    refused (empty: it was used)."""
    lines = [(row, "") for row in rows] + [(r.row, r.reason) for r in refused]
    files.write_csv(
        path,
        COLUMNS,
        (
            (photo.path.relative_to(root).as_posix(), photo.label, sha256, reason)
            for (photo, _, sha256), reason in lines
        ),
    )
