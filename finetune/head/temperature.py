"""Temperature calibration: probabilities that match how often the network is right.

One number divides the logits so that the log loss on the validation part is lowest
(Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599). Its
logarithm has a normal prior around 0, so that few photos move it little and a
validation part without a mistake does not make the network endlessly confident. The
temperature is folded into the last layer, so every exported file has it and nothing is
done on the device. Predictions (argmax) do not change.

In place of Platt's targets (1999: n photos cannot show more than (n + 1)/(n + 2)),
which made most networks too cautious where photos are few.
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
PRIOR = 1.0  # standard deviation of its logarithm: a factor of e either way is usual


def temperature(logits: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]) -> float:
    """The likeliest temperature: logits [N, L], truth [N] -> number.

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
        "val_loss_before": probe.log_loss(logits, truth),
        "val_loss_after": probe.log_loss(cooled, truth),
        "val_error_before": calibration_error(probe.softmax(logits), truth),
        "val_error_after": calibration_error(probe.softmax(cooled), truth),
    }
