"""Where decoded photos are kept: of this run in one array, for the next runs on disk.

`make_store` gives an array in memory, or an unnamed file. Rows are written in any
order, from many threads; `finish` closes the gaps of photos without pixels.

`PixelCache` keeps pixels by content, so that the next run decodes only new photos. A
folder for each configuration (recipe, Pillow, the code of `edge.preprocess`), in it a
file for each photo, named after the sha256 of its bytes: the pixels, then their CRC-32.
A file of another length or checksum is removed and decoded again. Many processes may
share the folder: files appear whole, by renaming. The cache never grows beyond
`CACHE_LIMIT` bytes nor takes the last `SPARE` of a disk. The least recently used
configurations are removed first. It may be deleted at any time.
"""

import json
import math
import mmap
import os
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import PIL
from PIL import features

from edge import photo_kinds, preprocess
from edge.errors import EdgegraftError
from edge.files import sha256, write_atomic
from edge.preprocess import InputRecipe
from edge.text import printable

CACHE_LIMIT = 4 << 30  # bytes of the whole cache
SPARE = 2 << 30  # bytes of the disk that are left to others
SUM = 4  # bytes of a CRC-32
STAMP = ".used"  # its time says when a configuration was last used

Rows = npt.NDArray[np.uint8]


def make_store(
    shape: tuple[int, ...], limit: int, folder: Path | None
) -> "_Memory | _File":
    """In memory up to `limit` bytes, else in `folder` (by default the system's
    temporary one). EdgegraftError when there is too little room."""
    size = math.prod(shape)
    return _Memory(shape) if size <= limit else _File(shape, size, folder)


def release(array: Any) -> None:
    """Release the memory of a mapped file's pages; any other array is left alone.

    The pages stay in the system's cache while there is room, so reading them again is
    cheap, but they no longer count as memory of the process.
    """
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)


class _Memory:
    file: IO[bytes] | None = None  # to close when the array is no longer used

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._array = np.empty(shape, np.uint8)

    def put(self, row: int, pixels: Rows) -> None:
        """Write row `row`: uint8, of the shape of one row."""
        self._array[row] = pixels

    def finish(self, filled: Sequence[int]) -> Rows:
        """The array of the rows `filled`, which ascend and have all been written."""
        for row, source in enumerate(filled):
            if row != source:
                self._array[row] = self._array[source]
        return self._array[: len(filled)]

    def discard(self) -> None:
        """Release everything, without an array."""


class _File:
    """Rows are written, not mapped: so a full disk is an error, not a crash."""

    file: IO[bytes]

    def __init__(self, shape: tuple[int, ...], size: int, folder: Path | None) -> None:
        self._row = shape[1:]
        self._stride = math.prod(self._row)
        self._size = size
        self._folder = Path(folder or tempfile.gettempdir())
        self._lock = Lock()
        try:
            if shutil.disk_usage(self._folder).free < size:
                raise OSError(0, "too little space")
            self.file = tempfile.TemporaryFile(  # noqa: SIM115
                dir=self._folder, prefix="edgegraft-"
            )
        except OSError as error:
            raise self._full(error) from None

    def put(self, row: int, pixels: Rows) -> None:
        data = np.ascontiguousarray(pixels).data
        try:
            with self._lock:
                self.file.seek(row * self._stride)
                self.file.write(data)
        except OSError as error:
            raise self._full(error) from None

    def finish(self, filled: Sequence[int]) -> Rows:
        try:
            for row, source in enumerate(filled):
                if row != source:
                    self.file.seek(source * self._stride)
                    moved = self.file.read(self._stride)
                    self.file.seek(row * self._stride)
                    self.file.write(moved)
            self.file.truncate(len(filled) * self._stride)
            self.file.flush()
        except OSError as error:
            raise self._full(error) from None
        shape = (len(filled), *self._row)
        if not filled:
            return np.empty(shape, np.uint8)  # an empty file cannot be mapped
        mapped: np.memmap[Any, np.dtype[np.uint8]] = np.memmap(
            self.file, np.uint8, mode="r", shape=shape
        )
        return mapped

    def discard(self) -> None:
        with suppress(OSError):  # a full disk refuses what is still buffered
            self.file.close()

    def _full(self, error: OSError) -> EdgegraftError:
        return EdgegraftError(
            f"{printable(self._folder)}: expected {self._size / 1e6:,.0f} MB of free "
            f"space for the decoded photos, got: {error.strerror}; free some, or set "
            "TMPDIR to a folder on another disk"
        )


