"""A list of photos instead of folders: CSV or JSON lines.

A path and a label are required; split (train, val or test) and group are optional.
Columns are recognised by their usual names (filename and class, image and label, id and
breed), or one column for each label holds 0 and 1. Separator and encoding are detected.
A photo is looked for where the list says, then by its name below the list's folder. A
wrong row is left out, named and counted; above `MAX_BAD` of them the list is refused.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from data.folders import PREDICT, Walk, part_of
from data.photos import PARTS, Photo, PhotoFolder, clean_label, refuse_twins
from edge.errors import EdgegraftError
from edge.files import LABEL_COLUMNS, PATH_COLUMNS
from edge.photo_kinds import PHOTO_SUFFIXES
from edge.text import plural, printable

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
MAX_BAD = 0.05  # of the rows; beyond it something else is wrong with the list
NAMED_ROWS = 3  # that are wrong, in a message
SEPARATORS = ",;\t|"
# Excel's own first line, which names the separator
_SEP_LINE = re.compile(r'"?sep=(?P<separator>[,;\t|])[^\r\n]*(\r\n|\r|\n)', re.I)
# our name of a column -> its usual names, the surest first
COLUMNS: Mapping[str, Sequence[str]] = {
    "path": PATH_COLUMNS,
    "label": LABEL_COLUMNS,
    "split": ["split", "subset", "part", "partition", "set"],
    "group": ["group", "group_id", "session"],
}

Row = tuple[int, Mapping[str, str]]  # line number, column -> text
WRONG = "wrong"  # in place of a column: what is wrong with the row


def read_manifest(
    path: str | os.PathLike[str], columns: Mapping[str, str] | None = None
) -> PhotoFolder:
    """The photos that a list names. `columns`: our name of a column -> its name in the
    list, for those that have an unusual name.

    EdgegraftError, with the line, for missing or ambiguous columns, too many wrong
    rows, and labels that differ only in case, spaces or Unicode form.
    """
    path = Path(path)
    table = _Table(path, dict(columns or {}))
    rows = table.read()
    base = Path(os.path.abspath(path.parent))
    finder = _Finder(base)
    photos: dict[Path, tuple[Photo, int]] = {}  # with the line that names it first
    errors: list[str] = []
    repeated = 0
    for line, row in rows:
        try:
            photo = _photo(row, finder, f"{printable(path)}, line {line}")
        except EdgegraftError as error:
            errors.append(f"line {line}: {error}")
            continue
        first, first_line = photos.setdefault(photo.path, (photo, line))
        if first != photo:
            errors.append(
                f"line {line}: expected each photo once, got {printable(row['path'])} "
                f"with another label or split than in line {first_line}"
            )
        elif first_line != line:
            repeated += 1
    examples = "; ".join(errors[:NAMED_ROWS])
    if len(errors) > MAX_BAD * len(rows):
        raise EdgegraftError(
            f"{printable(path)}: expected rows of photos, got {len(errors):,} of "
            f"{len(rows):,} that are wrong: {examples}{table.hint(rows)}"
        )
    messages = table.messages + finder.messages()
    if errors:
        more = "; ..." if len(errors) > NAMED_ROWS else ""
        messages.append(
            f"left out, {plural(len(errors), 'wrong row')}: {examples}{more}"
        )
    if repeated:
        messages.append(f"{plural(repeated, 'row')} repeated, taken once")
    refuse_twins((photo.label, photo.path) for photo, _ in photos.values())
    return _folder(path, base, [photo for photo, _ in photos.values()], tuple(messages))


def _photo(row: Mapping[str, str], finder: "_Finder", where: str) -> Photo:
    """The photo of a row; EdgegraftError says what is wrong with it."""
    if WRONG in row:
        raise EdgegraftError(row[WRONG])
    for column in ("path", "label"):
        if not row.get(column):
            raise EdgegraftError(f"expected a {column}, got none")
    part: str | None = None
    if text := row.get("split", ""):
        part = part_of(text)
        if part is None or part == PREDICT:
            raise EdgegraftError(
                f"expected the split to be one of {', '.join(PARTS)} or empty, got "
                f"{text!r:.40}"
            )
    label = clean_label(row["label"], where)
    return Photo(finder.find(row["path"]), label, part, row.get("group") or None)


def _folder(
    path: Path, base: Path, photos: list[Photo], messages: tuple[str, ...]
) -> PhotoFolder:
    parts = {photo.part for photo in photos}
    if parts - {None, "train"}:
        if not parts & {None, "train"}:
            raise EdgegraftError(
                f"{printable(path)}: expected photos to train on, got none: every line "
                "is val or test"
            )
        photos = [replace(photo, part=photo.part or "train") for photo in photos]
    elif "train" in parts:
        photos = [replace(photo, part=None) for photo in photos]
    return PhotoFolder(
        root=Path(os.path.commonpath([base, *(photo.path.parent for photo in photos)])),
        labels=tuple(sorted({photo.label for photo in photos})),
        photos=tuple(sorted(photos, key=lambda photo: photo.path.as_posix())),
        messages=messages,
    )


class _Finder:
    """The file of a row: where the list says, else by its name below `base`."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._found_by_name: list[Path] = []

    def find(self, text: str) -> Path:
        """EdgegraftError where there is no such file, or more than one of its name."""
        for name in dict.fromkeys((text, text.replace("\\", "/"))):
            path = Path(os.path.normpath(self._base / name))
            if os.path.lexists(path):
                return path
        name = text.replace("\\", "/").rpartition("/")[2].casefold()
        candidates = self._paths_by_name.get(name, [])
        if len(candidates) == 1:
            self._found_by_name.append(candidates[0])
            return candidates[0]
        if candidates:
            raise EdgegraftError(
                f"expected one file called {printable(text)}, got {len(candidates)} "
                f"below {printable(self._base)}"
            )
        raise EdgegraftError(
            f"expected a file that is there, got {printable(text)}; paths start from "
            f"{printable(self._base)}"
        )

    @cached_property
    def _paths_by_name(self) -> dict[str, list[Path]]:
        """All photos below `base` by their names, with and without the suffix."""
        paths: dict[str, list[Path]] = {}
        for path in Walk().tree(self._base).below():
            for name in {path.name.casefold(), path.stem.casefold()}:
                paths.setdefault(name, []).append(path)
        return paths

    def messages(self) -> list[str]:
        if not self._found_by_name:
            return []
        first = printable(self._found_by_name[0].relative_to(self._base))
        count = plural(len(self._found_by_name), "photo")
        return [f"{count} found by name, such as {first}"]


