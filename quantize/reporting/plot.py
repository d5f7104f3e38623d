"""The plot of a comparison, balanced accuracy against latency: as PNG and as SVG.

The recommended file and the Pareto front are labelled by name where there is room, the
others by a number with a key.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from finetune.figures import INK, MUTED, quiet, save
from quantize import recipes
from quantize.comparison import choose
from quantize.reporting import text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from quantize.comparison.records import Comparison, MeasuredFile, Setting

LIMIT = "#c92a2a"  # of the budget
# Wong 2011, "Points of view: color blindness", Nature Methods 8:441, in an order in
# which neighbours differ clearly
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
WIDE, NARROW = (7.6, 4.6), (4.4, 4.6)  # inches
LOG_FROM = 8.0  # a latency scale that spans more than this factor is logarithmic
ALL_NAMED = 4  # up to this many files are all labelled by name
MAX_IN_KEY = 24
TITLE_LENGTH = 9.5  # characters to an inch of the figure
BESIDE_KEY = 0.75  # of the figure's width, for a title beside a key
FEW_DECADES = 3  # a shorter logarithmic scale has ticks at 2 and 5, too
NAME_LENGTH = 36  # longer names are cut in the key
_SMALLEST_BUBBLE, _LARGEST_BUBBLE = 90.0, 700.0  # areas, square points
_EDGE = 3.0  # pixels of white around a label
_GAP = 5.0  # points between a bubble and its label


@dataclass(frozen=True)
class _Point:
    """A file in the plot: index in the comparison, radius of its bubble in points."""

    index: int
    file: MeasuredFile
    ms: float
    colour: str
    radius: float

    @property
    def percent(self) -> float:
        return 100 * self.file.evaluation.balanced_accuracy

    @property
    def ends(self) -> tuple[float, float]:
        low, high = self.file.evaluation.balanced_interval
        return 100 * low, 100 * high


def write_png(path: Path, comparison: Comparison) -> None:
    """Write the plot of the setting that decides."""
    save(draw(comparison, comparison.deciding_setting), path)


def svg(comparison: Comparison, setting: Setting, size: tuple[float, float]) -> str:
    """The plot as an SVG element; the bubble of file N is the group ``...-file-N``."""
    from matplotlib import rc_context

    prefix = f"plot-{comparison.settings.index(setting)}-{size[0]:.0f}"
    stream = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure = draw(comparison, setting, size, prefix, titled=False)
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    document = stream.getvalue()
    return document[document.index("<svg") :]


def hue(comparison: Comparison, file: MeasuredFile) -> int:
    """Its index in `COLOURS`: by run, in a comparison of a single run by variant."""
    groups = list(dict.fromkeys(f.run or f.title for f in comparison.files))
    if len(groups) > 1:
        return groups.index(file.run or file.title) % len(COLOURS)
    variants = list(recipes.VARIANTS)
    if file.variant not in variants:
        return 0
    return variants.index(file.variant) % len(COLOURS)


def draw(
    comparison: Comparison,
    setting: Setting,
    size: tuple[float, float] = WIDE,
    prefix: str = "plot",
    *,
    titled: bool = True,
) -> Figure:
    """The figure: a bubble's area is the file's size, the bar through it the 95 %
    interval of its balanced accuracy; times are those of `setting`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, layout="constrained")
    axes = figure.add_subplot()
    points = _points(comparison, setting)
    chosen = comparison.choice.file
    front_files = choose.front(comparison.files, setting)
    front = [next(p for p in points if p.file is file) for file in front_files]
    axes.plot(
        [p.ms for p in front],
        [p.percent for p in front],
        color=MUTED,
        linewidth=1,
        linestyle="--",
        gid=f"{prefix}-front",
    )
    for point in points:
        _bubble(axes, point, prefix, ringed=point.file is chosen)
    _frame(axes, points, comparison.budget.ms)
    budget_line(axes, comparison.budget.ms)
    marks = ["bar: 95 % interval", "area: file size"]
    marks += ["ring: the file to ship"] if chosen else []
    marks += ["dashed: Pareto front"] if len(front) > 1 else []
    photos = f"{points[0].file.evaluation.photos:,} test photos"
    wide = size[0] >= WIDE[0]
    note = f"{photos}; {', '.join(marks)}" if wide else photos
    axes.set_title(note, loc="left", fontsize=8, color=MUTED)
    title = f"{comparison.run}: accuracy against latency"
    if titled:
        width = size[0] * (BESIDE_KEY if wide and len(points) > ALL_NAMED else 1.0)
        lines = wrap(title, round(TITLE_LENGTH * width))
        if len(lines) > 2:
            lines = [lines[0], f"{lines[1]} \u2026"]
        title = "\n".join(lines)
        style: dict[str, Any] = {"fontsize": 11, "color": INK, "weight": "bold"}
        figure.suptitle(title, x=0.01, ha="left", **style)
    if wide:
        where = text.where(comparison, setting)
        figure.supxlabel(where, fontsize=7, color=MUTED, x=0.99, ha="right")
    named = points if len(points) <= ALL_NAMED else front
    first = [p for p in points if p.file is chosen]
    _label(axes, points, [*first, *(p for p in named if p not in first)], wide=wide)
    return figure


