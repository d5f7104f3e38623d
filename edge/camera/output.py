"""Predictions of frames as one updating line, lines of changes, JSON lines or CSV."""

from __future__ import annotations

import time
from typing import NamedTuple, TextIO

from edge.classifier import Prediction
from edge.text import csv_cell, json_text


class FrameResult(NamedTuple):
    """One frame's result: `label` is the one held, `prediction` the averaged one, `own`
    this frame's alone.

    seconds: position in a video file, or time since the start.
    """

    number: int
    seconds: float
    label: str
    changed: bool
    prediction: Prediction
    own: Prediction
    prepare_ms: float
    inference_ms: float

    @property
    def reported(self) -> Prediction:
        """The prediction for readers of changes alone. At a change the average has only
        just turned, so the frame's own is reported."""
        turned = self.changed and self.own.label == self.label
        return self.own if turned else self.prediction


class LineWriter:
    """One line that is written over on a terminal; in a pipe a line for each change."""

    def __init__(self, out: TextIO, events: bool) -> None:
        self._out, self._events = out, events
        self._live = out.isatty() and not events
        self._last = -1.0
        self._rate = 0.0

    def write(self, result: FrameResult) -> None:
        prediction = result.prediction if self._live else result.reported
        percent = f"{prediction.probability:6.1%}" if prediction.known else "     -"
        if self._live:
            interval = result.seconds - self._last
            if self._last >= 0 and interval > 0:
                self._rate += 0.1 * (1 / interval - self._rate)
            self._last = result.seconds
            self._print(f"\r\033[K{result.label}  {percent}  {self._rate:.1f} fps")
        elif result.changed:
            self._print(f"{clock()}  {result.label}  {percent}\n")

    def end(self) -> None:
        if self._live and self._last >= 0:
            self._print("\n")

    def _print(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()  # a pipe's reader should not wait for a full block


class JsonLinesWriter(LineWriter):
    """One JSON object a line."""

    def write(self, result: FrameResult) -> None:
        if self._events and not result.changed:
            return
        prediction = result.reported if self._events else result.prediction
        familiarity = prediction.familiarity
        record = {
            "time": clock(),
            "seconds": round(result.seconds, 3),
            "frame": result.number,
            "label": result.label,
            "changed": result.changed,
            "probability": round(prediction.probability, 6),
            "known": prediction.known,
            "familiarity": None if familiarity is None else round(familiarity, 6),
            "ranking": [
                {"label": label, "probability": round(probability, 6)}
                for label, probability in prediction.ranking
            ],
            "prepare_ms": round(result.prepare_ms, 3),
            "inference_ms": round(result.inference_ms, 3),
        }
        self._print(json_text(record) + "\n")

    def end(self) -> None:
        pass


class CsvWriter(JsonLinesWriter):
    """A header, then one row a frame."""

    def __init__(self, out: TextIO, events: bool) -> None:
        import csv

        super().__init__(out, events)
        self._rows = csv.writer(out, lineterminator="\n")
        names = ["time", "seconds", "frame", "label", "changed", "probability"]
        names += ["known", "familiarity", "prepare_ms", "inference_ms"]
        self._rows.writerow(names)

    def write(self, result: FrameResult) -> None:
        if self._events and not result.changed:
            return
        prediction = result.reported if self._events else result.prediction
        familiarity = prediction.familiarity
        self._rows.writerow(
            (
                clock(),
                f"{result.seconds:.3f}",
                result.number,
                csv_cell(result.label),
                str(result.changed).lower(),
                f"{prediction.probability:.6f}",
                str(prediction.known).lower(),
                "" if familiarity is None else f"{familiarity:.6g}",
                f"{result.prepare_ms:.3f}",
                f"{result.inference_ms:.3f}",
            )
        )
        self._out.flush()


def clock() -> str:
    """Now, UTC, to the millisecond (RFC 3339)."""
    now = time.time()
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    return f"{seconds}.{int(now % 1 * 1000):03}Z"