@dataclass
class _Table:
    """The rows of a list, under our names of the columns. `messages`: how it was
    read."""

    path: Path
    columns: dict[str, str]
    messages: list[str] = field(default_factory=list)

    def read(self) -> list[Row]:
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise EdgegraftError(
                f"{printable(self.path)}: expected a list of photos, got: "
                f"{error.strerror or error}"
            ) from None
        text = self._decoded(data)
        if self.path.suffix.lower() in (".jsonl", ".ndjson"):
            return list(self._json_rows(text))
        try:
            return self._csv_rows(text)
        except csv.Error as error:
            raise EdgegraftError(
                f"{printable(self.path)}: expected a list of photos, got: {error}"
            ) from None

    def hint(self, rows: Sequence[Row]) -> str:
        """How to name the columns, where no row has a path or a label."""
        missing = [
            name
            for name in ("path", "label")
            if name not in self.columns and not any(row.get(name) for _, row in rows)
        ]
        if not missing:
            return ""
        return f"; name the columns: --columns {','.join(f'{n}=...' for n in missing)}"

    def _decoded(self, data: bytes) -> str:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return data.decode("utf-16", "replace")
        data = data.removeprefix(b"\xef\xbb\xbf")
        if b"\0" in data[:2]:  # UTF-16 without its mark: every list begins in ASCII
            return data.decode("utf-16-be" if data[0] == 0 else "utf-16-le", "replace")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            pass
        western = data.decode("cp1252", "replace")
        raw = data.decode("utf-8", "surrogateescape")  # names that are no text at all
        base = self.path.parent

        def existing(text: str) -> int:
            cells = {
                cell.strip('" ')
                for line in text.splitlines()
                if not line.isascii()
                for cell in line.split(",")
            }
            return sum(os.path.lexists(base / cell) for cell in cells if cell)

        if existing(raw) > existing(western):
            return raw
        self.messages.append("the list is not UTF-8; read as Windows-1252")
        return western

    def _csv_rows(self, text: str) -> list[Row]:
        body = text.lstrip("\r\n")
        declared = _SEP_LINE.match(body)
        body = body[declared.end() :] if declared else body
        skipped_lines = text[: len(text) - len(body)].count("\n")
        separators = [declared["separator"]] if declared else SEPARATORS
        separator, header = self._separator(body, separators)
        reader = csv.reader(io.StringIO(body, newline=""), delimiter=separator)
        indices = self._indices(header)
        if "path" not in indices and not self.columns and self._is_row(header):
            indices = {"path": 0, "label": 1}
            self.messages.append("the list has no header: read as path, label")
        else:
            next(reader, None)
        records = [
            (skipped_lines + reader.line_num, [cell.strip() for cell in record])
            for record in reader
            if any(cell.strip() for cell in record)
        ]
        if "path" in indices and "label" not in indices:
            rows = self._one_hot(header, indices, records)
            if rows is not None:
                return rows
        self._check(indices, header)
        return [(line, _row(record, indices)) for line, record in records]

    def _separator(self, text: str, separators: Sequence[str]) -> tuple[str, list[str]]:
        """The separator whose header has most of our columns, then most columns; and
        that header."""
        headers = {}
        for separator in separators:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
            headers[separator] = [name.strip() for name in next(reader, [])]
        return max(
            headers.items(),
            key=lambda item: (
                len(self._indices(item[1]).keys() & {"path", "label"}),
                len(item[1]),
            ),
        )

    def _indices(self, header: Sequence[str]) -> dict[str, int]:
        """Our name of a column -> its index in the header, where it is there."""
        names = [_plain(name) for name in header]
        indices: dict[str, int] = {}
        for column, usual in COLUMNS.items():
            if column in self.columns:
                usual = [_plain(self.columns[column])]
            index = next((names.index(name) for name in usual if name in names), None)
            if index is not None:
                indices[column] = index
        return indices

    def _is_row(self, header: Sequence[str]) -> bool:
        """Whether the first line names a photo that is there, as a header does not."""
        if len(header) != 2 or not header[0]:
            return False
        file = self.path.parent / header[0].replace("\\", "/")
        return os.path.lexists(file) or file.suffix.lower() in PHOTO_SUFFIXES

    def _one_hot(
        self,
        header: Sequence[str],
        indices: Mapping[str, int],
        records: Sequence[tuple[int, list[str]]],
    ) -> list[Row] | None:
        """Rows whose label is the column that holds 1; None for another kind of
        list."""
        labels = {
            index: name
            for index, name in enumerate(header)
            if name and index not in indices.values()
        }
        if len(labels) < 2:
            return None
        values = {
            cell
            for _, record in records
            for index, cell in enumerate(record)
            if index in labels
        }
        if not values or not values <= {"0", "1", "0.0", "1.0", "", "False", "True"}:
            return None
        self.messages.append(f"labels from {len(labels)} columns of 0 and 1")
        rows: list[Row] = []
        for line, record in records:
            row = _row(record, indices)
            ones = [
                labels[index]
                for index, cell in enumerate(record)
                if index in labels and cell in ("1", "1.0", "True")
            ]
            if len(ones) == 1:
                row["label"] = ones[0]
            else:
                row[WRONG] = f"expected one label column of 1, got {len(ones)}"
            rows.append((line, row))
        return rows

    def _check(self, indices: Mapping[str, int], header: Sequence[str]) -> None:
        """EdgegraftError without a path and a label, or with two that could be it."""
        names = [_plain(name) for name in header]
        for column, name in self.columns.items():
            if column in COLUMNS and column not in indices:
                raise EdgegraftError(
                    f"{printable(self.path)}: --columns {column}={printable(name)}: "
                    f"expected one of its columns {printable(', '.join(header)):.80}"
                )
        if "path" not in indices or "label" not in indices:
            got = printable(", ".join(header))[:80] or "nothing"
            raise EdgegraftError(
                f"{printable(self.path)}: expected the columns path and label (split "
                f"and group if you like), got {got!r}; name them: --columns "
                "path=...,label=..."
            )
        required = {column: indices[column] for column in ("path", "label")}
        for index in required.values():
            if names.count(names[index]) > 1:
                raise EdgegraftError(
                    f"{printable(self.path)}: expected one column {header[index]!r}, "
                    "got two"
                )
        usual = [n for n in names if n in COLUMNS["label"]]
        if "label" not in self.columns and "label" not in names and len(usual) > 1:
            raise EdgegraftError(
                f"{printable(self.path)}: unclear which column is the label: "
                f"{', '.join(usual)}; name it: --columns label={usual[0]}"
            )
        renamed = [
            f"{column} is {printable(header[index])!r}"
            for column, index in required.items()
            if names[index] != column
        ]
        if renamed and not self.columns:
            self.messages.append(f"columns of the list: {', '.join(renamed)}")

    def _json_rows(self, text: str) -> Iterator[Row]:
        for line, content in enumerate(text.split("\n"), 1):
            content = content.strip()
            if not content:
                continue
            try:
                record = json.loads(content)
            except (ValueError, RecursionError):
                record = None
            if not isinstance(record, dict):
                why = (
                    'expected an object such as {"path": "a.jpg", "label": "cat"}, got '
                    f"{content!r:.60}"
                )
                yield line, {WRONG: why}
                continue
            keys = list(map(str, record))
            row: dict[str, str] = {}
            for column, index in self._indices(keys).items():
                value = record[keys[index]]
                if isinstance(value, (list, dict)):
                    row[WRONG] = (
                        f"expected {keys[index]!r} to be text, got {value!r:.60}"
                    )
                row[column] = "" if value is None else str(value).strip()
            missing = [name for name in ("path", "label") if not row.get(name)]
            if missing and WRONG not in row:
                row[WRONG] = (
                    f"expected a {' and a '.join(missing)}, got the keys "
                    f"{printable(', '.join(keys)):.60}"
                )
            yield line, row


def _row(record: Sequence[str], indices: Mapping[str, int]) -> dict[str, str]:
    """The cells of a record by column; empty where the record is too short."""
    return {
        column: record[index] if index < len(record) else ""
        for column, index in indices.items()
    }


def _plain(name: str) -> str:
    """Image Name -> image_name."""
    return "_".join(name.strip().casefold().replace("-", " ").split())
