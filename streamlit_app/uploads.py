"""What visitors drop: photos, and ZIP files of photos, read in memory only.

Nothing is unpacked to disk. A photo is judged by its content when it is decoded; what
is too large, not allowed in a ZIP, or no photo by its ending is refused here, file by
file, and the others continue.
"""

from __future__ import annotations

import csv
import io
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol

from edge.photo_kinds import HEAD_BYTES, PHOTO_SUFFIXES, begins_like_a_photo

MEGABYTE = 1 << 20
MOST_PHOTO_BYTES = 64 * MEGABYTE  # a 100-megapixel photo has about 50
MOST_ZIP_BYTES = 1024 * MEGABYTE
MOST_UNPACKED = 4096 * MEGABYTE
MOST_ENTRIES = 5000  # of a ZIP
MOST_NAMED = 20  # refused entries of one ZIP that are listed one by one
MOST_LIST_BYTES = 16 * MEGABYTE
# The usual names of the columns of a list, as `edgegraft build` knows them, too
PATH_COLUMNS = ("path", "filename", "file", "image_path", "image")
LABEL_COLUMNS = ("label", "class", "category", "breed", "target")
ENDINGS = sorted(suffix.removeprefix(".") for suffix in PHOTO_SUFFIXES)


class Dropped(Protocol):
    """What Streamlit's uploader returns."""

    name: str
    file_id: str

    def getvalue(self) -> bytes: ...


@dataclass(frozen=True)
class Photo:
    """An undecoded photo: `read` returns its bytes, `key` is the same on a rerun."""

    name: str
    key: str
    read: Callable[[], bytes]


@dataclass
class Drop:
    """The photos of an upload, and (name, reason) of each refused file."""

    photos: list[Photo] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    others: int = 0  # files in ZIPs that are not photos, such as text
    listed: dict[str, str] = field(default_factory=dict)  # of lists: path to label

    def label(self, photo: Photo) -> str:
        """As a list says of the photo's path or name, else its folder; "" for none."""
        path = PurePosixPath(photo.name.replace("\\", "/"))
        for start in range(len(path.parts)):
            label = self.listed.get("/".join(path.parts[start:]))
            if label:
                return label
        return "" if self.listed else path.parent.name


def unpacked(files: Iterable[Dropped]) -> Drop:
    """The photos of single files and of ZIP files, in order."""
    drop = Drop()
    for file in files:
        content = file.getvalue()
        if content[:4] in (b"PK\x03\x04", b"PK\x05\x06") or _is_zip(file.name):
            _from_zip(file, content, drop)
        elif _is_list(file.name):
            if not _read_list(content, drop):
                reason = "expected a list in UTF-8 with the columns path and label"
                drop.refused.append((file.name, reason))
        elif len(content) > MOST_PHOTO_BYTES:
            drop.refused.append((file.name, _too_large(len(content))))
        else:
            drop.photos.append(Photo(file.name, file.file_id, file.getvalue))
    return drop


def _from_zip(file: Dropped, content: bytes, drop: Drop) -> None:
    if len(content) > MOST_ZIP_BYTES:
        drop.refused.append((file.name, _too_large(len(content), MOST_ZIP_BYTES)))
        return
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        reason = " ".join(str(error).split())
        drop.refused.append((file.name, f"damaged ZIP file: {reason}"))
        return
    if len(entries) > MOST_ENTRIES:
        drop.refused.append(
            (
                file.name,
                f"expected at most {MOST_ENTRIES:,} files in a ZIP, got "
                f"{len(entries):,}; split it, or run: edgegraft edge classify",
            )
        )
        return
    if sum(entry.file_size for entry in entries) > MOST_UNPACKED:
        drop.refused.append(
            (
                file.name,
                f"expected at most {MOST_UNPACKED // MEGABYTE:,} MB unpacked, got more",
            )
        )
        return
    before = len(drop.photos)
    refused: list[tuple[str, str]] = []
    for number, entry in enumerate(entries):
        name = entry.filename
        photo = not _hidden(name) and (_is_photo(name) or _begins_well(archive, entry))
        refusal = _refusal(entry, photo)
        if refusal:
            refused.append((f"{file.name}: {name}", refusal))
        elif _is_list(name) and not _hidden(name) and entry.file_size < MOST_LIST_BYTES:
            drop.others += not _read_list(_reader(archive, entry)(), drop)
        elif not photo:
            drop.others += not _hidden(name)
        else:
            drop.photos.append(
                Photo(name, f"{file.file_id}/{number}", _reader(archive, entry))
            )
    drop.refused += refused[:MOST_NAMED]
    if len(refused) > MOST_NAMED:
        more = len(refused) - MOST_NAMED
        drop.refused.append((file.name, f"{more:,} more files were refused"))
    if len(drop.photos) == before and not refused:
        drop.refused.append((file.name, "expected photos in the ZIP, got none"))


def _read_list(content: bytes, drop: Drop) -> bool:
    """Take the labels of a CSV list; False for other texts.

    The page loads no more than `edge`, so this knows UTF-8 and the usual columns alone;
    `edgegraft build` reads other lists (`data/manifest.py`).
    """
    try:
        text = content.decode("utf-8-sig")
        separator = max(",;\t", key=text.partition("\n")[0].count)
        lines = io.StringIO(text, newline="")
        rows = list(csv.DictReader(lines, delimiter=separator))
    except (UnicodeDecodeError, csv.Error):
        return False
    columns = {
        str(column).strip().lower(): column for column in (rows[0] if rows else ())
    }
    path, label = (
        next((columns[word] for word in words if word in columns), None)
        for words in (PATH_COLUMNS, LABEL_COLUMNS)
    )
    if path is None or label is None:
        return False
    for row in rows:
        if row[path] and row[label]:
            drop.listed[row[path].strip().replace("\\", "/")] = row[label].strip()
    return True


def _refusal(entry: zipfile.ZipInfo, photo: bool) -> str | None:
    """Why an entry of a ZIP is not opened; None when it may be, or is no photo."""
    name = entry.filename.replace("\\", "/")
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or ":" in (parts or ("",))[0]:
        return "its path leads outside the ZIP"
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        return "expected a file, got a link or a device"
    if _is_zip(name):
        return "a ZIP inside a ZIP; unpack it first"
    if not photo:
        return None
    if entry.flag_bits & 0x1:
        return "protected by a password; unpack the ZIP first"
    if entry.file_size > MOST_PHOTO_BYTES:
        return _too_large(entry.file_size)
    return None


def _reader(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            with archive.open(entry) as file:
                return file.read(MOST_PHOTO_BYTES)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise OSError(f"damaged in the ZIP: {error}") from error

    return read


def _too_large(size: int, most: int = MOST_PHOTO_BYTES) -> str:
    return f"expected at most {most // MEGABYTE:,} MB, got {size // MEGABYTE:,} MB"


def _is_zip(name: str) -> bool:
    return name.lower().endswith(".zip")


def _is_list(name: str) -> bool:
    return name.lower().endswith(".csv")


def _is_photo(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in PHOTO_SUFFIXES


def _begins_well(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    """Whether an entry that is not called so begins like a photo."""
    if _is_zip(entry.filename) or _is_list(entry.filename):
        return False
    try:
        with archive.open(entry) as file:
            return begins_like_a_photo(file.read(HEAD_BYTES))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError):
        return False


def _hidden(name: str) -> bool:
    return any(p.startswith((".", "__MACOSX")) for p in PurePosixPath(name).parts)
