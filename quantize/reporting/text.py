"""A comparison in files and lines: terminal table, JSON, CSV, the picture.

It does not know: how anything was measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge import files
from edge.evaluate import Evaluation
from edge.text import columns
from quantize.comparison import choose
from quantize.reporting import plot

if TYPE_CHECKING:
    from quantize.comparison.records import Comparison, Measured
    from quantize.comparison.timing import Setting, Timing

_GIVES = (
    *("file", "accuracy", "95 % interval", "drop", "p", "agree", "cal. error"),
    *("refuses", "MB", "M mult-adds", "needs"),
)
_COSTS = ("file", "load", "first", "p50", "p95", "p99", "photos/s", "memory")


def write(comparison: Comparison) -> None:
    """comparison.json, comparison.csv and comparison.png into its folder."""
    folder = comparison.folder
    text = json.dumps(comparison.to_dict(), indent=2, ensure_ascii=False) + "\n"
    files.write_atomic(folder / "comparison.json", text)
    write_csv(folder / "comparison.csv", comparison)
    plot.draw(
        folder / "comparison.png", comparison, where(comparison, comparison.judged)
    )


def table(comparison: Comparison) -> list[str]:
    """The lines for a terminal: what each file gives, then what it costs where."""
    files = comparison.files
    refusing = any(file.refusal for file in files)
    keep = [i for i, name in enumerate(_GIVES) if refusing or name != "refuses"]
    rows = [[_gives(file)[i] for i in keep] for file in files]
    runtimes = ", ".join(dict.fromkeys(file.runtime for file in files))
    lines = [
        *columns(rows, [_GIVES[i] for i in keep], rule=True),
        f"{files[0].evaluation.photos:,} test photos on {runtimes}; p: McNemar's "
        "paired test of the drop",
        "needs: the oldest TensorFlow Lite with its operators"
        + (_refusal_note(files) if refusing else ""),
        *no_better_than_a_guess(max(files, key=_accuracy).evaluation),
    ]
    for setting in comparison.settings:
        timed = [(file, file.at(setting)) for file in files]
        rows = [[file.title, *_costs(one)] for file, one in timed if one]
        lines += [
            "",
            *columns(rows, _COSTS, rule=True),
            f"ms, MiB; on {where(comparison, setting)}",
        ]
    return lines


def _accuracy(measured: Measured) -> float:
    return measured.evaluation.accuracy


def no_better_than_a_guess(evaluation: Evaluation) -> list[str]:
    """A line where `decide.guess` finds that this may be chance; else none."""
    guess = choose.guess(evaluation)
    if guess is None:
        return []
    return [f"{guess}: this test part cannot tell the best file from that"]


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
    few, many = (end(refusal.photos for refusal in told) for end in (min, max))
    photos = f"{few:,}" if few == many else f"{few:,} to {many:,}"
    known = f"at most {worst:.1%}" if worst else "none"
    return f"; refuses: of {photos} unknown photos, and {known} of the test photos"


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


def where(comparison: Comparison, setting: Setting) -> str:
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

    names = dict.fromkeys(name for row in rows for name in row)  # not all have all
    cells = ([row.get(name, "") for name in names] for row in rows)
    files.write_csv(
        path,
        list(names),
        ([f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in cells),
    )
