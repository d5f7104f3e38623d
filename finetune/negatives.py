"""Negatives: photos that show none of the labels, in a folder of their own.

The user's examples of what should be answered unknown (`--negatives`), in any
subfolders; unreadable photos are named and left out. The run records the sha256 of
each, so that the refusal rate is never measured on photos it was trained with.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.classify.sources import photos
from edge.errors import EdgegraftError, PhotoError
from edge.files import read_regular, sha256, write_csv
from edge.preprocess import InputRecipe, load_pixels
from edge.text import plural
from finetune.console import Console
from finetune.run import Run

RECORD = "negatives.csv"  # in the run


def refuse_missing(folder: str | None) -> None:
    """EdgegraftError when the folder is missing, before any training."""
    if folder is not None and not os.path.isdir(folder):
        raise EdgegraftError(
            f"expected --negatives to be a folder of photos, got {folder}"
        )


def load(folder: str, recipe: InputRecipe, console: Console) -> npt.NDArray[np.uint8]:
    """The pixels of a folder's photos, uint8 [N, H, W, 3].

    EdgegraftError when there is no such folder, or no photo in it can be read.
    """
    pixels, unreadable = [], 0
    paths = list(photos([folder]))
    with console.bar("decoding negatives") as bar:
        for done, path in enumerate(paths, 1):
            try:
                pixels.append(load_pixels(path, recipe))
            except PhotoError as error:
                unreadable += 1
                console.say(f"  left out: {path}: {error.reason}")
            bar(done, len(paths))
    if not pixels:
        raise EdgegraftError(
            f"expected photos in {folder}, got none that can be read "
            f"({unreadable} unreadable)"
        )
    console.stage(f"negatives: {plural(len(pixels), 'photo')} of {folder}")
    return np.stack(pixels)


def digests(folder: str | os.PathLike[str]) -> dict[str, str]:
    """The path of each photo of a folder by the sha256 of its file."""
    paths = {}
    for path in photos([os.fspath(folder)]):
        with contextlib.suppress(OSError):  # `load` reports it
            paths[sha256(Path(path).read_bytes())] = str(path)
    return paths


def write_record(run: Run, folder: str) -> None:
    """Write the run's record of the negatives it was trained with."""
    rows = ((path, sha) for sha, path in digests(folder).items())
    write_csv(run.folder / RECORD, ("path", "sha256"), rows)


def trained_with(run: Run) -> frozenset[str]:
    """sha256 of the negatives a run was trained with: those of its record; without one
    (an older run) those in their folder now. EdgegraftError for a damaged record."""
    path, folder = run.folder / RECORD, run.settings.negatives
    if path.is_file():
        try:
            text = read_regular(path, inside=run.folder).decode()
            rows = csv.DictReader(io.StringIO(text, newline=""))
            return frozenset(row["sha256"] for row in rows)
        except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
            raise EdgegraftError(
                f"{path}: expected a CSV with the column sha256, got "
                f"{type(error).__name__}; train again, or remove it"
            ) from None
    if folder is None or not os.path.isdir(folder):
        return frozenset()
    return frozenset(digests(folder))


def refuse_seen(unknown: dict[str, str], seen: Iterable[str], where: str) -> None:
    """EdgegraftError when photos to be measured (path by sha256) were trained with."""
    trained = sorted(unknown[sha256] for sha256 in unknown.keys() & set(seen))
    if trained:
        raise EdgegraftError(
            f"--unknown: expected photos that {where} was not trained with, got "
            f"{trained[0]}, which is among its --negatives ({len(trained):,} of "
            f"{len(unknown):,} are); measure with other photos"
        )
