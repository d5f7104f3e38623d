"""training.png: accuracy and loss over the epochs, and what was kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.figures.style import (
    INK,
    MARK,
    MUTED,
    TRAIN,
    VAL,
    new_figure,
    percent,
    plain,
    save,
)
from finetune.loop.history import Epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class _Curve:
    """One line of the training picture; `x` are the places of `y`."""

    label: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]


def draw(
    path: Path,
    history: Sequence[Epoch],
    kept: Epoch,
    probe: Mapping[str, Any] | None,
    *,
    augmented: bool = True,
    alpha: float | None = None,
    cross_fit: Mapping[str, Any] | None = None,
) -> None:
    """Draw train and validation over the epochs; over the penalties that were tried
    where only the probe was fitted.

    kept: what the run kept. probe: the run's record of it, None for a network from
    scratch. alpha: the weight of the last epoch in what was kept, the rest is the
    probe's (`finetune.loop.wise_ft`). cross_fit: the record of the head that replaced
    the probe's (`finetune.head.cross_fit`).
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(9, 3.4)
    left, right = figure.subplots(1, 2)
    trained = [e for e in history if e.train_loss is not None]
    over_epochs = bool(trained) or probe is None
    if over_epochs:
        x, train_x = [e.epoch for e in history], [e.epoch for e in trained]
        train_label = "train (augmented)" if augmented else "train"
        where = "epoch (0 = " + ("untrained)" if probe is None else "linear probe)")
        mark: float = kept.epoch
        rows = [asdict(epoch) for epoch in history]
        train_rows = [asdict(epoch) for epoch in trained]
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
            axes.set_xlim(-0.3, max(1, *x) + 0.3)
    else:
        assert probe is not None
        rows = train_rows = list(probe["tried"])
        x = train_x = [row["strength"] for row in rows]
        train_label, mark = "train", probe["strength"]
        where = "linear probe: inverse penalty C"
        for axes in (left, right):
            axes.set_xscale("log")
    legend = "kept"
    if alpha is not None and 0 < alpha < 1:  # weights that no epoch had
        legend = f"kept: {alpha:.0%} epoch {kept.epoch},\n{1 - alpha:.0%} linear probe"
    if cross_fit is not None:
        legend = "lowest validation loss"
    for axes, title, key in (
        (left, "Accuracy", "accuracy"),
        (right, "Loss (cross-entropy)", "loss"),
    ):
        train = _Curve(
            train_label, TRAIN, train_x, [r["train_" + key] for r in train_rows]
        )
        val = _Curve("validation", VAL, x, [r["val_" + key] for r in rows])
        plain(axes, title)
        _draw_curves(axes, (train, val), (mark, getattr(kept, "val_" + key)), legend)
        if cross_fit is not None:
            strength = cross_fit["strength"]
            label = f"kept: C = {strength:g}, fitted again\nto both parts"
            axes.axvline(strength, color=MARK, linewidth=1, linestyle="--", label=label)
        axes.legend(fontsize=8, frameon=False, labelcolor=INK)
        axes.set_xlabel(where, fontsize=8, color=MUTED)
    percent(left)
    right.set_ylim(bottom=0)
    save(figure, path)


def _draw_curves(
    axes: Axes, curves: tuple[_Curve, _Curve], kept: tuple[float, float], legend: str
) -> None:
    """Both lines, and a ring at what was kept, on validation."""
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
        label=legend,
    )
    axes.margins(x=0.04, y=0.15)
