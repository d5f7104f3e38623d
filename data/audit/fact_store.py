"""The facts of many photos, held in few bytes each: from path to `PhotoFacts`.

Facts lie in one array; thumbnails and keypoints, the bulk of them, in another, which
beyond `IN_MEMORY` bytes is a nameless file. So an audit of 100,000 photos holds their
names and digests, 33 bytes of facts each, and what it compares just then.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.audit.facts import THUMB, PhotoFacts
from data.audit.local_features import ROW
from data.audit.near_duplicates import Photos
from data.store import Rows, make_store, release

IN_MEMORY = 1 << 26  # bytes of thumbnails and keypoints: those of 2,200 photos
# PhotoFacts' own order; names are kept as numbers, since there are few of them
FACTS = np.dtype(
    [
        *(("format", "u1"), ("mode", "u1"), ("width", "<u4"), ("height", "<u4")),
        *(("turn", "u1"), ("size", "<u4"), ("low", "u1"), ("high", "u1")),
        *(("deviation", "<f8"), ("blur", "<f8")),
    ]
)


BULK = THUMB * THUMB + ROW[0] * ROW[1]  # bytes of a thumbnail and its keypoints


class FactStore(Mapping[Path, PhotoFacts]):
    """Put in one after the other with `add`, `most` of them; then only read."""

    def __init__(self, most: int = 0) -> None:
        self._rows: dict[Path, int] = {}
        self._facts = np.zeros(most, FACTS)
        self._names: list[str] = []
        self._store = make_store((most, BULK), IN_MEMORY, None)
        self._all: Rows | None = None
        self.comparable = True  # every photo has keypoints, if only none of them

    def add(self, path: Path, facts: PhotoFacts) -> None:
        if self._all is not None:
            raise ValueError("these facts are being read; nothing can be added")
        row = self._rows.setdefault(path, len(self._rows))
        numbers = (self._number(facts.format), self._number(facts.mode))
        rest = (
            facts.width,
            facts.height,
            facts.turn,
            facts.size,
            facts.low,
            facts.high,
        )
        self._facts[row] = (*numbers, *rest, facts.deviation, facts.blur)
        self.comparable = self.comparable and bool(facts.features)
        bulk = facts.thumb + (facts.features or bytes(BULK - THUMB * THUMB))
        self._store.put(row, np.frombuffer(bulk, np.uint8))

    def photos(self, paths: list[Path]) -> Photos:
        """What is compared of these photos, in this order."""
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
        kind, mode, *rest = self._facts[row].item()
        bulk = self._bulk()[row].tobytes()
        release(self._all)
        thumb, features = bulk[: THUMB * THUMB], bulk[THUMB * THUMB :]
        last = [*rest, thumb, features if self.comparable else b""]
        return PhotoFacts(self._names[kind], self._names[mode], *last)

    def __contains__(self, path: object) -> bool:
        return path in self._rows

    def __iter__(self) -> Iterator[Path]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def _number(self, name: str) -> int:
        if name not in self._names:
            self._names.append(name)
        return self._names.index(name)

    def _bulk(self) -> Rows:
        if self._all is None:
            self._all = self._store.finish(range(len(self._rows)))
        return self._all


class _Part:
    """A part of some rows of an array, copied as it is needed: uint8 [n, *shape]."""

    def __init__(
        self,
        array: Rows,
        rows: npt.NDArray[np.int64],
        part: slice,
        shape: tuple[int, int],
    ) -> None:
        self._array, self._rows, self._part, self._shape = array, rows, part, shape

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, which: Any) -> Rows:
        taken = np.asarray(self._array[self._rows[which]][:, self._part])
        release(self._array)
        return np.ascontiguousarray(taken).reshape(-1, *self._shape)
