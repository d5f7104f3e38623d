"""ZIP and tar files of photos: unpacked once, into a folder named after their content.

Only photos are unpacked, recognised by suffix or content, and no hidden files. Links,
devices, inner archives, damaged entries and names that differ in case only are left out
one by one and named. Nothing is written outside the folder: an archive with a path that
leads out of it is refused, and so is one that unpacks to far more than photos can.
"""

import json
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from data.cache import cache_folder
from data.scan import LITTER
from edge.errors import EdgegraftError
from edge.files import new_folder, sha256_of_file
from edge.photo_kinds import HEAD_BYTES, PHOTO_SUFFIXES, begins_like_a_photo
from edge.text import printable
from edge.zip_names import decoded_names

SUFFIXES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz")
INNER = (*SUFFIXES, ".7z", ".rar")  # archives inside an archive
MAX_RATIO = 100  # times its own size that an archive of photos may unpack to
SPARE = 1 << 28  # bytes that any archive may unpack to
MAX_DEPTH = 64  # folders inside one another
MAX_NAME = 255  # bytes of a file's or folder's name
MAX_PATH = 1024  # bytes of a path, far below a system's limit
NAMED = 3  # entries of a kind that a message names
CHUNK = 1 << 20
PHOTOS, LEFT_OUT = "photos", "left_out.json"  # inside the unpacked folder
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)


LeftOut = defaultdict[str, list[str]]  # reason -> names of the entries


class Entry(NamedTuple):
    """A file in an archive. `kind` is "file", or what else it is."""

    name: str
    size: int
    kind: str
    open: Callable[[], IO[bytes] | None]


def unpack(archive: str | os.PathLike[str]) -> tuple[Path, tuple[str, ...]]:
    """The folder with the photos of `archive`, unpacked if it was not before, and a
    line for each reason why entries were left out.

    EdgegraftError when the archive is damaged, holds no photos or names that lead out
    of it, or does not fit on the disk.
    """
    archive = Path(archive)
    parent = cache_folder() / "archives"
    try:
        name = archive.name.split(".")[0] or "photos"
        folder = parent / f"{name}-{sha256_of_file(archive)[:16]}"
        if not folder.is_dir():
            with new_folder(folder) as temporary:
                messages = _unpack(archive, temporary / PHOTOS)
                (temporary / LEFT_OUT).write_text(json.dumps(messages), "utf-8")
        messages = json.loads((folder / LEFT_OUT).read_text("utf-8"))
    except _DAMAGED as error:
        reason = str(error).partition(":")[0]  # tarfile adds each method it tried
        raise EdgegraftError(
            f"{printable(archive)}: expected a whole ZIP or tar file, got a damaged "
            f"one: {printable(' '.join(reason.split())):.100}; copy it again"
        ) from None
    except OSError as error:
        raise EdgegraftError(
            f"{printable(archive)}: expected to unpack it into {printable(parent)}, "
            f"got: {error.strerror or error}"
        ) from None
    return folder / PHOTOS, tuple(map(str, messages))


def _unpack(archive: Path, folder: Path) -> list[str]:
    left_out: LeftOut = defaultdict(list)
    folder.mkdir()
    with _entries(archive) as (entries, message):
        photos = _photos(archive, entries, left_out)
        total = sum(entry.size for entry in photos.values())
        free = shutil.disk_usage(folder).free
        if total > free:
            raise EdgegraftError(
                f"{printable(archive)}: expected {total / 1e6:,.1f} MB of free space "
                f"in {printable(folder.parents[1])} to unpack it, got "
                f"{free / 1e6:,.1f}; free some, or set EDGEGRAFT_CACHE to another "
                "folder"
            )
        if total > MAX_RATIO * archive.stat().st_size + SPARE:
            raise EdgegraftError(
                f"{printable(archive)}: expected photos, got what unpacks to "
                f"{total / 1e9:.1f} GB, more than {MAX_RATIO} times its size"
            )
        written = sum(
            _write(entry, folder.joinpath(*PurePosixPath(name).parts), left_out)
            for name, entry in photos.items()
        )
    messages = [printable(message)] if message else []
    for reason, names in left_out.items():
        examples = ", ".join(printable(name)[:120] for name in names[:NAMED])
        more = ", ..." if len(names) > NAMED else ""
        count = f"{len(names):,} of the archive"
        messages.append(f"left out, {count}: {reason} ({examples}{more})")
    if not written:
        why = f"; {messages[-1]}" if messages else ""
        raise EdgegraftError(
            f"{printable(archive)}: expected photos in it, got none{why}"
        )
    return messages


