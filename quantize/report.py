"""A comparison in files and lines: terminal table, JSON, CSV, the picture.

It does not know: how anything was measured.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune.report import GRID, INK, MUTED
from finetune.run import write_atomic
from quantize import decide

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from quantize.measured import Comparison, Measured
    from quantize.timing import Setting, Timing

REJECTED = "#c92a2a"
# Wong 2011, "Points of view: color blindness", Nature Methods 8:441, in an order that
# keeps neighbours apart
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_GIVES = (
    *("file", "accuracy", "95 % interval", "drop", "p", "agree", "cal. error"),
    *("refuses", "MB", "M mult-adds", "needs"),
)
_COSTS = ("file", "load", "first", "p50", "p95", "p99", "photos/s", "memory")
_LABEL_HEIGHT = 26  # points: a name and its figures
_SMALLEST_BUBBLE, _LARGEST_BUBBLE = 90.0, 900.0  # areas, square points


def write(comparison: Comparison) -> None:
    """comparison.json, comparison.csv and comparison.png into its folder."""
    folder = comparison.folder
    text = json.dumps(comparison.to_dict(), indent=2, ensure_ascii=False) + "\n"
    write_atomic(
        folder / "comparison.json", lambda to: to.write_text(text, encoding="utf-8")
    )
    write_csv(folder / "comparison.csv", comparison)
    draw(folder / "comparison.png", comparison)


def table(comparison: Comparison) -> list[str]:
    """The lines for a terminal: what each file gives, then what it costs where."""
    files = comparison.files
    refusing = any(file.refusal for file in files)
    keep = [i for i, name in enumerate(_GIVES) if refusing or name != "refuses"]
    rows = [[_gives(file)[i] for i in keep] for file in files]
    runtimes = ", ".join(dict.fromkeys(file.runtime for file in files))
    lines = [
        *_columns([_GIVES[i] for i in keep], rows),
        f"{files[0].evaluation.photos:,} test photos on {runtimes}; p: McNemar's "
        "paired test of the drop",
        f"needs: the oldest TensorFlow Lite{_refusal_note(files) if refusing else ''}",
    ]
    for setting in comparison.settings:
        timed = [(file, file.at(setting)) for file in files]
        rows = [[file.title, *_costs(one)] for file, one in timed if one]
        lines += [
            "",
            *_columns(_COSTS, rows),
            f"ms, MiB; on {_host(comparison, setting)}",
        ]
    return lines


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Head, rule and rows: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
        return "  ".join([first, *rest]).rstrip()

    return [line(head), line(["-" * w for w in widths]), *(line(row) for row in rows)]


def _gives(measured: Measured) -> list[str]:
    low, high = measured.evaluation.interval
    drop, agreed, refusal = measured.drop, measured.agreement, measured.refusal
    return [
        measured.title,
        f"{measured.evaluation.accuracy:.1%}",
        f"{100 * low:.1f} to {100 * high:.1f}",
        "-" if drop is None else f"{100 * drop:+.1f}",
        "-" if measured.paired is None else f"{measured.paired.p:.2f}",
        "-" if agreed is None else f"{agreed:.1%}",
        f"{measured.calibration_error:.3f}",
        "-" if refusal is None else f"{refusal.share:.1%}",
        f"{measured.size_bytes / 1e6:.2f}",
        f"{measured.multiply_adds / 1e6:.1f}",
        measured.oldest_runtime or "newest",
    ]


def _refusal_note(files: Sequence[Measured]) -> str:
    told = [file.refusal for file in files if file.refusal]
    worst = max(refusal.known_share for refusal in told)
    return (
        f"; refuses: of {told[0].unknown:,} unknown photos, and at most {worst:.1%} "
        "of the test photos"
    )


def _costs(timing: Timing) -> list[str]:
    rate = timing.photos_per_second
    return [
        f"{timing.load_ms:.1f}",
        f"{timing.first_ms:.1f}",
        f"{timing.p50_ms:.2f}",
        f"{timing.p95_ms:.2f}",
        f"{timing.p99_ms:.2f}",
        "-" if rate is None else f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}",
        f"{timing.peak_memory_mb:.0f}",
    ]


def _host(comparison: Comparison, setting: Setting) -> str:
    """A setting in words; of this host also cores and architecture."""
    if setting.host == comparison.host["board"]:
        return f"{host_line(comparison)}, {setting.how}"
    return str(setting)


def host_line(comparison: Comparison) -> str:
    about = comparison.host
    return f"{about['board']}, {about['cores']} cores, {about['machine']}"


def write_csv(path: Path, comparison: Comparison) -> None:
    """comparison.csv: one row for each file, device, runtime and number of threads."""
    rows = [
        {"run": comparison.run, **measured.figures(), **timing.to_dict()}
        for measured in comparison.files
        for timing in measured.timings
    ]

    def write(to: Path) -> None:
        with to.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(
                {
                    name: f"{value:.6g}" if isinstance(value, float) else value
                    for name, value in row.items()
                }
                for row in rows
            )

    write_atomic(path, write)


def draw(path: Path, comparison: Comparison) -> None:
    """comparison.png: accuracy against latency; a bubble's area is the file's size.

    The bar through a bubble is the 95 % interval of its accuracy; times are those of
    the setting that the choice went by.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.6), dpi=150, layout="constrained")
    axes: Axes = figure.add_subplot()
    setting = comparison.judged
    points = [
        _Point(measured, timing.p50_ms)
        for measured in comparison.files
        if (timing := measured.at(setting))
    ]
    largest = max(point.file.size_bytes for point in points)
    on_front = decide.front(comparison.files, setting)
    best = [point for point in points if point.file in on_front]
    best.sort(key=lambda point: point.ms)
    axes.plot(
        [point.ms for point in best],
        [100 * point.file.evaluation.accuracy for point in best],
        color=MUTED,
        linewidth=1,
        linestyle="--",
    )
    for number, point in enumerate(points):
        rejected = point.file.rejected
        colour = REJECTED if rejected else COLOURS[number % len(COLOURS)]
        near = [p for p in points[:number] if _overlaps(p, point, points)]
        _bubble(axes, point, colour, point.file.size_bytes / largest, len(near))
    _frame(axes, points)
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
        f"{count:,} test photos, bars: 95 % interval, area: file size, dashed: the "
        "Pareto front",
        transform=axes.transAxes,
        fontsize=8,
        color=MUTED,
        va="bottom",
    )
    figure.supxlabel(
        _host(comparison, setting), fontsize=7, color=MUTED, x=0.99, ha="right"
    )
    write_atomic(path, lambda to: figure.savefig(to, format="png", facecolor="white"))


