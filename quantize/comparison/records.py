"""What was measured of model files, as records.

It does not know: how it was measured, or how it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.evaluate import Evaluation
from edge.unknown import Refusal
from quantize.comparison import choose
from quantize.comparison import unknown as refusal
from quantize.comparison.timing import Setting, Timing


@dataclass(frozen=True)
class Flip:
    """A test photo that float32 got right and this file wrong, as the network saw it.

    `photo` is uint8 [H, W, 3]; `sure` is the probability of the wrong label.
    """

    path: str
    truth: str
    said: str
    sure: float
    photo: Any = field(repr=False)


@dataclass(frozen=True)
class Measured:
    """One file; `size_bytes` is of the whole file.

    `agreement`, `drop` and `paired` are against the float32 file of its run (of the
    first run for a file made elsewhere), None without one. `rejected`: it lost too
    much on validation, or its target refused it, and lies aside. `runtime` is that
    of the accuracy. `timings`: on this host first, by threads, then other devices.
    """

    title: str
    variant: str
    path: Path
    digest: str
    rejected: bool
    runtime: str
    evaluation: Evaluation
    calibration_error: float
    agreement: float | None
    drop: float | None
    paired: choose.Paired | None
    refusal: Refusal | None
    flips: tuple[Flip, ...]
    size_bytes: int
    multiply_adds: int
    timings: tuple[Timing, ...]
    oldest_runtime: str | None
    refused_by: tuple[str, ...]

    def at(self, setting: Setting) -> Timing | None:
        """Its timing in a setting; None where it was not measured there."""
        return next((one for one in self.timings if one.setting == setting), None)

    def to_dict(self) -> dict[str, Any]:
        """For JSON, flat but for the timings and the evaluation."""
        flips = [[f.path, f.truth, f.said, f.sure] for f in self.flips]
        return {
            **self.figures(),
            "timings": [timing.to_dict() for timing in self.timings],
            "float_right_this_wrong": flips,
            "evaluation": self.evaluation.to_dict(),
        }

    def figures(self) -> dict[str, Any]:
        """What is the same on every device: plain values only."""
        low, high = self.evaluation.interval
        refused = refusal.figures(self.refusal) if self.refusal else {}
        return {
            "title": self.title,
            "variant": self.variant,
            "rejected": self.rejected,
            "file": self.path.name,
            "model_sha256": self.digest,
            "accuracy": self.evaluation.accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
            "photos": self.evaluation.photos,
            "accuracy_runtime": self.runtime,
            "calibration_error": self.calibration_error,
            "agreement": self.agreement,
            "drop": self.drop,
            "lost": self.paired.lost if self.paired else None,
            "gained": self.paired.gained if self.paired else None,
            "mcnemar_p": self.paired.p if self.paired else None,
            **refused,
            "size_bytes": self.size_bytes,
            "multiply_adds": self.multiply_adds,
            "oldest_runtime": self.oldest_runtime,
            "refused_by": " ".join(self.refused_by),
        }


@dataclass(frozen=True)
class Comparison:
    """Files measured on one host; `folder` is where the comparison is written.

    `judged`: the setting whose times the choice went by. `warnings`: what speaks
    against the times taken here.
    """

    run: str
    folder: Path
    labels: tuple[str, ...]
    host: dict[str, Any]
    method: str
    budget: choose.Budget
    judged: Setting
    files: tuple[Measured, ...]
    choice: choose.Choice
    warnings: tuple[str, ...] = ()

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Every setting that has times: the host judged by first, by threads."""
        found = {timing.setting for file in self.files for timing in file.timings}
        home = self.judged.host

        def place(one: Setting) -> tuple[bool, str, str, int, bool]:
            away = one.host != home
            return away, one.host, one.runtime, one.threads, not one.xnnpack

        return tuple(sorted(found, key=place))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "run": self.run,
            "labels": list(self.labels),
            "host": self.host,
            "method": self.method,
            "judged_on": str(self.judged),
            "warnings": list(self.warnings),
            "budget_ms": self.budget.ms,
            "budget_mb": self.budget.mb,
            "ship": self.choice.to_dict(),
            "files": [measured.to_dict() for measured in self.files],
        }
