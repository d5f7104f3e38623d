"""Silence native code that writes to standard output and standard error.

TensorFlow, its converter and the TFLite interpreters greet from native code
(``INFO: Created TensorFlow Lite XNNPACK delegate ...``), and no setting turns that
off. These move the descriptors of the whole process for a moment, so no other thread
should write meanwhile.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_CHATTER = (b"INFO:", b"VERBOSE:", b"I0000 ", b"WARNING: All log messages before")
_PIPE_SIZE = 65536


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
