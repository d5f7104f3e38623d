"""Keep the interpreters' chatter off standard error while a model is loaded.

TensorFlow Lite writes ``INFO: Created TensorFlow Lite XNNPACK delegate ...`` from
native code, and TensorFlow more of the kind; no setting turns it off. For command
lines only: it moves the whole process's standard error for a moment, so no other
thread should run meanwhile.

It does not know: what the lines mean, only that those marked as information help
nobody.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_CHATTER = (b"INFO:", b"VERBOSE:", b"I0000 ", b"WARNING: All log messages before")
_PIPE_SIZE = 65536


@contextmanager
def without_chatter() -> Iterator[None]:
    """Drop native INFO lines; everything else written meanwhile comes after."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, AttributeError):  # no standard error at all
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)  # a full pipe loses lines, it never hangs
    os.dup2(writer, 2)
    os.close(writer)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.set_blocking(reader, False)
        try:
            text = os.read(reader, _PIPE_SIZE)
        except BlockingIOError:  # nothing written, a child holds the other end
            text = b""
        os.close(reader)
        for line in text.splitlines(keepends=True):
            if not line.startswith(_CHATTER):
                sys.stderr.write(line.decode("utf-8", "replace"))
