"""What a terminal shows while a command works: a progress bar, no native chatter.

TensorFlow, its converter and the TFLite interpreters greet from native code
(``INFO: Created TensorFlow Lite XNNPACK delegate ...``), and no setting turns that
off. What silences them moves the descriptors of the whole process for a moment, so no
other thread should write meanwhile.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

EVERY = 0.1  # seconds between two drawings of the bar
EVERY_LINE = 30.0  # seconds between two lines where there is no terminal
WIDTH = 24  # characters of the bar
_CLEAR = b"\r\033[K"
_CHATTER = (b"INFO:", b"VERBOSE:", b"I0000 ", b"WARNING: All log messages before")
_PIPE_SIZE = 65536


class Progress:
    """A bar on standard error: done, speed, time left; drawn only on a terminal.

    ``with Progress(len(photos), title="decoding") as bar: bar.step()``.
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
        self._live = _is_terminal() if live is None else live
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


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # no standard error, or a closed one
        return False


@contextmanager
def without_chatter() -> Iterator[None]:
    """Drop native INFO lines; everything else written meanwhile comes after."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)  # a full pipe loses lines, it never hangs
    try:
        with _redirected(writer, (2,)):
            os.close(writer)
            yield
    finally:
        os.set_blocking(reader, False)
        try:
            text = os.read(reader, _PIPE_SIZE)
        except BlockingIOError:  # nothing written, a child holds the other end
            text = b""
        os.close(reader)
        for line in text.splitlines(keepends=True):
            if not line.startswith(_CHATTER):
                sys.stderr.write(line.decode("utf-8", "replace"))


@contextmanager
def silenced() -> Iterator[None]:
    """Drop everything written to standard output and error, Python's prints too.

    Errors are raised, not written, and come through.
    """
    with open(os.devnull, "wb") as nothing, _redirected(nothing.fileno(), (1, 2)):
        yield


@contextmanager
def native_stderr_hidden() -> Iterator[None]:
    """Drop what native code writes to descriptor 2; Python's `sys.stderr` still shows.

    So progress bars and warnings of other threads stay visible while a package loads.
    """
    stderr = shown = sys.stderr
    with (
        open(os.devnull, "wb") as nothing,
        _redirected(nothing.fileno(), (2,), keep_open=True) as copies,
    ):
        try:
            if copies and stderr is not None and _writes_to_2(stderr):
                stderr.flush()
                shown = open(copies[0], "w", buffering=1, closefd=False)  # noqa: SIM115
                sys.stderr = shown
            yield
        finally:
            if sys.stderr is shown:  # another thread may have redirected it meanwhile
                sys.stderr = stderr


@contextmanager
def _redirected(
    sink: int, descriptors: tuple[int, ...], *, keep_open: bool = False
) -> Iterator[list[int]]:
    """Point descriptors at `sink`; gives copies of the old ones, [] if there are none.

    keep_open: the copies stay open afterwards, for a progress bar that writes to one.
    """
    _flush()
    try:
        copies = [os.dup(number) for number in descriptors]
    except OSError:  # a service without standard output has nothing to keep quiet
        yield []
        return
    for number in descriptors:
        os.dup2(sink, number)
    try:
        yield copies
    finally:
        _flush()
        for number, copy in zip(descriptors, copies, strict=True):
            os.dup2(copy, number)
            if not keep_open:
                os.close(copy)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except (OSError, ValueError):  # closed, or a reader that went away
                continue


def _writes_to_2(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 2
    except (OSError, ValueError):
        return False
