"""The exported files of a run against each other, measured on this machine.

Accuracy is counted on the test part, each photo through the file itself. Times are
taken in fresh processes, round by round: every file once in each round, so that a
noisy moment of the machine falls on all of them.

It does not know: how files were made, or which one is right for a device.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data import batches
from edge import host
from edge.bench import bench_apart
from edge.card import ModelCard, read_card
from edge.errors import EdgegraftError
from edge.evaluate import Evaluation
from edge.runtime import read_model
from finetune.console import Console
from finetune.run import Run, write_atomic
from quantize import metadata, recipes, scoring

ROUNDS = 3
RUNS = 30  # timed inferences of a file in a round
METHOD = (
    "accuracy: test part, through the file on the runtime named; interval: Wilson, "
    "95 %; agreement: photos with the same first label as float32; times: the median "
    "over {rounds} rounds of fresh processes, the files interleaved, of each round's "
    "load, first, p50 and p95 of {runs} inferences; memory: the largest peak of a "
    "process that runs the file alone"
)


@dataclass(frozen=True)
class Measured:
    """One file. Times in milliseconds, memory in MiB, `size_bytes` of the whole file.

    `agreement` and `drop` are against the run's float32 file, None without one.
    `rejected`: it lost too much on validation and lies aside.
    """

    variant: str
    path: Path
    rejected: bool
    evaluation: Evaluation
    agreement: float | None
    drop: float | None
    size_bytes: int
    load_ms: float
    first_ms: float
    p50_ms: float
    p95_ms: float
    peak_memory_mb: float
    threads: int
    runtime: str

    @property
    def title(self) -> str:
        return f"{self.variant} (rejected)" if self.rejected else self.variant

    def to_dict(self) -> dict[str, Any]:
        """For JSON, flat but for the evaluation."""
        return {**self.figures(), "evaluation": self.evaluation.to_dict()}

    def figures(self) -> dict[str, Any]:
        """One row of a table: plain values only."""
        low, high = self.evaluation.interval
        return {
            "variant": self.variant,
            "rejected": self.rejected,
            "file": self.path.name,
            "accuracy": self.evaluation.accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
            "photos": self.evaluation.photos,
            "agreement": self.agreement,
            "drop": self.drop,
            "size_bytes": self.size_bytes,
            "load_ms": self.load_ms,
            "first_ms": self.first_ms,
            "p50_ms": self.p50_ms,
            "p95_ms": self.p95_ms,
            "peak_memory_mb": self.peak_memory_mb,
            "threads": self.threads,
            "runtime": self.runtime,
        }


@dataclass(frozen=True)
class Comparison:
    """All files of a run, measured on one host."""

    run: str
    labels: tuple[str, ...]
    host: dict[str, Any]
    method: str
    files: tuple[Measured, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "run": self.run,
            "labels": list(self.labels),
            "host": self.host,
            "method": self.method,
            "files": [measured.to_dict() for measured in self.files],
        }


def compare(
    run: Run,
    *,
    runtime: str = "auto",
    threads: int = 1,
    rounds: int = ROUNDS,
    runs: int = RUNS,
    pixels: batches.Pixels | None = None,
    console: Console | None = None,
) -> Comparison:
    """Measure every exported file; writes comparison.json, .csv and .png.

    The test figures also go into the card of each file. `pixels` saves decoding the
    test photos again. EdgegraftError for a run without exports, a damaged file, or
    photos that have changed.
    """
    from quantize import report

    for name, value in (("threads", threads), ("rounds", rounds), ("runs", runs)):
        if value < 1:
            raise EdgegraftError(f"expected --{name} to be 1 or more, got {value}")
    console = console or scoring.Silent()
    paths = exported(run)
    scored = _score_all(run, paths, runtime, pixels, console)
    for path in paths:
        _remember(path, scored[path])
    times = _time_all(paths, runtime, threads, rounds, runs, console)
    reference = next(
        (p for p in paths if p.name == f"{recipes.REFERENCE}.tflite"), None
    )
    against = None if reference is None else scored[reference].evaluation
    comparison = Comparison(
        run=run.name,
        labels=run.labels,
        host=host.describe(),
        method=METHOD.format(rounds=rounds, runs=runs),
        files=tuple(
            _measured(path, scored[path], against, times[path]) for path in paths
        ),
    )
    run.write_json("comparison.json", comparison.to_dict())
    report.write_csv(run.folder / "comparison.csv", comparison)
    report.draw(run.folder / "comparison.png", comparison)
    return comparison


def exported(run: Run) -> tuple[Path, ...]:
    """The run's files in the order of the variants table, rejected ones last."""
    order = list(recipes.VARIANTS)

    def place(path: Path) -> tuple[bool, int, str]:
        variant = path.name.split(".")[0]
        known = order.index(variant) if variant in order else len(order)
        return _rejected(path), known, path.name

    found = tuple(sorted(run.exports.glob("*.tflite"), key=place))
    if not found:
        raise EdgegraftError(
            f"expected exported files in {run.exports}, got none; make them with: "
            f"edgegraft quantize {run.folder}"
        )
    return found


