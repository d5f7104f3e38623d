"""The converter's native code: kept quiet, and its errors in one line.

It does not know: what is converted.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence

from edge.errors import EdgegraftError

_MOST_LAYERS = 3  # named of those that need one operator

Layers = Callable[[str], Sequence[str]]


@contextlib.contextmanager
def one_line(task: str, layers: Layers | None = None) -> Iterator[None]:
    """What the converter raises, many lines long, as one that names the operators.

    layers: gives the names of the layers that need an operator.
    """
    try:
        yield
    except EdgegraftError:
        raise
    except Exception as error:
        text = str(error)
        ops = sorted(set(re.findall(r"\btf\.([A-Z]\w+)\(", text)))
        if ops:
            named = ", ".join(_named(op, layers(op) if layers else ()) for op in ops)
            reason = (
                f"TFLite has no operator for {named}; "
                "build the model without what needs it"
            )
        else:
            lines = (line.strip() for line in text.splitlines())
            reason = next((line for line in lines if line), type(error).__name__)
        raise EdgegraftError(f"cannot {task}: {reason:.300}") from error


def _named(op: str, places: Sequence[str]) -> str:
    """An operator and the layers that need it, some of them."""
    if not places:
        return op
    some = ", ".join(repr(place) for place in places[:_MOST_LAYERS])
    more = len(places) - _MOST_LAYERS
    return f"{op} (layer {some}{f' and {more} more' if more > 0 else ''})"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Sends what is written to file descriptors 1 and 2 nowhere, for a while.

    The converter's native code reports there line by line. Errors are raised, not
    written, and come through.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        kept = [os.dup(1), os.dup(2)]
    except OSError:  # a service without them has nothing to keep quiet
        yield
        return
    try:
        with tempfile.TemporaryFile() as sink:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
            yield
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        for number, copy in enumerate(kept, start=1):
            os.dup2(copy, number)
            os.close(copy)
