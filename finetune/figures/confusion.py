"""confusion.png: rows are true labels, columns predictions, cells photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge.evaluate import Evaluation
from finetune.figures.style import INK, MUTED, new_figure, save, shortened

MOST_LABELS = 30  # a confusion matrix with more is drawn without numbers


def draw(path: Path, evaluation: Evaluation, where: str) -> None:
    """Draw the matrix of an evaluation; `where`: of which photos and which file."""
    labels = evaluation.labels
    counts = np.asarray(evaluation.confusion)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(12.0, max(3.6, 1.6 + 0.55 * len(labels)))
    figure = new_figure(side + 0.8, side)
    axes = figure.subplots()
    axes.imshow(fractions, cmap="GnBu", vmin=0, vmax=1)
    axes.set_title(
        f"{evaluation.accuracy:.1%} of {evaluation.photos} photos right\n{where}",
        loc="left",
        fontsize=10,
        color=INK,
        weight="bold",
    )
    axes.set_xlabel("prediction", fontsize=9, color=MUTED)
    axes.set_ylabel("true label", fontsize=9, color=MUTED)
    ticks = range(len(labels))
    short = [shortened(label, 18) for label in labels]
    size = min(8, 600 / len(labels))  # points: never taller than a row
    axes.set_yticks(ticks, short, fontsize=size)
    axes.set_xticks(ticks, short, fontsize=size)
    if max(map(len, short)) * len(labels) > 40:  # too long to stand side by side
        turned = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(ticks, short, fontsize=size, **turned)
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    if len(labels) <= MOST_LABELS:
        for row, column in np.argwhere(counts):
            axes.text(
                column,
                row,
                f"{counts[row, column]:,}",
                ha="center",
                va="center",
                fontsize=11 if len(labels) <= 6 else 7,
                color="white" if fractions[row, column] > 0.6 else INK,
            )
    save(figure, path)
