"""A contact sheet: photos in rows, each with a line or two above it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from finetune.figures.style import INK, MUTED, save

ACROSS = 6
DPI = 150
# inches: a photo with the gap beside it, the gap, a caption, the heading, the note
TILE, GAP, CAPTION, HEAD, NOTE = 1.7, 0.1, 0.35, 0.35, 0.3


def draw_sheet(
    path: Path,
    pictures: Sequence[npt.NDArray[np.uint8]],
    captions: Sequence[str],
    heading: str,
    note: str = "",
    *,
    across: int = ACROSS,
    tile: float = TILE,
) -> None:
    """A PNG of uint8 [H, W, 3] pictures with their captions, `across` in a row.

    Without pictures: a small sheet with the heading, and the note below it. Pictures
    are placed by pixel coordinates, since axes for each take matplotlib a second.
    """
    from matplotlib.figure import Figure

    across = across if len(pictures) > across - 2 else max(1, len(pictures))
    rows = -(-len(pictures) // across)
    wide = max(6.0, tile * across)
    tall = (tile + CAPTION) * rows + HEAD + NOTE
    figure = Figure(figsize=(wide, tall), dpi=DPI)
    title = figure.text(0.01, 1 - GAP / tall, heading, va="top", fontsize=11, color=INK)
    title.set_fontweight("bold")
    figure.text(0.01, GAP / tall, note, fontsize=8, color=MUTED)
    side = round((tile - GAP) * DPI)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(index, across)
        small = 2 * max(picture.shape[:2]) <= side  # then show its single pixels
        resampling = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
        shown = ImageOps.contain(Image.fromarray(picture), (side, side), resampling)
        left = round(DPI * (tile * column + (tile - shown.width / DPI) / 2))
        top = tall - HEAD - CAPTION - (tile + CAPTION) * row
        figure.figimage(np.asarray(shown), left, round(top * DPI) - shown.height)
        middle = tile * (column + 0.5) / wide
        above = (top + GAP / 3) / tall
        text = figure.text(middle, above, caption, ha="center", fontsize=8, color=INK)
        width = text.get_window_extent().width / DPI
        if width > tile - GAP / 2:  # long labels, which would run into each other
            text.set_fontsize(8 * (tile - GAP / 2) / width)
    save(figure, path)
