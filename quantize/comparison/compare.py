"""Model files against each other, measured on this machine.

The files of one run, of several, and files made elsewhere. Accuracy is counted
on the test part, each photo through the file itself. Times are taken in fresh
processes, round by round: every file once in each round, so that a noisy moment of
the machine falls on all of them.

It does not know: how files were made, or which one is right for a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from data import batches
from edge.bench import conditions, machine
from edge.card import ModelCard, digest, read_card
from edge.errors import EdgegraftError
from edge.evaluate import Evaluation
from edge.files import write_atomic
from edge.preprocess import InputRecipe, load_pixels
from edge.runtime import read_model
from edge.unknown import Refusal
from finetune import negatives
from finetune.console import Console
from finetune.run import Run
from quantize import recipes
from quantize.comparison import choose, timing
from quantize.comparison import unknown as refusal
from quantize.comparison.candidates import Candidate, candidates, rejected
from quantize.comparison.records import Comparison, Flip, Measured
from quantize.comparison.timing import Effort
from quantize.conversion import scoring
from quantize.tflite import flatbuffer, metadata, operators, targets

MOST_FLIPS = 24  # photos shown of those that a file lost
METHOD = (
    "accuracy: test part, through the file on the runtime named; interval: Wilson, "
    "95 %; agreement: photos with the same first label as float32; paired: McNemar's "
    "exact test against float32; calibration error: expected, 15 bins; times here: the "
    "median over {rounds} rounds of fresh processes, the files interleaved, of each "
    "round's load, first, p50, p95 and p99 of {runs} inferences; photos a second: "
    "without a pause for {seconds:g} s a round; memory: the largest peak of a process "
    "that runs the file alone; multiply-adds: of convolutions and matrix products"
)


def compare(
    run: Run,
    *others: Run | Path,
    runtime: str = "auto",
    effort: Effort | None = None,
    budget: choose.Budget | None = None,
    devices: Sequence[Path] = (),
    unknown: Path | None = None,
    out: Path | None = None,
    pixels: batches.Pixels | None = None,
    console: Console | None = None,
) -> Comparison:
    """Measure every exported file of `run` and `others` (runs, or model files).

    `devices`: what `edge bench --json` printed elsewhere; the choice then goes by the
    first of them. `unknown`: photos that show none of the labels; without them, what an
    earlier comparison found stays. Writes
    comparison.json, .csv, .png and .html, and the model card README.md: into the
    run's folder, or ``comparison`` beside it (`out`) when there are others. The
    photos are the test part of `run`. Its test figures also go into the card of each
    of its files. `pixels` saves decoding its photos again. EdgegraftError for a run
    without exports, a damaged file, other labels, other data, or changed photos.
    """
    from quantize.reporting import html, model_card, text

    console, effort = console or scoring.Silent(), effort or Effort()
    budget = budget or choose.Budget()
    elsewhere = [(path, timing.read_devices(path)) for path in devices]
    entries = candidates(run, others)
    known = _known(entries, elsewhere, console)
    strangers = None
    if unknown is not None:
        taught = {one.folder: one for one in (e.run for e in entries) if one}
        strangers = refusal.Strangers(
            unknown,
            run.split().rows,
            console,
            frozenset().union(*(map(negatives.taught_with, taught.values()))),
        )
    with closing(strangers) if strangers else nullcontext():
        scored = _score_all(run, entries, runtime, pixels, console)
        refusals = {
            entry.path: strangers.judge(
                read_model(entry.path), scored[entry.path], runtime
            )
            for entry in entries
            if strangers
        }
    if strangers is None:
        refusals = _earlier(entries, scored, console)
    for entry in entries:
        if entry.run is run:
            _remember(entry.path, scored[entry.path], refusals.get(entry.path))
    spoiled = conditions.warnings()  # while our own work is not the load
    here = timing.time_all([entry.path for entry in entries], runtime, effort, console)
    references = {
        entry.run: entry.path
        for entry in reversed(entries)
        if entry.path.name == f"{recipes.REFERENCE}.tflite"
    }
    files = []
    for entry in entries:
        reference = references.get(entry.run or run)
        against = None if reference is None else scored[reference].evaluation
        times = (*here[entry.path], *known[entry.path])
        found = _measured(entry, scored[entry.path], against, times)
        files.append(replace(found, refusal=refusals.get(entry.path)))
    files = [_with_flips(run, file, files) for file in files]
    warnings = (*spoiled, *timing.unsteady(files[0].timings[0].setting, files))
    for warning in warnings:
        console.say(f"edgegraft: warning: {warning}")
    judged = _judged(
        files[0].timings[0].setting,
        [one for _, found in elsewhere for times in found.values() for one in times],
        files,
    )
    comparison = Comparison(
        run=run.name,
        folder=out or (run.folder.parent / "comparison" if others else run.folder),
        labels=run.labels,
        host=machine.describe(),
        method=METHOD.format(**vars(effort)),
        budget=budget,
        judged=judged,
        files=tuple(files),
        choice=choose.choose(files, budget, judged),
        warnings=warnings,
    )
    text.write(comparison)
    html.write(comparison, run)
    if not others:
        model_card.write(comparison, run)
    return comparison


def _earlier(
    entries: Sequence[Candidate],
    scored: dict[Path, scoring.Scored],
    console: Console,
) -> dict[Path, Refusal]:
    """What was found of the runs' files by an earlier comparison; that is told."""
    found = {
        entry.path: told
        for entry in entries
        if entry.run
        and (told := refusal.earlier(read_model(entry.path), scored[entry.path]))
    }
    if found:
        console.say("  unknown photos refused: as measured by an earlier --unknown")
    return found


