"""One prediction from many frames: averaged over time, held against flicker.

Probabilities and familiarity go through an exponential moving average whose weight
follows from the time between frames, w = 1 - exp(-dt / seconds), so the result does
not depend on the frame rate. The label changes only after another one has been first
for `hold` seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edge.classifier import FAMILIARITY, PROBABILITIES, Floats, Prediction


class TemporalSmoother:
    """Smooths the outputs of `Classifier.run` over frames.

    to_prediction: makes a `Prediction` of probabilities, float32 [L], and familiarity.
    seconds: time constant of the average; 0 switches it off. hold: seconds.
    """

    def __init__(
        self,
        to_prediction: Callable[[Floats, float | None], Prediction],
        seconds: float = 0.0,
        hold: float = 0.0,
    ) -> None:
        self._to_prediction = to_prediction
        self._seconds, self._hold = seconds, hold
        self._average: Floats | None = None
        self._last = 0.0
        self._label: str | None = None
        self._candidate: str | None = None
        self._candidate_since = 0.0

    def update(
        self, outputs: dict[str, Floats], now: float
    ) -> tuple[Prediction, str, bool]:
        """One frame at `now` (seconds): the averaged prediction, the label that is
        held, and whether that label has just changed."""
        values = outputs[PROBABILITIES][0]
        if FAMILIARITY in outputs:
            values = np.append(values, outputs[FAMILIARITY][0])
        if self._average is None or self._seconds <= 0:
            self._average = values.astype(np.float32)
        else:
            elapsed = max(now - self._last, 0.0)
            weight = np.float32(-math.expm1(-elapsed / self._seconds))
            self._average = self._average + weight * (values - self._average)
        self._last = now
        probabilities, familiarity = self._average, None
        if FAMILIARITY in outputs:
            probabilities, familiarity = self._average[:-1], float(self._average[-1])
        prediction = self._to_prediction(probabilities, familiarity)
        return prediction, *self._held(prediction.label, now)

    def _held(self, label: str, now: float) -> tuple[str, bool]:
        if label == self._label:
            self._candidate = None
            return label, False
        if label != self._candidate:
            self._candidate, self._candidate_since = label, now
        if self._label is None or now - self._candidate_since >= self._hold:
            self._label, self._candidate = label, None
            return label, True
        return self._label, False
