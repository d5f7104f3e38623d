"""Output while it works: stage lines, and progress bars with the time left.

Lines go to stderr when stdout carries JSON. Where the environment names a file in
`EDGEGRAFT_PROGRESS`, each stage, epoch and step of a bar is appended to it as a line
of JSON, for programs that show progress (the page does).
"""

from __future__ import annotations

import json as json_module
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from edge.terminal import Progress

Advance = Callable[[int, int], None]
PROGRESS = "EDGEGRAFT_PROGRESS"  # environment variable: where progress is appended
EVERY_S = 0.5  # between two lines of a bar


class Console:
    """Prints for people. `json`: stdout is kept for one JSON document. `quiet`: prints
    nothing. `verbose`: prints details, too."""

    def __init__(
        self, *, json: bool = False, quiet: bool = False, verbose: bool = True
    ) -> None:
        self._out = sys.stderr if json else sys.stdout
        self._quiet, self._live = quiet, False if quiet else None
        self.verbose = verbose
        self.started = time.perf_counter()
        self._progress = os.environ.get(PROGRESS)
        self._written = 0.0

    def say(self, line: str = "", *, detail: bool = False) -> None:
        if not self._quiet and (self.verbose or not detail):
            print(line, file=self._out, flush=True)

    def stage(self, line: str, *, detail: bool = False) -> None:
        """A line with the seconds since the start in front."""
        seconds = time.perf_counter() - self.started
        self.say(f"[{seconds:5.1f} s] {line}", detail=detail)
        self._note(stage=line)

    def _note(self, **event: object) -> None:
        """Append an event to the progress file, if there is one."""
        if self._progress:
            line = json_module.dumps({"time": time.time(), **event})
            with open(self._progress, "a", encoding="utf-8") as file:
                file.write(line + "\n")

    def _note_step(self, title: str, done: int, total: int | None) -> None:
        now = time.perf_counter()
        if self._progress and (now - self._written >= EVERY_S or done == total):
            self._written = now
            self._note(bar=title, done=done, total=total)

    @contextmanager
    def bar(self, title: str, unit: str = "photo") -> Iterator[Advance]:
        """A progress bar; yields advance(done, total)."""
        with Progress(
            title=title, unit=unit, live=self._live, lines=not self._quiet
        ) as progress:

            def advance(done: int, total: int) -> None:
                progress.update(done, total)
                self._note_step(title, done, total)

            yield advance

    @contextmanager
    def epochs(self, epochs: int, steps: int) -> Iterator[Any]:
        """A bar over all steps of a training; yields advance(epoch, step, result)."""
        with Progress(
            epochs * steps, unit="step", live=self._live, lines=not self._quiet
        ) as progress:

            def advance(epoch: int, step: int, result: Any) -> None:
                progress.title = f"epoch {epoch}/{epochs}"
                if result is None:
                    done = (epoch - 1) * steps + step
                    progress.update(done)
                    self._note_step(progress.title, done, epochs * steps)
                    return
                progress.clear()
                self._note(
                    epoch=epoch,
                    epochs=epochs,
                    train_accuracy=float(result.train_accuracy),
                    val_accuracy=float(result.val_accuracy),
                    val_loss=float(result.val_loss),
                )
                self.stage(
                    f"epoch {epoch}/{epochs}: train {result.train_accuracy:.1%}, "
                    f"validation {result.val_accuracy:.1%} "
                    f"(loss {result.val_loss:.3f}, {result.seconds:.1f} s)",
                    detail=True,
                )

            yield advance
