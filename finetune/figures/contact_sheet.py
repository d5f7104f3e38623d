"""A contact sheet: photos in rows, each with some lines above it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from finetune.figures.style import INK, MUTED, save, shortened

ACROSS = 6
DPI = 150
# inches: a photo with the gap beside it, the gap, the heading, the note
TILE, GAP, HEAD, NOTE = 1.7, 0.1, 0.35, 0.3
LINE, LETTER = 0.13, 0.07  # inches: height of a caption's line, width of its letters


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
    captions = [_fitted(caption, int(tile / LETTER)) for caption in captions]
    lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    above_photo = GAP + LINE * max(2, lines)
    rows = -(-len(pictures) // across)
    wide = max(6.0, tile * across)
    tall = (tile + above_photo) * rows + HEAD + NOTE
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
        top = tall - HEAD - above_photo - (tile + above_photo) * row
        figure.figimage(np.asarray(shown), left, round(top * DPI) - shown.height)
        middle = tile * (column + 0.5) / wide
        above = (top + GAP / 3) / tall
        figure.text(middle, above, caption, ha="center", fontsize=8, color=INK)
    save(figure, path)


def _fitted(caption: str, wide: int) -> str:
    """A caption in lines of `wide` letters at most: next to it stands another one."""
    lines = []
    for line in caption.split("\n"):
        if len(line) > wide:  # room for the percentage behind a label
            line = " ".join(shortened(word, wide - 6) for word in line.split())
        lines += textwrap.wrap(line, wide, break_on_hyphens=False)
    return "\n".join(lines)