def _known(
    entries: Sequence[Candidate],
    elsewhere: Sequence[tuple[Path, dict[str, tuple[timing.Timing, ...]]]],
    console: Console,
) -> dict[Path, tuple[timing.Timing, ...]]:
    """Each file's timings on other devices; EdgegraftError where a document has none
    of the files."""
    digests = {entry.path: digest(read_model(entry.path)) for entry in entries}
    for path, found in elsewhere:
        strangers = len(found.keys() - set(digests.values()))
        if strangers == len(found):
            raise EdgegraftError(
                f"--with: expected times of the files compared here, got {path}, "
                "which has none of them (known by model_sha256); copy the files to "
                "the device and bench them again"
            )
        if strangers:
            console.say(f"{path}: {strangers} of its models are not compared here")
    return {
        entry.path: tuple(
            one for _, found in elsewhere for one in found.get(digests[entry.path], ())
        )
        for entry in entries
    }


def _judged(
    here: timing.Setting, elsewhere: Sequence[timing.Timing], files: Sequence[Measured]
) -> timing.Setting:
    """Where the choice is made: on the first other device if there is one, with as
    many threads as asked for here, else with the fewest measured there."""
    used = [one for one in elsewhere if any(one in file.timings for file in files)]
    if not used:
        return here
    first = used[0].setting.host
    there = [one.setting for one in used if one.setting.host == first]
    same = [one for one in there if one.threads == here.threads]
    return same[0] if same else min(there, key=lambda one: one.threads)


def _score_all(
    run: Run,
    entries: Sequence[Candidate],
    runtime: str,
    pixels: batches.Pixels | None,
    console: Console,
) -> dict[Path, scoring.Scored]:
    """Each file on the test photos, resized as it asks for; decoded once a size."""
    rows = scoring.rows_of(run, "test")
    models = {entry.path: read_model(entry.path) for entry in entries}
    wants = {  # of all of them, before the first is measured
        path: scoring.recipe_of(model, path, runtime, run.labels)
        for path, model in models.items()
    }
    found = {}
    decoded: dict[InputRecipe, batches.Pixels] = {}
    with ExitStack() as stack:
        if pixels is not None:
            decoded[run.recipe] = pixels
        for entry in entries:
            recipe = wants[entry.path]
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


def _with_flips(run: Run, file: Measured, files: Sequence[Measured]) -> Measured:
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


def _remember(path: Path, scored: scoring.Scored, refused: Refusal | None) -> None:
    """Write the test figures into the file's card; a foreign file stays as it is."""
    model = path.read_bytes()
    card: ModelCard | None = read_card(model)
    if card is None:
        return
    figures = {**card.measured, "test": scored.to_card()}
    if refused is not None:
        figures["unknown"] = refusal.figures(refused)
    if card.measured == figures:
        return
    card = replace(card, measured=figures)
    finished = metadata.embed(model, card)
    write_atomic(path, finished)


def _measured(
    entry: Candidate,
    scored: scoring.Scored,
    reference: Evaluation | None,
    times: tuple[timing.Timing, ...],
) -> Measured:
    path, evaluation = entry.path, scored.evaluation
    model = path.read_bytes()
    flat, _ = metadata.split(model)
    tree = flatbuffer.parse(flat)
    refusals = {n: targets.refusals(tree, len(flat), n) for n in targets.TARGETS}
    card = read_card(model)
    target = str(entry.run.config.get("target")) if entry.run else ""
    return Measured(
        title=entry.title,
        variant=card.variant if card else path.name.split(".")[0],
        path=path,
        digest=digest(model),
        rejected=rejected(path) or bool(refusals.get(target)),
        runtime=scored.runtime,
        evaluation=evaluation,
        calibration_error=evaluation.calibration_error,
        agreement=agreement(evaluation, reference) if reference else None,
        drop=reference.accuracy - evaluation.accuracy if reference else None,
        paired=choose.paired(reference, evaluation) if reference else None,
        refusal=None,
        flips=(),
        size_bytes=len(model),
        multiply_adds=operators.multiply_adds(tree),
        timings=times,
        oldest_runtime=targets.oldest_runtime(tree),
        refused_by=tuple(name for name, why in refusals.items() if why),
    )


def agreement(a: Evaluation, b: Evaluation) -> float:
    """Share of photos on which two files have the same first label."""
    same = a.probabilities.argmax(axis=1) == b.probabilities.argmax(axis=1)
    return float(np.mean(same))
