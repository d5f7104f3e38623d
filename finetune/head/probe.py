"""The linear probe: the optimal linear head on frozen features, and its temperature.

Multinomial logistic regression (scikit-learn, L-BFGS) on features that are computed
once; the L2 penalty is the one with the lowest log loss on the validation part. It
takes seconds and needs no learning rate. Fine-tuning starts from it, since a random
head distorts the backbone (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained
Features", arXiv:2202.10054).

Calibration: the logits are divided by the temperature that minimises the log loss on
the validation part (Guo et al. 2017, "On Calibration of Modern Neural Networks",
arXiv:1706.04599). Its logarithm has a normal prior around 0, so that few photos move it
little and a validation part without a mistake does not give unbounded confidence.
(Platt's targets, 1999, made most networks underconfident where photos are few.) The
temperature is folded into the last layer, so every exported file has it and the device
does nothing. Predictions (argmax) do not change.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import network
from edge.evaluate import calibration_error

Floats = npt.NDArray[np.float32]

# Inverse penalty strengths that are tried, from strong to weak
STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
# Of the temperature: search bounds, and the standard deviation of its logarithm (a
# factor of e either way is usual)
LOWEST, HIGHEST = 0.05, 20.0
PRIOR = 1.0


@dataclass(frozen=True)
class Probe:
    """kernel [D, L], bias [L], inverse penalty; the scores of all that were tried."""

    kernel: Floats
    bias: Floats
    strength: float
    tried: tuple[dict[str, float], ...]


def softmax(logits: Floats) -> Floats:
    """Probabilities [N, L] of logits [N, L]."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def log_losses(logits: Floats, truth: npt.NDArray[np.int64]) -> Floats:
    """Negative log likelihood in nats of logits [N, L] for truth [N]: [N]."""
    probabilities = softmax(logits)[np.arange(len(truth)), truth]
    return np.asarray(-np.log(np.maximum(probabilities, 1e-12)))


def log_loss(logits: Floats, truth: npt.NDArray[np.int64]) -> float:
    """The mean of `log_losses`."""
    return float(log_losses(logits, truth).mean())


def _head(fitted: Any) -> tuple[Floats, Floats]:
    """Kernel and bias of a scikit-learn model."""
    kernel = fitted.coef_.T.astype(np.float32)
    bias = fitted.intercept_.astype(np.float32)
    if kernel.shape[1] == 1:  # scikit-learn's binary form
        kernel = np.hstack([-kernel / 2, kernel / 2])
        bias = np.concatenate([-bias / 2, bias / 2])
    return kernel, bias


def head(
    features: Floats,
    truth: npt.NDArray[np.int64],
    classes: int,
    strength: float,
    *,
    weights: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Kernel [D, L] and bias [L] at one penalty, on raw features [N, D].

    weights: float32 [N], sample weights; None for equal weights. Labels that do not
    occur in `truth` [N] get a bias of -inf.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    mean, scale = _mean_and_scale(features)
    model = LogisticRegression(C=strength, max_iter=1000)
    # problems this small are slower on several threads
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # "more labels than half the photos"
        model.fit((features - mean) / scale, truth, weights)
    fitted_kernel, fitted_bias = _head(model)
    kernel = np.zeros((features.shape[1], classes), np.float32)
    bias = np.full(classes, -np.inf, np.float32)
    kernel[:, model.classes_] = fitted_kernel / scale
    bias[model.classes_] = fitted_bias - mean @ (fitted_kernel / scale)
    return kernel, bias


def _mean_and_scale(features: Floats) -> tuple[Floats, float]:
    """Mean [D], and one scale for all columns, so that the penalty is the same."""
    mean: Floats = features.mean(axis=0)
    return mean, float(features.std()) or 1.0


def fit(
    features: Floats,
    truth: npt.NDArray[np.int64],
    val_features: Floats,
    val_truth: npt.NDArray[np.int64],
    classes: int,
    *,
    weights: Floats | None = None,
) -> Probe:
    """Fit on features float32 [N, D], choose the penalty on the validation part.

    weights: float32 [N], sample weights; None for equal weights. Features are
    standardised for the solver; the returned head is for the raw ones.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    mean, scale = _mean_and_scale(features)
    x: Floats = (features - mean) / scale
    val_x: Floats = (val_features - mean) / scale
    tried, best = [], None
    start: tuple[Any, Any] | None = None
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=1000, warm_start=True)
        if start is not None:
            model.coef_, model.intercept_ = start
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")  # "not converged" at the weakest penalty
            model.fit(x, truth, weights)
        start = (model.coef_.copy(), model.intercept_.copy())
        kernel, bias = _head(model)
        logits, val_logits = x @ kernel + bias, val_x @ kernel + bias
        loss = log_loss(val_logits, val_truth)
        tried.append(
            {
                "strength": strength,
                "train_loss": log_loss(logits, truth),
                "train_accuracy": float((logits.argmax(axis=1) == truth).mean()),
                "val_loss": loss,
                "val_accuracy": float((val_logits.argmax(axis=1) == val_truth).mean()),
            }
        )
        if best is None or loss < best[0]:
            best = (loss, strength, kernel, bias)
    assert best is not None
    _, strength, kernel, bias = best
    kernel = (kernel / scale).astype(np.float32)
    bias = (bias - mean @ kernel).astype(np.float32)
    return Probe(kernel, bias, strength, tuple(tried))


# -- temperature -----------------------------------------------------------------------
def fit_temperature(logits: Floats, truth: npt.NDArray[np.int64]) -> float:
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


def fold_temperature(model: Any, value: float) -> None:
    """Divide the last layer's kernel and bias by the temperature, in place."""
    kernel, bias = network.get_head(model)
    network.set_head(model, kernel / np.float32(value), bias / np.float32(value))


def temperature_effect(
    logits: Floats, truth: npt.NDArray[np.int64], value: float
) -> dict[str, Any]:
    """For run.json: log loss (nats) and calibration error of logits [N, L] before and
    after division by the temperature `value`."""
    calibrated = logits / np.float32(value)
    return {
        "temperature": value,
        "photos": len(truth),
        "val_loss_before": log_loss(logits, truth),
        "val_loss_after": log_loss(calibrated, truth),
        "val_error_before": calibration_error(softmax(logits), truth),
        "val_error_after": calibration_error(softmax(calibrated), truth),
    }
