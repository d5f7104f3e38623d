"""comparison.png: accuracy against latency, for a README or a slide.

It does not know: how anything was measured, or the page's own plot (chart).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edge.files import write_atomic
from finetune.figures.training import GRID, INK, MUTED
from quantize.comparison import choose
from quantize.reporting import plot_labels, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from quantize.comparison.records import Comparison, Measured

REJECTED = "#c92a2a"
# Wong 2011, "Points of view: color blindness", Nature Methods 8:441, in an order that
# keeps neighbours apart
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
# In points: a name and its figures; the mean width of a character of each
_LABEL_HEIGHT, _NAME_GLYPH, _GLYPH = 26, 6.0, 4.5
_SMALLEST_BUBBLE, _LARGEST_BUBBLE = 90.0, 900.0  # areas, square points


def draw(path: Path, comparison: Comparison, where: str) -> None:
    """comparison.png: accuracy against latency; a bubble's area is the file's size.

    The bar through a bubble is the 95 % interval of its accuracy; times are those of
    the setting that the choice went by, `where` in words.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.6), dpi=150, layout="constrained")
    axes: Axes = figure.add_subplot()
    setting = comparison.judged
    points = [
        _Point(
            measured,
            timing.p50_ms,
            REJECTED if measured.rejected else COLOURS[svg.hue(number, measured)],
        )
        for number, measured in enumerate(comparison.files)
        if (timing := measured.at(setting))
    ]
    largest = max(point.file.size_bytes for point in points)
    on_front = choose.front(comparison.files, setting)
    best = [point for point in points if point.file in on_front]
    best.sort(key=lambda point: point.ms)
    axes.plot(
        [point.ms for point in best],
        [100 * point.file.evaluation.accuracy for point in best],
        color=MUTED,
        linewidth=1,
        linestyle="--",
    )
    chosen = comparison.choice.file
    for point in points:
        _bubble(axes, point, _area(point, largest), ringed=point.file is chosen)
    _frame(axes, points, comparison.budget.ms)
    _budget(axes, comparison.budget.ms)
    told = ["bars: 95 % interval", "area: file size"]
    told += ["ringed: the one to ship"] if chosen else []
    told += ["dashed: the Pareto front"] if len(best) > 1 else []
    count = points[0].file.evaluation.photos
    axes.set_title(
        f"{comparison.run}: accuracy against latency",
        loc="left",
        fontsize=11,
        color=INK,
        weight="bold",
        pad=22,
    )
    axes.text(
        0,
        1.02,
        f"{count:,} test photos; {', '.join(told)}",
        transform=axes.transAxes,
        fontsize=8,
        color=MUTED,
        va="bottom",
    )
    figure.supxlabel(where, fontsize=7, color=MUTED, x=0.99, ha="right")
    _names(axes, points, largest)
    write_atomic(path, lambda to: figure.savefig(to, format="png", facecolor="white"))


class _Point(NamedTuple):
    """A file, its median latency in the setting that is drawn, and its colour."""

    file: Measured
    ms: float
    colour: str


def _area(point: _Point, largest: int) -> float:
    """Of a bubble, in square points."""
    share = point.file.size_bytes / largest
    return max(_SMALLEST_BUBBLE, _LARGEST_BUBBLE * share)


def _budget(axes: Axes, ms: float | None) -> None:
    """A line at the most milliseconds allowed, where it is in sight."""
    low, high = axes.get_xlim()
    if ms is None or not low < ms < high:
        return
    axes.axvline(ms, color=REJECTED, linewidth=1, linestyle=":")
    axes.annotate(
        f"budget {ms:g} ms",
        (ms, 1),
        (-4, -3),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=8,
        color=REJECTED,
    )


