"""A search as lines for a terminal and as a plot of all candidates."""

from __future__ import annotations

import itertools
import shlex
import textwrap
from pathlib import Path
from typing import Any

from edge.evaluate import pareto_front
from edge.text import columns, percent, plural
from finetune.figures import INK, MUTED, new_figure, save
from quantize.reporting import text
from quantize.reporting.plot import COLOURS, budget_line, latency_axis
from quantize.search.records import Entry, SearchResult

PLOT = "search.png"
MAX_ROWS = 8  # of the table that is printed
SHAPES = "os^Dv"  # of the points, with every colour, before any looks like another
_HEAD = ("network", "ms", "MB", "probe", "95 % interval", "int8 on test photos")


def answer(result: SearchResult) -> list[str]:
    """At most 25 lines: the file to ship, its figures, why; the candidates."""
    within = f" within {result.budget}" if str(result.budget) else ""
    finalists = [entry for entry in result.entries if entry.run]
    searched = (
        f"{len(result.within_budget)} of {plural(len(result.entries), 'network')} fit"
        f"{within}; {plural(len(finalists), 'finalist')} by cross-validated probes, "
        "trained and compared on test photos"
    )
    # their untrained graphs were within the budget: mostly the machine was busy since
    runs = [entry.run for entry in finalists if entry.run]
    limits = vars(result.comparison.budget).items()
    again = ["edgegraft", "compare", *map(str, runs)]
    left_out = "; ".join(result.left_out)
    if left_out:
        left_out += " (time limit)"
    again += [f"--budget-{name}={limit:g}" for name, limit in limits if limit]
    advice = f"close other programs, then: {shlex.join(again)}; or a larger budget"
    return [
        *text.to_ship(result.comparison, advice),
        *text.line("searched", searched),
        *(text.line("left out", left_out) if left_out else ()),
        "",
        *table(result),
        "",
        *text.next_steps(result.comparison),
        *text.line("plot", str(result.folder / PLOT)),
    ]


def table(result: SearchResult) -> list[str]:
    """The candidates within the budget, the best first."""
    entries = sorted(result.within_budget, key=_rank)
    rows = [_row(entry, result) for entry in entries[:MAX_ROWS]]
    lines = list(columns(rows, _HEAD))
    more = len(entries) - MAX_ROWS
    if more > 0:
        lines.append(f"and {more} more (search.json)")
    photos = max((entry.score.photos for entry in entries if entry.score), default=0)
    note = f"ms of untrained int8 graphs on {result.measured_on}; *: to ship"
    if photos:
        note += (
            "; probe: balanced accuracy, cross-validated on up to "
            f"{plural(photos, 'photo')}"
        )
    lines += textwrap.wrap(note, text.WIDTH)
    return lines


def _rank(entry: Entry) -> tuple[bool, bool, float]:
    """Finalists first, then by log loss; those without a score by latency."""
    score = entry.score
    return entry.run is None, score is None, score.log_loss if score else entry.ms


def _row(entry: Entry, result: SearchResult) -> tuple[str, ...]:
    score, final = entry.score, entry.final
    mark = " *" if entry is result.chosen else ""
    probe = interval = ""
    if score is not None:
        probe = percent(score.evaluation.balanced_accuracy)
        low, high = score.evaluation.balanced_interval
        interval = f"{100 * low:.1f} to {100 * high:.1f}"
    return (
        entry.candidate.title + mark,
        f"{entry.ms:.2f}",
        f"{entry.mb:.2f}",
        probe,
        interval,
        percent(final["balanced_accuracy"]) if final else "",
    )


