"""calibration.png: confidence against accuracy, before and after calibration.

The reliability diagram (Niculescu-Mizil and Caruana 2005): photos sorted into bins by
the probability of the best label; a bar ends at the share that is right. On the
diagonal the probabilities mean what they say. The expected calibration error is the
mean distance from it (`edge.evaluate.calibration_error`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge.evaluate import calibration_error, wilson
from finetune.figures.style import (
    GRID,
    INK,
    MUTED,
    TRAIN,
    VAL,
    new_figure,
    plain,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 10  # of equal width, from 0 to 1
FEW = 60  # photos; fewer are put into half as many bins, so that a bin holds some

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


def bin_count(photos: int) -> int:
    """Bins for this number of photos."""
    return BINS if photos >= FEW else BINS // 2


def bins(probabilities: Floats, truth: Truth) -> tuple[Bin, ...]:
    """The bins that hold photos, of probabilities [N, L] and truth [N]."""
    count = bin_count(len(truth))
    best = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    place = np.minimum((best * count).astype(int), count - 1)
    return tuple(
        Bin(
            number / count,
            (number + 1) / count,
            int(inside.sum()),
            float(best[inside].mean()),
            float(right[inside].mean()),
            wilson(int(right[inside].sum()), int(inside.sum())),
        )
        for number in range(count)
        if (inside := place == number).any()
    )


def measured(before: Floats, after: Floats, truth: Truth) -> dict[str, Any]:
    """For JSON: the error before and after, and the bins of both."""
    return {
        "photos": len(truth),
        "error_before": calibration_error(before, truth),
        "error_after": calibration_error(after, truth),
        "bins_before": [asdict(each) for each in bins(before, truth)],
        "bins_after": [asdict(each) for each in bins(after, truth)],
    }


def draw(
    path: Path,
    panels: Sequence[tuple[str, Floats]],
    truth: Truth,
    note: str,
) -> None:
    """calibration.png: accuracy over confidence, and how many photos, in each panel.

    panels: (title, probabilities [N, L]), one or two. note: a line above them.
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
    lowest = 1.0
    for (upper, lower), (title, found), colour in zip(
        grid.T, panels, colours, strict=True
    ):
        error = calibration_error(found, truth)
        plain(upper, f"{title}: {_points(error)}")
        rows = bins(found, truth)
        lowest = min(lowest, *(each.low for each in rows))
        _draw_bins(upper, rows, colour)
        _draw_counts(lower, rows)
    for axes in grid.ravel():  # no empty left half where few labels start at 1/2
        axes.set_xlim(lowest, 1)
    for upper in grid[0]:
        upper.set_ylim(0, 1.02)
    grid[0, 0].set_ylabel("accuracy", fontsize=8, color=MUTED)
    grid[1, 0].set_ylabel("photos", fontsize=8, color=MUTED)
    if note:
        figure.suptitle(note, x=0.01, ha="left", fontsize=8, color=MUTED)
    save(figure, path)


def _points(error: float) -> str:
    return f"error {100 * error:.1f} points" if error else "no error beyond chance"


def _draw_bins(axes: Axes, rows: Sequence[Bin], colour: str) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle="--")
    axes.bar(
        [(each.low + each.high) / 2 for each in rows],
        [each.accuracy for each in rows],
        [0.9 * (each.high - each.low) for each in rows],
        color=colour,
        alpha=0.4,
    )
    spread = [
        [each.accuracy - each.interval[0] for each in rows],
        [each.interval[1] - each.accuracy for each in rows],
    ]
    axes.errorbar(
        [each.confidence for each in rows],
        [each.accuracy for each in rows],
        yerr=np.abs(spread),
        color=colour,
        marker="o",
        markersize=5,
        linestyle="none",
        elinewidth=1,
        clip_on=False,
    )


def _draw_counts(axes: Axes, rows: Sequence[Bin]) -> None:
    plain(axes, "")
    axes.grid(visible=False)
    middles = [(each.low + each.high) / 2 for each in rows]
    widths = [0.9 * (each.high - each.low) for each in rows]
    axes.bar(middles, [each.photos for each in rows], widths, color=GRID)
    axes.margins(y=0.45)  # room for the numbers over the bars
    for middle, each in zip(middles, rows, strict=True):
        axes.annotate(
            f"{each.photos}",
            (middle, each.photos),
            (0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=7,
            color=INK,
        )
    axes.set_xlabel(
        "confidence: probability of the best label", fontsize=8, color=MUTED
    )
