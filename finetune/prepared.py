"""The photos of a run: decoded, audited, split; and their record in run.json.

Photos may be added to a set that is split already, for training only: its split stays
as it is, so that the runs before and after are measured on the same photos. An added
photo that is the same file as one of the set, or a near copy of one of its val or test
photos, is left out.
"""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data import batches
from data.audit import copies
from data.audit.audit import Audit
from data.audit.near_duplicates import COPY
from data.folders import Walk
from data.photos import PARTS, Photo, PhotoFolder, clean_label
from data.source import Source
from data.split import Row, Split, make_split
from edge.errors import EdgegraftError
from edge.text import listed, printable
from finetune.console import Console
from finetune.loop.examples import Examples, class_weights
from finetune.run import SCHEMA
from finetune.settings import Settings


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


@dataclass(frozen=True)
class Prepared:
    """The decoded photos of a run, with their split."""

    source: Source
    split: Split
    pixels: batches.Pixels
    near_duplicates: tuple[tuple[Path, Path], ...] = ()
    added: Added | None = None  # photos of another folder, trained on only

    @property
    def folder(self) -> PhotoFolder:
        return self.source.folder

    def examples(self, part: str, balance: str = "none") -> Examples:
        """Rows and class indices of one part, in the split's order."""
        class_index = {label: index for index, label in enumerate(self.folder.labels)}
        photos = self.split.part(part)
        truth = np.array([class_index[p.label] for p in photos], np.int64)
        rows = np.array([self.pixels.rows[p.path] for p in photos], np.int64)
        weights = None
        if part == "train" and balance == "weights":
            weights = class_weights(truth, len(class_index))[truth]
        return Examples(self.pixels.array, rows, truth, weights=weights)


def prepare(
    source: Source,
    settings: Settings,
    console: Console,
    *,
    resumed_split: Split | None = None,
    unlabelled: Sequence[Photo] = (),
    memory_limit: int = batches.MEMORY_LIMIT,
    add: Path | None = None,
) -> Prepared:
    """Decode, audit and split the photos.

    resumed_split: of the run that is resumed. add: a folder of more photos to train on,
    which do not change the split of the others. unlabelled: photos to decode as well.
    EdgegraftError for photos that cannot be trained on, or others than the run's.
    """
    folder = source.folder
    added = None if add is None else _read_added(add, folder.labels)
    labelled = folder.photos + (added.photos if added else ())
    summary = f"{len(folder.photos):,} photos of {listed(folder.labels)}"
    if added is not None:
        summary += f", {len(added.photos):,} to add"
    if unlabelled:
        summary += f", {len(unlabelled):,} without labels"
    console.stage(summary)
    with console.bar("decoding photos") as bar:
        pixels = batches.load_through_cache(
            [*labelled, *unlabelled],
            settings.recipe,
            memory_limit=memory_limit,
            progress=bar,
            warn=console.say,
        )
    if pixels.from_cache:
        console.stage(f"{pixels.from_cache:,} of them from the cache", detail=True)
    audit = _audited(folder, pixels)
    for line in audit.brief(examples=console.verbose):
        console.say("  " + line)
    for line in source.lines(pixels.digests):
        console.say("  " + line, detail=True)
    if audit.obstacles:
        raise EdgegraftError("; ".join(audit.obstacles))
    split = make_split(
        audit.usable(folder.photos),
        pixels.digests,
        seed=settings.seed,
        val=settings.val,
        test=settings.test,
        near_duplicates=audit.near_duplicates,
    )
    pairs = audit.near_duplicates
    if added is not None:
        split, added, pairs = _add_to_split(split, added, pixels)
        for line in added.lines():
            console.say("  " + line)
        source = replace(source, folder=_joined(folder, added))
    if resumed_split and resumed_split.fingerprint != split.fingerprint:
        raise EdgegraftError(
            f"expected the photos this run was started with, got a changed set in "
            f"{folder.root} (data fingerprint {split.fingerprint[:12]}, the run has "
            f"{resumed_split.fingerprint[:12]}); start a new run"
        )
    return Prepared(source, split, pixels, pairs, added)


def _audited(folder: PhotoFolder, pixels: batches.Pixels) -> Audit:
    """The audit of this folder, without the other photos that were decoded."""
    paths = {photo.path for photo in folder.photos}
    failures = [failure for failure in pixels.failures if failure[0] in paths]
    missing = {path: part for path, part in pixels.missing.items() if path in paths}
    facts = pixels.fact_store
    return Audit.from_pass(folder, pixels.digests, failures, facts, missing)


def _read_added(root: Path, labels: Sequence[str]) -> Added:
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


def _add_to_split(
    split: Split, added: Added, pixels: batches.Pixels
) -> tuple[Split, Added, tuple[tuple[Path, Path], ...]]:
    """The split with the added photos in train, the photos that were added, and the
    near copies among all of them."""
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
    measured = {row.photo.path for row in split.rows if row.part != "train"}
    new = [photo for photo in added.photos if photo.path not in reasons]
    new_paths = {photo.path for photo in new}
    own = [row.photo for row in split.rows]
    groups = copies.same_files([*own, *new], pixels.digests)
    pairs = copies.near_pairs(groups, pixels.fact_store)
    for keep, copy, pair in pairs:
        for path, other in ((keep.path, copy.path), (copy.path, keep.path)):
            if pair.kind == COPY and path in new_paths and other in measured:
                reasons[path] = f"is a near copy of {printable(other)}, which measures"
    new = [photo for photo in new if photo.path not in reasons]
    rows = [Row(photo, "train", pixels.digests[photo.path]) for photo in new]
    left_out = [(p.path, reasons[p.path]) for p in added.photos if p.path in reasons]
    split = Split((*split.rows, *rows))
    kept = [p for p in pairs if not {p.keep.path, p.copy.path} & reasons.keys()]
    links, _ = copies.split_links([*own, *new], pixels.digests, kept)
    return split, replace(added, photos=tuple(new), left_out=tuple(left_out)), links


def _joined(folder: PhotoFolder, added: Added) -> PhotoFolder:
    """One folder of both, whose root contains them all."""
    roots = [os.path.abspath(folder.root), os.path.abspath(added.root)]
    root = Path(os.path.commonpath(roots))
    return replace(folder, root=root, photos=folder.photos + added.photos)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for name in ("edgegraft", "tensorflow", "tf-keras", "numpy", "pillow"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "from source"
    return versions


def describe(prepared: Prepared, settings: Settings, photos: Path) -> dict[str, Any]:
    """The content of run.json before training; `photos` as the user gave them."""
    split, exclusion = prepared.split, prepared.source.exclusion
    added = prepared.added
    return {
        "edgegraft_run": SCHEMA,
        "status": "training",
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(
            timespec="seconds"
        ),
        "source": str(photos.resolve()),
        "photos": str(prepared.folder.root.resolve()),
        "reading": prepared.source.options.to_dict(),
        "labels": list(prepared.folder.labels),
        "settings": settings.to_dict(),
        "data": {
            "fingerprint": split.fingerprint,
            "parts": {part: len(split.part(part)) for part in PARTS},
            "unreadable": len(prepared.pixels.failures),
            "near_duplicates": len(prepared.near_duplicates),
            "groups": len({p.group for p in prepared.folder.photos} - {None}),
            "excluded": None if exclusion is None else exclusion.to_dict(),
            "added": None if added is None else added.to_dict(),
        },
        "versions": _versions(),
        "host": {"machine": platform.machine(), "system": platform.system()},
    }
