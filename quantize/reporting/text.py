"""A comparison as lines for a terminal: the summary, and all tables."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edge.text import columns as aligned
from edge.text import percent, plural
from quantize.comparison.choose import no_better_than_guessing, points
from quantize.reporting import columns
from quantize.reporting.columns import Column

if TYPE_CHECKING:
    from edge.evaluate import Evaluation, Refusal
    from quantize.comparison.records import (
        Comparison,
        Headline,
        MeasuredFile,
        Setting,
    )

WIDTH = 88
SMALLER = "edgegraft build PHOTOS --small, or edgegraft search PHOTOS"
MAX_LOST = 3  # labels named in a warning
MAX_ROWS = 8  # files in the summary; the others are in the report
_INDENT = 10  # of the text after a heading


def summary(comparison: Comparison) -> list[str]:
    """At most 25 lines: the file to ship, its figures, all files, the next steps."""
    return [
        *to_ship(comparison),
        "",
        *_files(comparison),
        "",
        *next_steps(comparison),
    ]


def to_ship(comparison: Comparison, advice: str = SMALLER) -> list[str]:
    """The file to ship, its accuracy and speed, why, and warnings; `advice` where there
    is none."""
    chosen = comparison.choice.file
    if chosen is None:
        return [
            *line("ship", f"none: {comparison.choice.why}"),
            *line("try", advice),
        ]
    lines = [
        *line("ship", str(chosen.path)),
        *line("accuracy", accuracy(comparison)),
        *line("weakest", weakest(chosen, comparison.headline)),
        *line("speed", speed(comparison, chosen)),
        *line("why", comparison.choice.why),
    ]
    if chosen.refusal is not None:
        lines += line("unknown", refusal(chosen.refusal))
    for warning in cautions(chosen):
        lines += line("warning", warning)
    return lines


def next_steps(comparison: Comparison) -> list[str]:
    """The command that uses the file, and the path of the report."""
    chosen, lines = comparison.choice.file, []
    if chosen is not None:
        lines.append(_head("next", f"edgegraft edge classify {chosen.path} PHOTO..."))
    lines.append(_head("report", str(comparison.folder / "comparison.html")))
    return lines


def accuracy(comparison: Comparison) -> str:
    """The accuracy of the chosen file, the most precise figure first."""
    chosen, headline = comparison.choice.file, comparison.headline
    assert chosen is not None and headline is not None
    evaluation = chosen.evaluation
    test = (
        f"{percent(evaluation.accuracy)} of {plural(evaluation.photos, 'test photo')}"
    )
    text = f"{test} ({_ends(evaluation.interval)})"
    if headline.source != "test photos":
        text = f"{cross_validated(headline)}; {test}"
    elif headline.note:
        text += f"; {headline.note}"
    if uneven(evaluation):
        balanced = percent(evaluation.balanced_accuracy)
        text += f"; balanced {balanced} ({_ends(evaluation.balanced_interval)})"
    return text


def cross_validated(headline: Headline) -> str:
    """The cross-validated accuracy in words."""
    return (
        f"{percent(headline.accuracy)} ({_ends(headline.interval)}) cross-validated "
        f"before export on the {headline.photos:,} photos outside the test part"
    )


def uneven(evaluation: Evaluation) -> bool:
    """Whether accuracy and balanced accuracy differ as printed."""
    return percent(evaluation.accuracy) != percent(evaluation.balanced_accuracy)


def weakest(file: MeasuredFile, headline: Headline | None = None) -> str:
    """The label with the lowest recall, in words: that of the cross-validation, where
    the headline has one, since it has more photos of each label."""
    folds = headline.weakest if headline and headline.source != "test photos" else None
    if folds is not None and folds["right"] < folds["photos"]:
        label, right, photos = folds["label"], folds["right"], folds["photos"]
        tested = next(r for r in file.evaluation.per_class if r["label"] == label)
        return (
            f"{label}: {right:,} of {photos:,} photos found, cross-validated "
            f"({right / photos:.1%}); {tested['right']:,} of "
            f"{plural(tested['photos'], 'test photo')}"
        )
    row = file.evaluation.weakest
    if row["right"] == row["photos"]:
        return "none: all test photos of every label found"
    return (
        f"{row['label']}: {row['right']:,} of {row['photos']:,} test photos found "
        f"({row['recall']:.1%})"
    )


def refusal(measured: Refusal) -> str:
    """How many photos are answered `unknown`, rightly and by mistake."""
    return (
        f"{percent(measured.share)} of {plural(measured.photos, 'photo')} of other "
        f"things answered unknown ({_ends(measured.interval)}), and "
        f"{percent(measured.known_share)} of the test photos by mistake"
    )


def speed(comparison: Comparison, file: MeasuredFile) -> str:
    """Latency, size and memory of a file in the setting that decides."""
    timing = file.timing_in(comparison.deciding_setting)
    assert timing is not None
    return (
        f"{timing.p50_ms:.2f} ms a photo, {file.size_bytes / 1e6:.2f} MB, "
        f"{timing.peak_memory_mb:.0f} MiB memory on {comparison.deciding_setting}"
    )


def against_float(file: MeasuredFile) -> str | None:
    """The drop against its float32 file; None where there is none."""
    pair = file.paired
    if pair is None or file.drop is None:
        return None
    if not pair.significant:
        return (
            f"no significant accuracy loss against float32 ({points(-file.drop)}, "
            f"McNemar p = {pair.p:.2f})"
        )
    return f"{points(-file.drop)} against float32 (McNemar p = {pair.p:.2g})"


def cautions(file: MeasuredFile) -> list[str]:
    """Warnings about a file."""
    lines = []
    lost = [row for row in file.evaluation.tested if not row["right"]]
    if lost:
        names = ", ".join(
            f"{row['label']} (0 of {row['photos']:,})" for row in lost[:MAX_LOST]
        )
        more = len(lost) - MAX_LOST
        names += f" and {plural(more, 'other label')}" if more > 0 else ""
        lines.append(f"it finds no test photo of {names}")
    guess = no_better_than_guessing(file.evaluation)
    if guess:
        lines.append(guess)
    pair = file.paired
    if pair and pair.significant and pair.lost > pair.gained:
        lines.append(f"it is worse than float32: {against_float(file)}")
    return lines


def details(comparison: Comparison) -> list[str]:
    """All tables: quality and facts of the files, then times in each setting."""
    files = comparison.files
    figures = [file.figures() for file in files]
    runtimes = ", ".join(dict.fromkeys(file.accuracy_runtime for file in files))
    in_heading = {"device", "runtime", "threads"}
    timing_columns = [c for c in columns.TIMES if c.head not in in_heading]
    lines = [
        *_table(columns.QUALITY, figures),
        f"{files[0].evaluation.photos:,} test photos on {runtimes}",
        "",
        *_exports(figures),
        *_table(columns.FILES, figures),
    ]
    for setting in comparison.settings:
        lines += [
            "",
            *_table(timing_columns, times(files, setting)),
            f"on {where(comparison, setting)}",
        ]
    return lines


def exported(figures: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows whose files were compared with float32 when they were exported."""
    return [row for row in figures if row.get("verdict")]


