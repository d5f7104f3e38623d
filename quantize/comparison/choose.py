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
    from quantize.comparison.records import Measured
    from quantize.comparison.timing import Setting

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


def guess(evaluation: Evaluation) -> str | None:
    """Says so where a file isn't surely better than always answering one label, as may
    be where labels are very uneven; else None."""
    often = max(evaluation.per_class, key=lambda entry: int(entry["photos"]))
    share = often["photos"] / evaluation.photos
    if evaluation.interval[0] > share:
        return None
    return f"always answering {often['label']} would be {share:.1%} right, too"


@dataclass(frozen=True)
class Choice:
    """The file to ship (None: none fits) and why, in a sentence."""

    file: Measured | None
    why: str

    def to_dict(self) -> dict[str, Any]:
        return {"file": self.file.title if self.file else None, "why": self.why}


@dataclass(frozen=True)
class Budget:
    """What the file to ship may cost: `ms` median latency, `mb` size in MB (10^6
    bytes); None: anything."""

    ms: float | None = None
    mb: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("ms", self.ms), ("mb", self.mb)):
            if value is not None and not 0 < value < float("inf"):
                raise EdgegraftError(f"expected --budget-{name} above 0, got {value:g}")

    def __str__(self) -> str:
        limits = [f"{self.ms:g} ms"] if self.ms is not None else []
        limits += [f"{self.mb:g} MB"] if self.mb is not None else []
        return " and ".join(limits)


def choose(files: Sequence[Measured], budget: Budget, on: Setting) -> Choice:
    """The fastest file within the budget that is not surely worse than the best.

    Latency is that measured in the setting `on`; a file not measured there is left
    out, and so is a rejected one. Out of the files that fit, those that lose to the
    most accurate with p < 0.05 are left out.
    """
    usable = [file for file in files if not file.rejected and file.at(on)]
    fit = [
        file
        for file in usable
        if (budget.ms is None or _ms(file, on) <= budget.ms)
        and (budget.mb is None or _mb(file) <= budget.mb)
    ]
    fitting = f" that fit{'' if fit[1:] else 's'} {budget}" if str(budget) else ""
    if not fit:
        told = "; ".join(
            f"{f.title}: {_ms(f, on):.2f} ms, {_mb(f):.2f} MB" for f in usable
        )
        where = f" on {on}" if usable else ""
        limits = f" fits {budget}" if str(budget) else ""
        return Choice(None, f"no file{limits} ({told or 'all were rejected'}{where})")
    best = max(fit, key=lambda file: file.evaluation.accuracy)
    equal = [
        file
        for file in fit
        if file is best or paired(best.evaluation, file.evaluation).p >= SURE
    ]
    fastest = min(_ms(file, on) for file in equal)
    alike = [file for file in equal if _ms(file, on) <= fastest * (1 + ALIKE)]
    chosen = min(alike, key=lambda file: round(_mb(file), 1))
    chance = guess(chosen.evaluation)
    why = (
        f"{chosen.evaluation.accuracy:.1%} accurate"
        f"{f' ({chance})' if chance else ''}, {_mb(chosen):.2f} MB, "
        f"{_ms(chosen, on):.2f} ms on {on}: "
    )
    if chosen is best:
        many = f"the most accurate of {len(fit)} files" if fit[1:] else "the only file"
        why += f"{many}{fitting}"
        why += ", and no equal is faster" if len(equal) > 1 else ""
    else:
        p = paired(best.evaluation, chosen.evaluation).p
        why += (
            f"the fastest of {len(fit)} files{fitting} that is not surely worse than "
            f"{best.title} ({best.evaluation.accuracy:.1%}; McNemar p = {p:.2f})"
        )
    return Choice(chosen, why)


def front(files: Sequence[Measured], on: Setting) -> list[Measured]:
    """The Pareto front in a setting, fastest first: no other file is as fast and more
    accurate."""
    there = [file for file in files if file.at(on) and not file.rejected]
    found: list[Measured] = []
    for file in sorted(there, key=lambda f: (_ms(f, on), -f.evaluation.accuracy)):
        if not found or file.evaluation.accuracy > found[-1].evaluation.accuracy:
            found.append(file)
    return found


def _ms(file: Measured, on: Setting) -> float:
    timing = file.at(on)
    assert timing is not None
    return timing.p50_ms


def _mb(file: Measured) -> float:
    return file.size_bytes / 1e6
