"""Storage for decoded photos: an array in memory, or an unnamed file.

Rows are written in any order, from many threads. `finish` closes the gaps of photos
without pixels.
"""

import math
import mmap
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from edge.errors import EdgegraftError
from edge.text import printable

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
