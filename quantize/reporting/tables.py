"""The tables of comparison.html; a click on a head sorts by it.

It does not know: how anything was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from quantize.reporting.svg import colour

if TYPE_CHECKING:
    from quantize.comparison.records import Comparison, Measured

_TALL = 40  # rows; longer tables scroll in their own box


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and the value it is sorted by (None: nothing there).

    `html` is ready for the page; `word`: text, aligned to the left.
    """

    html: str
    value: float | str | None
    word: bool = False


def text(words: str) -> Cell:
    return Cell(escape(words), words, word=True)


def number(value: float | None, shape: str, scale: int = 1) -> Cell:
    """A figure as `shape` formats it; an en dash where there is none."""
    if value is None:
        return Cell("–", None)
    return Cell(format(scale * value, shape), value)


def table(
    heads: Sequence[tuple[str, str]], rows: Iterable[tuple[str, Sequence[Cell]]]
) -> str:
    """heads: (name, what it is); rows: (attributes of the row, cells)."""
    body, count, words = [], 0, {0}
    for attributes, cells in rows:
        count += 1
        words |= {place for place, cell in enumerate(cells) if cell.word}
        columns = "".join(
            f"<td{' class=word' if cell.word else ''}"
            f' data-v="{"" if cell.value is None else escape(str(cell.value))}">'
            f"{cell.html}</td>"
            for cell in cells
        )
        body.append(f"<tr{attributes}>{columns}</tr>")
    head = "".join(
        f'<th{" class=word" if place in words else ""} title="{escape(told)}">'
        f"<button>{escape(name)}</button></th>"
        for place, (name, told) in enumerate(heads)
    )
    tall = " tall" if count > _TALL else ""
    return (
        f'<div class="panel wide{tall}"><table class="sortable"><thead><tr>{head}</tr>'
        f"</thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _row(comparison: Comparison, place: int, file: Measured) -> str:
    chosen = comparison.choice.file
    ship = chosen is not None and chosen.title == file.title
    return f' data-file="{place}"{" class=ship" if ship else ""}'


def _title(comparison: Comparison, place: int, file: Measured) -> Cell:
    chosen = comparison.choice.file
    tag = ""
    if chosen is not None and chosen.title == file.title:
        tag = '<span class="tag">ship</span>'
    elif file.rejected:
        tag = '<span class="tag bad">rejected</span>'
    dot = f'<span class="dot {colour(place, file)}"></span>'
    return Cell(f"{dot}{escape(file.title)}{tag}", file.title, word=True)


def gives(comparison: Comparison) -> str:
    """Accuracy and what belongs to it."""
    files = comparison.files
    refusing = any(file.refusal for file in files)
    ends = [end for file in files for end in file.evaluation.interval]
    heads = [
        ("file", "variant, or the name of a file made elsewhere"),
        ("accuracy", "on the test photos, through the file itself"),
        ("95 % interval", "Wilson's interval of the accuracy"),
        ("drop", "points lost against float32"),
        ("lost / gained", "photos that only float32 / only this file got right"),
        ("p", "McNemar's exact paired test of the drop"),
        ("agree", "photos with the same answer as float32"),
        ("cal. error", "expected calibration error, 15 bins"),
        ("refuses unknown", "photos that show none of the labels, refused"),
        ("refuses known", "test photos refused by mistake"),
    ]
    rows = []
    for place, file in enumerate(files):
        low, high = file.evaluation.interval
        pair, refusal = file.paired, file.refusal
        span = _range(place, file, min(ends), max(ends))
        cells = [
            _title(comparison, place, file),
            number(file.evaluation.accuracy, ".1%"),
            Cell(f"{span} {100 * low:.1f} to {100 * high:.1f}", low),
            number(file.drop, "+.1f", 100),
            Cell(f"{pair.lost} / {pair.gained}", pair.lost)
            if pair
            else Cell("–", None),
            number(pair.p if pair else None, ".3f"),
            number(file.agreement, ".1%"),
            number(file.calibration_error, ".3f"),
            number(refusal.share if refusal else None, ".1%"),
            number(refusal.known_share if refusal else None, ".1%"),
        ]
        rows.append((_row(comparison, place, file), cells))
    if not refusing:
        heads = heads[:8]
        rows = [(row, cells[:8]) for row, cells in rows]
    runtimes = ", ".join(dict.fromkeys(file.runtime for file in files))
    return (
        f"{table(heads, rows)}<p class=note>{files[0].evaluation.photos:,} test "
        f"photos, used for nothing else, each through the file on {escape(runtimes)}. "
        "A click on a head sorts.</p>"
    )


def costs(comparison: Comparison) -> str:
    """Times and memory, one row for each file and setting."""
    heads = [
        ("file", "variant, or the name of a file made elsewhere"),
        ("device", "where it was measured"),
        ("runtime", "the interpreter"),
        ("threads", "for one photo"),
        ("load ms", "from the file to an interpreter that is ready"),
        ("first ms", "the first photo"),
        ("p50 ms", "half of the photos are faster"),
        ("p95 ms", "95 % of the photos are faster"),
        ("p99 ms", "99 % of the photos are faster"),
        ("photos / s", "without a pause"),
        ("memory MiB", "largest peak of the whole process"),
    ]
    rows = []
    for setting in comparison.settings:
        for place, file in enumerate(comparison.files):
            timing = file.at(setting)
            if timing is None:
                continue
            plain = "" if setting.xnnpack else " (no XNNPACK)"
            cells = [
                _title(comparison, place, file),
                text(setting.host),
                text(setting.runtime + plain),
                number(setting.threads, "d"),
                number(timing.load_ms, ".1f"),
                number(timing.first_ms, ".1f"),
                number(timing.p50_ms, ".2f"),
                number(timing.p95_ms, ".2f"),
                number(timing.p99_ms, ".2f"),
                number(timing.photos_per_second, ",.0f"),
                number(timing.peak_memory_mb, ".0f"),
            ]
            rows.append((_row(comparison, place, file), cells))
    warned = (f"<p class=note>Warning: {escape(w)}.</p>" for w in comparison.warnings)
    return table(heads, rows) + "".join(warned)


def runs(comparison: Comparison) -> str:
    """Size, arithmetic, the runtimes and targets that take it: facts of the file."""
    heads = [
        ("file", "variant, or the name of a file made elsewhere"),
        ("MB", "size of the file, labels and card included"),
        ("M mult-adds", "millions of multiply-adds for one photo"),
        ("needs TFLite", "the oldest TensorFlow Lite that has its operators"),
        ("refused by", "targets that do not take it"),
    ]
    rows = []
    for place, file in enumerate(comparison.files):
        cells = [
            _title(comparison, place, file),
            number(file.size_bytes / 1e6, ".2f"),
            number(file.multiply_adds / 1e6, ".1f"),
            text(file.oldest_runtime or "newest"),
            text(", ".join(file.refused_by) or "–"),
        ]
        rows.append((_row(comparison, place, file), cells))
    return table(heads, rows)


def per_class(files: Sequence[Measured]) -> str:
    """Precision, recall and F1 of each label in each file."""
    heads = [
        ("label", ""),
        ("file", ""),
        ("photos", "of this label in the test part"),
        ("precision", "of the photos called so, those that are"),
        ("recall", "of the photos that are so, those called so"),
        ("F1", "harmonic mean of precision and recall"),
    ]
    rows = []
    for line in range(len(files[0].evaluation.per_class)):
        for place, file in enumerate(files):
            entry = file.evaluation.per_class[line]
            dot = f'<span class="dot {colour(place, file)}"></span>'
            cells = [
                text(str(entry["label"])),
                Cell(f"{dot}{escape(file.title)}", file.title, word=True),
                number(entry["photos"], ",d"),
                *(_bar(entry[name], place, file) for name in ("precision", "recall")),
                number(entry["f1"], ".1%"),
            ]
            rows.append((f' data-file="{place}"', cells))
    return table(heads, rows)


def _bar(share: float, place: int, file: Measured) -> Cell:
    bar = f'<span class="bar {colour(place, file)}"><i style="width:{share:.1%}"></i>'
    return Cell(f"{share:.1%}{bar}</span>", share)


def _range(place: int, file: Measured, lowest: float, highest: float) -> str:
    """The interval drawn on one scale for all files."""
    width = (highest - lowest) or 1.0

    def x(share: float) -> str:
        return f"{5 + 90 * (share - lowest) / width:.1f}"

    low, high = file.evaluation.interval
    return (
        f'<svg class="range {colour(place, file)}" viewBox="0 0 100 14" '
        f'aria-hidden="true"><line x1="5" x2="95" y1="7" y2="7"/><line class="span" '
        f'x1="{x(low)}" x2="{x(high)}" y1="7" y2="7"/>'
        f'<circle cx="{x(file.evaluation.accuracy)}" cy="7" r="4"/></svg>'
    )
