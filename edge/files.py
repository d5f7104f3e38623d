"""Atomic writes, safe reads, and digests of files."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from edge.errors import EdgegraftError

Writer = Callable[[Path], object]  # fills the file at the path it is given
_BLOCK = 1 << 20  # bytes read at a time
_VIDEO_BRANDS = (b"isom", b"iso", b"mp4", b"M4V", b"avc1", b"qt  ", b"3gp", b"MSNV")
_BEGINNINGS = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x89HDF", "an HDF5 file (Keras weights?); convert it first"),
    (b"\xff\xd8\xff", "a JPEG photo"),
    (b"\x89PNG", "a PNG photo"),
    (b"%PDF", "a PDF"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"<", "a web page or XML"),
    (b"version https://git-lfs", "a Git LFS pointer; run: git lfs pull"),
)
# Of a list of photos: the usual names of the columns, the surest first
PATH_COLUMNS = (
    *("path", "filepath", "file_path", "filename", "file_name", "file"),
    *("image_path", "imagepath", "image_file", "image_name", "imagename", "image"),
    *("img_path", "img_name", "img", "photo", "picture"),
    *("image_id", "imageid", "img_id", "id", "name", "fname"),
)
LABEL_COLUMNS = (
    *("label", "class", "category", "target", "label_name", "class_name", "classname"),
    *("labels", "category_name", "breed", "species", "tag", "y"),
)
_NAME_KEPT = 48  # characters: a name has at most 255 bytes, a character up to 4


def write_atomic(path: str | os.PathLike[str], content: bytes | str | Writer) -> None:
    """Write a file beside `path`, then rename it into place.

    An interrupt or a full disk leaves the old file, or none. Text is UTF-8. Folders
    on the way are made. EdgegraftError when the disk refuses.
    """
    path = Path(path)
    temporary = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            temporary.write_bytes(content)
        elif isinstance(content, str):
            temporary.write_bytes(content.encode("utf-8", "surrogateescape"))
        else:
            content(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise EdgegraftError(
            f"{path}: cannot be written: {error.strerror or error}; free some space or "
            "choose another place"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_csv(
    path: str | os.PathLike[str],
    header: Sequence[str],
    rows: Iterable[Iterable[object]],
) -> None:
    """Write a CSV file whole: UTF-8, lines end with a line feed.

    File names that are not UTF-8 keep their bytes (surrogateescape).
    """
    import csv

    def write(path: Path) -> None:
        with path.open(
            "w", encoding="utf-8", errors="surrogateescape", newline=""
        ) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)

    write_atomic(path, write)


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder beside `path`, renamed to `path` when the block succeeds.

    When it fails, the temporary folder goes. An empty folder at `path` is replaced;
    OSError when something else is there.
    """
    import shutil

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        temporary.mkdir()
        yield temporary
        if path.is_dir():
            path.rmdir()  # only an empty one
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_regular(
    path: str | os.PathLike[str],
    *,
    inside: str | os.PathLike[str] | None = None,
    links: bool = False,
) -> bytes:
    """The bytes of a regular file; never of a pipe or device, which could block for
    ever, nor of a link, which could lead out of a folder that came from another person
    (unless `links`).

    With `inside`, no folder on the way may lead out of that one either. OSError.
    """
    if inside is not None:
        root = os.path.realpath(inside)
        parent = os.path.realpath(os.path.dirname(path) or ".")
        if os.path.commonpath([root, parent]) != root:
            raise OSError(errno.EPERM, f"leads out of {inside}", os.fspath(path))
    # O_NONBLOCK: opening a pipe without a writer would wait
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
    flags |= 0 if links else getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(
                error.errno, "expected a file, got a link", os.fspath(path)
            ) from None
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        with os.fdopen(descriptor, "rb") as file:
            return file.read()
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    reason = "expected a file, got a pipe or device"
    raise OSError(errno.EINVAL, reason, os.fspath(path))


def read_or_empty(path: str) -> str:
    """The text of a small file, such as one of the kernel's; empty where there is none
    that can be read."""
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""


def first_line(path: str, option: str) -> str:
    """The first line of the text file of a command-line option, with its line break.

    EdgegraftError, which names the option.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "expected text"
        raise EdgegraftError(f"{option} {path}: {reason}") from None


def sha256(data: bytes | bytearray | memoryview) -> str:
    """The digest of bytes, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """The digest of a file of any size, 64 hexadecimal digits; OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def edgegraft_version() -> str | None:
    """None in a checkout that is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("edgegraft")
    except PackageNotFoundError:
        return None


def _beside(path: Path) -> Path:
    """A hidden name in the same folder, with the same suffix: some writers need it."""
    prefix = f".{os.getpid()}-{threading.get_ident()}-"
    return path.with_name(prefix + path.name[-_NAME_KEPT:])


def kind_of(head: bytes) -> str | None:
    """The kind of a file that begins with `head` (32 bytes are enough), in words; None
    for an unknown one."""
    for start, kind in _BEGINNINGS:
        if head.startswith(start):
            return kind
    if head[4:8] == b"TFL3":
        return "a .tflite model"
    if head[4:8] == b"ftyp" and head[8:12].startswith(_VIDEO_BRANDS):
        return "a video"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "a video"
    is_text = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    return "text" if head and is_text else None
