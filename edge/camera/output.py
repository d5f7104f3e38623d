"""Answers to frames, told as one updating line, lines of changes, JSON lines or CSV.

It does not know: where frames come from.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple, TextIO

from edge.classifier import Prediction


class Seen(NamedTuple):
    """One frame's answer: `label` is the held one, `told` the averaged prediction."""

    number: int
    seconds: float
    label: str
    changed: bool
    told: Prediction
    prepare_ms: float
    inference_ms: float


class Teller:
    """One line that is written over; where nobody watches, a line for each change."""

    def __init__(self, out: TextIO, events: bool) -> None:
        self._out, self._events = out, events
        self._live = out.isatty() and not events
        self._last = -1.0
        self._rate = 0.0

    def frame(self, seen: Seen) -> None:
        told = seen.told
        percent = f"{told.probability:6.1%}" if told.known else "     -"
        if self._live:
            gap = seen.seconds - self._last
            if self._last >= 0 and gap > 0:
                self._rate += 0.1 * (1 / gap - self._rate)
            self._last = seen.seconds
            self._write(f"\r\033[K{seen.label}  {percent}  {self._rate:.1f} fps")
        elif seen.changed:
            self._write(f"{_clock()}  {seen.label}  {percent}\n")

    def end(self) -> None:
        if self._live and self._last >= 0:
            self._write("\n")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()  # whoever reads a pipe should not wait for a full block


class _JsonLines(Teller):
    def __init__(self, out: TextIO, events: bool) -> None:
        from json import dumps

        super().__init__(out, events)
        self._dumps: Callable[..., str] = dumps

    def frame(self, seen: Seen) -> None:
        if self._events and not seen.changed:
            return
        told = seen.told
        record = {
            "time": _clock(),
            "seconds": round(seen.seconds, 3),
            "frame": seen.number,
            "label": seen.label,
            "changed": seen.changed,
            "probability": round(told.probability, 6),
            "known": told.known,
            "familiarity": told.familiarity,
            "ranking": [
                {"label": label, "probability": round(chance, 6)}
                for label, chance in told.ranking
            ],
            "prepare_ms": round(seen.prepare_ms, 3),
            "inference_ms": round(seen.inference_ms, 3),
        }
        self._write(self._dumps(record, ensure_ascii=False) + "\n")

    def end(self) -> None:
        pass


class _Csv(_JsonLines):
    def __init__(self, out: TextIO, events: bool) -> None:
        import csv

        super().__init__(out, events)
        self._rows = csv.writer(out, lineterminator="\n")
        names = ["time", "seconds", "frame", "label", "changed", "probability"]
        names += ["known", "familiarity", "prepare_ms", "inference_ms"]
        self._rows.writerow(names)

    def frame(self, seen: Seen) -> None:
        if self._events and not seen.changed:
            return
        told = seen.told
        familiarity = "" if told.familiarity is None else f"{told.familiarity:.6g}"
        row = [_clock(), f"{seen.seconds:.3f}", str(seen.number), seen.label]
        row += [str(seen.changed).lower(), f"{told.probability:.6f}"]
        row += [str(told.known).lower(), familiarity]
        row += [f"{seen.prepare_ms:.3f}", f"{seen.inference_ms:.3f}"]
        self._rows.writerow(row)
        self._out.flush()


def teller(out: TextIO, args: argparse.Namespace) -> Teller:
    """The kind that the options ask for."""
    kind = _JsonLines if args.json else _Csv if args.csv else Teller
    return kind(out, args.events)


def _clock() -> str:
    """Now, UTC, to the millisecond (RFC 3339)."""
    now = time.time()
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    return f"{whole}.{int(now % 1 * 1000):03}Z"
