"""training.png: accuracy and loss over the epochs, and the weights that were kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
    """Draw train and validation over the epochs, or, where only the probe was fitted,
    over its penalties.

    kept: the epoch that the run kept. probe: the run's record of it, None for a network
    from scratch. alpha: the weight of the last epoch in the average with the probe
    (`finetune.loop.wise_ft`). cross_fit: the record of the head that replaced the
    probe's (`finetune.head.cross_fit`).
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(9, 3.4)
    left, right = figure.subplots(1, 2)
    trained = [e for e in history if e.train_loss is not None]
    if trained or probe is None:
        x, train_x = [e.epoch for e in history], [e.epoch for e in trained]
        train_label = "train (augmented)" if augmented else "train"
        x_label = "epoch (0 = " + ("untrained)" if probe is None else "linear probe)")
        kept_x: float = kept.epoch
        rows = [asdict(epoch) for epoch in history]
        train_rows = [asdict(epoch) for epoch in trained]
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
            axes.set_xlim(-0.3, max(1, *x) + 0.3)
    else:
        rows = train_rows = list(probe["tried"])
        x = train_x = [row["strength"] for row in rows]
        train_label, kept_x = "train", probe["strength"]
        x_label = "linear probe: inverse penalty C"
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
        plain(axes, title)
        train_y = [row["train_" + key] for row in train_rows]
        val_y = [row["val_" + key] for row in rows]
        line: dict[str, Any] = {"marker": "o", "markersize": 3}
        axes.plot(train_x, train_y, color=TRAIN, label=train_label, **line)
        axes.plot(x, val_y, color=VAL, label="validation", **line)
        axes.plot(
            [kept_x],
            [getattr(kept, "val_" + key)],
            marker="o",
            markersize=9,
            markerfacecolor="none",
            color=MARK,
            linestyle="none",
            clip_on=False,  # a whole ring at 100 %
            zorder=5,
            label=legend,
        )
        axes.margins(x=0.04, y=0.15)
        if cross_fit is not None:
            strength = cross_fit["strength"]
            label = f"kept: C = {strength:g}, fitted again\nto both parts"
            axes.axvline(strength, color=MARK, linewidth=1, linestyle="--", label=label)
        axes.set_xlabel(x_label, fontsize=8, color=MUTED)
    percent(left)
    right.set_ylim(bottom=0)
    figure.legend(  # of both, below them: inside it would lie on a line
        *left.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        fontsize=8,
        frameon=False,
        labelcolor=INK,
    )
    save(figure, path)
