"""Temperature calibration: probabilities that mean what they say.

One number divides the logits so that the log loss on the validation part is lowest
(Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599). It is
folded into the last layer, so every exported file has it and nothing is done on the
device. The answers (argmax) do not change.

Does not know: photos, TFLite.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import network
from finetune.probe import log_loss

# Beyond these a temperature comes from too few photos, not from the network
LOWEST, HIGHEST = 0.05, 20.0


def temperature(logits: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]) -> float:
    """The temperature with the lowest log loss: logits [N, L], truth [N] -> number."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_t: log_loss(logits / np.float32(np.exp(log_t)), truth),
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
    )
    return float(np.exp(found.x))


def fold(model: Any, degrees: float) -> None:
    """Divide the last layer's kernel and bias by the temperature, in place."""
    kernel, bias = network.get_head(model)
    network.set_head(model, kernel / np.float32(degrees), bias / np.float32(degrees))


def calibration_error(
    probabilities: npt.NDArray[np.float32], truth: npt.NDArray[np.int64], bins: int = 15
) -> float:
    """Expected calibration error, 0..1, over equal-width bins of confidence.

    probabilities [N, L], truth [N]; Naeini et al. 2015.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    error = 0.0
    for number in range(bins):
        inside = place == number
        if inside.any():
            gap = abs(float(right[inside].mean()) - float(confidence[inside].mean()))
            error += inside.mean() * gap
    return float(error)