def _write(entry: Entry, path: Path, left_out: LeftOut) -> bool:
    """Unpack an entry, or leave it out: False. A full disk raises OSError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = open(path, "xb")  # noqa: SIM115
    except (FileExistsError, NotADirectoryError):
        left_out["another entry has its place"].append(entry.name)
        return False
    reason = ""
    with target:
        try:
            source = entry.open()
            if source is not None:
                with source:
                    shutil.copyfileobj(source, target, CHUNK)
        except RuntimeError as error:  # encrypted, or an unknown compression
            reason = "encrypted" if "encrypted" in str(error) else str(error)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError):
            reason = "damaged"
        except OSError as error:
            if error.errno is not None:  # the disk's; bzip2 has none for bad data
                raise
            reason = "damaged"
    if not reason:
        return True
    path.unlink()
    left_out[reason].append(entry.name)
    return False


def _photos(
    archive: Path, entries: Iterator[Entry], left_out: LeftOut
) -> dict[str, Entry]:
    """Name -> entry of the photos to unpack."""
    photos: dict[str, Entry] = {}
    casefolded: set[str] = set()
    for entry in entries:
        name = entry.name.replace("\\", "/")
        path = PurePosixPath(name)
        parts, suffix = path.parts, path.suffix.lower()
        if path.is_absolute() or ".." in parts or ":" in name.split("/")[0]:
            raise EdgegraftError(
                f"{printable(archive)}: expected names inside the archive, got one "
                f"that leads out of it: {printable(entry.name)}; unpack it yourself, "
                "if at all"
            )
        if any(part.startswith(".") or part.lower() in LITTER for part in parts):
            continue
        if entry.kind != "file":
            left_out[f"a {entry.kind}"].append(name)
        elif suffix in INNER:
            left_out["an archive inside the archive; unpack it first"].append(name)
        elif len(parts) > MAX_DEPTH:
            left_out[f"more than {MAX_DEPTH} folders deep"].append(name)
        elif any(len(os.fsencode(part)) > MAX_NAME for part in parts) or (
            len(os.fsencode(name)) > MAX_PATH
        ):
            left_out["a name that is too long for a file"].append(name)
        elif "\0" in name:
            left_out["a name that no file can have"].append(name)
        elif suffix not in PHOTO_SUFFIXES and not _begins_like_a_photo(entry):
            continue
        elif name.casefold() in casefolded:
            left_out["a name that differs from another in case only"].append(name)
        else:
            casefolded.add(name.casefold())
            photos[name] = entry
    return photos


def _begins_like_a_photo(entry: Entry) -> bool:
    try:
        source = entry.open()
        if source is None:
            return False
        with source:
            return begins_like_a_photo(source.read(HEAD_BYTES))
    except (*_DAMAGED, RuntimeError, OSError):
        return False


@contextmanager
def _entries(archive: Path) -> Iterator[tuple[Iterator[Entry], str]]:
    """The files of an archive, and a message where the names' encoding is a guess."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            files = [info for info in file.infolist() if not info.is_dir()]
            names, message = decoded_names(files)
            yield (
                (
                    Entry(name, i.file_size, _zip_kind(i), partial(file.open, i))
                    for name, i in zip(names, files, strict=True)
                ),
                message,
            )
    else:
        with tarfile.open(archive, errors="surrogateescape") as tar:
            yield (
                (
                    Entry(
                        member.name,
                        member.size,
                        "file" if member.isreg() else "link or device",
                        partial(tar.extractfile, member),
                    )
                    for member in tar
                    if not member.isdir()
                ),
                "",
            )


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    return "link or device" if stat.S_IFMT(mode) not in (0, stat.S_IFREG) else "file"
