"""Labelled photos to measure a model on: whatever `build` takes, or a run's test part.

Photos that a model was trained on give too high an accuracy; only the test photos of
its run are certainly others.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from data.photos import Photo
from data.source import PhotoOptions, scan
from data.split import Split
from edge.errors import EdgegraftError
from edge.evaluate_cli import LabelledPhotos
from edge.files import sha256
from edge.preprocess import FULL
from edge.records import RUN, read_record
from edge.text import plural, printable

RUN_FILE = "run.json"  # of a run's folder


@dataclass(frozen=True)
class Labelled:
    """`root`: what paths start from; `what`: which photos, for a sentence; `notes`: how
    they were read and what was left out, a line each; `white`: as in `PhotoFolder`."""

    photos: tuple[Photo, ...]
    root: Path
    what: str
    notes: tuple[str, ...] = ()
    white: int = FULL


def labelled(photos: Path, options: PhotoOptions | None = None) -> Labelled:
    """What `scan` reads, or the test photos of a run's folder; only the test part where
    there is one.

    EdgegraftError as `scan`, for a run without photos, and where they have changed.
    """
    if (photos / RUN_FILE).is_file():
        root = _photos_root(photos)
        split = Split.read(photos / "split.csv", root)
        rows = [row for row in split.rows if row.part == "test"]
        for photo, _, digest in rows:
            if photo.path.is_file() and sha256(photo.path.read_bytes()) != digest:
                raise EdgegraftError(
                    f"{printable(photo.path)}: expected the photo that "
                    f"{printable(photos)} was measured on, got another file"
                )
        tests = tuple(row.photo for row in rows)
        count = plural(len(tests), "test photo")
        return Labelled(tests, root, f"the {count} of {printable(photos)}")
    folder = scan(photos, options, allow_few=True)
    tests = tuple(photo for photo in folder.photos if photo.part == "test")
    count = plural(len(tests or folder.photos), "photo")
    what = f"the {count} of the test part" if tests else f"all {count}"
    return Labelled(
        tests or folder.photos,
        folder.root,
        f"{what} of {printable(photos)}",
        tuple(folder.notes()),
        folder.white,
    )


class LabelledReader:
    """Reads PHOTOS for `edge evaluate`, an `edge.evaluate_cli.PhotoReader`."""

    help = (
        "labelled photos: a folder with one folder for each label, a list (.csv, "
        ".jsonl) or an archive (.zip, .tar); of these the test part, if they have one; "
        "or a run's folder: its own test photos"
    )

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        PhotoOptions.add_to(parser)

    def read(self, args: argparse.Namespace) -> LabelledPhotos:
        read = labelled(Path(args.photos), PhotoOptions.from_args(args))
        pairs = [(str(photo.path), photo.label) for photo in read.photos]
        return LabelledPhotos(pairs, read.what, read.notes, read.white)


def _photos_root(run: Path) -> Path:
    """What the paths of a run's split start from."""
    photos = read_record(run / RUN_FILE, RUN).get("photos")
    if photos is None:
        raise EdgegraftError(
            f"{printable(run)}: expected a run that names its photos in {RUN_FILE}, "
            "got none"
        )
    return Path(photos)
