"""Decoded photos cached on disk by content, so that the next run decodes only new ones.

A folder for each configuration (recipe, Pillow, the code of `edge.preprocess`), in it a
file for each photo, named after the sha256 of its bytes: the pixels, then their CRC-32.
A file of another length or checksum is removed and decoded again. Many processes may
share the folder: files appear whole, by renaming.

The cache never grows beyond `LIMIT` bytes nor takes the last `SPARE` of a disk. The
least recently used configurations are removed first. It may be deleted at any time.
"""

import json
import math
import os
import shutil
import zlib
from contextlib import suppress
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
import PIL
from PIL import features

from edge import photo_kinds, preprocess
from edge.errors import EdgegraftError
from edge.files import sha256, write_atomic
from edge.preprocess import InputRecipe

LIMIT = 4 << 30  # bytes of the whole cache
SPARE = 2 << 30  # bytes of the disk that are left to others
SUM = 4  # bytes of a CRC-32
STAMP = ".used"  # its time says when a configuration was last used


def cache_folder() -> Path:
    """Where unpacked archives, decoded photos and audits are cached: $EDGEGRAFT_CACHE,
    or the system's folder for caches."""
    if folder := os.environ.get("EDGEGRAFT_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "edgegraft")


def key(recipe: InputRecipe) -> str:
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
        self, folder: Path, recipe: InputRecipe, *, limit: int = LIMIT
    ) -> None:
        self.folder = folder / key(recipe)
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
    sizes = {path: _bytes(path) for path in folder.iterdir() if path.is_dir()}
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


def _bytes(folder: Path) -> int:
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
