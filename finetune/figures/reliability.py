"""calibration.png: confidence against accuracy, before and after calibration.

The reliability diagram (Niculescu-Mizil and Caruana 2005): photos are binned by the
probability of the best label; a bar is the accuracy of a bin. On the diagonal the
network is calibrated. The expected calibration error is the mean distance from it
(`edge.evaluate.calibration_error`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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
from finetune.loop.examples import Floats, Ints

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 10  # of equal width, from 0 to 1
FEW = 60  # photos; fewer get half as many bins


@dataclass(frozen=True)
class Bin:
    """Photos whose best probability lies in low..high; `interval` of the accuracy."""

    low: float
    high: float
    photos: int
    confidence: float
    accuracy: float
    interval: tuple[float, float]


def bins(probabilities: Floats, truth: Ints) -> tuple[Bin, ...]:
    """The bins that hold photos, of probabilities [N, L] and truth [N]."""
    count = BINS if len(truth) >= FEW else BINS // 2
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    bin_of = np.minimum((confidence * count).astype(int), count - 1)
    return tuple(
        Bin(
            index / count,
            (index + 1) / count,
            int(inside.sum()),
            float(confidence[inside].mean()),
            float(right[inside].mean()),
            wilson(int(right[inside].sum()), int(inside.sum())),
        )
        for index in range(count)
        if (inside := bin_of == index).any()
    )


def measured(before: Floats, after: Floats, truth: Ints) -> dict[str, Any]:
    """For JSON: the error before and after, and the bins of both."""
    return {
        "photos": len(truth),
        "error_before": calibration_error(before, truth),
        "error_after": calibration_error(after, truth),
        "bins_before": list(map(asdict, bins(before, truth))),
        "bins_after": list(map(asdict, bins(after, truth))),
    }


def draw(
    path: Path,
    panels: Sequence[tuple[str, Floats]],
    truth: Ints,
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
    for (upper, lower), (title, probabilities), colour in zip(
        grid.T, panels, colours, strict=True
    ):
        error = calibration_error(probabilities, truth)
        points = (
            f"error {100 * error:.1f} points" if error else "no error beyond chance"
        )
        plain(upper, f"{title}: {points}")
        rows = bins(probabilities, truth)
        lowest = min(lowest, *(row.low for row in rows))
        _draw_bins(upper, rows, colour)
        _draw_counts(lower, rows)
    for axes in grid.ravel():  # with two labels, confidence starts at 1/2
        axes.set_xlim(lowest, 1)
    for upper in grid[0]:
        upper.set_ylim(0, 1.02)
    grid[0, 0].set_ylabel("accuracy", fontsize=8, color=MUTED)
    grid[1, 0].set_ylabel("photos", fontsize=8, color=MUTED)
    if note:
        figure.suptitle(note, x=0.01, ha="left", fontsize=8, color=MUTED)
    save(figure, path)


def _draw_bins(axes: Axes, rows: Sequence[Bin], colour: str) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle="--")
    accuracy = [row.accuracy for row in rows]
    middles = [(row.low + row.high) / 2 for row in rows]
    widths = [0.9 * (row.high - row.low) for row in rows]
    axes.bar(middles, accuracy, widths, color=colour, alpha=0.4)
    errors = np.abs([np.subtract(row.interval, row.accuracy) for row in rows])
    axes.errorbar(
        [row.confidence for row in rows],
        accuracy,
        yerr=errors.T,
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
    middles = [(row.low + row.high) / 2 for row in rows]
    widths = [0.9 * (row.high - row.low) for row in rows]
    axes.bar(middles, [row.photos for row in rows], widths, color=GRID)
    axes.margins(y=0.45)  # room for the numbers over the bars
    for middle, row in zip(middles, rows, strict=True):
        axes.annotate(
            f"{row.photos}",
            (middle, row.photos),
            (0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=7,
            color=INK,
        )
    axes.set_xlabel(
        "confidence: probability of the best label", fontsize=8, color=MUTED
    )
