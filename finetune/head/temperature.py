"""Temperature calibration: probabilities that match the accuracy.

The logits are divided by the temperature that minimises the log loss on the validation
part (Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599).
Its logarithm has a normal prior around 0, so that few photos move it little and a
validation part without a mistake does not give unbounded confidence. (Platt's targets,
1999, made most networks underconfident where photos are few.) The temperature is folded
into the last layer, so every exported file has it and the device does nothing.
Predictions (argmax) do not change.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import network
from edge.evaluate import calibration_error
from finetune.head import probe

LOWEST, HIGHEST = 0.05, 20.0  # search bounds
PRIOR = 1.0  # standard deviation of its logarithm: a factor of e either way is usual


def temperature(logits: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]) -> float:
    """The most probable temperature for logits [N, L] and truth [N].

    The log loss is never higher than at a temperature of 1.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    rows = np.arange(len(truth))

    def loss(log_t: float) -> float:
        logs = log_softmax(logits / np.exp(log_t), axis=1)
        return float((log_t / PRIOR) ** 2 / 2 - logs[rows, truth].sum())

    bounds = (np.log(LOWEST), np.log(HIGHEST))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def fold(model: Any, value: float) -> None:
    """Divide the last layer's kernel and bias by the temperature, in place."""
    kernel, bias = network.get_head(model)
    network.set_head(model, kernel / np.float32(value), bias / np.float32(value))


def effect(
    logits: npt.NDArray[np.float32], truth: npt.NDArray[np.int64], value: float
) -> dict[str, Any]:
    """For run.json: log loss (nats) and calibration error of logits [N, L] before and
    after division by the temperature `value`."""
    calibrated = logits / np.float32(value)
    return {
        "temperature": value,
        "photos": len(truth),
        "val_loss_before": probe.log_loss(logits, truth),
        "val_loss_after": probe.log_loss(calibrated, truth),
        "val_error_before": calibration_error(probe.softmax(logits), truth),
        "val_error_after": calibration_error(probe.softmax(calibrated), truth),
    }
