"""How good a head is that learnt from the validation photos, too: cross-validated.

Its own answers to these photos say nothing; those of the heads that had not seen them
do, and of the training photos as well (`finetune.head.cross_fit`).

Does not know: how the folds were made; the exported files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge.evaluate import wilson
from finetune.run import Run


@dataclass(frozen=True)
class Crossed:
    """Photos that heads answered which had not learnt from them, and how many right."""

    photos: int
    right: int

    @classmethod
    def of(cls, run: Run) -> Crossed | None:
        """What a run keeps of it; None where its head was not fitted again."""
        if not run.refitted:
            return None
        known = run.config["calibration"]
        return cls(known["photos"], known["refit"]["right"])

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.right, self.photos)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.right / self.photos:.1%} right ({low:.1%} to {high:.1%}), each "
            "asked of a head that did not learn from it"
        )

    def to_dict(self) -> dict[str, Any]:
        """For metrics.json."""
        return {
            "photos": self.photos,
            "right": self.right,
            "accuracy": self.right / self.photos,
            "interval": self.interval,
        }
