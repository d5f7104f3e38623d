"""What visitors drop: photos, and ZIP files of photos, read in memory only.

Nothing is unpacked to disk. A photo's content is checked when it is decoded; files that
are too large, not allowed in a ZIP, or not photos by name and content are refused or
ignored here, one by one.
"""

from __future__ import annotations

import csv
import io
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Protocol

from edge.errors import EdgegraftError
from edge.photo_kinds import HEAD_BYTES, PHOTO_SUFFIXES, begins_like_a_photo

MEGABYTE = 1 << 20
MAX_PHOTO_BYTES = 64 * MEGABYTE  # a 100-megapixel photo has about 50
MAX_ZIP_BYTES = 1024 * MEGABYTE
MAX_UNPACKED = 4096 * MEGABYTE
MAX_ENTRIES = 5000  # of a ZIP
MAX_NAMED = 20  # refused entries of one ZIP that are listed by name
MAX_LIST_BYTES = 16 * MEGABYTE
# The usual columns of a list; `edgegraft build` knows these too
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
        """The label of a photo: from a list, by its path or name, or without a list its
        folder's name; "" for none."""
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
        elif len(content) > MAX_PHOTO_BYTES:
            reason = _too_large(len(content), MAX_PHOTO_BYTES)
            drop.refused.append((file.name, reason))
        else:
            drop.photos.append(Photo(file.name, file.file_id, file.getvalue))
    return drop


def _open_zip(content: bytes) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    """A ZIP and its files, unread; EdgegraftError when it is damaged or too large."""
    if len(content) > MAX_ZIP_BYTES:
        raise EdgegraftError(_too_large(len(content), MAX_ZIP_BYTES))
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        reason = " ".join(str(error).split())
        raise EdgegraftError(f"damaged ZIP file: {reason}") from None
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len(entries) > MAX_ENTRIES:
        raise EdgegraftError(
            f"expected at most {MAX_ENTRIES:,} files in a ZIP, got "
            f"{len(entries):,}; split it, or run: edgegraft edge classify"
        )
    if sum(entry.file_size for entry in entries) > MAX_UNPACKED:
        raise EdgegraftError(
            f"expected at most {MAX_UNPACKED // MEGABYTE:,} MB unpacked, got more"
        )
    return archive, entries


def _from_zip(file: Dropped, content: bytes, drop: Drop) -> None:
    try:
        archive, entries = _open_zip(content)
    except EdgegraftError as error:
        drop.refused.append((file.name, str(error)))
        return
    photos_before = len(drop.photos)
    refused: list[tuple[str, str]] = []
    for index, entry in enumerate(entries):
        name, hidden = entry.filename, _is_hidden(entry.filename)
        is_photo = not hidden and _is_photo(archive, entry)
        read = partial(_read, archive, entry)
        refusal = _refusal(entry, is_photo)
        if refusal:
            refused.append((f"{file.name}: {name}", refusal))
        elif _is_list(name) and not hidden and entry.file_size < MAX_LIST_BYTES:
            drop.others += not _read_list(read(), drop)
        elif is_photo:
            drop.photos.append(Photo(name, f"{file.file_id}/{index}", read))
        else:
            drop.others += not hidden
    drop.refused += refused[:MAX_NAMED]
    if len(refused) > MAX_NAMED:
        reason = f"{len(refused) - MAX_NAMED:,} more files were refused"
        drop.refused.append((file.name, reason))
    if len(drop.photos) == photos_before and not refused:
        drop.refused.append((file.name, "expected photos in the ZIP, got none"))


def _read_list(content: bytes, drop: Drop) -> bool:
    """Add the labels of a CSV list; False for other texts.

    The page imports `edge` alone, so this reads only UTF-8 and the usual columns;
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
        next((columns[name] for name in names if name in columns), None)
        for names in (PATH_COLUMNS, LABEL_COLUMNS)
    )
    if path is None or label is None:
        return False
    for row in rows:
        if row[path] and row[label]:
            drop.listed[row[path].strip().replace("\\", "/")] = row[label].strip()
    return True


def _refusal(entry: zipfile.ZipInfo, is_photo: bool) -> str | None:
    """Why an entry of a ZIP is not opened; None when it may be, or is no photo."""
    name = entry.filename.replace("\\", "/")
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or ":" in (parts or ("",))[0]:
        return "its path leads outside the ZIP"
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        return "expected a file, got a link or a device"
    if _is_zip(name):
        return "a ZIP inside a ZIP; unpack it first"
    if is_photo and entry.flag_bits & 0x1:
        return "protected by a password; unpack the ZIP first"
    if is_photo and entry.file_size > MAX_PHOTO_BYTES:
        return _too_large(entry.file_size, MAX_PHOTO_BYTES)
    return None


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(entry) as file:
            return file.read(MAX_PHOTO_BYTES)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise OSError(f"damaged in the ZIP: {error}") from error


def _too_large(size: int, limit: int) -> str:
    return f"expected at most {limit // MEGABYTE:,} MB, got {size // MEGABYTE:,} MB"


def _is_zip(name: str) -> bool:
    return name.lower().endswith(".zip")


def _is_list(name: str) -> bool:
    return name.lower().endswith(".csv")


def _is_photo(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    """Whether an entry has a photo's suffix, or begins like a photo."""
    if PurePosixPath(entry.filename).suffix.lower() in PHOTO_SUFFIXES:
        return True
    if _is_zip(entry.filename) or _is_list(entry.filename):
        return False
    try:
        with archive.open(entry) as file:
            return begins_like_a_photo(file.read(HEAD_BYTES))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError):
        return False


def _is_hidden(name: str) -> bool:
    return any(p.startswith((".", "__MACOSX")) for p in PurePosixPath(name).parts)
