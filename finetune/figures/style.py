"""The look of the pictures: colours, an empty figure, axes, writing a PNG.

Figures are drawn with matplotlib's object interface (no display, no global state).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edge.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID = "#1f2933", "#6b7785", "#e4e7eb"
FAST = {"compress_level": 1}  # zlib's: a third of the time, a few percent more bytes
TRAIN, VAL, MARK = "#9aa5b1", "#0b7285", "#e8590c"


def new_figure(width: float, height: float) -> Any:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


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
