"""Photos added to a set that was split before: they are trained on, never measured by.

The split of the set stays as it was, so that the runs before and after are measured on
the same photos. An added photo that is the same file as one of the set, or looks like
one of its val or test photos, is left out.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.audit import copies
from data.audit.near_duplicates import COPY
from data.batches import Pixels
from data.photos import Photo, PhotoFolder, clean_label
from data.scan import Walk
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
        """What a person should know, a line each."""
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
    """The split with the added photos in train, and what was added in the end."""
    there = {row.sha256: row for row in split.rows}
    reasons = dict(pixels.failures)
    known: dict[Path, str] = {}
    for photo in added.photos:
        digest = pixels.digests.get(photo.path)
        if digest is None:
            known[photo.path] = reasons.get(photo.path, "cannot be read")
        elif digest in there:
            known[photo.path] = (
                f"is in the set already, as {there[digest].part} photo "
                f"{printable(there[digest].photo.path)}"
            )
    measured = [row.photo for row in split.rows if row.part != "train"]
    mine = [photo for photo in added.photos if photo.path not in known]
    fixed, new = {p.path for p in measured}, {p.path for p in mine}
    groups = copies.same_files([*measured, *mine], pixels.digests)
    for one, other, pair in copies.near_pairs(groups, pixels.fact_store):
        for photo, twin in ((one, other), (other, one)):
            if pair.kind == COPY and photo.path in new and twin.path in fixed:
                known[photo.path] = (
                    f"is a near copy of {printable(twin.path)}, which measures"
                )
    kept = tuple(photo for photo in mine if photo.path not in known)
    rows = tuple(Row(photo, "train", pixels.digests[photo.path]) for photo in kept)
    left = tuple((p.path, known[p.path]) for p in added.photos if p.path in known)
    return Split(split.rows + rows), replace(added, photos=kept, left_out=left)


def joined(folder: PhotoFolder, added: Added) -> PhotoFolder:
    """One folder of both, whose root holds them all."""
    roots = [os.path.abspath(folder.root), os.path.abspath(added.root)]
    return replace(
        folder,
        root=Path(os.path.commonpath(roots)),
        photos=folder.photos + added.photos,
    )
