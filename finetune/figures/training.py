"""What a run shows people: training curves and the confusion matrix.

Figures are drawn with matplotlib's object interface (no display, no global state).

Does not know: how the numbers came about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.evaluate import Evaluation
from edge.files import write_atomic, write_csv
from finetune.loop.epochs import Epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID = "#1f2933", "#6b7785", "#e4e7eb"
TRAIN, VAL, MARK = "#9aa5b1", "#0b7285", "#e8590c"
MOST_LABELS = 30  # a confusion matrix with more is drawn without numbers


def write_history(path: Path, history: Sequence[Epoch]) -> None:
    """history.csv: one row an epoch, empty cells where nothing was measured."""

    rows = [asdict(epoch) for epoch in history]
    write_csv(
        path,
        list(rows[0]),
        (
            [f"{v:.6g}" if isinstance(v, float) else v for v in row.values()]
            for row in rows
        ),
    )


def new_figure(width: float, height: float) -> Any:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def save(figure: Any, path: Path) -> None:
    """Write it as a PNG, whole or not at all."""
    write_atomic(path, lambda to: figure.savefig(to, format="png", facecolor="white"))


def plain(axes: Axes, title: str) -> None:
    """The house's look: a bold title on the left, quiet lines."""
    axes.set_title(title, loc="left", fontsize=10, color=INK, weight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=8)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


@dataclass(frozen=True)
class _Curve:
    """One line of the training picture; `x` are the places of `y`."""

    label: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]


def draw_training(
    path: Path,
    history: Sequence[Epoch],
    kept: Epoch,
    probe: Mapping[str, Any] | None,
    *,
    augmented: bool = True,
    share: float | None = None,
    refit: Mapping[str, Any] | None = None,
) -> None:
    """training.png: accuracy and loss, train and validation.

    Over the epochs; where only the probe was fitted, over the penalties it tried.
    kept: what the run kept; between probe and end it lies beside the curve.
    probe: the run's record of it, None for a network from scratch. share: how much of
    the way from the probe to the last epoch was kept, where one was looked for. refit:
    the run's record of the head that took the place of the probe's
    (`finetune.head.cross_fit`).
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(9, 3.4)
    left, right = figure.subplots(1, 2)
    trained = [e for e in history if e.train_loss is not None]
    if trained or probe is None:
        x, train_x = [e.epoch for e in history], [e.epoch for e in trained]
        train_label = "train (augmented)" if augmented else "train"
        where = "epoch (0 = " + ("untrained)" if probe is None else "linear probe)")
        mark: float = kept.epoch
        rows = [asdict(epoch) for epoch in history]
        train_rows = [asdict(epoch) for epoch in trained]
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    else:
        rows = train_rows = list(probe["tried"])
        x = train_x = [row["strength"] for row in rows]
        train_label, mark = "train", probe["strength"]
        where = "linear probe: inverse penalty C"
        for axes in (left, right):
            axes.set_xscale("log")
    told = "kept"
    if share is not None and 0 < share < 1:  # weights that no epoch had
        told = f"kept: {share:.0%} of the way\nfrom the probe to epoch {kept.epoch}"
    if refit is not None:
        told = (
            "best of these; kept: fitted again\nto train and validation, "
            f"C = {refit['strength']:g}"
        )
    for axes, title, key in (
        (left, "Accuracy", "accuracy"),
        (right, "Loss (cross-entropy)", "loss"),
    ):
        train = _Curve(
            train_label, TRAIN, train_x, [r["train_" + key] for r in train_rows]
        )
        val = _Curve("validation", VAL, x, [r["val_" + key] for r in rows])
        plain(axes, title)
        _draw_curves(axes, (train, val), (mark, getattr(kept, "val_" + key)), told)
        axes.legend(fontsize=8, frameon=False, labelcolor=INK)
        axes.set_xlabel(where, fontsize=8, color=MUTED)
    percent(left)
    right.set_ylim(bottom=0)
    save(figure, path)


def _draw_curves(
    axes: Axes, curves: tuple[_Curve, _Curve], kept: tuple[float, float], told: str
) -> None:
    """Both lines, and a ring where that which was kept lies on validation."""
    for curve in curves:
        axes.plot(
            curve.x,
            curve.y,
            color=curve.colour,
            marker="o",
            markersize=3,
            label=curve.label,
        )
    axes.plot(
        [kept[0]],
        [kept[1]],
        marker="o",
        markersize=9,
        markerfacecolor="none",
        color=MARK,
        linestyle="none",
        label=told,
    )
    axes.margins(x=0.04, y=0.15)


def percent(axes: Axes) -> None:
    """The vertical axis in percent, never beyond 0 and 100."""
    from matplotlib.ticker import PercentFormatter

    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0.0), min(high, 1.005))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def draw_confusion(path: Path, evaluation: Evaluation, where: str) -> None:
    """confusion.png: rows are the truth, columns the answers, cells are photos."""
    labels = evaluation.labels
    table = np.asarray(evaluation.confusion)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = min(12.0, max(3.6, 1.6 + 0.55 * len(labels)))
    figure = new_figure(side + 0.8, side)
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
    save(figure, path)
