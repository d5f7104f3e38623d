"""The same training with several seeds: how much of a figure is luck.

A seed decides the split (unless the photos come in parts), the order of the photos,
augmentation and dropout, so the spread over seeds has all of these in it. The
interval of the mean is Student's, cut to 0 to 1, where the figures lie.

Does not know: how a run is trained.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from finetune.run import Run

FIGURES = ("accuracy", "calibration_error")


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """For metrics.json: each figure of the test part, run by run, mean, interval."""
    from scipy.stats import t

    tests = [
        json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))["test"]
        for run in runs
    ]
    found: dict[str, Any] = {
        "runs": [run.name for run in runs],
        "seeds": [run.settings.seed for run in runs],
        "of": "the test part, Keras before export",
    }
    for name in FIGURES:
        values = np.array([test[name] for test in tests])
        mean, deviation = float(values.mean()), float(values.std(ddof=1))
        half = float(t.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5
        found[name] = {
            "each": values.tolist(),
            "mean": mean,
            "deviation": deviation,
            "interval": [max(0.0, mean - half), min(1.0, mean + half)],
        }
    return found


def write(runs: Sequence[Run]) -> dict[str, Any]:
    """Put the summary into the first run's metrics.json; returns it."""
    found, first = summary(runs), runs[0]
    text = (first.folder / "metrics.json").read_text(encoding="utf-8")
    first.write_json("metrics.json", {**json.loads(text), "repeats": found})
    return found
