"""One finished pass over the photos, as history.csv has it.

Does not know: how it was trained.
"""

from __future__ import annotations

from dataclasses import dataclass


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
