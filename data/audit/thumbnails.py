"""Thumbnails by number, copied only as they are asked for.

It does not know what they show.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from data.store import release

SIDE = 32  # pixels of a thumbnail, in both directions


class Thumbs:
    """Some rows of an array (or of such rows): uint8 [n, SIDE, SIDE], read only."""

    def __init__(
        self, array: "npt.NDArray[np.uint8] | Thumbs", rows: npt.NDArray[np.int64]
    ) -> None:
        self._array, self._rows = array, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, which: slice | npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        taken = self._array[self._rows[which]]
        release(self._array)
        return taken
