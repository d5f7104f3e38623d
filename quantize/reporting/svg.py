"""Accuracy against latency as an SVG that lives inside the page.

A bubble's area is the file's size, the bar through it the 95 % interval of its
accuracy; the dashed line joins the Pareto front, the files that no other beats.
Colours are classes and variables of the page's style sheet, so light and dark fit.

It does not know: how anything was measured, or the page around it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from quantize import recipes
from quantize.comparison import choose
from quantize.reporting import plot_labels

if TYPE_CHECKING:
    from quantize.comparison.records import Comparison, Measured
    from quantize.comparison.timing import Setting, Timing

_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 18.0, 18.0, 50.0
_LARGEST, _SMALLEST = 26.0, 5.0  # radii in pixels
_LINE = 17.0  # height of a label
_GLYPH = 7.2  # mean width of a label's character
HUES = 6  # as many as there are variants; the style sheet has c0 to c5
SPREAD = 6.0  # times apart by more than this are drawn on a logarithmic axis


@dataclass(frozen=True)
class Size:
    """Pixels the drawing is made for; it shrinks and grows with the page."""

    width: float
    height: float


WIDE, NARROW = Size(1040, 440), Size(420, 460)


@dataclass(frozen=True)
class _Point:
    number: int  # of the file in the comparison: its colour
    file: Measured
    timing: Timing
    x: float
    y: float
    radius: float


class _Axes:
    """From milliseconds and accuracy (0..1) to pixels."""

    def __init__(
        self, size: Size, times: Sequence[float], shares: Sequence[float]
    ) -> None:
        self.size = size
        self.log = max(times) > SPREAD * min(times)
        if self.log:
            self.low, self.high = min(times) / 1.6, max(times) * 1.6
        else:
            self.low, self.high = 0.0, max(times) * 1.25
        margin = max(0.004, 0.12 * (max(shares) - min(shares)))
        self.bottom = max(min(shares) - margin, 0.0)
        self.top = min(max(shares) + margin, 1.0 + margin / 2)

    def x(self, ms: float) -> float:
        inner = self.size.width - _LEFT - _RIGHT
        if self.log:
            share = math.log(ms / self.low) / math.log(self.high / self.low)
        else:
            share = (ms - self.low) / (self.high - self.low)
        return _LEFT + inner * share

    def y(self, accuracy: float) -> float:
        inner = self.size.height - _TOP - _BOTTOM
        share = (accuracy - self.bottom) / (self.top - self.bottom)
        return _TOP + inner * (1 - share)

    def time_ticks(self) -> list[float]:
        if not self.log:
            return _round_steps(self.low, self.high, 8 if self.size is WIDE else 4)
        powers = range(math.floor(math.log10(self.low)), 9)
        found = [m * 10.0**p for p in powers for m in (1, 2, 5)]
        return [tick for tick in found if self.low <= tick <= self.high]

    def share_ticks(self) -> list[float]:
        return _round_steps(self.bottom, min(self.top, 1.0), 6)


def _round_steps(low: float, high: float, most: int) -> list[float]:
    """At most about `most` round numbers from low to high."""
    step = 10 ** math.floor(math.log10((high - low) / most))
    step *= next(f for f in (1, 2, 5, 10) if (high - low) / (f * step) <= most)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def draw(comparison: Comparison, setting: Setting, size: Size) -> str:
    """The `<svg>` of the files that were measured in `setting`."""
    timed = [
        (number, file, timing)
        for number, file in enumerate(comparison.files)
        if (timing := file.at(setting))
    ]
    ends = [end for _, file, _ in timed for end in file.evaluation.interval]
    times = [timing.p50_ms for _, _, timing in timed]
    if comparison.budget.ms is not None:
        times.append(comparison.budget.ms)
    axes = _Axes(size, times, ends)
    largest = max(file.size_bytes for _, file, _ in timed)
    points = [
        _Point(
            number,
            file,
            timing,
            axes.x(timing.p50_ms),
            axes.y(file.evaluation.accuracy),
            max(_SMALLEST, _LARGEST * math.sqrt(file.size_bytes / largest)),
        )
        for number, file, timing in timed
    ]
    points.sort(key=lambda point: -point.radius)  # small ones on top
    parts = [
        *_grid(axes),
        *_budget(axes, comparison.budget.ms),
        _front(axes, choose.front(comparison.files, setting), setting),
        *(_interval(axes, point) for point in points),
        *(_bubble(point, comparison) for point in points),
        *_labels(axes, points),
    ]
    told = f"Accuracy against latency of {len(points)} files on {setting}"
    return (
        f'<svg viewBox="0 0 {size.width:g} {size.height:g}" role="img" '
        f'aria-label="{escape(told)}">{"".join(parts)}</svg>'
    )


def _grid(axes: _Axes) -> list[str]:
    size = axes.size
    right, floor = size.width - _RIGHT, size.height - _BOTTOM
    parts = []
    for tick in axes.share_ticks():
        y = axes.y(tick)
        parts.append(f'<path class="grid" d="M{_LEFT:.1f} {y:.1f}H{right:.1f}"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{100 * tick:.4g}", "tick", "end"))
    for tick in axes.time_ticks():
        x = axes.x(tick)
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP:.1f}V{floor:.1f}"/>')
        parts.append(_text(x, floor + 18, f"{tick:.4g}", "tick", "middle"))
    scale = ", logarithmic" if axes.log else ""
    words = f"median latency, ms a photo{scale} (left is faster)"
    parts.append(f'<path class="axis" d="M{_LEFT:.1f} {floor:.1f}H{right:.1f}"/>')
    parts.append(_text(right, floor + 38, words, "axis-name", "end"))
    up = f'class="axis-name" transform="translate(13 {_TOP:g}) rotate(-90)"'
    parts.append(f'<text {up} text-anchor="end">test accuracy, %</text>')
    return parts


def _budget(axes: _Axes, ms: float | None) -> list[str]:
    if ms is None or not axes.low < ms < axes.high:
        return []
    x, floor = axes.x(ms), axes.size.height - _BOTTOM
    return [
        f'<path class="budget" d="M{x:.1f} {_TOP:.1f}V{floor:.1f}"/>',
        _text(x - 6, _TOP + 12, f"budget {ms:g} ms", "budget-name", "end"),
    ]


def _front(axes: _Axes, best: Sequence[Measured], setting: Setting) -> str:
    """From file to file, fastest first. Others lie below it or behind its end: a
    staircase would run through those that are as accurate and slower."""
    spots = []
    for file in best:
        timing: Any = file.at(setting)
        x, y = axes.x(timing.p50_ms), axes.y(file.evaluation.accuracy)
        spots.append(f"{x:.1f} {y:.1f}")
    return f'<path class="front" d="M{"L".join(spots)}"/>' if spots[1:] else ""


def _interval(axes: _Axes, point: _Point) -> str:
    low, high = (axes.y(end) for end in point.file.evaluation.interval)
    kind = colour(point.number, point.file)
    return f'<path class="whisker {kind}" d="M{point.x:.1f} {low:.1f}V{high:.1f}"/>'


def _bubble(point: _Point, comparison: Comparison) -> str:
    file, timing = point.file, point.timing
    low, high = file.evaluation.interval
    lines = [
        file.title,
        f"{file.evaluation.accuracy:.1%} ({100 * low:.1f} to {100 * high:.1f})",
        f"{timing.p50_ms:.2f} ms, p99 {timing.p99_ms:.2f} ms",
        f"{file.size_bytes / 1e6:.2f} MB, {timing.peak_memory_mb:.0f} MiB memory",
        str(timing.setting),
    ]
    kind, tip = colour(point.number, file), escape("|".join(lines))
    if comparison.choice.file and comparison.choice.file.title == file.title:
        kind += " chosen"
    return (
        f'<circle class="bubble {kind}" cx="{point.x:.1f}" cy="{point.y:.1f}" '
        f'r="{point.radius:.1f}" tabindex="0" role="img" data-file="{point.number}" '
        f'aria-label="{escape("; ".join(lines))}" data-tip="{tip}"/>'
    )


def colour(number: int, file: Measured) -> str:
    """The style sheet's class of a file's colour."""
    return "rejected" if file.rejected else f"c{hue(number, file)}"


def hue(number: int, file: Measured) -> int:
    """Which colour out of `HUES`: a variant's own in a comparison of one run, where
    each is there once; else that of the file's `number`."""
    names = list(recipes.VARIANTS)
    if file.title in names and file.title == file.variant:
        number = names.index(file.variant)
    return number % HUES


def _labels(axes: _Axes, points: Sequence[_Point]) -> list[str]:
    """Names beside the bubbles, with a line where they had to move away."""
    bubbles = []
    for p in points:
        low, high = (axes.y(end) for end in p.file.evaluation.interval)
        bubbles.append(
            plot_labels.Bubble(
                *(p.x, p.y, p.radius, _GLYPH * len(p.file.title), _LINE),
                up=p.y - high,
                down=low - p.y,
            )
        )
    room = plot_labels.Box(_LEFT, 0, axes.size.width, axes.size.height - _BOTTOM)
    parts: list[str] = []
    for point, label in zip(points, plot_labels.place(bubbles, room), strict=True):
        if label.far:
            edge = label.x + (3 if label.anchor == "end" else -3)
            parts.append(
                f'<path class="leader" d="M{point.x:.1f} {point.y:.1f}'
                f'L{edge:.1f} {label.y:.1f}"/>'
            )
        kind = f"name {colour(point.number, point.file)}"
        name = point.file.title
        parts.append(_text(label.x, label.y + 4, name, kind, label.anchor))
    return parts


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
