"""A list of photos instead of folders: CSV or JSON lines.

Wanted are a path and a label; split (train, val or test) and group where there are any.
Columns are known by their usual names (filename and class, image and label, id and
breed), or one column for each label holds 0 and 1. Separator and encoding are found
out. A photo is looked for where the list says, then by its name below the list's
folder. A row that is wrong is left out, named and counted; above `MOST_BAD` of them the
list is refused.
"""

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.parts import PREDICT, part_of
from data.photos import PARTS, Photo, PhotoFolder, clean_label, refuse_twins
from data.scan import Walk
from edge.errors import EdgegraftError
from edge.photo_kinds import PHOTO_SUFFIXES
from edge.text import plural, printable

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
MOST_BAD = 0.05  # of the rows; beyond it something else is wrong with the list
NAMED_ROWS = 3  # that are wrong, in a message
SEPARATORS = ",;\t|"
# Excel's own first line, which names the separator
_SAID = re.compile(r'"?sep=(?P<separator>[,;\t|])[^\r\n]*(\r\n|\r|\n)', re.IGNORECASE)
# what we call a column -> what it is called, the surest name first
_PATH = (
    *("path", "filepath", "file_path", "filename", "file_name", "file"),
    *("image_path", "imagepath", "image_file", "image_name", "imagename", "image"),
    *("img_path", "img_name", "img", "photo", "picture"),
    *("image_id", "imageid", "img_id", "id", "name", "fname"),
)
_LABEL = (
    *("label", "class", "category", "target", "label_name", "class_name", "classname"),
    *("labels", "category_name", "breed", "species", "tag", "y"),
)
COLUMNS: Mapping[str, Sequence[str]] = {
    "path": _PATH,
    "label": _LABEL,
    "split": ["split", "subset", "part", "partition", "set"],
    "group": ["group", "group_id", "session"],
}

Row = tuple[int, Mapping[str, str]]  # line number, column -> text
WRONG = "wrong"  # in place of a column: what is wrong with the row


def read_manifest(
    path: str | os.PathLike[str], columns: Mapping[str, str] | None = None
) -> PhotoFolder:
    """The photos that a list names. `columns`: what we call them -> what they are
    called, for those that are not known by their names.

    EdgegraftError, with the line, for columns that are not there or not clear, too many
    wrong rows, and labels that differ only in case, spaces or Unicode form.
    """
    path = Path(path)
    table = _Table(path, dict(columns or {}))
    rows = table.read()
    base = Path(os.path.abspath(path.parent))
    finder = _Finder(base)
    photos: dict[Path, Photo] = {}
    lines: dict[Path, int] = {}
    bad: list[tuple[int, str]] = []
    repeated = 0
    total = 0
    for number, row in rows:
        total += 1
        try:
            photo = _photo(row, finder, f"{printable(path)}, line {number}")
        except EdgegraftError as error:
            bad.append((number, str(error)))
            continue
        known = photos.setdefault(photo.path, photo)
        first = lines.setdefault(photo.path, number)
        if known != photo:
            bad.append(
                (
                    number,
                    f"expected each photo once, got {printable(row['path'])} with "
                    f"another label or split than in line {first}",
                )
            )
        elif first != number:
            repeated += 1
    if total and len(bad) > MOST_BAD * total:
        named = "; ".join(f"line {line}: {why}" for line, why in bad[:NAMED_ROWS])
        raise EdgegraftError(
            f"{printable(path)}: expected rows of photos, got {len(bad):,} of "
            f"{total:,} that are wrong: {named}{table.hint(rows)}"
        )
    messages = table.messages + finder.messages()
    if bad:
        named = "; ".join(f"line {number}: {why}" for number, why in bad[:NAMED_ROWS])
        more = "; ..." if len(bad) > NAMED_ROWS else ""
        messages.append(f"left out, {plural(len(bad), 'wrong row')}: {named}{more}")
    if repeated:
        messages.append(f"{plural(repeated, 'row')} repeated, taken once")
    refuse_twins((photo.label, photo.path) for photo in photos.values())
    return _folder(path, base, list(photos.values()), tuple(messages))


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
        photos = [Photo(p.path, p.label, p.part or "train", p.group) for p in photos]
    elif "train" in parts:
        photos = [Photo(p.path, p.label, None, p.group) for p in photos]
    above = [os.fspath(base), *(os.fspath(photo.path.parent) for photo in photos)]
    return PhotoFolder(
        root=Path(os.path.commonpath(above)),
        labels=tuple(sorted({photo.label for photo in photos})),
        photos=tuple(sorted(photos, key=lambda photo: photo.path.as_posix())),
        messages=messages,
    )


