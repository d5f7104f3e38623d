"""What was measured of model files, as records.

It does not know: how it was measured, or how it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.evaluate import Evaluation
from quantize import decide


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
    """One file. Times in milliseconds, memory in MiB, `size_bytes` of the whole file.

    `agreement`, `drop` and `paired` are against the float32 file of its run (of the
    first run for a file made elsewhere), None without one. `rejected`: it lost too
    much on validation, or its target refused it, and lies aside.
    """

    title: str
    variant: str
    path: Path
    rejected: bool
    evaluation: Evaluation
    calibration_error: float
    agreement: float | None
    drop: float | None
    paired: decide.Paired | None
    flips: tuple[Flip, ...]
    size_bytes: int
    load_ms: float
    first_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    peak_memory_mb: float
    threads: int
    runtime: str
    oldest_runtime: str | None
    refused_by: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON, flat but for the evaluation."""
        flips = [[f.path, f.truth, f.said, f.sure] for f in self.flips]
        return {
            **self.figures(),
            "float_right_this_wrong": flips,
            "evaluation": self.evaluation.to_dict(),
        }

    def figures(self) -> dict[str, Any]:
        """One row of a table: plain values only."""
        low, high = self.evaluation.interval
        return {
            "title": self.title,
            "variant": self.variant,
            "rejected": self.rejected,
            "file": self.path.name,
            "accuracy": self.evaluation.accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
            "photos": self.evaluation.photos,
            "calibration_error": self.calibration_error,
            "agreement": self.agreement,
            "drop": self.drop,
            "lost": self.paired.lost if self.paired else None,
            "gained": self.paired.gained if self.paired else None,
            "mcnemar_p": self.paired.p if self.paired else None,
            "size_bytes": self.size_bytes,
            "load_ms": self.load_ms,
            "first_ms": self.first_ms,
            "p50_ms": self.p50_ms,
            "p95_ms": self.p95_ms,
            "p99_ms": self.p99_ms,
            "peak_memory_mb": self.peak_memory_mb,
            "threads": self.threads,
            "runtime": self.runtime,
            "oldest_runtime": self.oldest_runtime,
            "refused_by": " ".join(self.refused_by),
        }


@dataclass(frozen=True)
class Comparison:
    """Files measured on one host; `folder` is where the comparison is written."""

    run: str
    folder: Path
    labels: tuple[str, ...]
    host: dict[str, Any]
    method: str
    files: tuple[Measured, ...]
    choice: decide.Choice

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "run": self.run,
            "labels": list(self.labels),
            "host": self.host,
            "method": self.method,
            "ship": self.choice.to_dict(),
            "files": [measured.to_dict() for measured in self.files],
        }
