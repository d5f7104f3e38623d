"""TensorBoard's log of a run: the losses, accuracies and rate of every epoch.

Written with TensorFlow's own summary writer, so that TensorBoard itself need not be
installed on this machine; `tensorboard --logdir artifacts` shows every run.

Does not know: what training is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backbones.keras import tensorflow
from finetune.loop.epochs import Epoch

FOLDER = "logs"


class Logs:
    """Writes into `folder`; a resumed run adds a file to it."""

    def __init__(self, folder: Path) -> None:
        tf = tensorflow()
        self._writer = tf.summary.create_file_writer(str(folder))
        data = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
        self._scalar = tf.compat.v1.SummaryMetadata(plugin_data=data)

    def add(self, epoch: Epoch) -> None:
        """Write one epoch."""
        found = {
            "loss/train": epoch.train_loss,
            "loss/validation": epoch.val_loss,
            "accuracy/train": epoch.train_accuracy,
            "accuracy/validation": epoch.val_accuracy,
            "rate": epoch.rate,
            "seconds": epoch.seconds,
        }
        for name, value in found.items():
            if value is not None:
                self._write(name, value, epoch.epoch)
        self._writer.flush()

    def _write(self, name: str, value: float, step: int) -> None:
        tf: Any = tensorflow()
        with self._writer.as_default():
            number = tf.constant(value, tf.float32)
            tf.summary.write(name, number, step=step, metadata=self._scalar)
