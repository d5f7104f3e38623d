"""The pictures of an evaluation: confusion, calibration, mistakes, uncertain photos.

The evaluation is that of the trained network or of an exported file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.evaluate import Evaluation
from edge.text import plural
from finetune.figures import mistakes, reliability
from finetune.figures.style import INK, MUTED, new_figure, save, shortened

MAX_LABELS = 30  # a confusion matrix with more is drawn without numbers


def draw(
    folder: Path,
    evaluation: Evaluation,
    photos: Sequence[Path],
    pixels: Callable[[int], npt.NDArray[np.uint8]],
    where: str,
    panels: Sequence[tuple[str, npt.NDArray[np.float32]]],
    note: str = "",
) -> None:
    """Write confusion.png, calibration.png, mistakes.png and uncertain.png.

    photos: the path of each evaluated photo; pixels: its index -> uint8 [H, W, 3].
    where: of which photos and which file, as in "test part, int8.tflite". panels: one
    or two of (title, probabilities [N, L]) for calibration.png; note: a line above.
    """
    draw_confusion(folder / "confusion.png", evaluation, where)
    part = where.partition(",")[0]  # the panels name the files
    note = f"{plural(len(evaluation.truth), 'photo')} of the {part}. {note}"
    reliability.draw(folder / "calibration.png", panels, evaluation.truth, note)
    for name, rows, heading in (
        ("mistakes", mistakes.mistakes(evaluation), "Most confident mistakes"),
        ("uncertain", mistakes.least_certain(evaluation), "Least certain predictions"),
    ):
        mistakes.draw(
            folder / f"{name}.png",
            rows,
            evaluation,
            photos,
            [pixels(int(row)) for row in rows],
            f"{heading}, {where}",
        )


def draw_confusion(path: Path, evaluation: Evaluation, where: str) -> None:
    """Rows are true labels, columns predictions, cells photos."""
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
    if len(labels) <= MAX_LABELS:
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
