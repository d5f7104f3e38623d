"""A progress bar on standard error: done, speed, time left.

It is drawn only on a terminal. In a log or a notebook, `lines` prints a line now and
then instead.
"""

from __future__ import annotations

import os
import sys
import time

EVERY = 0.1  # seconds between two drawings
EVERY_LINE = 30.0  # seconds between two lines where there is no terminal
WIDTH = 24  # characters of the bar
_CLEAR = b"\r\033[K"


class Progress:
    """``with Progress(len(photos), title="decoding") as bar: bar.step()``.

    `total`: None where it is not known (a pipe). `initial`: items done by a run
    before this one; they count as done, not in the speed. `live`: draw it, None:
    where standard error is a terminal. `lines`: where it is none, a line every
    `EVERY_LINE` seconds.
    """

    def __init__(
        self,
        total: int | None = None,
        *,
        title: str = "",
        unit: str = "photo",
        initial: int = 0,
        live: bool | None = None,
        lines: bool = False,
    ) -> None:
        self.title = title
        self._total, self._unit, self._initial = total, unit, initial
        self._live = _terminal() if live is None else live
        self._lines = lines and not self._live
        self._start = self._drawn = time.monotonic()
        self._done = 0
        self._shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def step(self) -> None:
        """One item more is done."""
        self.update(self._done + 1)

    def update(self, done: int, total: int | None = None) -> None:
        """`done` items are done, of `total` where that is given."""
        self._done = done
        self._total = total or self._total
        now = time.monotonic()
        if self._live and now - self._drawn >= EVERY:
            self._drawn = now
            os.write(2, _CLEAR + self._text(now - self._start).encode())
            self._shown = True
        elif self._lines and now - self._drawn >= EVERY_LINE:
            self._drawn = now
            print(f"  {self._text(now - self._start)}", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the bar away, before another line is written."""
        if self._shown:
            os.write(2, _CLEAR)
            self._shown = False

    def _text(self, seconds: float) -> str:
        speed = self._done / max(seconds, 1e-9)
        rate = f"{speed:.0f} {self._unit}s/s" if speed >= 1 else ""
        title = f"{self.title} " if self.title else ""
        if not self._total:
            return f"{title}{self._done} {self._unit}s {rate}".rstrip()
        done = min(self._initial + self._done, self._total)
        bar = ("#" * (WIDTH * done // self._total)).ljust(WIDTH, ".")
        parts = [f"{title}[{bar}] {done}/{self._total}", rate]
        if speed:
            minutes, seconds = divmod(int((self._total - done) / speed), 60)
            parts.append(f"{minutes}:{seconds:02d} left")
        return ", ".join(part for part in parts if part)


def _terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # no standard error, or a closed one
        return False
