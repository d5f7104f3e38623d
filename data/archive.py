"""ZIP and tar files of photos: unpacked once, into a folder named after their content.

Only what a photo folder would show is unpacked: photos by their ending, no hidden
files. Nothing is written outside the folder: paths that lead out of it, links and
devices are refused, and so is what unpacks to far more than photos can.

It does not know labels: the unpacked folder is scanned like any other.
"""

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from data.scan import LITTER, Walk, shown
from edge.errors import EdgegraftError
from edge.files import new_folder, sha256_of_file
from edge.preprocess import PHOTO_SUFFIXES

SUFFIXES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz")
FOLD = 100  # times its own size that an archive of photos may unpack to
SPARE = 1 << 28  # bytes that any archive may unpack to
CHUNK = 1 << 20
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)


class Entry(NamedTuple):
    """A file in an archive. `kind` is "file", or what else it is."""

    name: str
    size: int
    kind: str
    open: Callable[[], IO[bytes] | None]


def cache_folder() -> Path:
    """Where unpacked archives and audits are remembered: $EDGEGRAFT_CACHE, or the
    system's folder for caches."""
    mine = os.environ.get("EDGEGRAFT_CACHE")
    if mine:
        return Path(mine)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "edgegraft")


def unpack(archive: str | os.PathLike[str], into: Path | None = None) -> Path:
    """The folder with the photos of `archive`; unpacked there unless it was before.

    EdgegraftError when it is no whole archive, holds no photos or unsafe names, or does
    not fit on the disk.
    """
    archive = Path(archive)
    into = into or cache_folder() / "unpacked"
    try:
        digest = sha256_of_file(archive)
        name = archive.name.split(".")[0] or "photos"
        done = into / f"{name}-{digest[:16]}"
        if not done.is_dir():
            with new_folder(done) as temporary:
                _unpack(archive, temporary)
    except _DAMAGED as error:
        why = str(error).partition(":")[0]  # tarfile goes on with each method it tried
        raise EdgegraftError(
            f"{shown(archive)}: expected a whole ZIP or tar file, got a damaged one: "
            f"{' '.join(why.split()):.100}; copy it anew"
        ) from None
    except OSError as error:
        raise EdgegraftError(
            f"{shown(archive)}: expected to unpack it into {shown(into)}, got: "
            f"{error.strerror or error}"
        ) from None
    return _innermost(done)


def _unpack(archive: Path, folder: Path) -> None:
    with _entries(archive) as entries:
        wanted = _wanted(archive, entries)
        total = sum(entry.size for entry in wanted.values())
        free = shutil.disk_usage(folder).free
        if total > free:
            raise EdgegraftError(
                f"{shown(archive)}: expected {total / 1e6:,.1f} MB of free space in "
                f"{shown(folder.parent)} to unpack it, got {free / 1e6:,.1f}; free "
                "some, or set EDGEGRAFT_CACHE to another folder"
            )
        if total > FOLD * archive.stat().st_size + SPARE:
            raise EdgegraftError(
                f"{shown(archive)}: expected photos, got what unpacks to "
                f"{total / 1e9:.1f} GB, more than {FOLD} times its size"
            )
        for name, entry in wanted.items():
            path = folder.joinpath(*PurePosixPath(name).parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                source = entry.open()
            except RuntimeError as error:  # an encrypted or oddly packed ZIP
                raise EdgegraftError(
                    f"{shown(archive)}: expected photos that can be unpacked, got for "
                    f"{shown(name)}: {error}"
                ) from None
            if source is not None:
                with source, open(path, "xb") as target:
                    shutil.copyfileobj(source, target, CHUNK)


def _wanted(archive: Path, entries: Iterator[Entry]) -> dict[str, Entry]:
    """Name -> entry of what is to be unpacked."""
    wanted: dict[str, Entry] = {}
    folded: dict[str, str] = {}
    for entry in entries:
        name = entry.name.replace("\\", "/")
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or ":" in name.split("/")[0]:
            raise EdgegraftError(
                f"{shown(archive)}: expected names inside the archive, got one that "
                f"leads out of it: {shown(entry.name)}; unpack it yourself, if at all"
            )
        if entry.kind != "file":
            raise EdgegraftError(
                f"{shown(archive)}: expected files and folders, got a {entry.kind}: "
                f"{shown(entry.name)}; unpack it yourself and give the folder"
            )
        parts = place.parts
        hidden = any(p.startswith(".") or p.lower() in LITTER for p in parts)
        if hidden or place.suffix.lower() not in PHOTO_SUFFIXES:
            continue
        twin = folded.setdefault(name.casefold(), name)
        if twin in wanted:
            raise EdgegraftError(
                f"{shown(archive)}: expected each name once, got {shown(twin)} and "
                f"{shown(name)}"
            )
        wanted[name] = entry
    if not wanted:
        raise EdgegraftError(f"{shown(archive)}: expected photos in it, got none")
    return wanted


@contextmanager
def _entries(archive: Path) -> Iterator[Iterator[Entry]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            yield (
                Entry(i.filename, i.file_size, _zip_kind(i), partial(file.open, i))
                for i in file.infolist()
                if not i.is_dir()
            )
    else:
        with tarfile.open(archive) as tar:
            yield (
                Entry(
                    member.name,
                    member.size,
                    "file" if member.isreg() else "link or device",
                    partial(tar.extractfile, member),
                )
                for member in tar
                if not member.isdir()
            )


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    return "link or device" if stat.S_IFMT(mode) not in (0, stat.S_IFREG) else "file"


def _innermost(folder: Path) -> Path:
    """Past folders that hold one folder of folders and nothing else."""
    while True:
        folders, photos = Walk().enter(folder)
        if photos or len(folders) != 1 or not Walk().enter(folders[0])[0]:
            return folder
        folder = folders[0]
