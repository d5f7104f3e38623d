"""Which photos set the ranges of an int8 file: class by class, from train only.

A photo of the validation or test part would let the file see what it is judged on.
The order within a class depends on the photo's bytes and the seed, so names and
folders do not matter, and a copy of a photo is never taken twice.

It does not know: how ranges are found, or whether 200 photos are the best number.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.split import Row, Split
from edge.errors import EdgegraftError
from finetune.run import write_atomic

COUNT = 200
COLUMNS = ("path", "label", "sha256")


def choose(split: Split, count: int = COUNT, *, seed: int = 0) -> tuple[Row, ...]:
    """`count` photos of the training part, as many of each label as can be.

    A label with too few gives all it has and the others fill up; the whole part is
    taken when it is smaller than `count`. EdgegraftError for a count below the number
    of labels, or a training part without photos.
    """
    labels = split.labels
    if count < len(labels):
        raise EdgegraftError(
            f"expected at least {len(labels)} calibration photos, one of each label, "
            f"got {count}"
        )
    queues: dict[str, list[Row]] = {label: [] for label in labels}
    seen = set()
    for row in sorted(split.rows, key=lambda row: _order(seed, row)):
        if row.part == "train" and row.sha256 not in seen:
            seen.add(row.sha256)
            queues[row.photo.label].append(row)
    if not seen:
        raise EdgegraftError(
            "expected calibration photos in the training part, got an empty part"
        )
    chosen: list[Row] = []
    place = 0
    while len(chosen) < min(count, len(seen)):
        turn = [queue[place] for queue in queues.values() if place < len(queue)]
        chosen += turn[: count - len(chosen)]
        place += 1
    return tuple(chosen)


def _order(seed: int, row: Row) -> str:
    return hashlib.sha256(f"calibration:{seed}:{row.sha256}".encode()).hexdigest()


def refuse_blank(pixels: npt.NDArray[np.uint8]) -> None:
    """EdgegraftError when every photo, uint8 [N, H, W, 3], is of a single colour.

    Ranges found on such photos would cut off whatever a real photo brings.
    """
    if all((photo == photo[0, 0]).all() for photo in pixels):
        raise EdgegraftError(
            f"expected calibration photos that show something, got {len(pixels)} of "
            "one colour each; calibrate with photos like those the device will see"
        )


def write_csv(path: Path, rows: Sequence[Row], root: Path) -> None:
    """calibration.csv: path (from `root`, with slashes), label, sha256."""

    def write(to: Path) -> None:
        with to.open(
            "w", newline="", encoding="utf-8", errors="surrogateescape"
        ) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for photo, _, sha256 in rows:
                inside = photo.path.relative_to(root).as_posix()
                writer.writerow((inside, photo.label, sha256))

    write_atomic(path, write)
