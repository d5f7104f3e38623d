"""Model files measured against each other on one machine, and the one to ship.

Accuracy is of the test part, each photo through the file itself. Times are taken in
fresh processes, round by round, every file once in each. They hold for this machine:
measure on the device (`edge bench --json`) and merge that with `devices`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from data import batches
from data.source import PhotoOptions
from edge.bench import conditions, machine
from edge.errors import EdgegraftError
from edge.evaluate import Evaluation
from edge.files import write_atomic
from edge.model_file import ModelFile
from edge.preprocess import InputRecipe, load_pixels
from edge.text import plural
from edge.unknown import Refusal
from finetune import negatives
from finetune.console import Console
from finetune.head.cross_fit import CrossValidated
from finetune.run import Run
from quantize import recipes
from quantize.comparison import choose, timing, unknown
from quantize.comparison.candidates import (
    Candidate,
    RunOrFile,
    candidates,
    opened,
    rejected,
)
from quantize.comparison.held_out import HeldOut
from quantize.comparison.paired import MARGIN, paired
from quantize.comparison.records import (
    Budget,
    Comparison,
    Flip,
    Headline,
    MeasuredFile,
    Setting,
    Timing,
    refusal_figures,
)
from quantize.comparison.timing import Effort
from quantize.conversion import scoring
from quantize.conversion.scoring import Scored
from quantize.tflite import flatbuffer, metadata, operators, targets

FLIPS_SHOWN = 24  # photos of those that a file got wrong and float32 right
FEW_TEST_PHOTOS = 100  # with fewer, the cross-validated figure is the surer one
NOT_CROSS_VALIDATED = (
    "few test photos, and a fine-tuned network cannot be cross-validated"
)
METHOD = (
    "Accuracy: {what}, through the file on the runtime named; its interval: Wilson, "
    "95 %. Balanced accuracy: mean recall of the labels; its interval: Wilson's of the "
    "recalls, combined by MOVER. Agreement: photos with the same likeliest label as "
    "float32; p: McNemar's exact test against float32. Calibration error: expected, "
    "15 bins, less what chance adds. Times here: the median over {rounds} rounds of "
    "fresh processes, the files interleaved, of each round's load, first, p50, p95 and "
    "p99 of {runs} inferences; photos a second: without a pause for {seconds:g} s a "
    "round; memory: the largest peak of a process that runs the file alone. "
    "Multiply-adds: of convolutions and matrix products"
)


@dataclass(frozen=True)
class CompareOptions:
    """How files are measured and chosen.

    `devices`: documents of `edge bench --json` from other devices; the first decides.
    `unknown`: a folder of photos that show none of the labels. `out`: where the
    comparison is written; None: into the run, or `comparison` beside it when there are
    several things. `margin`: a difference in balanced accuracy that does not matter.
    `any_variant`: float files compete with a run's int8 file that passed its gate.
    `foreign`: for files without a card. `photos`: in place of the first run's test part
    these judge, read as `photo_options` say.
    """

    runtime: str = "auto"
    effort: Effort = field(default_factory=Effort)
    budget: Budget = field(default_factory=Budget)
    devices: tuple[Path, ...] = ()
    unknown: Path | None = None
    out: Path | None = None
    margin: float = MARGIN
    any_variant: bool = False
    foreign: scoring.Foreign | None = None
    photos: Path | None = None
    photo_options: PhotoOptions = field(default_factory=PhotoOptions)

    def __post_init__(self) -> None:
        if not 0 < self.margin < 1:
            raise EdgegraftError(
                f"expected --margin above 0 and below 100 points, got "
                f"{100 * self.margin:g}"
            )
        if self.photos is None and self.photo_options.to_dict():
            names = ", ".join(self.photo_options.to_dict()).replace("_", "-")
            raise EdgegraftError(f"expected --photos with {names}, got none")


def compare(
    things: Sequence[RunOrFile] | RunOrFile,
    options: CompareOptions | None = None,
    *,
    pixels: batches.Pixels | None = None,
    console: Console | None = None,
) -> Comparison:
    """Measure the files of runs, and other model files; choose the one to ship.

    things: run folders, runs, `.tflite` files; the test part of the first run judges
    all, or `options.photos`. Writes comparison.json, .csv, .png and .html; of a run
    alone, judged by its own test part, also the figures and pictures of the chosen file
    (metrics.json, confusion.png, ...) and the model card README.md. The figures on the
    first run's own test part go into the cards of its files.
    `pixels` saves decoding its photos again. EdgegraftError for a run without exports,
    a damaged file, other labels, other data, or photos that have changed.
    """
    from quantize.reporting import report

    console, options = console or Console(quiet=True), options or CompareOptions()
    if isinstance(things, Run | str | os.PathLike):
        things = [things]
    every = opened(things, runless=options.photos is not None)
    runs = [one for one in every if isinstance(one, Run)]
    first = runs[0] if runs else None
    alone = runs == every and len(runs) == 1 and options.photos is None
    entries = candidates(every, same_photos=options.photos is None)
    devices = [(path, timing.read_devices(path)) for path in options.devices]
    there = _times_elsewhere(entries, devices, console)
    held_out, scored, refusals = _score(runs, entries, options, pixels, console)
    entries = tuple(
        _with_figures(entry, scored[entry.path], refusals.get(entry.path))
        if entry.run is not None and entry.run is held_out.run
        else entry
        for entry in entries
    )
    warnings = conditions.warnings()  # before our own work is the load
    paths = [entry.path for entry in entries]
    sizes = {entry.path: _given_size(entry, options) for entry in entries}
    here = timing.time_all(paths, options.runtime, options.effort, console, sizes)
    times = {path: (*here[path], *there[path]) for path in paths}
    files = _measured(held_out, first, entries, scored, refusals, times)
    home = here[paths[0]][0].setting
    warnings += [*timing.unsteady(home, files), *_trained_on(held_out, entries)]
    for warning in warnings:
        console.say(f"edgegraft: warning: {warning}")
    judged = _deciding(home, [one for path in paths for one in there[path]])
    rule: dict[str, Any] = {
        "margin": options.margin,
        "any_variant": options.any_variant,
    }
    choice = choose.choose(files, options.budget, judged, **rule)
    beside = (first.folder if first else entries[0].path).parent / "comparison"
    comparison = Comparison(
        run=_title(every),
        folder=options.out or (first.folder if first and alone else beside),
        labels=held_out.labels,
        host=machine.describe(),
        method=METHOD.format(what=held_out.what, **vars(options.effort)),
        budget=options.budget,
        judged=judged,
        files=files,
        choice=choice,
        headline=_headline(choice.file, entries if held_out.run else ()),
        warnings=tuple(warnings),
        by_budget=tuple(choose.by_budget(files, judged, **rule)),
    )
    report.write(comparison, first if alone else None)
    return comparison


def _title(things: Sequence[Run | Path]) -> str:
    """The names of all that is compared."""
    return ", ".join(one.name for one in things)


def _headline(
    chosen: MeasuredFile | None, entries: Sequence[Candidate]
) -> Headline | None:
    """The figure that most photos stand behind."""
    if chosen is None:
        return None
    evaluation = chosen.evaluation
    owner = next((entry.run for entry in entries if entry.path == chosen.path), None)
    folds = CrossValidated.of(owner.config) if owner else None
    few = evaluation.photos < FEW_TEST_PHOTOS
    if folds is not None and few:
        share = folds.accuracy
        return Headline(share, folds.interval, folds.photos, "cross-validated")
    return Headline(
        evaluation.accuracy,
        evaluation.interval,
        evaluation.photos,
        "test photos",
        NOT_CROSS_VALIDATED if few and owner is not None else "",
    )


def _owners(entries: Sequence[Candidate]) -> list[Run]:
    """The runs that exported the files, each once."""
    return list(dict.fromkeys(entry.run for entry in entries if entry.run))


def _trained_on(held_out: HeldOut, entries: Sequence[Candidate]) -> list[str]:
    """A warning for each run that knows some of the photos that judge it."""
    photos = plural(len(held_out.rows), "photo")
    return [
        f"{run.name} was trained on {count} of the {photos} that judge it here: its "
        "accuracy may be too high"
        for run in _owners(entries)
        if (count := held_out.learned_by(run))
    ]


def _given_size(entry: Candidate, options: CompareOptions) -> tuple[int, int] | None:
    """Width and height for a network that leaves them open."""
    given = options.foreign.options if options.foreign else None
    return given.size if given and entry.model.card is None else None


def _times_elsewhere(
    entries: Sequence[Candidate],
    devices: Sequence[tuple[Path, Mapping[str, tuple[Timing, ...]]]],
    console: Console,
) -> dict[Path, tuple[Timing, ...]]:
    """Each file's timings on other devices; EdgegraftError where a document has none
    of the files."""
    digests = {entry.path: entry.model.digest for entry in entries}
    for path, timings in devices:
        others = len(timings.keys() - set(digests.values()))
        if others == len(timings):
            raise EdgegraftError(
                f"--with: expected times of the files compared here, got {path}, "
                "which has none of them (known by model_sha256); copy the files to "
                "the device and bench them again"
            )
        if others:
            console.say(f"{path}: {others} of its models are not compared here")
    return {
        entry.path: tuple(
            one
            for _, timings in devices
            for one in timings.get(digests[entry.path], ())
        )
        for entry in entries
    }


def _deciding(here: Setting, measured: Sequence[Timing]) -> Setting:
    """Where the choice is made: on the first other device if there is one, with as
    many threads as here, else with the fewest measured there."""
    if not measured:
        return here
    first = measured[0].setting.host
    there = [one.setting for one in measured if one.setting.host == first]
    same = [one for one in there if one.threads == here.threads]
    return same[0] if same else min(there, key=lambda one: one.threads)


def _score(
    runs: Sequence[Run],
    entries: Sequence[Candidate],
    options: CompareOptions,
    pixels: batches.Pixels | None,
    console: Console,
) -> tuple[HeldOut, dict[Path, Scored], dict[Path, Refusal]]:
    """Each file on the test photos, resized as it asks for, and on unknown photos."""
    labels = runs[0].labels if runs else None
    owners = _owners(entries)
    wants: dict[Path, InputRecipe] = {}  # of all, before the first is measured
    for entry in entries:
        labels, wants[entry.path] = scoring.recipe_of(
            entry.model, options.runtime, labels, options.foreign
        )
    assert labels is not None
    scored: dict[Path, Scored] = {}
    refusals: dict[Path, Refusal] = {}
    decoded: dict[InputRecipe, batches.Pixels] = {}
    with ExitStack() as stack:
        if options.photos is None:
            held_out = HeldOut.of_run(runs[0])
            if pixels is not None:
                decoded[runs[0].recipe] = pixels
        else:
            recipe = wants[entries[0].path]
            held_out, decoded[recipe] = HeldOut.of_photos(
                options.photos, options.photo_options, labels, recipe, owners, console
            )
            stack.enter_context(closing(decoded[recipe]))
            for entry in entries:
                if entry.model.card is None:
                    wanted = replace(wants[entry.path], white=held_out.white)
                    wants[entry.path] = wanted
        unknown_set = _unknown_photos(held_out, runs, options, console)
        if unknown_set:
            stack.enter_context(closing(unknown_set))
        for entry in entries:
            recipe = wants[entry.path]
            if recipe not in decoded:
                decoded[recipe] = held_out.decode(recipe, console)
                stack.enter_context(closing(decoded[recipe]))
            with console.bar(f"scoring {entry.title}") as bar:
                result = scoring.score_file(
                    entry.model,
                    held_out.rows,
                    decoded[recipe],
                    labels,
                    progress=bar,
                    runtime=options.runtime,
                    foreign=options.foreign,
                )
            scored[entry.path] = result
            share = result.evaluation.balanced_accuracy
            console.stage(
                f"{entry.title}: balanced test accuracy {share:.1%}", detail=True
            )
            refusal: Refusal | None = None
            if unknown_set:
                refusal = unknown_set.judge(entry.model, result, options.runtime)
            elif entry.run and held_out.run:
                refusal = unknown.earlier(entry.model, result)
            if refusal:
                refusals[entry.path] = refusal
    if refusals and not unknown_set:
        console.say("  unknown photos refused: as measured by an earlier --unknown")
    return held_out, scored, refusals


def _unknown_photos(
    held_out: HeldOut,
    runs: Sequence[Run],
    options: CompareOptions,
    console: Console,
) -> unknown.UnknownPhotos | None:
    if options.unknown is None:
        return None
    trained = frozenset().union(*(negatives.trained_with(one) for one in runs))
    rows = [*held_out.rows, *(row for run in runs for row in run.split().rows)]
    return unknown.UnknownPhotos(options.unknown, rows, console, trained)


def _with_figures(
    entry: Candidate, scored: Scored, refusal: Refusal | None
) -> Candidate:
    """The file with its test figures in its card, written where they have changed."""
    card = entry.model.card
    if card is None:
        return entry
    figures = {**card.measured, "test": scored.to_card()}
    if refusal is not None:
        figures["unknown"] = refusal_figures(refusal)
    if card.measured == figures:
        return entry
    card = replace(card, measured=figures)
    content = metadata.replace_card(entry.model.content, card)
    write_atomic(entry.path, content)
    return replace(entry, model=ModelFile(content, entry.model.where))


def _measured(
    held_out: HeldOut,
    first: Run | None,
    entries: Sequence[Candidate],
    scored: Mapping[Path, Scored],
    refusals: Mapping[Path, Refusal],
    times: Mapping[Path, tuple[Timing, ...]],
) -> tuple[MeasuredFile, ...]:
    """The records; each file against the float32 file of its own run."""
    references = {
        entry.run: scored[entry.path].evaluation
        for entry in entries
        if entry.path.name == f"{recipes.REFERENCE}.tflite" and entry.run
    }
    files = []
    for entry in entries:
        one, owner = scored[entry.path], entry.run or first
        reference = references.get(owner) if owner else None
        flat, card = entry.model.flatbuffer, entry.model.card
        tree = flatbuffer.parse(flat)
        refused = {n: targets.refusals(tree, len(flat), n) for n in targets.TARGETS}
        target = str(entry.run.config.get("target")) if entry.run else ""
        against = None if reference is one.evaluation else reference
        files.append(
            MeasuredFile(
                title=entry.title,
                run=entry.run.name if entry.run else "",
                variant=card.variant if card else entry.path.name.split(".")[0],
                path=entry.path,
                digest=entry.model.digest,
                rejected=rejected(entry.path) or bool(refused.get(target)),
                accuracy_runtime=one.runtime,
                recipe=one.recipe,
                evaluation=one.evaluation,
                agreement=_agreement(one.evaluation, against) if against else None,
                drop=against.accuracy - one.evaluation.accuracy if against else None,
                paired=paired(against, one.evaluation) if against else None,
                refusal=refusals.get(entry.path),
                flips=_flips(held_out, one, against) if against else (),
                size_bytes=len(entry.model.content),
                multiply_adds=operators.multiply_adds(tree),
                timings=times[entry.path],
                oldest_runtime=targets.oldest_runtime(tree),
                refused_by=tuple(name for name, why in refused.items() if why),
                card=card,
            )
        )
    return tuple(files)


def _agreement(first: Evaluation, second: Evaluation) -> float:
    """Share of photos on which two files have the same likeliest label."""
    same = first.probabilities.argmax(axis=1) == second.probabilities.argmax(axis=1)
    return float(np.mean(same))


def _flips(
    held_out: HeldOut, scored: Scored, reference: Evaluation
) -> tuple[Flip, ...]:
    """The photos that only the reference got right, the most confident mistake first;
    the first of them with their pixels, read again (they are few)."""
    evaluation = scored.evaluation
    confidence = evaluation.probabilities.max(axis=1)
    lost = np.flatnonzero(reference.right & ~evaluation.right)
    lost = lost[np.argsort(-confidence[lost], kind="stable")]
    flips = []
    for number, place in enumerate(lost.tolist()):
        photo = held_out.rows[place].photo
        shown = number < FLIPS_SHOWN
        flips.append(
            Flip(
                photo.path.relative_to(held_out.root).as_posix(),
                photo.label,
                held_out.labels[evaluation.probabilities[place].argmax()],
                float(confidence[place]),
                load_pixels(photo.path, scored.recipe) if shown else None,
            )
        )
    return tuple(flips)