class _Finder:
    """The file that a row means: where the list says, else by its name below `base`."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._names: dict[str, list[Path]] | None = None
        self._by_name: list[Path] = []

    def find(self, text: str) -> Path:
        """EdgegraftError where there is no such file, or more than one of its name."""
        for name in dict.fromkeys((text, text.replace("\\", "/"))):
            path = Path(os.path.normpath(self._base / name))
            if os.path.lexists(path):
                return path
        name = text.replace("\\", "/").rpartition("/")[2].casefold()
        candidates = self._index().get(name, [])
        if len(candidates) == 1:
            self._by_name.append(candidates[0])
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

    def _index(self) -> dict[str, list[Path]]:
        """Names, with and without their ending, of all photos below `base`."""
        if self._names is None:
            self._names = {}
            for path in Walk().tree(self._base).below():
                for name in {path.name.casefold(), path.stem.casefold()}:
                    self._names.setdefault(name, []).append(path)
        return self._names

    def messages(self) -> list[str]:
        if not self._by_name:
            return []
        first = printable(self._by_name[0].relative_to(self._base))
        count = plural(len(self._by_name), "photo")
        return [f"{count} found by name, such as {first}"]


@dataclass
class _Table:
    """The rows of a list, under our names of the columns. `messages`: how it was "
    "read."""

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
        lacking = [
            name
            for name in ("path", "label")
            if name not in self.columns and not any(row.get(name) for _, row in rows)
        ]
        if not lacking:
            return ""
        return f"; name the columns: --columns {','.join(f'{n}=...' for n in lacking)}"

    def _decoded(self, data: bytes) -> str:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return data.decode("utf-16", "replace")
        if data[:3] == b"\xef\xbb\xbf":
            data = data[3:]
        if b"\0" in data[:2]:  # UTF-16 without its mark: every list begins in ASCII
            return data.decode("utf-16-be" if data[0] == 0 else "utf-16-le", "replace")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            pass
        western = data.decode("cp1252", "replace")
        raw = data.decode("utf-8", "surrogateescape")  # names that are no text at all
        base = self.path.parent

        def there(text: str) -> int:
            cells = {
                cell.strip('" ')
                for line in text.splitlines()
                if not line.isascii()
                for cell in line.split(",")
            }
            return sum(os.path.lexists(base / cell) for cell in cells if cell)

        if there(raw) > there(western):
            return raw
        self.messages.append("the list is not UTF-8; read as Windows-1252")
        return western

    def _csv_rows(self, text: str) -> list[Row]:
        body = text.lstrip("\r\n")
        said = _SAID.match(body)
        body = body[said.end() :] if said else body
        above = text[: len(text) - len(body)].count("\n")
        separators = [said["separator"]] if said else SEPARATORS
        separator, heading = self._separator(body, separators)
        reader = csv.reader(io.StringIO(body, newline=""), delimiter=separator)
        named = self._named(heading)
        if "path" not in named and not self.columns and self._is_a_row(heading):
            named = {"path": 0, "label": 1}
            self.messages.append("the list has no header: read as path, label")
        else:
            next(reader, None)
        records = [
            (above + reader.line_num, [cell.strip() for cell in record])
            for record in reader
            if any(cell.strip() for cell in record)
        ]
        if "path" in named and "label" not in named:
            hot = self._one_hot(heading, named, records)
            if hot is not None:
                return hot
        self._expect(named, heading)
        return [
            (
                number,
                {
                    name: record[place] if place < len(record) else ""
                    for name, place in named.items()
                },
            )
            for number, record in records
        ]

    def _separator(self, text: str, separators: Sequence[str]) -> tuple[str, list[str]]:
        """The separator whose header has most of our columns, then most columns."""
        best: tuple[tuple[int, int], str, list[str]] | None = None
        for separator in separators:
            source = io.StringIO(text, newline="")
            heading = next(csv.reader(source, delimiter=separator), [])
            heading = [name.strip() for name in heading]
            fit = len(self._named(heading).keys() & {"path", "label"}), len(heading)
            if best is None or fit > best[0]:
                best = fit, separator, heading
        assert best is not None
        return best[1], best[2]

    def _named(self, heading: Sequence[str]) -> dict[str, int]:
        """Our name of a column -> its place, for those that are there."""
        names = [_plain(name) for name in heading]
        found: dict[str, int] = {}
        for ours, usual in COLUMNS.items():
            if ours in self.columns:
                wanted = _plain(self.columns[ours])
                if wanted in names:
                    found[ours] = names.index(wanted)
                continue
            place = next((names.index(name) for name in usual if name in names), None)
            if place is not None:
                found[ours] = place
        return found

    def _is_a_row(self, heading: Sequence[str]) -> bool:
        """Whether the first line names a photo that is there, as a header does not."""
        if len(heading) != 2 or not heading[0]:
            return False
        file = self.path.parent / heading[0].replace("\\", "/")
        return os.path.lexists(file) or file.suffix.lower() in PHOTO_SUFFIXES

    def _one_hot(
        self,
        heading: Sequence[str],
        named: Mapping[str, int],
        records: Sequence[tuple[int, list[str]]],
    ) -> list[Row] | None:
        """Rows whose label is the column that holds 1; None for another kind of "
        "list."""
        places = [
            place
            for place, name in enumerate(heading)
            if name and place not in named.values()
        ]
        if len(places) < 2:
            return None
        values = {
            record[place]
            for _, record in records
            for place in places
            if place < len(record)
        }
        if not values or not values <= {"0", "1", "0.0", "1.0", "", "False", "True"}:
            return None
        self.messages.append(f"labels from {len(places)} columns of 0 and 1")
        rows: list[Row] = []
        for number, record in records:
            row = {
                n: record[place] for n, place in named.items() if place < len(record)
            }
            ones = [
                heading[place]
                for place in places
                if place < len(record) and record[place] in ("1", "1.0", "True")
            ]
            if len(ones) == 1:
                row["label"] = ones[0]
            else:
                row[WRONG] = f"expected one label column of 1, got {len(ones)}"
            rows.append((number, row))
        return rows

    def _expect(self, named: Mapping[str, int], heading: Sequence[str]) -> None:
        """EdgegraftError without a path and a label, or with two that could be it."""
        lacking = [name for name in ("path", "label") if name not in named]
        names = [_plain(name) for name in heading]
        got = printable(", ".join(heading))[:80] or "nothing"
        if lacking:
            raise EdgegraftError(
                f"{printable(self.path)}: expected the columns path and label (split "
                f"and group if you like), got {got!r}; say which they are: --columns "
                "path=...,label=..."
            )
        double = Counter(names)
        for ours in ("path", "label"):
            if double[names[named[ours]]] > 1:
                raise EdgegraftError(
                    f"{printable(self.path)}: expected one column "
                    f"{heading[named[ours]]!r}, got two"
                )
        usual = [n for n in names if n in COLUMNS["label"]]
        if "label" not in self.columns and "label" not in names and len(usual) > 1:
            raise EdgegraftError(
                f"{printable(self.path)}: unclear which column is the label: "
                f"{', '.join(usual)}; say it: --columns label={usual[0]}"
            )
        other = {
            ours: heading[named[ours]]
            for ours in ("path", "label")
            if names[named[ours]] != ours
        }
        if other and not self.columns:
            spelled = ", ".join(
                f"{ours} is {printable(n)!r}" for ours, n in other.items()
            )
            self.messages.append(f"columns of the list: {spelled}")

    def _json_rows(self, text: str) -> Iterator[Row]:
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line.strip())
            except (ValueError, RecursionError):
                record = None
            if not isinstance(record, dict):
                why = (
                    'expected an object such as {"path": "a.jpg", "label": "cat"}, got '
                    f"{line.strip()!r:.60}"
                )
                yield number, {WRONG: why}
                continue
            names = list(map(str, record))
            row: dict[str, str] = {}
            for ours, place in self._named(names).items():
                value = record[names[place]]
                if isinstance(value, (list, dict)):
                    row[WRONG] = (
                        f"expected {names[place]!r} to be text, got {value!r:.60}"
                    )
                row[ours] = _text(value)
            lacking = [name for name in ("path", "label") if not row.get(name)]
            if lacking and WRONG not in row:
                row[WRONG] = (
                    f"expected a {' and a '.join(lacking)}, got the keys "
                    f"{printable(', '.join(names)):.60}"
                )
            yield number, row


def _plain(name: str) -> str:
    """Image Name -> image_name."""
    return "_".join(name.strip().casefold().replace("-", " ").split())


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