def _points(comparison: Comparison, setting: Setting) -> list[_Point]:
    largest = max(file.size_bytes for file in comparison.files)
    points = []
    for index, file in enumerate(comparison.files):
        timing = file.timing_in(setting)
        if timing is None:
            continue
        area = max(_SMALLEST_BUBBLE, _LARGEST_BUBBLE * file.size_bytes / largest)
        colour = COLOURS[hue(comparison, file)]
        radius = math.sqrt(area / math.pi)
        points.append(_Point(index, file, timing.p50_ms, colour, radius))
    return points


def _bubble(axes: Axes, point: _Point, prefix: str, *, ringed: bool) -> None:
    low, high = point.ends
    axes.vlines(point.ms, low, high, color=point.colour, linewidth=1.4, alpha=0.5)
    area = math.pi * point.radius**2
    hollow = point.file.rejected
    axes.scatter(
        point.ms,
        point.percent,
        s=area,
        facecolors="white" if hollow else point.colour,
        edgecolors=point.colour if hollow else "white",
        zorder=3 + 1 / (1 + area),  # where bubbles overlap, the smaller is on top
        gid=f"{prefix}-file-{point.index}",
    )
    if ringed:  # over all bubbles, so that all of it shows
        axes.scatter(
            point.ms,
            point.percent,
            s=area,
            facecolors="none",
            edgecolors=INK,
            linewidths=2,
            zorder=5,
            gid=f"{prefix}-ring",
        )


def _label(
    axes: Axes, points: Sequence[_Point], named: Sequence[_Point], *, wide: bool
) -> None:
    """Names where there is room, numbers for the others, and their key."""
    from matplotlib.transforms import Bbox

    figure: Any = axes.figure
    numbers = {p.index: str(number) for number, p in enumerate(points, 1)}
    key = [p for p in points if p not in named]
    unlabelled: list[_Point] = []
    if key:  # before the labels: it narrows the plot
        _key(axes, [(numbers[p.index], p) for p in key], wide=wide)
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    bubbles: list[Bbox] = []
    bars: list[Bbox] = []
    labels: list[Bbox] = [text.get_window_extent() for text in axes.texts]
    for p in points:
        x, y = axes.transData.transform((p.ms, p.percent))
        (_, low), (_, high) = axes.transData.transform([(p.ms, e) for e in p.ends])
        r = p.radius * scale
        bubbles.append(Bbox.from_extents(x - r, y - r, x + r, y + r))
        bars.append(Bbox.from_extents(x - 2, low, x + 2, high))
    right = axes.bbox.x1 if key and wide else figure.bbox.x1
    room = Bbox.from_extents(axes.bbox.x0, axes.bbox.y0, right, axes.bbox.y1 + 4)
    for p in named:
        size = p.file.size_bytes / 1e6
        content = p.file.title
        if wide:
            content += f"\n{p.percent:.1f} %, {p.ms:.2f} ms, {size:.2f} MB"
        label = axes.annotate(
            content,
            (p.ms, p.percent),
            (0, 0),
            textcoords="offset points",
            fontsize=8,
            color=INK,
            linespacing=1.3,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1},
            zorder=4,
            annotation_clip=False,
        )
        label.set_in_layout(False)
        occupied = [*bubbles, *labels]
        # close positions first; at distant ones a line leads to the label
        tries = [
            (position, taken)
            for positions in _positions(axes, p, scale)
            for taken in ([*occupied, *bars], occupied)
            for position in positions
        ]
        for (dx, dy, across, down), taken in tries:
            label.xyann = (dx, dy)
            label.set(ha=across, va=down)
            box = label.get_window_extent().padded(_EDGE)
            inside = room.x0 <= box.x0 and box.x1 <= room.x1
            inside = inside and room.y0 <= box.y0 and box.y1 <= room.y1
            if inside and not any(box.overlaps(other) for other in taken):
                labels.append(box)
                if dy:
                    _leader(axes, p, (dx, dy))
                break
        else:
            label.remove()
            unlabelled.append(p)
    key = [p for p in points if p in key or p in unlabelled]
    _numbers(axes, [(numbers[p.index], p) for p in key])
    if unlabelled:
        for legend in list(figure.legends):
            legend.remove()
        _key(axes, [(numbers[p.index], p) for p in key], wide=wide)


def _leader(axes: Axes, point: _Point, to: tuple[float, float]) -> None:
    """A line from a bubble to its label, `to` points away."""
    axes.annotate(
        "",
        (point.ms, point.percent),
        to,
        textcoords="offset points",
        arrowprops={
            "arrowstyle": "-",
            "color": INK,
            "linewidth": 0.6,
            "shrinkA": 0,
            "shrinkB": point.radius,
        },
        zorder=3.5,
        annotation_clip=False,
    ).set_in_layout(False)


