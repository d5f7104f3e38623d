"""Photos that show none of the labels: a folder of them, decoded.

The user's own examples of what is not wanted (`--negatives`). Folders inside do not
matter, unreadable photos are named and left out. The run keeps the sha256 of each, so
that nobody counts how many of the very photos it was taught with are refused.

Does not know: what becomes of them, or near-copies of them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.classify.sources import photos
from edge.errors import EdgegraftError, PhotoError
from edge.preprocess import InputRecipe, load_pixels
from edge.text import plural
from finetune.console import Console
from finetune.run import Run

RECORD = "negatives.csv"  # in the run


def refuse_missing(folder: str | None) -> None:
    """EdgegraftError when the folder of examples is none, before any training."""
    if folder is not None and not os.path.isdir(folder):
        raise EdgegraftError(
            f"expected --negatives to be a folder of photos, got {folder}"
        )


def load(folder: str, recipe: InputRecipe, console: Console) -> npt.NDArray[np.uint8]:
    """The pixels of a folder's photos, uint8 [N, H, W, 3].

    EdgegraftError when there is no such folder, or no photo in it can be read.
    """
    found, unreadable = [], 0
    paths = list(photos([folder]))
    with console.bar("decoding examples of what is not wanted") as bar:
        for done, path in enumerate(paths, 1):
            try:
                found.append(load_pixels(path, recipe))
            except PhotoError as error:
                unreadable += 1
                console.say(f"  left out: {path}: {error.reason}")
            bar(done, len(paths))
    if not found:
        raise EdgegraftError(
            f"expected photos in {folder}, got none that can be read "
            f"({unreadable} unreadable)"
        )
    console.stage(f"taught not to want: {plural(len(found), 'photo')} of {folder}")
    return np.stack(found)


def digests(folder: str | os.PathLike[str]) -> dict[str, str]:
    """The path of each photo of a folder by the sha256 of its file."""
    found = {}
    for path in photos([os.fspath(folder)]):
        try:
            content = Path(path).read_bytes()
        except OSError:
            continue  # whoever decodes it names it
        found[hashlib.sha256(content).hexdigest()] = str(path)
    return found


def remember(run: Run, folder: str) -> None:
    """Write down in the run which photos it was taught with."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "sha256"))
    writer.writerows((path, sha256) for sha256, path in digests(folder).items())
    run.write_bytes(RECORD, text.getvalue().encode("utf-8", "surrogateescape"))


def taught_with(run: Run) -> frozenset[str]:
    """sha256 of the photos a run was taught not to want.

    Those of the record; of an older run those that now lie in its folder.
    """
    path, folder = run.folder / RECORD, run.settings.negatives
    if path.is_file():
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            return frozenset(row["sha256"] for row in csv.DictReader(file))
    if folder is None or not os.path.isdir(folder):
        return frozenset()
    return frozenset(digests(folder))


def refuse_taught(unknown: dict[str, str], taught: Iterable[str], where: str) -> None:
    """EdgegraftError when photos to be measured (path by sha256) were taught with."""
    both = sorted(unknown[sha256] for sha256 in unknown.keys() & set(taught))
    if both:
        raise EdgegraftError(
            f"--unknown: expected photos that {where} was not taught with, got "
            f"{both[0]}, which is among its --negatives ({len(both):,} of "
            f"{len(unknown):,} are); measure with other photos"
        )
