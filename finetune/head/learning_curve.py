"""Learning curve: the probe's accuracy with 10, 25, 50 and 100 % of the photos.

It uses the features of the frozen backbone, so it takes seconds. Subsets are drawn
label by label, several times; all are evaluated on the same validation photos, so the
gain of the second half is a paired difference (`finetune.paired.interval`).
Fine-tuning, or photos of other kinds, may gain more.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.evaluate import CONFIDENCE_95, wilson
from finetune import paired
from finetune.console import Console
from finetune.figures import MUTED, VAL, new_figure, percent, plain, save
from finetune.head import probe
from finetune.loop.examples import Examples, Floats, Ints
from finetune.run import Run

FRACTIONS = (0.1, 0.25, 0.5, 1.0)
DRAWS = 3  # subsets of each fraction below 1
MINIMUM_GAIN = 0.01  # of accuracy; a smaller gain does not matter
TITLE = 60  # letters of a line of the title, as wide as the picture


def curve(
    features: Floats,
    truth: Ints,
    val_features: Floats,
    val_truth: Ints,
    classes: int,
    strength: float,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """For metrics.json: a point for each number of photos, and the gain of doubling
    them.

    features [N, D], truth [N], val_features [M, D], val_truth [M]; `strength` is the
    probe's penalty. A point's interval is that of its accuracy on M photos.
    """
    random = np.random.default_rng([seed, len(truth)])
    points: list[dict[str, Any]] = []
    right: dict[float, Any] = {}  # fraction -> how often each photo was right, [M]
    for fraction in FRACTIONS:
        draws = []
        for _ in range(DRAWS if fraction < 1 else 1):
            rows = _draw(truth, fraction, random)
            kernel, bias = probe.head(features[rows], truth[rows], classes, strength)
            predicted = (val_features @ kernel + bias).argmax(axis=1)
            draws.append(predicted == val_truth)
        right[fraction] = np.mean(draws, axis=0)
        accuracy = float(right[fraction].mean())
        if points and points[-1]["photos"] == len(rows):
            points.pop()  # so few photos that two fractions give the same number
        points.append(
            {
                "share": fraction,
                "photos": len(rows),
                "accuracy": accuracy,
                "interval": wilson(accuracy * len(val_truth), len(val_truth)),
            }
        )
    gains = right[1.0] - right[0.5]
    low, high = paired.interval(gains)
    gain = float(gains.mean())
    return {
        "judged_on": f"{len(val_truth)} validation photos, probe on frozen features",
        "points": points,
        "gain_of_second_half": gain,
        "interval": (low, high),
        "photos_needed": _photos_needed(gains),
        "more_photos_help": low > 0,
        "verdict": _verdict(gain, low, high, len(truth) / classes, len(val_truth)),
    }


def record(
    run: Run, features: Floats, train: Examples, val: Examples, console: Console
) -> None:
    """Write the learning curve of a run's probe into run.json and learning.png.

    features: of train, then val, float32 [N, D].
    """
    result = curve(
        features[: len(train)],
        train.truth,
        features[len(train) :],
        val.truth,
        len(run.labels),
        run.config["probe"]["strength"],
        seed=run.settings.seed,
    )
    run.update(learning_curve=result)
    draw(run.folder / "learning.png", result)
    console.stage(f"learning curve: {result['verdict']}")


def _draw(truth: Ints, fraction: float, random: np.random.Generator) -> Ints:
    """Random rows: a fraction of each label, one at least."""
    rows = []
    for label in np.unique(truth):
        members = random.permutation(np.flatnonzero(truth == label))
        rows.append(members[: max(1, round(fraction * len(members)))])
    return np.concatenate(rows)


def _photos_needed(gains: npt.NDArray[np.floating]) -> int:
    """Validation photos that would show a gain of `MINIMUM_GAIN`, to one digit."""
    needed = CONFIDENCE_95**2 * paired.variance(gains) / MINIMUM_GAIN**2
    return int(float(f"{needed:.1g}"))


def _verdict(
    gain: float, low: float, high: float, per_label: float, val_photos: int
) -> str:
    """per_label: training photos of a label."""
    if low > 0:
        return (
            f"more photos would help: from {per_label / 2:.0f} to {per_label:.0f} "
            f"photos a label accuracy rose by {100 * gain:.1f} points"
        )
    if high < MINIMUM_GAIN:
        return "more photos of the same kind would hardly help"
    return f"{val_photos} validation photos cannot tell whether more photos would help"


def draw(path: Path, result: dict[str, Any]) -> None:
    """learning.png: accuracy over the number of training photos."""
    figure = new_figure(6.6, 3.6)
    axes = figure.subplots()
    points = result["points"]
    verdict = result["verdict"]
    plain(axes, textwrap.fill(verdict[0].upper() + verdict[1:], TITLE))
    x = [point["photos"] for point in points]
    y = np.array([point["accuracy"] for point in points])
    low, high = np.array([point["interval"] for point in points]).T
    errors = np.array([y - low, high - y]).clip(0)
    axes.errorbar(x, y, yerr=errors, color=VAL, marker="o", markersize=4, capsize=3)
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{count:,}" for count in x])
    axes.minorticks_off()
    axes.set_xlabel("training photos", fontsize=8, color=MUTED)
    axes.set_ylabel(
        "accuracy on validation, 95 % interval\n(probe)", fontsize=8, color=MUTED
    )
    axes.margins(x=0.08)
    percent(axes)
    save(figure, path)
