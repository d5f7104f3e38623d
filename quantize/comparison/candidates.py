"""Which files a comparison is of: those of runs, and files made elsewhere.

It does not know: how any of them is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.split import Split
from edge.errors import EdgegraftError
from finetune.run import Run
from quantize import recipes

TRAIN = "train"


@dataclass(frozen=True)
class Candidate:
    """A file to measure; `run` is None for one made elsewhere."""

    path: Path
    title: str
    run: Run | None


def candidates(run: Run, others: Sequence[Run | Path]) -> tuple[Candidate, ...]:
    found: list[Candidate] = []
    split = run.split() if others else None
    for one in (run, *others):
        if isinstance(one, Run):
            if one is not run and split and not _measured_alike(split, one.split()):
                raise EdgegraftError(
                    f"expected runs on the same photos and split (those of --add may "
                    f"come on top), got {one.folder} with other data than "
                    f"{run.folder}: it may have trained on the test photos; compare "
                    "its files alone"
                )
            prefix = f"{one.name}/" if others else ""
            found += [Candidate(p, prefix + _title(p), one) for p in exported(one)]
        else:
            found.append(Candidate(one, one.stem, None))
    paths = [entry.path.resolve() for entry in found]
    if len(set(paths)) < len(paths):
        raise EdgegraftError("expected each file once, got one of them twice")
    return tuple(found)


def _measured_alike(one: Split, other: Split) -> bool:
    """Do both hold the same photos out, however many each was trained on?"""
    if one.fingerprint == other.fingerprint:
        return True
    held, others = (
        {(row.part, row.sha256, row.photo.label) for row in s.rows if row.part != TRAIN}
        for s in (one, other)
    )
    trained = {row.sha256 for row in other.rows if row.part == TRAIN}
    return held == others and trained.isdisjoint(sha256 for _, sha256, _ in held)


def _title(path: Path) -> str:
    variant = path.name.split(".")[0]
    return f"{variant} (rejected)" if rejected(path) else variant


def exported(run: Run) -> tuple[Path, ...]:
    """The run's files in the order of the variants table, rejected ones last."""
    order = list(recipes.VARIANTS)

    def place(path: Path) -> tuple[bool, int, str]:
        variant = path.name.split(".")[0]
        known = order.index(variant) if variant in order else len(order)
        return rejected(path), known, path.name

    found = tuple(sorted(run.exports.glob("*.tflite"), key=place))
    if not found and not run.trained:
        raise run.unfinished()
    if not found:
        raise EdgegraftError(
            f"expected exported files in {run.exports}, got none; make them with: "
            f"edgegraft quantize {run.folder}"
        )
    return found


def rejected(path: Path) -> bool:
    return path.name.endswith(".rejected.tflite")
