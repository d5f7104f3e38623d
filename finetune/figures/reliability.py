"""How sure the network is against how often it is right, before and after calibration.

The reliability diagram (Niculescu-Mizil and Caruana 2005): photos sorted into bins by
the probability of the best label; a bar ends at the share that is right. On the
diagonal the probabilities mean what they say. The expected calibration error is the
mean distance from it (`edge.evaluate.calibration_error`).

Does not know: the network, or how it was calibrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.evaluate import calibration_error, wilson
from finetune.figures.training import (
    GRID,
    INK,
    MUTED,
    TRAIN,
    VAL,
    new_figure,
    plain,
    save,
)

BINS = 10  # of equal width, from 0 to 1

Floats = npt.NDArray[np.float32]
Truth = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Bin:
    """Photos whose best probability lies in low..high; `interval` of the accuracy."""

    low: float
    high: float
    photos: int
    confidence: float
    accuracy: float
    interval: tuple[float, float]


def bins(probabilities: Floats, truth: Truth) -> tuple[Bin, ...]:
    """The bins that hold photos, of probabilities [N, L] and truth [N]."""
    sure = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    return tuple(
        Bin(
            number / BINS,
            (number + 1) / BINS,
            int(inside.sum()),
            float(sure[inside].mean()),
            float(right[inside].mean()),
            wilson(int(right[inside].sum()), int(inside.sum())),
        )
        for number in range(BINS)
        if (inside := place == number).any()
    )


def measured(before: Floats, after: Floats, truth: Truth) -> dict[str, Any]:
    """For JSON: the error before and after, and the bins of both."""
    return {
        "photos": len(truth),
        "error_before": calibration_error(before, truth),
        "error_after": calibration_error(after, truth),
        "bins_before": [asdict(one) for one in bins(before, truth)],
        "bins_after": [asdict(one) for one in bins(after, truth)],
    }


def draw(
    path: Path,
    panels: Sequence[tuple[str, Floats]],
    truth: Truth,
    where: str,
    note: str,
) -> None:
    """calibration.png: accuracy over confidence, and how many photos, in each panel.

    panels: (title, probabilities [N, L]), one or two. where: which photos these are.
    note: a line on the calibration.
    """
    figure = new_figure(4.5 * len(panels), 5)
    grid = figure.subplots(
        2,
        len(panels),
        sharex=True,
        sharey="row",
        squeeze=False,
        gridspec_kw={"height_ratios": (4, 1)},
    )
    colours = (TRAIN, VAL)[-len(panels) :]
    for (upper, lower), (title, found), colour in zip(
        grid.T, panels, colours, strict=True
    ):
        error = calibration_error(found, truth)
        plain(upper, f"{title}: error {100 * error:.1f} points")
        rows = bins(found, truth)
        middles = [(one.low + one.high) / 2 for one in rows]
        upper.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle="--")
        upper.bar(
            middles, [one.accuracy for one in rows], 0.9 / BINS, color=colour, alpha=0.4
        )
        spread = [
            [one.accuracy - one.interval[0] for one in rows],
            [one.interval[1] - one.accuracy for one in rows],
        ]
        upper.errorbar(
            [one.confidence for one in rows],
            [one.accuracy for one in rows],
            yerr=np.abs(spread),
            color=colour,
            marker="o",
            markersize=5,
            linestyle="none",
            elinewidth=1,
            clip_on=False,
        )
        plain(lower, "")
        lower.grid(visible=False)
        lower.bar(middles, [one.photos for one in rows], 0.9 / BINS, color=GRID)
        lower.margins(y=0.45)  # room for the numbers over the bars
        for middle, one in zip(middles, rows, strict=True):
            lower.annotate(
                f"{one.photos}",
                (middle, one.photos),
                (0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                color=INK,
            )
        lower.set_xlabel("probability of the likeliest label", fontsize=8, color=MUTED)
        for axes in (upper, lower):
            axes.set_xlim(0, 1)
        upper.set_ylim(0, 1.02)
    grid[0, 0].set_ylabel(f"share of right answers ({where})", fontsize=8, color=MUTED)
    grid[1, 0].set_ylabel("photos", fontsize=8, color=MUTED)
    figure.suptitle(note, x=0.01, ha="left", fontsize=8, color=MUTED)
    save(figure, path)
