"""What a person sees while it works: stage lines and progress bars with time left.

Lines go to stderr when stdout carries JSON; bars always go to stderr, and only where
a person sits (tqdm leaves a pipe alone).

Does not know: what the stages are.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Advance = Callable[[int, int], None]


class Console:
    """Prints for people; `json` keeps stdout for one JSON document."""

    def __init__(self, *, json: bool = False) -> None:
        self._out = sys.stderr if json else sys.stdout
        self.started = time.perf_counter()

    def say(self, line: str = "") -> None:
        print(line, file=self._out, flush=True)

    def stage(self, line: str) -> None:
        """A line with the seconds since the start in front."""
        self.say(f"[{time.perf_counter() - self.started:5.1f} s] {line}")

    @contextmanager
    def bar(self, title: str, unit: str = "photo") -> Iterator[Advance]:
        """A progress bar; yields advance(done, total)."""
        from tqdm import tqdm

        with tqdm(desc=title, unit=unit, leave=False, disable=None, ncols=88) as bar:

            def advance(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield advance

    @contextmanager
    def epochs(self, epochs: int, steps: int) -> Iterator[Any]:
        """A bar over all steps of a training; yields advance(epoch, step, result)."""
        from tqdm import tqdm

        with tqdm(
            total=epochs * steps, unit="step", leave=False, disable=None, ncols=88
        ) as bar:

            def advance(number: int, step: int, result: Any) -> None:
                bar.set_description(f"epoch {number}/{epochs}", refresh=False)
                if result is None:
                    bar.update((number - 1) * steps + step - bar.n)
                    return
                bar.clear()
                self.stage(
                    f"epoch {number}/{epochs}: train {result.train_accuracy:.1%}, "
                    f"validation {result.val_accuracy:.1%} "
                    f"(loss {result.val_loss:.3f}, {result.seconds:.1f} s)"
                )

            yield advance
