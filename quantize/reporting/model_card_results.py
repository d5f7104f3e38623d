"""The evaluation part of a run's README.md: tables of what was measured.

It does not know: how it was measured, or the rest of the model card.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantize.comparison.records import Comparison, Measured
    from quantize.comparison.timing import Timing

_SPEED = (
    *("file", "device", "runtime", "load", "p50", "p95", "p99", "photos / s"),
    "MiB",
)


def lines(comparison: Comparison) -> list[str]:
    """What was measured of each file, and of the chosen one label by label."""
    files, first = comparison.files, comparison.files[0]
    heads = ["file", "accuracy", "95 % interval", "lost / gained", "p", "agree"]
    heads += ["calibration error", "refuses unknown", "MB", "runs on TFLite from"]
    rows = [_gives(file) for file in files]
    if not any(file.refusal for file in files):
        place = heads.index("refuses unknown")
        heads, rows = _without(heads, place), [_without(row, place) for row in rows]
    runtimes = ", ".join(dict.fromkeys(file.runtime for file in files))
    times = [
        [file.title, timing.setting.host, timing.setting.how, *_costs(timing)]
        for setting in comparison.settings
        for file in files
        if (timing := file.at(setting))
    ]
    return [
        "### Testing data and metrics",
        "",
        f"{first.evaluation.photos:,} test photos, used for nothing else, each through "
        f"the file itself on {runtimes}. Lost / gained: photos that only float32, only "
        "this file got right; p: McNemar's test of these; agree: photos with the same "
        "answer as float32.",
        "",
        "### Results",
        "",
        *_table(heads, rows),
        "",
        *_per_class(comparison.choice.file or first),
        "",
        "### Speed and memory",
        "",
        *_table(
            _SPEED,
            times,
        ),
        "",
        f"Times in ms for one photo. {comparison.method}.",
        *(f"\nWarning: {warning}." for warning in comparison.warnings),
    ]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table: the first column to the left, figures to the right."""
    return [
        f"| {' | '.join(heads)} |",
        "|---|" + "---:|" * (len(heads) - 1),
        *(f"| {' | '.join(map(cell, row))} |" for row in rows),
    ]


def _without(cells: Sequence[str], place: int) -> list[str]:
    return [*cells[:place], *cells[place + 1 :]]


def _gives(file: Measured) -> list[str]:
    low, high = file.evaluation.interval
    pair = file.paired
    return [
        file.title,
        f"{file.evaluation.accuracy:.1%}",
        f"{100 * low:.1f} to {100 * high:.1f}",
        f"{pair.lost} / {pair.gained}" if pair else "-",
        f"{pair.p:.2f}" if pair else "-",
        "-" if file.agreement is None else f"{file.agreement:.1%}",
        f"{file.calibration_error:.3f}",
        f"{file.refusal.share:.1%}" if file.refusal else "-",
        f"{file.size_bytes / 1e6:.2f}",
        file.oldest_runtime or "newest",
    ]


def _costs(timing: Timing) -> list[str]:
    rate = timing.photos_per_second
    return [
        f"{timing.load_ms:.1f}",
        f"{timing.p50_ms:.2f}",
        f"{timing.p95_ms:.2f}",
        f"{timing.p99_ms:.2f}",
        "-" if rate is None else f"{rate:,.0f}",
        f"{timing.peak_memory_mb:.0f}",
    ]


def _per_class(file: Measured) -> list[str]:
    names = ("precision", "recall")
    rows = [
        [entry["label"], f"{entry['photos']:,}", *(f"{entry[n]:.1%}" for n in names)]
        for entry in file.evaluation.per_class
    ]
    heads = ("label", "photos", *names)
    return [f"Per class, {file.title}:", "", *_table(heads, rows)]


def cell(text: Any) -> str:
    """Text for a cell of a Markdown table."""
    return str(text).replace("|", "\\|")
