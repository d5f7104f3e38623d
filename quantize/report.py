"""A comparison in files and lines: terminal table, JSON, CSV, the picture.

It does not know: how anything was measured.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.report import GRID, INK, MARK, MUTED, VAL
from finetune.run import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from quantize.measured import Comparison, Measured

REJECTED = "#c92a2a"
_COLOURS = (MUTED, VAL, MARK, "#7048e8", "#2b8a3e", "#a61e4d")
_HEAD = (
    *("variant", "accuracy", "95 % interval", "drop", "p", "agree", "MB"),
    *("first", "p50", "p95", "p99", "memory", "needs"),
)
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
    """The lines for a terminal."""
    head = list(_HEAD)
    rows = [_cells(measured) for measured in comparison.files]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
        return "  ".join([first, *rest]).rstrip()

    files = comparison.files
    count = files[0].evaluation.photos
    return [
        line(head),
        line(["-" * width for width in widths]),
        *(line(row) for row in rows),
        f"{count:,} test photos; times in ms, {_threads(files[0])}, memory in MiB; "
        f"{files[0].runtime}",
        "p: McNemar's paired test of the drop; needs: the oldest TensorFlow Lite",
        f"on {host_line(comparison)}",
    ]


def _cells(measured: Measured) -> list[str]:
    low, high = measured.evaluation.interval
    drop, agreed = measured.drop, measured.agreement
    return [
        measured.title,
        f"{measured.evaluation.accuracy:.1%}",
        f"{100 * low:.1f} to {100 * high:.1f}",
        "-" if drop is None else f"{100 * drop:+.1f}",
        "-" if measured.paired is None else f"{measured.paired.p:.2f}",
        "-" if agreed is None else f"{agreed:.1%}",
        f"{measured.size_bytes / 1e6:.2f}",
        f"{measured.first_ms:.1f}",
        f"{measured.p50_ms:.2f}",
        f"{measured.p95_ms:.2f}",
        f"{measured.p99_ms:.2f}",
        f"{measured.peak_memory_mb:.0f}",
        measured.oldest_runtime or "newest",
    ]


def _threads(measured: Measured) -> str:
    return "1 thread" if measured.threads == 1 else f"{measured.threads} threads"


def host_line(comparison: Comparison) -> str:
    about = comparison.host
    return f"{about['board']}, {about['cores']} cores, {about['machine']}"


def write_csv(path: Path, comparison: Comparison) -> None:
    """comparison.csv: one row a file, host and runtime on each."""
    rows = [
        {"run": comparison.run, **measured.figures(), "host": host_line(comparison)}
        for measured in comparison.files
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

    The bar through a bubble is the 95 % interval of its accuracy.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.6), dpi=150, layout="constrained")
    axes: Axes = figure.add_subplot()
    files = comparison.files
    largest = max(measured.size_bytes for measured in files)
    best = front(files)
    axes.plot(
        [file.p50_ms for file in best],
        [100 * file.evaluation.accuracy for file in best],
        color=MUTED,
        linewidth=1,
        linestyle="--",
    )
    for number, measured in enumerate(files):
        colour = REJECTED if measured.rejected else _COLOURS[number % len(_COLOURS)]
        near = [f for f in files[:number] if _overlaps(f, measured, files)]
        _bubble(axes, measured, colour, measured.size_bytes / largest, len(near))
    _frame(axes, files)
    count = files[0].evaluation.photos
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
        "Pareto front. "
        f"{files[0].runtime}, {_threads(files[0])}",
        transform=axes.transAxes,
        fontsize=8,
        color=MUTED,
        va="bottom",
    )
    figure.supxlabel(host_line(comparison), fontsize=7, color=MUTED, x=0.99, ha="right")
    write_atomic(path, lambda to: figure.savefig(to, format="png", facecolor="white"))


def front(files: Sequence[Measured]) -> list[Measured]:
    """The Pareto front, fastest first: no other is as fast and more accurate."""
    order = sorted(files, key=lambda f: (f.p50_ms, -f.evaluation.accuracy))
    found: list[Measured] = []
    for file in order:
        if not file.rejected and (
            not found or file.evaluation.accuracy > found[-1].evaluation.accuracy
        ):
            found.append(file)
    return found


def _overlaps(a: Measured, b: Measured, files: Sequence[Measured]) -> bool:
    """Whether two labels would lie on each other."""
    slowest = max(file.p50_ms for file in files)
    apart = abs(a.evaluation.accuracy - b.evaluation.accuracy)
    return abs(a.p50_ms - b.p50_ms) < slowest / 4 and apart < 0.001


def _bubble(
    axes: Axes, measured: Measured, colour: str, share: float, below: int
) -> None:
    """`below`: so many labels that would lie on this one come before it."""
    from matplotlib.patheffects import withStroke

    low, high = (100 * end for end in measured.evaluation.interval)
    accuracy = 100 * measured.evaluation.accuracy
    axes.vlines(measured.p50_ms, low, high, color=colour, linewidth=1.4, alpha=0.55)
    area = max(_SMALLEST_BUBBLE, _LARGEST_BUBBLE * share)
    axes.scatter(
        measured.p50_ms, accuracy, s=area, color=colour, edgecolors="white", zorder=3
    )
    radius = (area / 3.1416) ** 0.5
    halo = [withStroke(linewidth=3, foreground="white")]  # over another's bar
    axes.annotate(
        f"{measured.title}\n",
        (measured.p50_ms, accuracy),
        xytext=(radius + 5, -_LABEL_HEIGHT * below),
        textcoords="offset points",
        fontsize=9,
        weight="bold",
        color=colour,
        va="center",
        path_effects=halo,
    )
    axes.annotate(
        f"\n{accuracy:.1f} %, {measured.p50_ms:.1f} ms, "
        f"{measured.size_bytes / 1e6:.2f} MB",
        (measured.p50_ms, accuracy),
        xytext=(radius + 5, -_LABEL_HEIGHT * below),
        textcoords="offset points",
        fontsize=8,
        color=INK,
        va="center",
        path_effects=halo,
    )


def _frame(axes: Axes, files: Sequence[Measured]) -> None:
    """Room for the words on the right, axes that begin at no latency."""
    slowest = max(measured.p50_ms for measured in files)
    axes.set_xlim(0, slowest * 1.55)
    ends: list[Any] = [end for m in files for end in m.evaluation.interval]
    margin = max(0.4, 8 * (max(ends) - min(ends)))
    axes.set_ylim(100 * min(ends) - margin, min(100 * max(ends) + margin, 100.6))
    axes.set_xlabel("median latency, ms for one photo", fontsize=9, color=INK)
    axes.set_ylabel("test accuracy, %", fontsize=9, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=8)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
