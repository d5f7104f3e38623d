"""ZIP and tar files of photos: unpacked once, into a folder named after their content.

Only photos are unpacked, recognised by suffix or content, and no hidden files. Links,
devices, inner archives, damaged entries and names that differ in case only are left out
one by one and named. Nothing is written outside the folder: an archive with a path that
leads out of it is refused, and so is one that unpacks to far more than photos can.

A ZIP that does not mark its names as UTF-8 holds bytes of a code page that it does not
name (APPNOTE.TXT 4.4.4, bit 11). macOS writes UTF-8 there, Windows the code page of the
country. One encoding is guessed for all names of a file, so that no label is split.
"""

import json
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from data.folders import LITTER
from data.store import cache_folder
from edge.errors import EdgegraftError
from edge.files import new_folder, sha256_of_file
from edge.photo_kinds import HEAD_BYTES, PHOTO_SUFFIXES, begins_like_a_photo
from edge.text import printable

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
_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075  # extra field of Info-ZIP: the name in UTF-8
_COMMON = 0.9  # fraction of common characters from which an encoding is taken

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


def decoded_names(entries: Sequence[zipfile.ZipInfo]) -> tuple[list[str], str]:
    """The names of `entries`, in order, and how they were read, empty where sure."""
    names = [entry.orig_filename for entry in entries]
    unmarked: dict[int, bytes] = {}
    for index, entry in enumerate(entries):
        if not entry.flag_bits & _UTF8_FLAG and not entry.orig_filename.isascii():
            raw = entry.orig_filename.encode("cp437", "replace")
            name = _from_extra(entry.extra, raw)
            if name is None:
                unmarked[index] = raw
            else:
                names[index] = name
    if not unmarked:
        return names, ""
    encoding = guessed_encoding(list(unmarked.values()))
    for index, raw in unmarked.items():
        names[index] = raw.decode(encoding, "replace")
    example = names[next(iter(unmarked))]
    message = (
        f"names in the ZIP are not marked as UTF-8; read as {encoding}: {example} "
        "(if that is wrong, unpack it yourself)"
    )
    return names, message


def guessed_encoding(names: Sequence[bytes]) -> str:
    """UTF-8 where all names are that, else the code page with the likeliest letters:
    Shift-JIS, GBK, cp437 or cp850. Kanji without kana count as Shift-JIS where the
    western code pages would give symbols beside letters."""
    text = b"\n".join(names)
    try:
        text.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError:
        pass
    western = max(("cp437", "cp850"), key=lambda encoding: _letters(text, encoding))
    non_ascii = sum(byte > 127 for byte in text)
    has_symbols = _letters(text, western) < non_ascii
    for encoding, common in (("cp932", _common_japanese), ("gbk", _common_chinese)):
        try:
            decoded = [c for c in text.decode(encoding) if not c.isascii()]
        except UnicodeDecodeError:
            continue
        fraction = sum(common(c) for c in decoded) / max(len(decoded), 1)
        has_kana = any("\u3041" <= c <= "\u30fa" for c in decoded)
        if fraction >= _COMMON and (encoding == "gbk" or has_kana or has_symbols):
            return encoding
    return western


def _common_japanese(char: str) -> bool:
    """Kana, or a kanji of the first level of JIS X 0208."""
    code = char.encode("cp932")
    return "\u3041" <= char <= "\u30fc" or b"\x88\x9f" <= code <= b"\x98\x72"


def _common_chinese(char: str) -> bool:
    """A character of the first level of GB 2312."""
    code = char.encode("gbk")
    return len(code) == 2 and 0xB0 <= code[0] <= 0xD7 and code[1] >= 0xA1


def _letters(text: bytes, encoding: str) -> int:
    """Latin letters among the characters beyond ASCII."""
    return sum(
        c.isalpha() and ord(c) < 0x250 for c in text.decode(encoding) if not c.isascii()
    )


def _from_extra(extra: bytes, raw: bytes) -> str | None:
    """The UTF-8 name in the extra field, if it belongs to the name `raw`."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        body, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and len(body) > 5 and body[0] == 1:
            if int.from_bytes(body[1:5], "little") != zlib.crc32(raw):
                return None
            try:
                return body[5:].decode("utf-8")
            except UnicodeDecodeError:
                return None
    return None
