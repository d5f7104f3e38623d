"""The records of a search: options, candidates, result."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.source import PhotoOptions
from edge.errors import EdgegraftError
from edge.text import plural
from finetune.run import name_of, plain_name
from quantize.comparison.records import Budget, Comparison, Setting, Timing
from quantize.search.candidates import Candidate
from quantize.search.ranking import Score

SCHEMA = 1


@dataclass(frozen=True)
class SearchOptions:
    """The options of a search: `photos` as for `edgegraft build`; results in `folder`.

    `device`: a document of `edge bench --json` with times of the untrained graphs,
    None to time them here. `backbones`: names, empty for all that are ready.
    `time_limit` in minutes.
    """

    photos: Path
    folder: Path
    budget: Budget = field(default_factory=Budget)
    device: Path | None = None
    backbones: tuple[str, ...] = ()
    time_limit: float | None = None
    runtime: str = "auto"
    seed: int = 0
    photo_options: PhotoOptions = field(default_factory=PhotoOptions)
    overwrite: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        limit = self.time_limit
        if limit is not None and not (
            isinstance(limit, int | float) and 0 < limit < 1e6
        ):
            raise EdgegraftError(
                f"expected --time-limit in minutes above 0, got {limit!r}"
            )

    @staticmethod
    def folder_for(photos: Path, artifacts: Path, name: str | None) -> Path:
        """artifacts/NAME; without a name, one made from that of the photos."""
        return artifacts / plain_name(name or f"search-{name_of(photos)}")

    @property
    def command(self) -> str:
        """The command with these options."""
        layout = self.photo_options.layout
        options: dict[str, object] = {
            "run": self.folder.name,
            "artifacts": self.folder.parent,
            "budget-ms": self.budget.ms,
            "budget-mb": self.budget.mb,
            "device": self.device,
            "backbones": ",".join(self.backbones) or None,
            "time-limit": self.time_limit,
            "runtime": None if self.runtime == "auto" else self.runtime,
            "seed": self.seed,
            "layout": None if layout == "auto" else layout,
            "columns": ",".join(map("=".join, self.photo_options.columns.items()))
            or None,
        }
        words = ["edgegraft", "search", str(self.photos)]
        words += ["--resume"] * self.resume + ["--overwrite"] * self.overwrite
        words += [f"--{name}={value}" for name, value in options.items() if value]
        words += [
            f"--rename={old}={new}" for old, new in self.photo_options.rename.items()
        ]
        words += ["--follow-links"] * self.photo_options.follow_links
        return shlex.join(words)


@dataclass
class Entry:
    """A candidate with its timing, `scores` by round, and, of a finalist, `run` and
    `final` (the figures of its int8 file on the test photos)."""

    candidate: Candidate
    timing: Timing
    size_bytes: int
    scores: dict[int, Score] = field(default_factory=dict)
    run: Path | None = None
    final: dict[str, Any] | None = None

    @property
    def ms(self) -> float:
        return self.timing.p50_ms

    @property
    def mb(self) -> float:
        return self.size_bytes / 1e6

    @property
    def score(self) -> Score | None:
        """The score of the last round."""
        return self.scores[max(self.scores)] if self.scores else None

    def fits(self, budget: Budget) -> bool:
        in_time = budget.ms is None or self.ms <= budget.ms
        return in_time and (budget.mb is None or self.mb <= budget.mb)

    def to_dict(self) -> dict[str, Any]:
        score = self.score
        return {
            "name": self.candidate.name,
            "backbone": self.candidate.backbone.name,
            "size": self.candidate.size,
            "size_bytes": self.size_bytes,
            "timing": self.timing.to_dict(),
            "rounds": len(self.scores),
            "probe": score.to_dict() if score else None,
            "run": str(self.run) if self.run else None,
            "final": self.final,
        }


@dataclass(frozen=True)
class SearchResult:
    """A finished search: every candidate, the comparison of the finalists, and what
    the time limit left out (`left_out`)."""

    folder: Path
    labels: tuple[str, ...]
    budget: Budget
    measured_on: Setting
    entries: tuple[Entry, ...]
    comparison: Comparison
    seconds: float
    left_out: tuple[str, ...] = ()

    @property
    def best(self) -> Path | None:
        """The file to ship."""
        return self.comparison.best

    @property
    def within_budget(self) -> list[Entry]:
        """The candidates within the budget."""
        return [entry for entry in self.entries if entry.fits(self.budget)]

    @property
    def chosen(self) -> Entry | None:
        """The candidate of the file to ship."""
        file = self.comparison.choice.file
        names = {entry.candidate.name: entry for entry in self.entries}
        return names.get(file.run) if file else None

    def __repr__(self) -> str:
        networks, fitting = plural(len(self.entries), "network"), self.within_budget
        return (
            f"<Search of {networks}, {len(fitting)} within the budget: ship "
            f"{self.best}>"
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "edgegraft_search": SCHEMA,
            "status": "done",
            "labels": list(self.labels),
            "budget_ms": self.budget.ms,
            "budget_mb": self.budget.mb,
            "measured_on": str(self.measured_on),
            "seconds": self.seconds,
            "left_out": list(self.left_out),
            "ship": self.comparison.choice.to_dict(),
            "candidates": [entry.to_dict() for entry in self.entries],
        }
