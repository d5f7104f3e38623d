"""Photos that show none of the labels: a folder of them, decoded.

The user's own examples of what is not wanted (`--negatives`). Folders inside do not
matter, unreadable photos are named and left out.

Does not know: what becomes of them.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from edge.errors import EdgegraftError, PhotoError
from edge.preprocess import InputRecipe, load_pixels
from edge.sources import photos
from finetune.console import Console


def refuse_missing(folder: str | None) -> None:
    """EdgegraftError when the folder of examples is none, before any training."""
    if folder is not None and not os.path.isdir(folder):
        raise EdgegraftError(
            f"expected --negatives to be a folder of photos, got {folder}"
        )


def load(folder: str, recipe: InputRecipe, console: Console) -> npt.NDArray[np.uint8]:
    """The pixels of a folder's photos, uint8 [N, H, W, 3].

    EdgegraftError when there is no such folder, or no photo in it can be read.
    """
    found, unreadable = [], 0
    paths = list(photos([folder]))
    with console.bar("decoding examples of what is not wanted") as bar:
        for done, path in enumerate(paths, 1):
            try:
                found.append(load_pixels(path, recipe))
            except PhotoError as error:
                unreadable += 1
                console.say(f"  left out: {path}: {error.reason}")
            bar(done, len(paths))
    if not found:
        raise EdgegraftError(
            f"expected photos in {folder}, got none that can be read "
            f"({unreadable} unreadable)"
        )
    return np.stack(found)