def _exports(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = exported(figures)
    if not rows:
        return []
    return [*_table(columns.EXPORT, rows), "when exported, on validation photos", ""]


def times(
    files: Sequence[MeasuredFile], setting: Setting | None = None
) -> list[dict[str, Any]]:
    """Figures and times of the files, a row for each setting or for this one."""
    return [
        {**file.figures(), **timing.to_dict()}
        for file in files
        for timing in file.timings
        if setting is None or timing.setting == setting
    ]


def where(comparison: Comparison, setting: Setting) -> str:
    """A setting in words; of this host also cores and architecture."""
    if setting.host == comparison.host["board"]:
        return f"{host_line(comparison)}, {setting.how}"
    return str(setting)


def host_line(comparison: Comparison) -> str:
    host = comparison.host
    return f"{host['board']}, {host['cores']} cores, {host['machine']}"


def _files(comparison: Comparison) -> list[str]:
    """The table of the summary: the chosen file first if some are left out."""
    chosen = comparison.choice.file
    files = sorted(comparison.files, key=lambda file: file is not chosen)
    if len(files) <= MAX_ROWS:
        files = list(comparison.files)
    rows = times(files[:MAX_ROWS], comparison.deciding_setting)
    lines = _table(columns.SUMMARY, rows)
    more = len(files) - MAX_ROWS
    return lines + ([f"and {plural(more, 'file')} more"] if more > 0 else [])


def _table(heads: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    shown = columns.filled(heads, rows)
    cells = [[column.text(figures) for column in shown] for figures in rows]
    return aligned(cells, [column.head for column in shown], rule=True)


def _ends(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _head(head: str, words: str) -> str:
    return f"{head:<{_INDENT}}{words}"


def line(head: str, words: str) -> list[str]:
    """A heading and its words, wrapped under each other."""
    return textwrap.wrap(
        _head(head, words),
        WIDTH,
        subsequent_indent=" " * _INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
