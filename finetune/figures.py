"""How the pictures of a run are drawn: colours, axes, contact sheets, writing a PNG.

Figures are drawn with matplotlib's object interface (no display, no global state).
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from edge.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID = "#1f2933", "#6b7785", "#e4e7eb"
FAST = {"compress_level": 1}  # zlib's: a third of the time, a few percent more bytes
TRAIN, VAL, MARK = "#9aa5b1", "#0b7285", "#e8590c"
DPI = 150


def new_figure(width: float, height: float) -> Any:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save(figure: Any, path: Path) -> None:
    """Write it as a PNG, whole or not at all."""

    def write(to: Path) -> None:
        figure.savefig(to, format="png", facecolor="white", pil_kwargs=FAST)

    write_atomic(path, write)


def quiet(axes: Axes, grid: Literal["x", "y", "both"] = "y") -> None:
    """Quiet lines: no frame, grey ticks, a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=8)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def shortened(text: str, maximum: int) -> str:
    """Text of `maximum` characters at most: its beginning and its end."""
    if len(text) <= maximum:
        return text
    return f"{text[: (maximum - 1) // 2]}…{text[-(maximum // 2) :]}"


def plain(axes: Axes, title: str, grid: Literal["x", "y", "both"] = "y") -> None:
    """A bold title on the left, quiet lines."""
    axes.set_title(title, loc="left", fontsize=10, color=INK, weight="bold")
    quiet(axes, grid)


def percent(axes: Axes) -> None:
    """The vertical axis in percent, never beyond 0 and 100."""
    from matplotlib.ticker import PercentFormatter

    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0.0), min(high, 1.005))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


# -- contact sheets --------------------------------------------------------------------
ACROSS = 6
# inches: a photo with the gap beside it, the gap, the heading, the note
TILE, GAP, HEAD, NOTE = 1.7, 0.1, 0.35, 0.3
LINE, LETTER = 0.13, 0.07  # inches: height of a caption's line, width of its letters
NAME = 22  # characters of a file's name under a photo


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
    """A contact sheet of uint8 [H, W, 3] pictures, `across` in a row, as a PNG.

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
