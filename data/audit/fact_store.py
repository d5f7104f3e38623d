"""The looks of many photos, held in few bytes each: a mapping from path to `Look`.

Facts lie in one array; thumbnails, the bulk of them, in another, which beyond
`IN_MEMORY` bytes is a nameless file. So an audit of 100,000 photos holds their names
and digests, 29 bytes of facts each, and what it compares just then.

It does not know what the facts mean.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.audit.facts import Look
from data.audit.thumbnails import SIDE, Thumbs
from data.store import Rows, make_store, release

IN_MEMORY = 1 << 24  # bytes of thumbnails: those of 16,384 photos
# Look's own order; names are kept as numbers, since there are few of them
FACTS = np.dtype(
    [
        *(("format", "u1"), ("mode", "u1"), ("width", "<u4"), ("height", "<u4")),
        *(("turn", "u1"), ("low", "u1"), ("high", "u1")),
        *(("deviation", "<f8"), ("blur", "<f8")),
    ]
)


class Looks(Mapping[Path, Look]):
    """Put in one after the other with `add`, `most` of them; then only read."""

    def __init__(self, most: int = 0) -> None:
        self._rows: dict[Path, int] = {}
        self._facts = np.zeros(most, FACTS)
        self._names: list[str] = []
        self._store = make_store((most, SIDE, SIDE), IN_MEMORY, None)
        self._all: Rows | None = None

    def add(self, path: Path, look: Look) -> None:
        if self._all is not None:
            raise ValueError("these looks are being read; nothing can be added")
        row = self._rows.setdefault(path, len(self._rows))
        numbers = (self._number(look.format), self._number(look.mode))
        rest = (look.width, look.height, look.turn, look.low, look.high)
        self._facts[row] = (*numbers, *rest, look.deviation, look.blur)
        thumb = np.frombuffer(look.thumb, np.uint8).reshape(SIDE, SIDE)
        self._store.put(row, thumb)

    def thumbs(self, paths: list[Path]) -> Thumbs:
        """The thumbnails of these photos, in this order."""
        rows = np.array([self._rows[path] for path in paths], np.int64)
        return Thumbs(self._thumbs(), rows)

    def areas(self) -> npt.NDArray[Any]:
        """Pixels of each photo, int64 [N]."""
        facts = self._facts[: len(self._rows)]
        areas: npt.NDArray[Any] = facts["width"].astype(np.int64) * facts["height"]
        return areas

    def __getitem__(self, path: Path) -> Look:
        row = self._rows[path]
        kind, mode, *rest = self._facts[row].item()
        thumb = self._thumbs()[row].tobytes()
        release(self._all)
        return Look(*(self._names[kind], self._names[mode], *rest, thumb))

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

    def _thumbs(self) -> Rows:
        if self._all is None:
            self._all = self._store.finish(range(len(self._rows)))
        return self._all
