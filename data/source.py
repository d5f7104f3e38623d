"""The photos a command is pointed at: a folder, a list or an archive, less what an
audit.csv leaves out. Every command that takes PHOTOS reads them here.

To measure a model, `labelled` also takes a run's folder, for the test photos of that
run: those that a model was trained on give too high an accuracy, and only the test
photos of its run are certainly others.
"""

import argparse
import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from data import archive, manifest
from data.audit.facts import header
from data.audit.report import Exclusion, read_exclusion
from data.batches import white_level
from data.folders import LAYOUTS, Walk, read_layout
from data.photos import (
    CAPTURED,
    OWN_LISTS,
    PARTS,
    REGION_COLUMN,
    Photo,
    PhotoFolder,
    clean_label,
    refuse_too_few,
    refuse_twins,
    renamed,
)
from data.split import Split
from edge.errors import EdgegraftError
from edge.files import sha256
from edge.preprocess import FULL
from edge.records import RUN, read_record
from edge.region import SIDEWAYS, as_fractions, parse_region, region_text
from edge.run_folder import RUN_FILE
from edge.text import listed, plural, printable

if TYPE_CHECKING:
    from edge.evaluate_cli import LabelledPhotos


@dataclass(frozen=True)
class PhotoOptions:
    """How PHOTOS are read where they can be read in more than one way.

    layout: what the folders are, see `read_layout`. columns: of a list, our name -> its
    name there. rename: old label -> new label.
    """

    layout: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    follow_links: bool = False

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise EdgegraftError(
                f"expected --layout to be one of {', '.join(LAYOUTS)}, got "
                f"{self.layout!r}"
            )
        for option, table in (("columns", self.columns), ("rename", self.rename)):
            if not isinstance(table, Mapping):
                raise EdgegraftError(
                    f"expected --{option} as a table of names, such as "
                    f"{{'old': 'new'}}, got {table!r:.80}"
                )
        for name in self.columns:
            if name not in manifest.COLUMNS:
                raise EdgegraftError(
                    f"--columns: expected {', '.join(manifest.COLUMNS)}, got {name!r}"
                )

    @staticmethod
    def add_to(parser: argparse.ArgumentParser) -> None:
        """The options of every command that takes PHOTOS."""
        parser.add_argument(
            "--layout",
            choices=LAYOUTS,
            default="auto",
            help="whether the folders in PHOTOS are labels or parts (train, val, "
            "test), where that is unclear (default: auto)",
        )
        parser.add_argument(
            "--columns",
            metavar="path=A,label=B",
            help="columns of a list, where their names do not say it; split and group, "
            "too",
        )
        parser.add_argument(
            "--rename",
            action="append",
            default=[],
            metavar="OLD=NEW",
            help="another name for a label; may be given again",
        )
        parser.add_argument(
            "--follow-links", action="store_true", help="enter linked folders, too"
        )

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "PhotoOptions":
        """EdgegraftError for what is not NAME=NAME."""
        columns = args.columns.split(",") if args.columns else []
        return cls(
            args.layout,
            _pairs("--columns", columns),
            _pairs("--rename", args.rename),
            args.follow_links,
        )

    def to_dict(self) -> dict[str, object]:
        """What differs from the default, for JSON."""
        record = {
            "layout": self.layout,
            "columns": dict(self.columns),
            "rename": dict(self.rename),
            "follow_links": self.follow_links,
        }
        return {k: v for k, v in record.items() if v not in ("auto", {}, False)}

    @classmethod
    def from_dict(cls, record: Mapping[str, object]) -> "PhotoOptions":
        """Of JSON; EdgegraftError where it is no such record."""
        layout = record.get("layout", "auto")
        columns, rename = record.get("columns", {}), record.get("rename", {})
        if (
            layout not in LAYOUTS
            or not isinstance(columns, dict)
            or not isinstance(rename, dict)
            or not all(
                isinstance(name, str)
                for names in [*columns.items(), *rename.items()]
                for name in names
            )
        ):
            raise EdgegraftError(
                f"expected how photos were read, got {printable(str(record)):.80}"
            )
        follow_links = record.get("follow_links") is True
        return cls(str(layout), columns, rename, follow_links)


