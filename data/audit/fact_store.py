"""The facts of many photos in few bytes each: a mapping from path to `PhotoFacts`.

Facts are rows of one array; thumbnails and keypoints, the bulk, of another, which
beyond `IN_MEMORY` bytes is an unnamed file. So an audit of 100,000 photos keeps their
paths, digests, 33 bytes of facts each, and what is being compared.
"""

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.audit.facts import THUMB, PhotoFacts
from data.audit.local_features import ROW
from data.audit.near_duplicates import Photos
from data.store import Rows, make_store, release

IN_MEMORY = 1 << 26  # bytes of thumbnails and keypoints: those of 2,200 photos
# in the order of PhotoFacts; format and mode as indices, since there are few names
FACTS = np.dtype(
    [
        *(("format", "u1"), ("mode", "u1"), ("width", "<u4"), ("height", "<u4")),
        *(("turn", "u1"), ("size", "<u4"), ("low", "u1"), ("high", "u1")),
        *(("deviation", "<f8"), ("blur", "<f8")),
    ]
)
BULK = THUMB * THUMB + ROW[0] * ROW[1]  # bytes of a thumbnail and its keypoints


class FactStore(Mapping[Path, PhotoFacts]):
    """At most `capacity` photos; none can be added after the first was read."""

    def __init__(self, capacity: int = 0) -> None:
        self._rows: dict[Path, int] = {}
        self._facts = np.zeros(capacity, FACTS)
        self._names: list[str] = []
        self._store = make_store((capacity, BULK), IN_MEMORY, None)
        self._all: Rows | None = None
        self.comparable = True  # every photo has keypoints, if only none of them

    def add(self, path: Path, facts: PhotoFacts) -> None:
        if self._all is not None:
            raise ValueError("these facts are being read; nothing can be added")
        row = self._rows.setdefault(path, len(self._rows))
        format, mode, *numbers, thumb, features = astuple(facts)
        self._facts[row] = (self._index(format), self._index(mode), *numbers)
        self.comparable = self.comparable and bool(features)
        bulk = thumb + (features or bytes(BULK - THUMB * THUMB))
        self._store.put(row, np.frombuffer(bulk, np.uint8))

    def photos(self, paths: list[Path]) -> Photos:
        """The data to compare these photos by, in this order."""
        rows = np.array([self._rows[path] for path in paths], np.int64)
        facts = self._facts[rows]
        return Photos(
            _Part(self._bulk(), rows, slice(THUMB * THUMB, None), ROW),
            _Part(self._bulk(), rows, slice(THUMB * THUMB), (THUMB, THUMB)),
            np.stack([facts["width"], facts["height"]], axis=1),
        )

    def areas(self) -> npt.NDArray[Any]:
        """Pixels of each photo, int64 [N]."""
        facts = self._facts[: len(self._rows)]
        areas: npt.NDArray[Any] = facts["width"].astype(np.int64) * facts["height"]
        return areas

    def __getitem__(self, path: Path) -> PhotoFacts:
        row = self._rows[path]
        format, mode, *numbers = self._facts[row].item()
        bulk = self._bulk()[row].tobytes()
        release(self._all)
        thumb, features = bulk[: THUMB * THUMB], bulk[THUMB * THUMB :]
        numbers += [thumb, features if self.comparable else b""]
        return PhotoFacts(self._names[format], self._names[mode], *numbers)

    def __contains__(self, path: object) -> bool:
        return path in self._rows

    def __iter__(self) -> Iterator[Path]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def _index(self, name: str) -> int:
        if name not in self._names:
            self._names.append(name)
        return self._names.index(name)

    def _bulk(self) -> Rows:
        if self._all is None:
            self._all = self._store.finish(range(len(self._rows)))
        return self._all


@dataclass(frozen=True)
class _Part:
    """Columns of some rows of an array, copied as needed: uint8 [n, *shape]."""

    array: Rows
    rows: npt.NDArray[np.int64]
    columns: slice
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: Any) -> Rows:
        copied = np.ascontiguousarray(self.array[self.rows[which]][:, self.columns])
        release(self.array)
        return copied.reshape(-1, *self.shape)