def _numbers(axes: Axes, entries: Sequence[tuple[str, _Point]]) -> None:
    """A number in each bubble; one text for overlapping bubbles. Several are wider than
    a bubble, so they have an outline."""
    from matplotlib.patheffects import withStroke

    drawn: list[Any] = []
    for number, p in entries:
        text = axes.annotate(
            number,
            (p.ms, p.percent),
            ha="center",
            va="center_baseline",
            fontsize=6.5,
            weight="bold",
            color=p.colour if p.file.rejected else "white",
            zorder=6,
            path_effects=[
                withStroke(
                    linewidth=1.8, foreground="white" if p.file.rejected else INK
                )
            ],
        )
        box = text.get_window_extent().padded(1)
        other = next((o for o in drawn if o.get_window_extent().overlaps(box)), None)
        if other is None:
            drawn.append(text)
            continue
        other.set_text(f"{other.get_text()},{number}")
        text.remove()


Position = tuple[float, float, str, str]


def _positions(
    axes: Axes, point: _Point, scale: float
) -> tuple[list[Position], list[Position]]:
    """Possible positions of a label, close and distant ones: offsets in points, and its
    horizontal and vertical alignment."""
    gap = point.radius + _GAP
    (_, low), (_, middle), (_, high) = axes.transData.transform(
        [(point.ms, y) for y in (point.ends[0], point.percent, point.ends[1])]
    )
    up = max(gap, (high - middle) / scale + 3)
    down = max(gap, (middle - low) / scale + 3)
    beside = [(gap, 0.0, "left", "center"), (-gap, 0.0, "right", "center")]
    around = [(0.0, up, "center", "bottom"), (0.0, -down, "center", "top")]
    near, *diagonal = [
        [
            (side * gap * 0.7, step, across, "center")
            for side, across in ((1, "left"), (-1, "right"))
            for step in (distance * gap, -distance * gap)
        ]
        for distance in (1.3, 2.2, 3.2, 4.5)
    ]
    return [*beside, *near], [*itertools.chain(*diagonal), *around]


def _key(axes: Axes, entries: Sequence[tuple[str, _Point]], *, wide: bool) -> None:
    """The key of the numbers: beside the plot, in a narrow one below it."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=p.colour,
            marker="o",
            markerfacecolor="white" if p.file.rejected else p.colour,
            linestyle="none",
            markersize=6,
            label=f"{number}  {_short(p.file.title)}",
        )
        for number, p in entries[:MAX_IN_KEY]
    ]
    more = len(entries) - MAX_IN_KEY
    if more > 0:
        blank = Line2D([], [], linestyle="none", label=f"and {more} more")
        handles.append(blank)
    axes.figure.legend(
        handles=handles,
        loc="outside right upper" if wide else "outside lower left",
        fontsize=7,
        frameon=False,
        labelcolor=INK,
        handletextpad=0.2,
        borderaxespad=0.2,
        ncols=1 if wide else 2,
    )


def budget_line(axes: Axes, ms: float | None) -> None:
    """A line at the budget, if it is within the plot."""
    low, high = axes.get_xlim()
    if ms is None or not low < ms < high:
        return
    axes.axvline(ms, color=LIMIT, linewidth=1, linestyle=":")
    axes.annotate(
        f"budget {ms:g} ms",
        (ms, 1),
        (-4, -3),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=8,
        color=LIMIT,
    )


def _frame(axes: Axes, points: Sequence[_Point], budget: float | None) -> None:
    """Room for labels on the right; latency from 0, or logarithmic. A budget far beyond
    the slowest file is not shown."""
    fastest, slowest = min(p.ms for p in points), max(p.ms for p in points)
    if budget is not None and slowest < budget <= 2 * slowest:
        slowest = budget
    latency_axis(axes, fastest, slowest)
    ends = [end for p in points for end in p.ends]
    margin = max(0.4, 0.08 * (max(ends) - min(ends)))
    room = min(ends) - margin, max(ends) + margin
    axes.set_ylim(room)
    axes.set_yticks([tick for tick in axes.get_yticks() if tick <= 100])
    axes.set_ylim(room)  # the ticks have widened it
    axes.set_ylabel("balanced test accuracy, %", fontsize=9, color=INK)


def latency_axis(axes: Axes, fastest: float, slowest: float) -> None:
    """Milliseconds, with room for labels on the right, on quiet lines."""
    from matplotlib.ticker import LogLocator

    if slowest > LOG_FROM * fastest:
        axes.set_xscale("log")
        axes.set_xlim(fastest / 1.5, slowest * (slowest / fastest) ** 0.3)
        if slowest < 10**FEW_DECADES * fastest:
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    else:
        axes.set_xlim(0, slowest * 1.45)
    axes.set_xlabel("median latency, ms for one photo", fontsize=9, color=INK)
    quiet(axes, "both")


def _short(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}\u2026"