def cache_folder() -> Path:
    """Where unpacked archives, decoded photos and audits are cached: $EDGEGRAFT_CACHE,
    or the system's folder for caches."""
    if folder := os.environ.get("EDGEGRAFT_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "edgegraft")


def cache_key(recipe: InputRecipe) -> str:
    """A digest of what a photo's pixels depend on beside its bytes, in 16 digits."""
    code = b"".join(
        Path(str(m.__file__)).read_bytes() for m in (photo_kinds, preprocess)
    )
    facts = {
        "recipe": recipe.to_dict(),
        "pillow": PIL.__version__,
        "jpeg": features.version("libjpeg_turbo") or features.version("jpg"),
        "code": sha256(code),
    }
    return sha256(json.dumps(facts, sort_keys=True).encode())[:16]


class PixelCache:
    """Pixels by the sha256 of a photo's bytes, for one recipe.

    May be used from many threads. `problem` says why nothing more is cached, if so.
    """

    def __init__(
        self, folder: Path, recipe: InputRecipe, *, limit: int = CACHE_LIMIT
    ) -> None:
        self.folder = folder / cache_key(recipe)
        self.problem = ""
        self.hits = 0  # photos that were not decoded again
        self._shape = (recipe.height, recipe.width, 3)
        self._size = math.prod(self._shape)
        self._lock = Lock()
        self._room, self._full = 0, ""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / STAMP).touch()
            used = _make_room(folder, self.folder, limit)
            free = shutil.disk_usage(folder).free
            self._room = min(limit - used, free - SPARE)
            self._full = f"{limit / 1e9:.1f} GB are kept already"
            if free - SPARE < limit - used:
                self._full = (
                    f"{free / 1e9:.1f} GB of the disk are free, of which "
                    f"{SPARE / 1e9:.1f} GB are left to others"
                )
        except OSError as error:
            self._give_up(f"{self.folder}: {error.strerror or error}")

    def get(self, digest: str) -> npt.NDArray[np.uint8] | None:
        """uint8 [H, W, 3], or None where they are not cached or damaged."""
        path = self._path(digest)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        checksum = int.from_bytes(data[-SUM:], "big")
        if len(data) != self._size + SUM or zlib.crc32(data[:-SUM]) != checksum:
            with suppress(OSError):
                path.unlink()
            return None
        with self._lock:
            self.hits += 1
        return np.frombuffer(data, np.uint8, self._size).reshape(self._shape)

    def put(self, digest: str, pixels: npt.NDArray[np.uint8]) -> None:
        """Keep uint8 [H, W, 3], while there is room."""
        with self._lock:
            if self._room < self._size + SUM:
                self.problem = self.problem or f"{self.folder}: {self._full}"
                return
            self._room -= self._size + SUM
        path = self._path(digest)
        data = np.ascontiguousarray(pixels).tobytes()
        try:
            write_atomic(path, data + zlib.crc32(data).to_bytes(SUM, "big"))
        except EdgegraftError as error:
            self._give_up(str(error))

    def _path(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest[2:]

    def _give_up(self, problem: str) -> None:
        with self._lock:
            self._room = 0
            self.problem = problem


def _make_room(folder: Path, current: Path, limit: int) -> int:
    """Remove other configurations, the least recently used first, until half of `limit`
    is free or only `current` is left; returns the bytes that stay."""
    sizes = {path: _size(path) for path in folder.iterdir() if path.is_dir()}
    for oldest in sorted(sizes.keys() - {current}, key=_last_used):
        if sum(sizes.values()) <= limit // 2:
            break
        shutil.rmtree(oldest, ignore_errors=True)
        del sizes[oldest]
    return sum(sizes.values())


def _last_used(path: Path) -> float:
    try:
        return (path / STAMP).stat().st_mtime
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    """Bytes of a configuration, whose files are all of one length."""
    count, length = 0, 0
    for part in folder.iterdir():
        if part.is_dir():
            with os.scandir(part) as entries:
                files = list(entries)
            count += len(files)
            if files and not length:
                with suppress(OSError):
                    length = files[0].stat().st_size
    return count * length
