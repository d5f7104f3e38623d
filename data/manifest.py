"""A list of photos instead of folders: CSV or JSON lines.

Columns (or keys): path and label; split (train, val or test) and group where wanted;
others are not looked at. Paths start from the manifest's folder.

It does not open photos; it only sees that they are there.
"""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.parts import PART_NAMES, PARTS
from data.photos import Photo, PhotoFolder, clean_label, refuse_too_few, refuse_twins
from data.scan import shown
from edge.errors import EdgegraftError

SUFFIXES = (".csv", ".jsonl", ".ndjson")


def read_manifest(path: str | os.PathLike[str], *, few: bool = False) -> PhotoFolder:
    """The photos that a manifest lists.

    EdgegraftError, with the line, for a missing column or file, a photo listed twice,
    an unknown split, or labels that differ only in case, spaces or Unicode form; and
    for too few photos, as `scan`.
    """
    path = Path(path)
    base = Path(os.path.abspath(path.parent))
    photos: list[Photo] = []
    names: list[tuple[str, Path]] = []
    lines: dict[Path, int] = {}
    missing: list[tuple[int, str]] = []
    for number, row in _rows(path):
        where = f"{shown(path)}, line {number}"
        for column in ("path", "label"):
            if not row.get(column):
                raise EdgegraftError(f"{where}: expected a {column}, got none")
        file = Path(os.path.normpath(base / row["path"]))
        if file in lines:
            raise EdgegraftError(
                f"{where}: expected each photo once, got {shown(row['path'])} as in "
                f"line {lines[file]}; keep the line with the right label"
            )
        lines[file] = number
        if not os.path.lexists(file):
            missing.append((number, row["path"]))
        part = row.get("split", "").lower()
        if part and part not in PART_NAMES:
            raise EdgegraftError(
                f"{where}: expected the split to be one of {', '.join(PARTS)} or "
                f"empty, got {part!r:.40}"
            )
        names.append((row["label"], file))
        label = clean_label(row["label"], where)
        group = row.get("group") or None
        photos.append(Photo(file, label, PART_NAMES.get(part), group))
    if missing:
        number, name = missing[0]
        raise EdgegraftError(
            f"{shown(path)}: expected files that are there, got {len(missing):,} that "
            f"are not (first: line {number}, {shown(name)}); paths start from "
            f"{shown(base)}"
        )
    refuse_twins(names)
    return _folder(path, base, photos, few)


def _folder(path: Path, base: Path, photos: list[Photo], few: bool) -> PhotoFolder:
    parts = {photo.part for photo in photos}
    if parts - {None, "train"}:
        if not parts & {None, "train"}:
            raise EdgegraftError(
                f"{shown(path)}: expected photos to train on, got none: every line is "
                "val or test"
            )
        photos = [Photo(p.path, p.label, p.part or "train", p.group) for p in photos]
    elif parts == {None, "train"} or parts == {"train"}:
        photos = [Photo(p.path, p.label, None, p.group) for p in photos]
    above = [os.fspath(base), *(os.fspath(photo.path.parent) for photo in photos)]
    found = PhotoFolder(
        root=Path(os.path.commonpath(above)),
        labels=tuple(sorted({photo.label for photo in photos})),
        photos=tuple(sorted(photos, key=lambda photo: photo.path.as_posix())),
    )
    refuse_too_few(found, shown(path), few=few)
    return found


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) with stripped texts; EdgegraftError for what is no table."""
    reader = _csv_rows if path.suffix.lower() == ".csv" else _json_rows
    try:
        with open(
            path, encoding="utf-8-sig", errors="surrogateescape", newline=""
        ) as file:
            for number, row in reader(path, file):
                known = {
                    str(key).strip().lower(): str(value).strip()
                    for key, value in row.items()
                    if value is not None
                }
                yield number, known
    except (OSError, csv.Error) as error:
        got = getattr(error, "strerror", None) or str(error)
        raise EdgegraftError(
            f"{shown(path)}: expected a list of photos, got: {got}"
        ) from None


def _csv_rows(path: Path, file: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(file)
    columns = [str(name).strip().lower() for name in reader.fieldnames or ()]
    lacking = [name for name in ("path", "label") if name not in columns]
    if lacking:
        got = ", ".join(columns) or "nothing"
        raise EdgegraftError(
            f"{shown(path)}: expected the columns path and label (split and group if "
            f"you like), got {got!r:.80}"
        )
    for row in reader:
        yield reader.line_num, row


def _json_rows(path: Path, file: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise EdgegraftError(
                f"{shown(path)}, line {number}: expected an object such as "
                f'{{"path": "a.jpg", "label": "cat"}}, got {line.strip()!r:.60}'
            )
        yield number, row
