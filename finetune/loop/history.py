"""The training history: a record for each epoch, history.csv, and TensorBoard's log.

The log is written with TensorFlow's own summary writer, which works without TensorBoard
on this machine; `tensorboard --logdir artifacts` shows every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backbones.keras import tensorflow
from edge.files import write_csv

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
