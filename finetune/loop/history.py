"""The training history: its epochs, history.csv, training.png, TensorBoard's log.

The log is written with TensorFlow's own summary writer, which works without TensorBoard
on this machine; `tensorboard --logdir artifacts` shows every run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backbones.keras import tensorflow
from edge.files import write_csv
from finetune.figures import (
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

LOGS = "logs"  # in the run


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv. Epoch 0 is the probe (or the untrained network).

    Losses are in nats, accuracies 0..1, rate is the learning rate of the last step.
    """

    epoch: int
    train_loss: float | None
    train_accuracy: float | None
    val_loss: float
    val_accuracy: float
    rate: float
    seconds: float

    @property
    def rank(self) -> tuple[float, float]:
        """Better epochs rank higher: validation accuracy, then log loss."""
        return (round(self.val_accuracy, 6), -self.val_loss)


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


def draw_history(
    path: Path,
    history: Sequence[Epoch],
    kept: Epoch,
    probe: Mapping[str, Any] | None,
    *,
    augmented: bool = True,
    alpha: float | None = None,
    cross_fit: Mapping[str, Any] | None = None,
    in_folds: bool = False,
) -> None:
    """training.png: accuracy and loss of train and validation over the epochs, or,
    where only the probe was fitted, over its penalties; and the weights that were kept.

    kept: the epoch that the run kept. probe: the run's record of it, None for a network
    from scratch. alpha: the weight of the last epoch in the average with the probe
    (`finetune.loop.trainer`). cross_fit: the run's record of what was fitted again to
    train and validation (`finetune.head.cross_fit`). in_folds: the history is that of
    the folds (`finetune.loop.folds`).
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
    strength = None
    if cross_fit is not None and not trained:
        legend, strength = "lowest validation loss", cross_fit["strength"]
    elif cross_fit is not None and not kept.epoch:
        legend = "kept: the linear probe,\nfitted again to both parts"
    elif cross_fit is not None:
        legend = f"{legend},\ntrained again on both parts"
    for axes, title, key in (
        (left, "Accuracy", "accuracy"),
        (right, "Loss (cross-entropy)", "loss"),
    ):
        plain(axes, title)
        train_y = [row["train_" + key] for row in train_rows]
        val_y = [row["val_" + key] for row in rows]
        line: dict[str, Any] = {"marker": "o", "markersize": 3}
        axes.plot(train_x, train_y, color=TRAIN, label=train_label, **line)
        axes.plot(
            x,
            val_y,
            color=VAL,
            label="out of fold" if in_folds else "validation",
            **line,
        )
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
        if strength is not None:
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


class Logs:
    """TensorBoard's log in `folder`; a resumed run adds a file to it."""

    def __init__(self, folder: Path) -> None:
        tf = tensorflow()
        self._writer = tf.summary.create_file_writer(str(folder))
        data = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
        self._scalar = tf.compat.v1.SummaryMetadata(plugin_data=data)

    def add(self, epoch: Epoch) -> None:
        """Write one epoch."""
        values = {
            "loss/train": epoch.train_loss,
            "loss/validation": epoch.val_loss,
            "accuracy/train": epoch.train_accuracy,
            "accuracy/validation": epoch.val_accuracy,
            "rate": epoch.rate,
            "seconds": epoch.seconds,
        }
        tf: Any = tensorflow()
        with self._writer.as_default(step=epoch.epoch):
            for name, value in values.items():
                if value is not None:
                    scalar = tf.constant(value, tf.float32)
                    tf.summary.write(name, scalar, metadata=self._scalar)
        self._writer.flush()
