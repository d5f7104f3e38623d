"""What a run shows people: training curves, confusion matrix, worst mistakes.

Figures are drawn with matplotlib's object interface (no display, no global state).

Does not know: how the numbers came about.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge.evaluate import Evaluation
from finetune.run import write_atomic
from finetune.train import Epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID = "#1f2933", "#6b7785", "#e4e7eb"
TRAIN, VAL, MARK = "#9aa5b1", "#0b7285", "#e8590c"
MOST_LABELS = 30  # a confusion matrix with more is drawn without numbers
MISTAKES = 12


def write_history(path: Path, history: Sequence[Epoch]) -> None:
    """history.csv: one row an epoch, empty cells where nothing was measured."""

    def write(to: Path) -> None:
        with to.open("w", newline="", encoding="utf-8") as file:
            rows = [asdict(epoch) for epoch in history]
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            for row in rows:
                writer.writerow(
                    {
                        name: f"{value:.6g}" if isinstance(value, float) else value
                        for name, value in row.items()
                    }
                )

    write_atomic(path, write)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def _save(figure: Any, path: Path) -> None:
    write_atomic(path, lambda to: figure.savefig(to, format="png", facecolor="white"))


def _plain(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, color=INK, weight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=8)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def draw_training(path: Path, history: Sequence[Epoch], best: int, start: str) -> None:
    """training.png: accuracy and loss, train and validation, over the epochs.

    start: what epoch 0 is ("linear probe", "untrained").
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = _figure(9, 3.4)
    left, right = figure.subplots(1, 2)
    epochs = [e.epoch for e in history]
    trained = [e for e in history if e.train_loss is not None]
    chosen = next(e for e in history if e.epoch == best)
    panels: tuple[tuple[Any, str, list[Any], list[float], float], ...] = (
        (
            left,
            "Accuracy",
            [e.train_accuracy for e in trained],
            [e.val_accuracy for e in history],
            chosen.val_accuracy,
        ),
        (
            right,
            "Loss (cross-entropy)",
            [e.train_loss for e in trained],
            [e.val_loss for e in history],
            chosen.val_loss,
        ),
    )
    for axes, title, train, val, mark in panels:
        _plain(axes, title)
        axes.plot(
            [e.epoch for e in trained],
            train,
            color=TRAIN,
            marker="o",
            markersize=3,
            label="train (augmented, smoothed labels)",
        )
        axes.plot(
            epochs, val, color=VAL, marker="o", markersize=3.5, label="validation"
        )
        axes.plot(
            [best],
            [mark],
            marker="o",
            markersize=9,
            markerfacecolor="none",
            color=MARK,
            linestyle="none",
            label="kept",
        )
        axes.set_xlabel(f"epoch (0 = {start})", fontsize=8, color=MUTED)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.margins(x=0.04, y=0.15)
    left.yaxis.set_major_formatter(PercentFormatter(1.0))
    right.set_ylim(bottom=0)
    right.legend(fontsize=8, frameon=False, labelcolor=INK)
    _save(figure, path)


def draw_confusion(path: Path, evaluation: Evaluation, where: str) -> None:
    """confusion.png: rows are the truth, columns the answers, cells are photos."""
    labels = evaluation.labels
    table = np.asarray(evaluation.confusion)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = min(12.0, max(3.6, 1.6 + 0.55 * len(labels)))
    figure = _figure(side + 0.8, side)
    axes = figure.subplots()
    axes.imshow(shares, cmap="GnBu", vmin=0, vmax=1)
    axes.set_title(
        f"{evaluation.accuracy:.1%} of {evaluation.photos} photos right ({where})",
        loc="left",
        fontsize=10,
        color=INK,
        weight="bold",
    )
    axes.set_xlabel("answer", fontsize=9, color=MUTED)
    axes.set_ylabel("truth", fontsize=9, color=MUTED)
    ticks = range(len(labels))
    short = [label if len(label) <= 18 else label[:17] + "…" for label in labels]
    axes.set_xticks(ticks, short, rotation=0 if len(labels) <= 5 else 60, fontsize=8)
    axes.set_yticks(ticks, short, fontsize=8)
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    if len(labels) <= MOST_LABELS:
        for row in ticks:
            for column in ticks:
                if table[row, column]:
                    axes.text(
                        column,
                        row,
                        f"{table[row, column]:,}",
                        ha="center",
                        va="center",
                        fontsize=11 if len(labels) <= 6 else 7,
                        color="white" if shares[row, column] > 0.6 else INK,
                    )
    _save(figure, path)


def draw_mistakes(
    path: Path, evaluation: Evaluation, pixels: npt.NDArray[np.uint8], where: str
) -> None:
    """mistakes.png: the photos that were answered wrongly, the surest first.

    pixels: uint8 [N, S, S, 3] as the network saw them, in the evaluation's order.
    """
    guess = evaluation.probabilities.argmax(axis=1)
    sure = evaluation.probabilities.max(axis=1)
    wrong = np.flatnonzero(guess != evaluation.truth)
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")][:MISTAKES]
    columns = 6 if len(wrong) > 4 else max(1, len(wrong))
    rows = max(1, -(-len(wrong) // columns))
    figure = _figure(max(4.0, 1.6 * columns), 1.9 * rows + 0.5)
    figure.suptitle(
        f"Surest mistakes ({where})" if len(wrong) else f"No mistakes ({where})",
        x=0.01,
        ha="left",
        fontsize=10,
        color=INK,
        weight="bold",
    )
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, index in zip(grid, wrong, strict=False):
        axes.imshow(pixels[index])
        labels = evaluation.labels
        axes.set_title(
            f"{labels[guess[index]]} {sure[index]:.0%}\n"
            f"is {labels[evaluation.truth[index]]}",
            fontsize=7.5,
            color=INK,
        )
    _save(figure, path)
