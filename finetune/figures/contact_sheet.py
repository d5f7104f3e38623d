"""A contact sheet: photos in rows, each with a line or two above it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from finetune.figures.style import INK, MUTED, save

ACROSS = 6
TILE, TALL = 1.7, 2.05  # inches of a photo, and with its caption
BARE = 0.7  # inches of the heading and the note


def draw_sheet(
    path: Path,
    pictures: Sequence[npt.NDArray[np.uint8]],
    captions: Sequence[str],
    heading: str,
    note: str = "",
) -> None:
    """A PNG of uint8 [H, W, 3] pictures with their captions, in the order given.

    Without pictures: a small sheet with the heading, and the note below it.
    """
    from matplotlib.figure import Figure

    across = ACROSS if len(pictures) > ACROSS - 2 else max(1, len(pictures))
    rows = -(-len(pictures) // across)
    size = (max(6.0, TILE * across), TALL * rows + BARE)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    title = figure.suptitle(heading, x=0.01, ha="left", fontsize=11, color=INK)
    title.set_fontweight("bold")
    grid = figure.subplots(rows, across, squeeze=False).ravel() if rows else ()
    for axes in grid:
        axes.axis("off")
    for axes, picture, caption in zip(grid, pictures, captions, strict=False):
        axes.imshow(picture)
        axes.set_title(caption, fontsize=8, color=INK)
    if note:
        figure.supxlabel(note, x=0.01, ha="left", fontsize=8, color=MUTED)
    save(figure, path)
