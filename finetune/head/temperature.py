"""Temperature calibration: probabilities that match how often the network is right.

One number divides the logits so that the log loss on the validation part is lowest
(Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599). The
targets are Platt's (1999): the right label of n validation photos gets (n + 1)/(n + 2),
not 1, so that a validation part without a mistake does not make the network endlessly
confident. The temperature is folded into the last layer, so every exported file has it
and nothing is done on the device. Predictions (argmax) do not change.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import network
from edge.evaluate import calibration_error
from finetune.head import probe

# Beyond these a temperature comes from too few photos, not from the network
LOWEST, HIGHEST = 0.05, 20.0


def platt_target(count: int) -> float:
    """The target probability of the right label, for a fit to `count` photos."""
    return (count + 1) / (count + 2)


def temperature(logits: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]) -> float:
    """The temperature with the lowest log loss: logits [N, L], truth [N] -> number."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    count, classes = logits.shape
    right = platt_target(count)
    target = np.full(logits.shape, (1 - right) / (classes - 1))
    target[np.arange(count), truth] = right
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


def effect(
    logits: npt.NDArray[np.float32], truth: npt.NDArray[np.int64], degrees: float
) -> dict[str, Any]:
    """For run.json: log loss (nats) and calibration error of logits [N, L] before and
    after division by the temperature `degrees`."""
    cooled = logits / np.float32(degrees)
    return {
        "temperature": degrees,
        "photos": len(truth),
        "platt_target": platt_target(len(truth)),
        "val_loss_before": probe.log_loss(logits, truth),
        "val_loss_after": probe.log_loss(cooled, truth),
        "val_error_before": calibration_error(probe.softmax(logits), truth),
        "val_error_after": calibration_error(probe.softmax(cooled), truth),
    }
