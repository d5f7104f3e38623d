"""Photos added to a set that is split already: for training only.

The split of the set stays as it is, so that the runs before and after are measured on
the same photos. An added photo that is the same file as one of the set, or a near copy
of one of its val or test photos, is left out.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.audit import copies
from data.audit.near_duplicates import COPY
from data.batches import Pixels
from data.folders import Walk
from data.photos import Photo, PhotoFolder, clean_label
from data.split import Row, Split
from edge.errors import EdgegraftError
from edge.text import listed, printable


@dataclass(frozen=True)
class Added:
    """`photos` are trained on; `left_out` are (path, reason) of the others."""

    root: Path
    photos: tuple[Photo, ...]
    left_out: tuple[tuple[Path, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For run.json."""
        return {
            "from": str(self.root.resolve()),
            "photos": len(self.photos),
            "left_out": [[str(path), why] for path, why in self.left_out],
        }

    def lines(self) -> list[str]:
        """What was added and what was not, a line each."""
        count, offered = len(self.photos), len(self.photos) + len(self.left_out)
        lines = [
            f"{count:,} of the {offered:,} photos in {printable(self.root)} added to "
            "train"
        ]
        lines += [f"not added, {printable(p)}: {why}" for p, why in self.left_out[:10]]
        if len(self.left_out) > 10:
            lines.append(f"not added, {len(self.left_out) - 10:,} more")
        return lines


def read_added(root: Path, labels: Sequence[str]) -> Added:
    """The photos in ROOT/LABEL. One label, or one photo, is enough.

    EdgegraftError when there is no such folder, no photo in it, or a label that the
    set does not have.
    """
    if not root.is_dir():
        raise EdgegraftError(
            f"{printable(root)}: expected a folder with one folder of photos per label "
            "to add, got none; the page's Review makes one"
        )
    photos: list[Photo] = []
    for folder in Walk().tree(root).filled:
        label = clean_label(folder.path.name, printable(folder.path))
        if label not in labels:
            raise EdgegraftError(
                f"{printable(folder.path)}: expected labels of the photos to be added "
                f"among {listed(labels)}, got {label!r}; rename the folder or move it "
                "away"
            )
        photos += [Photo(path, label, "train") for path in sorted(folder.below())]
    if not photos:
        raise EdgegraftError(
            f"{printable(root)}: expected photos to add in "
            f"{printable(root / 'LABEL')}, got none; label some first"
        )
    return Added(root, tuple(photos))


def add_to_split(split: Split, added: Added, pixels: Pixels) -> tuple[Split, Added]:
    """The split with the added photos in train, and the photos that were added."""
    by_digest = {row.sha256: row for row in split.rows}
    failures = dict(pixels.failures)
    reasons: dict[Path, str] = {}  # why a photo is left out
    for photo in added.photos:
        digest = pixels.digests.get(photo.path)
        if digest is None:
            reasons[photo.path] = failures.get(photo.path, "cannot be read")
        elif digest in by_digest:
            twin = by_digest[digest]
            reasons[photo.path] = (
                f"is in the set already, as {twin.part} photo "
                f"{printable(twin.photo.path)}"
            )
    measured = [row.photo for row in split.rows if row.part != "train"]
    new = [photo for photo in added.photos if photo.path not in reasons]
    measured_paths, new_paths = {p.path for p in measured}, {p.path for p in new}
    groups = copies.same_files([*measured, *new], pixels.digests)
    for keep, copy, pair in copies.near_pairs(groups, pixels.fact_store):
        for path, other in ((keep.path, copy.path), (copy.path, keep.path)):
            if pair.kind == COPY and path in new_paths and other in measured_paths:
                reasons[path] = f"is a near copy of {printable(other)}, which measures"
    new = [photo for photo in new if photo.path not in reasons]
    rows = [Row(photo, "train", pixels.digests[photo.path]) for photo in new]
    left_out = [(p.path, reasons[p.path]) for p in added.photos if p.path in reasons]
    return (
        Split((*split.rows, *rows)),
        replace(added, photos=tuple(new), left_out=tuple(left_out)),
    )


def joined(folder: PhotoFolder, added: Added) -> PhotoFolder:
    """One folder of both, whose root contains them all."""
    roots = [os.path.abspath(folder.root), os.path.abspath(added.root)]
    root = Path(os.path.commonpath(roots))
    return replace(folder, root=root, photos=folder.photos + added.photos)
