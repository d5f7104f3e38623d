"""Model files against each other, measured on this machine.

The files of one run, of several, and files made elsewhere. Accuracy is counted
on the test part, each photo through the file itself. Times are taken in fresh
processes, round by round: every file once in each round, so that a noisy moment of
the machine falls on all of them.

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
from edge.preprocess import InputRecipe, load_pixels
from edge.runtime import read_model
from finetune.console import Console
from finetune.run import Run, write_atomic
from quantize import decide, flatbuffer, metadata, recipes, scoring, targets
from quantize.measured import Comparison, Flip, Measured

ROUNDS = 3
RUNS = 30  # timed inferences of a file in a round
MOST_FLIPS = 24  # photos shown of those that a file lost
METHOD = (
    "accuracy: test part, through the file on the runtime named; interval: Wilson, "
    "95 %; agreement: photos with the same first label as float32; paired: McNemar's "
    "exact test against float32; times: the median "
    "over {rounds} rounds of fresh processes, the files interleaved, of each round's "
    "load, first, p50, p95 and p99 of {runs} inferences; memory: the largest peak of a "
    "process that runs the file alone"
)


def compare(
    run: Run,
    *others: Run | Path,
    runtime: str = "auto",
    threads: int = 1,
    rounds: int = ROUNDS,
    runs: int = RUNS,
    budget_ms: float | None = None,
    budget_mb: float | None = None,
    out: Path | None = None,
    pixels: batches.Pixels | None = None,
    console: Console | None = None,
) -> Comparison:
    """Measure every exported file of `run` and `others` (runs, or model files).

    Writes comparison.json, .csv, .png and .html, and the model card README.md: into
    the run's folder, or ``comparison`` beside it (`out`) when there are others. The
    photos are the test part of `run`. Its test figures also go into the card of each
    of its files. `pixels` saves decoding its photos again. EdgegraftError for a run
    without exports, a damaged file, other labels, other data, or changed photos.
    """
    from quantize import page, readme, report

    for name, value in (("threads", threads), ("rounds", rounds), ("runs", runs)):
        if value < 1:
            raise EdgegraftError(f"expected --{name} to be 1 or more, got {value}")
    decide.choose((), ms=budget_ms, mb=budget_mb)  # refused before any work
    console = console or scoring.Silent()
    entries = _entries(run, others)
    scored = _score_all(run, entries, runtime, pixels, console)
    for entry in entries:
        if entry.run is run:
            _remember(entry.path, scored[entry.path])
    paths = [entry.path for entry in entries]
    times = _time_all(paths, runtime, threads, rounds, runs, console)
    references = {
        entry.run: entry.path
        for entry in reversed(entries)
        if entry.path.name == f"{recipes.REFERENCE}.tflite"
    }
    files = []
    for entry in entries:
        reference = references.get(entry.run or run)
        against = None if reference is None else scored[reference].evaluation
        files.append(_measured(entry, scored[entry.path], against, times[entry.path]))
    comparison = Comparison(
        run=run.name,
        folder=out or (run.folder.parent / "comparison" if others else run.folder),
        labels=run.labels,
        host=host.describe(),
        method=METHOD.format(rounds=rounds, runs=runs),
        files=tuple(_with_flips(run, file, files, console) for file in files),
        choice=decide.choose(files, ms=budget_ms, mb=budget_mb),
    )
    report.write(comparison)
    page.write(comparison, run)
    if not others:
        readme.write(comparison, run)
    return comparison


@dataclass(frozen=True)
class _Entry:
    """A file to measure; `run` is None for one made elsewhere."""

    path: Path
    title: str
    run: Run | None


def _entries(run: Run, others: Sequence[Run | Path]) -> tuple[_Entry, ...]:
    found: list[_Entry] = []
    fingerprint = run.split().fingerprint if others else None
    for one in (run, *others):
        if isinstance(one, Run):
            if one is not run and one.split().fingerprint != fingerprint:
                raise EdgegraftError(
                    f"expected runs on the same photos and split, got {one.folder} "
                    f"with other data than {run.folder}: it may have trained on the "
                    "test photos; compare its files alone"
                )
            prefix = f"{one.name}/" if others else ""
            found += [_Entry(p, prefix + _title(p), one) for p in exported(one)]
        else:
            found.append(_Entry(one, one.stem, None))
    paths = [entry.path.resolve() for entry in found]
    if len(set(paths)) < len(paths):
        raise EdgegraftError("expected each file once, got one of them twice")
    return tuple(found)


def _title(path: Path) -> str:
    variant = path.name.split(".")[0]
    return f"{variant} (rejected)" if _rejected(path) else variant


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
    entries: Sequence[_Entry],
    runtime: str,
    pixels: batches.Pixels | None,
    console: Console,
) -> dict[Path, scoring.Scored]:
    """Each file on the test photos, resized as it asks for; decoded once a size."""
    rows = scoring.rows_of(run, "test")
    models = {entry.path: read_model(entry.path) for entry in entries}
    found = {}
    decoded: dict[InputRecipe, batches.Pixels] = {}
    with ExitStack() as stack:
        if pixels is not None:
            decoded[run.recipe] = pixels
        for entry in entries:
            recipe = scoring.recipe_of(models[entry.path], entry.path, runtime)
            if recipe not in decoded:
                decoded[recipe] = scoring.decode(run, rows, console, recipe)
                stack.enter_context(closing(decoded[recipe]))
            with console.bar(f"scoring {entry.title}") as bar:
                found[entry.path] = scoring.score_file(
                    models[entry.path],
                    rows,
                    decoded[recipe],
                    run.labels,
                    progress=bar,
                    runtime=runtime,
                )
            accuracy = found[entry.path].evaluation.accuracy
            console.stage(f"{entry.title}: test {accuracy:.1%}")
    return found


def _with_flips(
    run: Run, file: Measured, files: Sequence[Measured], console: Console
) -> Measured:
    """The file with the photos it lost, read again (there are few)."""
    reference = next((f for f in files if f.variant == recipes.REFERENCE), None)
    if reference is None or file is reference:
        return file
    rows = scoring.rows_of(run, "test")
    before, after = reference.evaluation, file.evaluation
    guess = after.probabilities.argmax(axis=1)
    right = before.probabilities.argmax(axis=1) == before.truth
    flips = []
    for place in np.flatnonzero(right & (guess != after.truth))[:MOST_FLIPS]:
        row = rows[place]
        flips.append(
            Flip(
                row.photo.path.relative_to(run.photos_root).as_posix(),
                row.photo.label,
                run.labels[guess[place]],
                float(after.probabilities[place].max()),
                load_pixels(row.photo.path, run.recipe),
            )
        )
    return replace(file, flips=tuple(flips))


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
    entry: _Entry,
    scored: scoring.Scored,
    reference: Evaluation | None,
    rounds: Sequence[dict[str, Any]],
) -> Measured:
    def middle(name: str) -> float:
        return float(statistics.median(one[name] for one in rounds))

    last, path, evaluation = rounds[-1], entry.path, scored.evaluation
    flat, _ = metadata.split(path.read_bytes())
    tree = flatbuffer.parse(flat)
    refusals = {n: targets.refusals(tree, len(flat), n) for n in targets.TARGETS}
    card = read_card(path)
    return Measured(
        title=entry.title,
        variant=card.variant if card else path.name.split(".")[0],
        path=path,
        rejected=_rejected(path),
        evaluation=evaluation,
        calibration_error=evaluation.calibration_error,
        agreement=agreement(evaluation, reference) if reference else None,
        drop=reference.accuracy - evaluation.accuracy if reference else None,
        paired=decide.paired(reference, evaluation) if reference else None,
        flips=(),
        size_bytes=path.stat().st_size,
        load_ms=middle("load_ms"),
        first_ms=middle("first_ms"),
        p50_ms=middle("p50_ms"),
        p95_ms=middle("p95_ms"),
        p99_ms=middle("p99_ms"),
        peak_memory_mb=max(float(one["peak_memory_mb"]) for one in rounds),
        threads=int(last["threads"]),
        runtime=f"{last['runtime']} {last['runtime_version']}",
        oldest_runtime=targets.oldest_runtime(tree),
        refused_by=tuple(name for name, why in refusals.items() if why),
    )


def agreement(a: Evaluation, b: Evaluation) -> float:
    """Share of photos on which two files have the same first label."""
    same = a.probabilities.argmax(axis=1) == b.probabilities.argmax(axis=1)
    return float(np.mean(same))