def _bubble(axes: Axes, point: _Point, area: float, *, ringed: bool) -> None:
    measured, ms, colour = point
    low, high = (100 * end for end in measured.evaluation.interval)
    accuracy = 100 * measured.evaluation.accuracy
    axes.vlines(ms, low, high, color=colour, linewidth=1.4, alpha=0.55)
    # where bubbles lie on each other, the smaller is on top
    axes.scatter(
        ms,
        accuracy,
        s=area,
        color=colour,
        edgecolors="white",
        zorder=3 + 1 / (1 + area),
    )
    if ringed:  # over all bubbles, so that it is seen whole
        ring: dict[str, Any] = {"facecolors": "none", "edgecolors": INK, "zorder": 5}
        axes.scatter(ms, accuracy, s=area, linewidths=2, **ring)


def _names(axes: Axes, points: Sequence[_Point], largest: int) -> None:
    """Two lines beside each bubble, none on another; the layout is settled first."""
    from matplotlib.patheffects import withStroke

    figure: Any = axes.figure
    figure.draw_without_rendering()
    height = figure.bbox.height
    pixels = figure.dpi / 72  # in a point

    def told(point: _Point) -> str:
        share, mb = point.file.evaluation.accuracy, point.file.size_bytes / 1e6
        return f"{100 * share:.1f} %, {point.ms:.2f} ms, {mb:.2f} MB"

    bubbles = []
    for point in points:
        spot = (point.ms, 100 * point.file.evaluation.accuracy)
        x, y = axes.transData.transform(spot)
        radius = (_area(point, largest) / math.pi) ** 0.5 * pixels
        glyphs = max(_NAME_GLYPH * len(point.file.title), _GLYPH * len(told(point)))
        ends = [(point.ms, 100 * end) for end in point.file.evaluation.interval]
        (_, low), (_, high) = axes.transData.transform(ends)
        bubbles.append(
            plot_labels.Bubble(
                *(x, height - y, radius, glyphs * pixels, _LABEL_HEIGHT * pixels),
                up=high - y,
                down=y - low,
            )
        )
    frame = axes.bbox
    room = plot_labels.Box(
        frame.x0, height - frame.y1, figure.bbox.x1, height - frame.y0
    )
    for point, label in zip(points, plot_labels.place(bubbles, room), strict=True):
        side = {"start": "left", "middle": "center", "end": "right"}[label.anchor]
        style: dict[str, Any] = {
            "xycoords": "figure pixels",
            "ha": side,
            "path_effects": [withStroke(linewidth=3, foreground="white")],
            "annotation_clip": False,
        }
        place = (label.x, height - label.y)
        if label.far:
            spot = (point.ms, 100 * point.file.evaluation.accuracy)
            line: dict[str, Any] = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.8}
            axes.annotate("", spot, place, textcoords="figure pixels", arrowprops=line)
        axes.annotate(
            point.file.title,
            place,
            va="bottom",
            fontsize=9,
            weight="bold",
            color=point.colour,
            **style,
        )
        axes.annotate(told(point), place, va="top", fontsize=8, color=INK, **style)


def _frame(axes: Axes, points: Sequence[_Point], budget: float | None) -> None:
    """Room for the words on the right; latency from 0, or logarithmic. A budget that
    would squeeze the files together is left out of sight."""
    fastest, slowest = min(p.ms for p in points), max(p.ms for p in points)
    if budget is not None and slowest < budget <= 2 * slowest:
        slowest = budget
    if slowest > svg.SPREAD * fastest:
        axes.set_xscale("log")
        axes.set_xlim(fastest / 1.5, slowest * (slowest / fastest) ** 0.35)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    else:
        axes.set_xlim(0, slowest * 1.55)
    ends: list[Any] = [end for p in points for end in p.file.evaluation.interval]
    margin = max(0.4, 8 * (max(ends) - min(ends)))
    room = 100 * min(ends) - margin, 100 * max(ends) + margin
    axes.set_ylim(room)
    axes.set_yticks([tick for tick in axes.get_yticks() if tick <= 100])
    axes.set_ylim(room)  # ticks had widened it
    axes.set_xlabel("median latency, ms for one photo", fontsize=9, color=INK)
    axes.set_ylabel("test accuracy, %", fontsize=9, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=8)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