def draw(result: SearchResult, path: Path) -> None:
    """Balanced accuracy against latency: hollow points are probes of candidates,
    filled ones the int8 files of the finalists on test photos; bars are 95 % intervals,
    the dashed line is the Pareto front of the probes. Ticks at the foot are candidates
    without a probe: over the budget, or left out."""
    figure = new_figure(8.4, 4.8)
    axes = figure.add_subplot()
    scored = [entry for entry in result.entries if entry.score]
    drawn = [entry for entry in result.entries if entry.score or entry.final]
    others = [entry for entry in result.entries if entry not in drawn]
    backbones = list(
        dict.fromkeys(entry.candidate.backbone.name for entry in result.entries)
    )
    looks = itertools.cycle(itertools.product(SHAPES, COLOURS))
    look = dict(zip(backbones, looks, strict=False))
    for entry in scored:
        assert entry.score is not None
        shape, colour = look[entry.candidate.backbone.name]
        low, high = entry.score.evaluation.balanced_interval
        axes.vlines(entry.ms, 100 * low, 100 * high, color=colour, lw=1.2, alpha=0.4)
        _point(axes, entry.ms, _probe_percent(entry), shape, colour, filled=False)
        _name(axes, str(entry.candidate.size), entry.ms, _probe_percent(entry), -9)
    points = [(entry.ms, _probe_percent(entry)) for entry in scored]
    front = [scored[index] for index in pareto_front(points)]
    axes.plot(
        [entry.ms for entry in front],
        [_probe_percent(entry) for entry in front],
        color=MUTED,
        linewidth=1,
        linestyle="--",
        zorder=1,
    )
    for entry in result.entries:
        if entry.final is None:
            continue
        shape, colour = look[entry.candidate.backbone.name]
        final = entry.final
        low, high = 100 * final["balanced_low"], 100 * final["balanced_high"]
        axes.vlines(entry.ms, low, high, color=colour, lw=2.2, alpha=0.6)
        height = 100 * final["balanced_accuracy"]
        _point(axes, entry.ms, height, shape, colour, filled=True)
        if entry is result.chosen:
            axes.scatter(
                entry.ms, height, s=150, facecolors="none", edgecolors=INK, lw=2
            )
            _name(axes, f"ship: {entry.candidate.title}", entry.ms, height, 10)
    for entry in others:
        _, colour = look[entry.candidate.backbone.name]
        axes.axvline(entry.ms, 0, 0.035, color=colour, linewidth=1.6)
    times = [entry.ms for entry in result.entries]
    latency_axis(axes, min(times), max(times))
    budget_line(axes, result.budget.ms)
    axes.set_ylabel("balanced accuracy, %", fontsize=9, color=INK)
    handles = [
        axes.scatter(
            [],
            [],
            s=50,
            marker=shape,
            facecolors=colour,
            edgecolors="white",
            label=name,
        )
        for name, (shape, colour) in look.items()
    ]
    figure.legend(
        handles=handles,
        loc="outside right upper",
        fontsize=7,
        frameon=False,
        labelcolor=INK,
    )
    style: dict[str, Any] = {"fontsize": 11, "color": INK, "weight": "bold"}
    title = f"{result.folder.name}: {plural(len(result.entries), 'network')} searched"
    figure.suptitle(title, x=0.01, ha="left", **style)
    axes.set_title(
        "hollow: cross-validated; filled: int8 on test photos; numbers: input size; "
        "dashed: Pareto front; ticks: no probe",
        loc="left",
        fontsize=7.5,
        color=MUTED,
    )
    figure.supxlabel(
        str(result.measured_on), fontsize=7, color=MUTED, x=0.99, ha="right"
    )
    save(figure, path)


def _point(
    axes: Any, x: float, y: float, shape: str, colour: str, *, filled: bool
) -> None:
    axes.scatter(
        x,
        y,
        marker=shape,
        s=60 if filled else 36,
        facecolors=colour if filled else "white",
        edgecolors="white" if filled else colour,
        linewidths=1.4,
        zorder=4 if filled else 3,
    )


def _name(axes: Any, words: str, x: float, y: float, up: float) -> None:
    axes.annotate(
        words,
        (x, y),
        (0 if up > 0 else 6, up),
        textcoords="offset points",
        ha="center" if up > 0 else "left",
        va="bottom" if up > 0 else "top",
        fontsize=7.5 if up > 0 else 6.5,
        color=INK if up > 0 else MUTED,
        zorder=6,
    )


def _probe_percent(entry: Entry) -> float:
    assert entry.score is not None
    return 100 * entry.score.evaluation.balanced_accuracy
