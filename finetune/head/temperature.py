"""Temperature calibration: probabilities that mean what they say.

One number divides the logits so that the log loss on the validation part is lowest
(Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599). The
targets are Platt's (1999): the right label of n validation photos gets (n + 1)/(n + 2),
not 1, so a validation part that is answered without a mistake does not make the network
endlessly sure. This is aimed at over all photos; a single answer may be surer. The
temperature is folded into the last layer, so every exported file has it and nothing is
done on the device. The answers (argmax) do not change.

Does not know: photos, TFLite.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import network

# Beyond these a temperature comes from too few photos, not from the network
LOWEST, HIGHEST = 0.05, 20.0


def platt_target(count: int) -> float:
    """What the right label of one of so many photos gets as its target."""
    return (count + 1) / (count + 2)


def temperature(logits: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]) -> float:
    """The temperature with the lowest log loss: logits [N, L], truth [N] -> number."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    count, classes = logits.shape
    sure = platt_target(count)
    target = np.full(logits.shape, (1 - sure) / (classes - 1))
    target[np.arange(count), truth] = sure
    found = minimize_scalar(
        lambda log_t: -(target * log_softmax(logits / np.exp(log_t), axis=1)).sum(),
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
    )
    return float(np.exp(found.x))


def fold(model: Any, degrees: float) -> None:
    """Divide the last layer's kernel and bias by the temperature, in place."""
    kernel, bias = network.get_head(model)
    network.set_head(model, kernel / np.float32(degrees), bias / np.float32(degrees))
