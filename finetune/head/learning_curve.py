"""Would more photos help? Accuracy of the probe on 10, 25, 50 and 100 % of them.

The features are those of the frozen backbone, computed already, so the curve costs
seconds. Subsets are drawn label by label, several times; all are judged on the same
validation photos, which makes the gain of the second half a paired difference
(`finetune.paired.interval`). Fine-tuning, or photos of other kinds, may gain more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.evaluate import CONFIDENCE_95, wilson
from finetune import paired
from finetune.console import Console
from finetune.figures.style import MUTED, VAL, new_figure, percent, plain, save
from finetune.head import probe
from finetune.loop.examples import Examples
from finetune.run import Run

SHARES = (0.1, 0.25, 0.5, 1.0)
DRAWS = 3  # of each share below 100 %
WORTH = 0.01  # of accuracy: a gain that is shown to be smaller does not matter

Floats = npt.NDArray[np.float32]
Truth = npt.NDArray[np.int64]


def curve(
    features: Floats,
    truth: Truth,
    val_features: Floats,
    val_truth: Truth,
    classes: int,
    strength: float,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """For metrics.json: the points, one for each number of photos, and what doubling
    the photos brought.

    features [N, D], truth [N], val_features [M, D], val_truth [M]; `strength` is the
    probe's penalty. A point's interval is that of its accuracy on M photos.
    """
    random = np.random.default_rng([seed, len(truth)])
    points: list[dict[str, Any]] = []
    halves: list[npt.NDArray[np.bool_]] = []
    whole = np.zeros(len(val_truth))
    for share in SHARES:
        rights = []
        for _ in range(DRAWS if share < 1 else 1):
            rows = _draw(truth, share, random)
            kernel, bias = probe.head(features[rows], truth[rows], classes, strength)
            answers = (val_features @ kernel + bias).argmax(axis=1)
            rights.append(answers == val_truth)
        if share == 0.5:
            halves = rights
        whole = np.mean(rights, axis=0)
        accuracy = float(whole.mean())
        if points and points[-1]["photos"] == len(rows):
            points.pop()  # so few photos that two shares are the same number
        points.append(
            {
                "share": share,
                "photos": len(rows),
                "accuracy": accuracy,
                "interval": wilson(accuracy * len(val_truth), len(val_truth)),
            }
        )
    gains = whole - np.mean(halves, axis=0)
    low, high = paired.interval(gains)
    gain, each = float(gains.mean()), len(truth) / classes
    return {
        "judged_on": f"{len(val_truth)} validation photos, probe on frozen features",
        "points": points,
        "gain_of_second_half": gain,
        "interval": (low, high),
        "photos_needed": _needed(gains),
        "more_photos_help": low > 0,
        "verdict": _verdict(gain, low, high, each, len(val_truth)),
    }


def record(
    run: Run, features: Floats, train: Examples, val: Examples, console: Console
) -> None:
    """The curve of a run's probe into run.json and learning.png.

    features: of train, then val, float32 [N, D], that the probe was fitted on.
    """
    found = curve(
        features[: len(train)],
        train.truth,
        features[len(train) :],
        val.truth,
        len(run.labels),
        run.config["probe"]["strength"],
        seed=run.settings.seed,
    )
    run.update(learning_curve=found)
    draw(run.folder / "learning.png", found)
    console.stage(f"learning curve: {found['verdict']}")


def _draw(truth: Truth, share: float, random: np.random.Generator) -> Truth:
    """Rows of a share of each label, one at least."""
    parts = []
    for label in np.unique(truth):
        own = random.permutation(np.flatnonzero(truth == label))
        parts.append(own[: max(1, round(share * len(own)))])
    return np.concatenate(parts)


def _needed(gains: npt.NDArray[np.floating]) -> int:
    """Validation photos it takes to tell a gain of `WORTH` from none, one digit."""
    needed = CONFIDENCE_95**2 * paired.variance(gains) / WORTH**2
    return int(float(f"{needed:.1g}"))


def _verdict(gain: float, low: float, high: float, each: float, judged: int) -> str:
    """each: training photos of a label; judged: validation photos."""
    if low > 0:
        return (
            f"more photos would help: from {each / 2:.0f} to {each:.0f} photos a label "
            f"accuracy rose by {100 * gain:.1f} points"
        )
    if high < WORTH:
        return "more photos of the same kind would hardly help"
    return f"{judged} validation photos cannot tell whether more photos would help"


def draw(path: Path, found: dict[str, Any]) -> None:
    """learning.png: accuracy over the number of training photos."""
    figure = new_figure(6.6, 3.6)
    axes = figure.subplots()
    points = found["points"]
    verdict = found["verdict"].replace(" (", "\n(")  # a title as wide as the picture
    plain(axes, verdict[0].upper() + verdict[1:])
    x = [point["photos"] for point in points]
    y = [point["accuracy"] for point in points]
    spread = np.array(
        [
            [p["accuracy"] - p["interval"][0], p["interval"][1] - p["accuracy"]]
            for p in points
        ]
    ).T
    axes.errorbar(
        x, y, yerr=spread.clip(0), color=VAL, marker="o", markersize=4, capsize=3
    )
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
