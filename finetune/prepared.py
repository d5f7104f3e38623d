"""The photos of a run: decoded, audited, split; and what run.json says of them."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data import added as additions
from data import batches
from data.added import Added
from data.audit.audit import Audit
from data.photos import Photo, PhotoFolder
from data.source import Source
from data.split import Split, make_split
from edge.errors import EdgegraftError
from edge.files import write_csv
from edge.text import listed
from finetune.console import Console
from finetune.loop.examples import Examples, class_weights
from finetune.run import SCHEMA, Run
from finetune.settings import Settings

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Prepared:
    """The photos of a run, decoded once, and where each of them belongs."""

    source: Source
    split: Split
    pixels: batches.Pixels
    together: tuple[tuple[Path, Path], ...] = ()  # near-duplicates
    added: Added | None = None  # photos of another folder, trained on only

    @property
    def folder(self) -> PhotoFolder:
        return self.source.folder

    def examples(self, part: str, balance: str = "none") -> Examples:
        """Rows and class numbers of one part, in the split's order."""
        numbers = {label: number for number, label in enumerate(self.folder.labels)}
        photos: Sequence[Photo] = self.split.part(part)
        truth = np.array([numbers[p.label] for p in photos], np.int64)
        rows = np.array([self.pixels.rows[p.path] for p in photos], np.int64)
        weights = None
        if part == "train" and balance == "weights":
            weights = class_weights(truth, len(numbers))[truth]
        return Examples(self.pixels.array, rows, truth, weights=weights)


def prepare(
    source: Source,
    settings: Settings,
    console: Console,
    *,
    known: Split | None = None,
    unlabelled: Sequence[Photo] = (),
    memory_limit: int = batches.MEMORY_LIMIT,
    add: Path | None = None,
) -> Prepared:
    """Decode, audit and split the photos. `known` is a resumed run's split; `add` a
    folder of more photos to train on, which leave the split as it is without them.
    `unlabelled` are decoded with the others and take no further part.
    """
    folder = source.folder
    added = None if add is None else additions.read_added(add, folder.labels)
    everything = folder.photos + (added.photos if added else ())
    summary = f"{len(folder.photos):,} photos of {listed(folder.labels)}"
    if added is not None:
        summary += f", {len(added.photos):,} to add"
    if unlabelled:
        summary += f", {len(unlabelled):,} without labels"
    console.stage(summary)
    with console.bar("decoding photos") as bar:
        pixels = batches.load_through_cache(
            [*everything, *unlabelled],
            settings.recipe,
            memory_limit=memory_limit,
            progress=bar,
            warn=console.say,
        )
    if pixels.recalled:
        recalled = f"{pixels.recalled:,} of them from the cache"
        console.stage(recalled, detail=True)
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
        together=audit.alike,
    )
    if added is not None:
        split, added = additions.add_to_split(split, added, pixels)
        for line in added.lines():
            console.say("  " + line)
        source = replace(source, folder=additions.joined(folder, added))
    if known is not None and known.fingerprint != split.fingerprint:
        raise EdgegraftError(
            f"expected the photos this run was started with, got a changed set in "
            f"{folder.root} (data fingerprint {split.fingerprint[:12]}, the run has "
            f"{known.fingerprint[:12]}); start a new run"
        )
    return Prepared(source, split, pixels, audit.alike, added)


def _audited(folder: PhotoFolder, pixels: batches.Pixels) -> Audit:
    """The audit of the folder alone, whatever else was decoded beside it."""
    mine = {photo.path for photo in folder.photos}
    failures = [failure for failure in pixels.failures if failure[0] in mine]
    missing = {path: share for path, share in pixels.missing.items() if path in mine}
    facts = pixels.fact_store
    return Audit.from_pass(folder, pixels.digests, failures, facts, missing)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("edgegraft", "tensorflow", "tf-keras", "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "from source"
    return found


def describe(prepared: Prepared, settings: Settings, given: Path) -> dict[str, Any]:
    """What run.json says before training starts; `given` is what was pointed at."""
    split, exclusion = prepared.split, prepared.source.exclusion
    added = prepared.added
    return {
        "edgegraft_run": SCHEMA,
        "status": "training",
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(
            timespec="seconds"
        ),
        "source": str(given.resolve()),
        "photos": str(prepared.folder.root.resolve()),
        "reading": prepared.source.options.to_dict(),
        "labels": list(prepared.folder.labels),
        "settings": settings.to_dict(),
        "data": {
            "fingerprint": split.fingerprint,
            "parts": {part: len(split.part(part)) for part in PARTS},
            "unreadable": len(prepared.pixels.failures),
            "near_duplicates": len(prepared.together),
            "groups": len({p.group for p in prepared.folder.photos} - {None}),
            "excluded": None if exclusion is None else exclusion.to_dict(),
            "added": None if added is None else added.to_dict(),
        },
        "versions": _versions(),
        "host": {"machine": platform.machine(), "system": platform.system()},
    }


def write_unreadable(run: Run, prepared: Prepared) -> None:
    write_csv(
        run.folder / "unreadable.csv", ("path", "reason"), prepared.pixels.failures
    )
