"""What a person sees while it works: stage lines, and progress bars with time left.

Lines go to stderr when stdout carries JSON.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from edge.progress import Progress

Advance = Callable[[int, int], None]


class Console:
    """Prints for people; `json` keeps stdout for one JSON document; `quiet` prints
    nothing."""

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self._out = sys.stderr if json else sys.stdout
        self._quiet, self._live = quiet, False if quiet else None
        self.started = time.perf_counter()

    def say(self, line: str = "") -> None:
        if not self._quiet:
            print(line, file=self._out, flush=True)

    def stage(self, line: str) -> None:
        """A line with the seconds since the start in front."""
        self.say(f"[{time.perf_counter() - self.started:5.1f} s] {line}")

    @contextmanager
    def bar(self, title: str, unit: str = "photo") -> Iterator[Advance]:
        """A progress bar; yields advance(done, total)."""
        with Progress(title=title, unit=unit, live=self._live) as progress:
            yield progress.update

    @contextmanager
    def epochs(self, epochs: int, steps: int) -> Iterator[Any]:
        """A bar over all steps of a training; yields advance(epoch, step, result)."""
        with Progress(epochs * steps, unit="step", live=self._live) as progress:

            def advance(number: int, step: int, result: Any) -> None:
                progress.title = f"epoch {number}/{epochs}"
                if result is None:
                    progress.update((number - 1) * steps + step)
                    return
                progress.clear()
                self.stage(
                    f"epoch {number}/{epochs}: train {result.train_accuracy:.1%}, "
                    f"validation {result.val_accuracy:.1%} "
                    f"(loss {result.val_loss:.3f}, {result.seconds:.1f} s)"
                )

            yield advance