def _rejected(path: Path) -> bool:
    return path.name.endswith(".rejected.tflite")


def _score_all(
    run: Run,
    paths: Sequence[Path],
    runtime: str,
    pixels: batches.Pixels | None,
    console: Console,
) -> dict[Path, scoring.Scored]:
    rows = scoring.rows_of(run, "test")
    models = {path: read_model(path) for path in paths}
    found = {}
    with ExitStack() as stack:
        if pixels is None:
            pixels = scoring.decode(run, rows, console)
            stack.enter_context(closing(pixels))
        for path, model in models.items():
            with console.bar(f"scoring {path.stem}") as bar:
                found[path] = scoring.score_file(
                    model, rows, pixels, run.labels, progress=bar, runtime=runtime
                )
            console.stage(f"{path.stem}: test {found[path].evaluation.accuracy:.1%}")
    return found


def _remember(path: Path, scored: scoring.Scored) -> None:
    """Write the test figures into the file's card; a foreign file stays as it is."""
    model = path.read_bytes()
    card: ModelCard | None = read_card(model)
    if card is None:
        return
    figures = scored.to_card()
    if card.measured.get("test") == figures:
        return
    card = replace(card, measured={**card.measured, "test": figures})
    finished = metadata.embed(model, card)
    write_atomic(path, lambda to: to.write_bytes(finished))


def _time_all(
    paths: Sequence[Path],
    runtime: str,
    threads: int,
    rounds: int,
    runs: int,
    console: Console,
) -> dict[Path, list[dict[str, Any]]]:
    """For each file the benchmarks of all rounds; no file goes first every time."""
    found: dict[Path, list[dict[str, Any]]] = {path: [] for path in paths}
    total = rounds * len(paths)
    with console.bar("timing", unit="process") as bar:
        for number in range(rounds):
            shift = number % len(paths)
            for path in [*paths[shift:], *paths[:shift]]:
                found[path].append(
                    bench_apart(path, runtime=runtime, threads=threads, runs=runs)
                )
                bar(sum(len(done) for done in found.values()), total)
    return found


def _measured(
    path: Path,
    scored: scoring.Scored,
    reference: Evaluation | None,
    rounds: Sequence[dict[str, Any]],
) -> Measured:
    def middle(name: str) -> float:
        return float(statistics.median(entry[name] for entry in rounds))

    last = rounds[-1]
    same = drop = None
    if reference is not None:
        same = agreement(scored.evaluation, reference)
        drop = reference.accuracy - scored.evaluation.accuracy
    return Measured(
        variant=path.name.split(".")[0],
        path=path,
        rejected=_rejected(path),
        evaluation=scored.evaluation,
        agreement=same,
        drop=drop,
        size_bytes=path.stat().st_size,
        load_ms=middle("load_ms"),
        first_ms=middle("first_ms"),
        p50_ms=middle("p50_ms"),
        p95_ms=middle("p95_ms"),
        peak_memory_mb=max(float(entry["peak_memory_mb"]) for entry in rounds),
        threads=int(last["threads"]),
        runtime=f"{last['runtime']} {last['runtime_version']}",
    )


def agreement(a: Evaluation, b: Evaluation) -> float:
    """Share of photos on which two files have the same first label."""
    same = a.probabilities.argmax(axis=1) == b.probabilities.argmax(axis=1)
    return float(np.mean(same))
