"""One answer out of many frames: averaged over time, held against flicker.

The probabilities (and the familiarity) go through an exponential average whose
weight follows from the time between frames, w = 1 - exp(-dt / seconds), so that it
is the same at any frame rate. The answer changes only after another one has been
first for `hold` seconds.

It does not know: frames, cameras.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edge.classifier import FAMILIARITY, PROBABILITIES, Floats, Prediction


class Steady:
    """`answer` makes a `Prediction` of probabilities [L] and a familiarity."""

    def __init__(
        self,
        answer: Callable[[Floats, float | None], Prediction],
        seconds: float = 0.0,
        hold: float = 0.0,
    ) -> None:
        self._answer, self._seconds, self._hold = answer, seconds, hold
        self._average: Floats | None = None
        self._last = 0.0
        self._held: str | None = None
        self._rival: str | None = None
        self._rival_since = 0.0

    def update(
        self, out: dict[str, Floats], now: float
    ) -> tuple[Prediction, str, bool]:
        """Of `Classifier.run` on one frame at `now` (seconds): the averaged
        prediction, the held label, and whether that label has just changed."""
        values = out[PROBABILITIES][0]
        if FAMILIARITY in out:
            values = np.append(values, out[FAMILIARITY][0])
        if self._average is None or self._seconds <= 0:
            self._average = values.astype(np.float32)
        else:
            weight = -math.expm1(-max(now - self._last, 0.0) / self._seconds)
            self._average = self._average + np.float32(weight) * (
                values - self._average
            )
        self._last = now
        chances = self._average
        familiarity = None
        if FAMILIARITY in out:
            chances, familiarity = chances[:-1], float(chances[-1])
        told = self._answer(chances, familiarity)
        return told, *self._steadied(told.label, now)

    def _steadied(self, label: str, now: float) -> tuple[str, bool]:
        if label == self._held:
            self._rival = None
            return label, False
        if label != self._rival:
            self._rival, self._rival_since = label, now
        if self._held is None or now - self._rival_since >= self._hold:
            self._held, self._rival = label, None
            return label, True
        return self._held, False
