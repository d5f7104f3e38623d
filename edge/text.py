"""Formatting of counts, percentages and tables; escaping of text for a terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

_JOINERS = "\u200c\u200d"  # part of emoji and of words in Indic and Persian scripts
_FORMULA = ("=", "+", "-", "@")  # how formulas begin in spreadsheets


def plural(count: int, noun: str) -> str:
    """`count` with thousands set apart, and the noun: "1 photo", "2,000 photos"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(names: Sequence[str], maximum: int = 10) -> str:
    """Names with commas; of many the first, and how many there are."""
    text = ", ".join(names[:maximum])
    return text if len(names) <= maximum else f"{text}, ... ({len(names):,} in all)"


def percent(fraction: float | None) -> str:
    """A fraction of 0 to 1 as "97.3%"; "-" for None."""
    return "-" if fraction is None else f"{fraction:.1%}"


def interval(low: float, high: float) -> str:
    """A 95 % interval of a share: "95 % interval 93.5% to 97.1%"."""
    return f"95 % interval {low:.1%} to {high:.1%}"


def columns(
    rows: Sequence[Sequence[str]],
    head: Sequence[str] | None = None,
    *,
    rule: bool = False,
) -> list[str]:
    """Rows as lines of aligned columns: the first to the left, the others right.

    With `head` it comes first, above a line of dashes where `rule` is set.
    """
    table = [*([head] if head else []), *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    if head and rule:
        table.insert(1, ["-" * width for width in widths])
    lines = []
    for first, *others in table:
        padded = map(str.rjust, others, widths[1:])
        lines.append("  ".join((first.ljust(widths[0]), *padded)).rstrip())
    return lines


def print_rows(rows: Sequence[tuple[str, object]]) -> None:
    """Names and values in two columns on standard output, safe for a terminal."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{printable(name):{width}}  {printable(str(value))}")


def printable(text: str | os.PathLike[str]) -> str:
    """Text from a file or a file name as one line that no terminal acts on.

    Control characters (ANSI sequences, line breaks), bidirectional marks and bytes
    that are no UTF-8 are escaped as Python does: ``\\x1b``, ``\\n``, ``\\u202e``.
    """
    text = os.fspath(text)
    if text.isprintable():
        return text
    return "".join(
        c
        if c.isprintable() or c in _JOINERS
        else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )


def json_text(record: Any, indent: int | None = None) -> str:
    """A record as JSON in its own script, in which no terminal acts on a character:
    what `printable` escapes is written as ``\\u202e``."""
    import json

    text = json.dumps(record, indent=indent, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in _JOINERS or c == "\n" else json.dumps(c)[1:-1]
        for c in text
    )


def csv_cell(text: str) -> str:
    """Text for a spreadsheet: `printable`, and what would be a formula gets a leading
    quote."""
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA) else text