def _pairs(option: str, texts: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        old, equals, new = text.partition("=")
        if not (equals and old.strip() and new.strip()):
            raise EdgegraftError(f"{option}: expected NAME=NAME, got {text!r}")
        pairs[old.strip()] = new.strip()
    return pairs


def scan(
    root: str | os.PathLike[str],
    options: PhotoOptions | None = None,
    *,
    allow_few: bool = False,
) -> PhotoFolder:
    """The photos and labels in `root`: a folder, a list (CSV, JSON lines) or an archive
    (ZIP, tar), which is unpacked first. Only 16-bit photos are decoded, to find their
    white level.

    `allow_few` also accepts photos that are too few to train on, for an audit.

    EdgegraftError when there is no such folder or it may not be read, when it can be
    read in two ways, has fewer than two labels or a label has fewer than two photos,
    and when two labels differ only in case, spaces or Unicode form.
    """
    root, options = Path(root), options or PhotoOptions()
    where = printable(root)
    suffix = root.suffix.lower()
    is_file = root.is_file()
    if is_file and suffix in manifest.SUFFIXES:
        folder = manifest.read_manifest(root, options.columns)
    else:
        messages: tuple[str, ...] = ()
        if is_file and suffix in archive.SUFFIXES:
            root, messages = archive.unpack(root)
        try:
            folder = _scan_folder(root, options, messages, allow_few)
        except EdgegraftError as error:  # of the archive, not of where it is unpacked
            raise EdgegraftError(str(error).replace(printable(root), where)) from None
    photos = renamed(folder.photos, options.rename, where)
    messages = folder.messages
    white = white_level([photo.path for photo in photos])
    if white != FULL:
        line = f"16-bit photos use {white.bit_length()} bits only: {white:,} is white"
        messages = (*messages, line)
    folder = replace(
        folder,
        photos=photos,
        labels=tuple(sorted({photo.label for photo in photos})),
        messages=messages,
        white=white,
        regions=_regions(root if suffix == ".csv" else root / CAPTURED),
        source=where if is_file else "",
    )
    refuse_too_few(folder, where, allow_few=allow_few)
    return folder


def _regions(path: Path) -> tuple[str, ...]:
    """The regions that `data capture` recorded in a list, each once."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if REGION_COLUMN not in (rows.fieldnames or ()):
                return ()
            return tuple(sorted({row[REGION_COLUMN] or "" for row in rows}))
    except (OSError, ValueError, csv.Error):  # none, or another kind of list
        return ()


def region_of(folder: PhotoFolder, text: str | None) -> str | None:
    """The part of each photo that is used, in fractions: `text`, else as captured.

    EdgegraftError for several, for what is no region of each photo, and for pixels of
    photos of several sizes.
    """
    if text is None:
        if len(folder.regions) > 1:
            shown = " and ".join(region or "the whole" for region in folder.regions[:3])
            raise EdgegraftError(
                f"{printable(folder.root)}: expected photos captured with one region, "
                f"got {shown}; say which with --region"
            )
        text = next(iter(folder.regions), None)
    if not text:
        return None
    region = parse_region(text, "--region: ")
    if max(region) <= 1:
        return region_text(region)
    first = folder.photos[0].path
    size = _size(first)
    for photo in folder.photos[1:]:
        if (other := _size(photo.path)) not in (size, (0, 0)):
            raise EdgegraftError(
                "--region: expected photos of one size for a region in pixels, got "
                f"{size[0]} x {size[1]} ({printable(first)}) and {other[0]} x "
                f"{other[1]} ({printable(photo.path)}); give shares from 0 to 1"
            )
    return region_text(as_fractions(region, size))


def _size(path: Path) -> tuple[int, int]:
    """Width and height, upright; zeros for what is no photo."""
    try:
        facts = header(path.read_bytes())
    except OSError:
        return 0, 0
    size = facts.width, facts.height
    return size[::-1] if facts.turn >= SIDEWAYS else size


def refuse_missing(root: Path) -> None:
    """EdgegraftError where nothing is at `root`; asked before anything is prepared."""
    if not os.path.exists(root):
        raise _not_photos(root)


def _not_photos(root: Path) -> EdgegraftError:
    got = "another file" if os.path.exists(root) else "nothing there"
    return EdgegraftError(
        f"{printable(root)}: expected a folder with one folder of photos per label, "
        f"a list (.csv, .jsonl) or an archive (.zip, .tar, .tar.gz), got {got}"
    )


def _scan_folder(
    root: Path, options: PhotoOptions, messages: tuple[str, ...], allow_few: bool
) -> PhotoFolder:
    if not root.is_dir():
        raise _not_photos(root)
    walk = Walk(follow_links=options.follow_links)
    layout = read_layout(walk.tree(root), options.layout, allow_test_only=allow_few)
    messages += tuple(layout.messages)
    refuse_twins((name, folder.path) for _, name, folder in layout.labels)
    photos: list[Photo] = []
    nested: set[str] = set()
    for part, name, folder in layout.labels:
        label = clean_label(name, printable(folder.path))
        if not folder.photos:
            nested.add(label)
        photos += [Photo(path, label, part) for path in folder.below()]
    messages += tuple(_incomplete_parts(photos))
    trained = {photo.label for photo in photos if photo.part in (None, "train")}
    photos = [photo for photo in photos if photo.label in trained]
    top = layout.root.path
    return PhotoFolder(
        root=top,
        labels=tuple(sorted(trained)),
        photos=tuple(sorted(photos, key=lambda photo: photo.path.as_posix())),
        ignored=tuple(
            path
            for path in walk.ignored
            if path.parent not in (root, top) or not OWN_LISTS.fullmatch(path.name)
        ),
        hidden=tuple(walk.hidden),
        linked=tuple(walk.linked),
        special=tuple(walk.special),
        unlabelled=tuple(layout.unlabelled),
        nested=tuple(sorted(nested)),
        messages=messages,
    )


def _incomplete_parts(photos: list[Photo]) -> list[str]:
    """Labels that are missing from a part, a line for each part."""
    labels = {part: {p.label for p in photos if p.part == part} for part in PARTS}
    lines = []
    for part in PARTS[1:]:
        missing = sorted(labels["train"] - labels[part])
        if labels[part] and missing:
            lines.append(
                f"{part} has no photos of {_names(missing)}: it is not measured there"
            )
        untrained = sorted(labels[part] - labels["train"])
        if labels["train"] and untrained:
            count = sum(p.part == part and p.label in untrained for p in photos)
            lines.append(
                f"left out, {plural(count, 'photo')} in {part} of {_names(untrained)}: "
                "train has none"
            )
    return lines


@dataclass(frozen=True)
class Source:
    """`folder` without the photos that `exclusion` leaves out."""

    folder: PhotoFolder
    exclusion: Exclusion | None = None
    options: PhotoOptions = field(default_factory=PhotoOptions)

    def lines(self, digests: Mapping[Path, str]) -> list[str]:
        """What people should know about the exclusion, a line each.

        `digests` are those of the photos as they are now.
        """
        if self.exclusion is None:
            return []
        source = printable(self.exclusion.source)
        if self.exclusion.paths:
            count = plural(len(self.exclusion.paths), "photo")
            lines = [f"{count} left out by {source}"]
        else:
            lines = [
                f"no photo left out by {source}: no line has yes in its column exclude"
            ]
        changed = self.exclusion.changed(digests)
        if changed:
            lines.append(
                f"warning: {plural(len(changed), 'photo')} changed since that audit "
                f"(first: {printable(changed[0])}); audit them again"
            )
        return lines


def choose(
    photos: Path,
    exclude_from: Path | None = None,
    options: PhotoOptions | None = None,
    *,
    allow_few: bool = False,
) -> Source:
    """Scan `photos` and leave out what `exclude_from`, an audit.csv, marks.

    EdgegraftError as `scan` and `data.audit.report.read_exclusion`.
    """
    options = options or PhotoOptions()
    folder = scan(photos, options, allow_few=allow_few)
    if exclude_from is None:
        return Source(folder, options=options)
    exclusion = read_exclusion(exclude_from, folder)
    return Source(exclusion.apply(folder), exclusion, options)


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


def _photos_root(run: Path) -> Path:
    """What the paths of a run's split start from."""
    photos = read_record(run / RUN_FILE, RUN).get("photos")
    if photos is None:
        raise EdgegraftError(
            f"{printable(run)}: expected a run that names its photos in {RUN_FILE}, "
            "got none"
        )
    return Path(photos)


class LabelledReader:
    """Reads PHOTOS for `edge evaluate`, an `edge.evaluate_cli.PhotoReader`."""

    help = (
        "labelled photos: a folder with one folder for each label, a list (.csv, "
        ".jsonl) or an archive (.zip, .tar); of these the test part, if they have one; "
        "or a run's folder: its own test photos"
    )

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        PhotoOptions.add_to(parser)

    def read(self, args: argparse.Namespace) -> "LabelledPhotos":
        from edge.evaluate_cli import LabelledPhotos

        read = labelled(Path(args.photos), PhotoOptions.from_args(args))
        pairs = [(str(photo.path), photo.label) for photo in read.photos]
        return LabelledPhotos(pairs, read.what, read.notes, read.white)


def _names(labels: list[str]) -> str:
    return listed([printable(label) for label in labels], 5)