class _Point(NamedTuple):
    """A file and its median latency in the setting that is drawn."""

    file: Measured
    ms: float


def _overlaps(a: _Point, b: _Point, points: Sequence[_Point]) -> bool:
    """Whether two labels would lie on each other."""
    slowest = max(point.ms for point in points)
    apart = abs(a.file.evaluation.accuracy - b.file.evaluation.accuracy)
    return abs(a.ms - b.ms) < slowest / 4 and apart < 0.001


def _bubble(axes: Axes, point: _Point, colour: str, share: float, below: int) -> None:
    """`below`: so many labels that would lie on this one come before it."""
    from matplotlib.patheffects import withStroke

    measured, ms = point
    low, high = (100 * end for end in measured.evaluation.interval)
    accuracy = 100 * measured.evaluation.accuracy
    axes.vlines(ms, low, high, color=colour, linewidth=1.4, alpha=0.55)
    area = max(_SMALLEST_BUBBLE, _LARGEST_BUBBLE * share)
    axes.scatter(ms, accuracy, s=area, color=colour, edgecolors="white", zorder=3)
    radius = (area / 3.1416) ** 0.5
    halo = [withStroke(linewidth=3, foreground="white")]  # over another's bar
    axes.annotate(
        f"{measured.title}\n",
        (ms, accuracy),
        xytext=(radius + 5, -_LABEL_HEIGHT * below),
        textcoords="offset points",
        fontsize=9,
        weight="bold",
        color=colour,
        va="center",
        path_effects=halo,
    )
    axes.annotate(
        f"\n{accuracy:.1f} %, {ms:.1f} ms, {measured.size_bytes / 1e6:.2f} MB",
        (ms, accuracy),
        xytext=(radius + 5, -_LABEL_HEIGHT * below),
        textcoords="offset points",
        fontsize=8,
        color=INK,
        va="center",
        path_effects=halo,
    )


def _frame(axes: Axes, points: Sequence[_Point]) -> None:
    """Room for the words on the right, axes that begin at no latency."""
    slowest = max(point.ms for point in points)
    axes.set_xlim(0, slowest * 1.55)
    ends: list[Any] = [end for p in points for end in p.file.evaluation.interval]
    margin = max(0.4, 8 * (max(ends) - min(ends)))
    axes.set_ylim(100 * min(ends) - margin, min(100 * max(ends) + margin, 100.6))
    axes.set_xlabel("median latency, ms for one photo", fontsize=9, color=INK)
    axes.set_ylabel("test accuracy, %", fontsize=9, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=8)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
