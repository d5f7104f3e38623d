"""Did a file really lose accuracy, and which one to ship.

It does not know: how anything was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.errors import EdgegraftError
from finetune.paired import mcnemar

if TYPE_CHECKING:
    from edge.evaluate import Evaluation
    from quantize.measured import Measured

ALIKE = 0.05  # times closer than that are noise; then the smaller file, or the first
SURE = 0.05  # below this, chance alone hardly makes such a difference


@dataclass(frozen=True)
class Paired:
    """Two files on the same photos: `lost` only the first got right, `gained` only
    the second. `p` is how often chance alone splits them so unevenly or more."""

    lost: int
    gained: int
    p: float

    def to_dict(self) -> dict[str, Any]:
        return {"lost": self.lost, "gained": self.gained, "p": self.p}


def paired(reference: Evaluation, other: Evaluation) -> Paired:
    """McNemar's test, exact and two-sided (McNemar 1947), on the same photos."""
    if not np.array_equal(reference.truth, other.truth):
        raise EdgegraftError("expected two files measured on the same photos")
    before = reference.probabilities.argmax(axis=1) == reference.truth
    after = other.probabilities.argmax(axis=1) == other.truth
    return Paired(*mcnemar(before, after))


@dataclass(frozen=True)
class Choice:
    """The file to ship (None: none fits) and why, in a sentence."""

    file: Measured | None
    why: str

    def to_dict(self) -> dict[str, Any]:
        return {"file": self.file.title if self.file else None, "why": self.why}


def choose(
    files: Sequence[Measured], *, ms: float | None = None, mb: float | None = None
) -> Choice:
    """The fastest file within the budget that is not surely worse than the best.

    `ms`: median latency; `mb`: file size in MB (10^6 bytes). Out of the files that fit
    and were not rejected, those that lose to the most accurate with p < 0.05 are left
    out.
    """
    for name, value in (("ms", ms), ("mb", mb)):
        if value is not None and not value > 0:
            raise EdgegraftError(f"expected --budget-{name} above 0, got {value:g}")
    limits = [f"{ms:g} ms"] if ms is not None else []
    limits += [f"{mb:g} MB"] if mb is not None else []
    fitting = f" that fit {' and '.join(limits)}" if limits else ""
    usable = [file for file in files if not file.rejected]
    fit = [
        file
        for file in usable
        if (ms is None or file.p50_ms <= ms) and (mb is None or _mb(file) <= mb)
    ]
    if not fit:
        told = "; ".join(
            f"{f.title}: {f.p50_ms:.2f} ms, {_mb(f):.2f} MB" for f in usable
        )
        return Choice(None, f"no files{fitting} ({told or 'all were rejected'})")
    best = max(fit, key=lambda file: file.evaluation.accuracy)
    equal = [
        file
        for file in fit
        if file is best or paired(best.evaluation, file.evaluation).p >= SURE
    ]
    fastest = min(file.p50_ms for file in equal)
    alike = [file for file in equal if file.p50_ms <= fastest * (1 + ALIKE)]
    chosen = min(alike, key=lambda file: round(_mb(file), 1))
    why = (
        f"{chosen.evaluation.accuracy:.1%} accurate, {chosen.p50_ms:.2f} ms, "
        f"{_mb(chosen):.2f} MB: "
    )
    if chosen is best:
        why += f"the most accurate of {len(fit)} files{fitting}"
        why += ", and no equal is faster" if len(equal) > 1 else ""
    else:
        p = paired(best.evaluation, chosen.evaluation).p
        why += (
            f"the fastest of {len(fit)} files{fitting} that is not surely worse than "
            f"{best.title} ({best.evaluation.accuracy:.1%}; McNemar p = {p:.2f})"
        )
    return Choice(chosen, why)


def _mb(file: Measured) -> float:
    return file.size_bytes / 1e6
