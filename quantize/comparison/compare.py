"""Compares model files on one machine and chooses the one to ship.

Accuracy is measured on the test part, through the file itself. Times are taken in fresh
processes, in rounds of all files. They hold for this machine: measure on the device
(`edge bench --json`) and pass the result as `devices`.
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
from edge import machine
from edge.errors import EdgegraftError
from edge.evaluate import Evaluation, Refusal
from edge.files import write_atomic
from edge.model_file import ModelFile
from edge.preprocess import InputRecipe, load_pixels
from edge.records import Record
from edge.text import plural
from finetune.console import Console
from finetune.familiarity import negatives_of
from finetune.head import cross_fit
from finetune.head.cross_fit import CrossValidated
from finetune.loop import folds
from finetune.run import Run
from quantize import recipes
from quantize.comparison import choose, timing
from quantize.comparison.inputs import (
    Candidate,
    HeldOut,
    RunOrFile,
    UnknownPhotos,
    candidates,
    opened,
    recorded_refusal,
    rejected,
)
from quantize.comparison.records import (
    MARGIN,
    Budget,
    Comparison,
    Flip,
    Headline,
    MeasuredFile,
    Setting,
    Timing,
    paired_test,
    refusal_figures,
)
from quantize.comparison.timing import Effort
from quantize.conversion import scoring
from quantize.conversion.scoring import Scored
from quantize.gate import export_figures, read_exports
from quantize.tflite import flatbuffer, metadata, targets

FLIPS_SHOWN = 24  # pictures of photos that float32 got right and a file wrong
FEW_TEST_PHOTOS = 100  # with fewer, the cross-validated figure is more precise
METHOD = (
    "Accuracy: {what}, through the file on the runtime named; its interval: Wilson, "
    "95 %. Balanced accuracy: mean recall of the labels; its interval: Wilson's of the "
    "recalls, combined by MOVER. Agreement: photos with the same likeliest label as "
    "float32; p: McNemar's exact test against float32. Calibration error: expected, "
    "15 bins, less what chance adds. Times here: the median over {rounds} rounds of "
    "fresh processes, the files interleaved, of each round's load, first, p50, p95 and "
    "p99 of {runs} inferences; photos per second: inference without a pause for "
    "{seconds:g} s a round; memory: the largest peak of a process that runs the file "
    "alone. Multiply-adds: of convolutions and matrix products"
)


@dataclass(frozen=True)
class CompareOptions:
    """How files are measured and chosen.

    `devices`: documents of `edge bench --json` from other devices; the times of the
    first one decide. `unknown`: a folder of photos that show none of the labels. `out`:
    the output folder; None: the run, or `comparison` beside it when there are several
    things. `margin`: a difference in balanced accuracy that does not matter.
    `any_variant`: consider a run's other files where its int8 passed its gate.
    `foreign`: for files without a card. `photos`: test photos in place of the first
    run's test part, read with `photo_options`.
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

    things: run folders, runs, `.tflite` files, all measured on the test part of the
    first run, or on `options.photos`. Writes comparison.json, .csv, .png and .html; of
    a single run on its own test part also the figures and pictures of the chosen file
    (metrics.json, confusion.png, ...) and the model card README.md. The figures on the
    first run's own test part are written into the cards of its files. `pixels`: its
    decoded photos. EdgegraftError for a run without exports, a damaged file, other
    labels, other data, or photos that have changed.
    """
    from quantize.reporting import report

    console, options = console or Console(quiet=True), options or CompareOptions()
    if isinstance(things, Run | str | os.PathLike):
        things = [things]
    sources = opened(things, runless=options.photos is not None)
    runs = [source for source in sources if isinstance(source, Run)]
    first = runs[0] if runs else None
    single_run = runs == sources and len(runs) == 1 and options.photos is None
    entries = candidates(sources, same_photos=options.photos is None)
    devices = [(path, timing.read_devices(path)) for path in options.devices]
    device_times = _device_times(entries, devices, console)
    held_out, scored, refusals = _score(runs, entries, options, pixels, console)
    entries = tuple(
        _with_figures(entry, scored[entry.path], refusals.get(entry.path))
        if entry.run is not None and entry.run is held_out.run
        else entry
        for entry in entries
    )
    warnings = machine.timing_warnings()  # before our own work loads the machine
    paths = [entry.path for entry in entries]
    sizes = {entry.path: _input_size(entry, options) for entry in entries}
    local = timing.time_all(paths, options.runtime, options.effort, console, sizes)
    times = {path: (*local[path], *device_times[path]) for path in paths}
    exports, unread = _export_figures(entries)
    files = _measured(held_out, first, entries, scored, refusals, times, exports)
    here = local[paths[0]][0].setting
    warnings += [
        *timing.unsteady_warnings(here, files),
        *_trained_on(held_out, entries),
        *unread,
    ]
    for warning in warnings:
        console.say(f"edgegraft: warning: {warning}")
    deciding = _deciding(here, [t for path in paths for t in device_times[path]])
    rule: dict[str, Any] = {
        "margin": options.margin,
        "any_variant": options.any_variant,
    }
    choice = choose.choose(files, options.budget, deciding, **rule)
    folder = (first.folder if first else entries[0].path).parent / "comparison"
    if first and single_run:
        folder = first.folder
    comparison = Comparison(
        run=", ".join(source.name for source in sources),
        folder=options.out or folder,
        labels=held_out.labels,
        host=machine.describe(),
        method=METHOD.format(what=held_out.what, **vars(options.effort)),
        budget=options.budget,
        deciding_setting=deciding,
        files=files,
        choice=choice,
        headline=_headline(choice.file, entries if held_out.run else ()),
        warnings=tuple(warnings),
        by_budget=tuple(choose.by_budget(files, deciding, **rule)),
    )
    report.write(comparison, first if single_run else None)
    return comparison


def _headline(
    chosen: MeasuredFile | None, entries: Sequence[Candidate]
) -> Headline | None:
    """The accuracy of the chosen file, from the larger set of photos."""
    if chosen is None:
        return None
    evaluation = chosen.evaluation
    owner = next((entry.run for entry in entries if entry.path == chosen.path), None)
    judged = CrossValidated.from_record(owner.config) if owner else None
    few = evaluation.photos < FEW_TEST_PHOTOS
    if judged is not None and few:
        return Headline(
            judged.accuracy,
            judged.interval,
            judged.photos,
            "cross-validated",
            weakest=judged.weakest,
        )
    return Headline(
        evaluation.accuracy,
        evaluation.interval,
        evaluation.photos,
        "test photos",
        not_cross_validated(owner) if few and owner is not None else "",
        {name: evaluation.weakest[name] for name in ("label", "photos", "right")},
    )


def not_cross_validated(run: Run) -> str:
    """Why a file of this run is measured on few photos only."""
    few = "few test photos"
    if run.config.get("probe") is None:
        return f"{few}, and a network trained from scratch cannot be cross-validated"
    if run.settings.unlabelled is not None:
        return f"{few}, and a teacher's labels cannot be cross-validated"
    split = run.split()
    count = len(split.part("train")), len(split.part("val"))
    if (run.config.get("best") or {}).get("epoch"):
        if sum(count) > folds.MAX_PHOTOS:
            most = f"more than {folds.MAX_PHOTOS} photos"
            return f"{few}, and fine-tuning on {most} is not cross-validated"
        return f"{few}, and the fine-tuning was not cross-validated"
    if cross_fit.applies(*count):
        return f"{few}, and a label has too few photos to be cross-validated"
    return few


def _owners(entries: Sequence[Candidate]) -> list[Run]:
    """The runs that exported the files, each once."""
    return list(dict.fromkeys(entry.run for entry in entries if entry.run))


def _trained_on(held_out: HeldOut, entries: Sequence[Candidate]) -> list[str]:
    """A warning for each run that was trained on some of the test photos."""
    photos = plural(len(held_out.rows), "photo")
    return [
        f"{run.name} was trained on {count} of the {photos} that judge it here: its "
        "accuracy may be too high"
        for run in _owners(entries)
        if (count := held_out.trained_on_by(run))
    ]


def _export_figures(
    entries: Sequence[Candidate],
) -> tuple[dict[Path, dict[str, Any]], list[str]]:
    """(figures of each file's export, why some are missing)."""
    by_digest: dict[tuple[Run | None, str], Record] = {}
    unread = []
    for run in _owners(entries):
        try:
            records = read_exports(run)
        except EdgegraftError as error:
            unread.append(f"{error}; edgegraft quantize {run.folder} --overwrite mends")
            continue
        for variant, record in records.items():
            if variant != recipes.REFERENCE:  # which the others are compared with
                by_digest[run, record.get("model_sha256") or ""] = record
    found = {
        entry.path: export_figures(by_digest[entry.run, entry.model.digest])
        for entry in entries
        if (entry.run, entry.model.digest) in by_digest
    }
    return found, unread


def _input_size(entry: Candidate, options: CompareOptions) -> tuple[int, int] | None:
    """Width and height for a network of variable input size."""
    foreign = options.foreign.options if options.foreign else None
    return foreign.size if foreign and entry.model.card is None else None


def _device_times(
    entries: Sequence[Candidate],
    devices: Sequence[tuple[Path, Mapping[str, tuple[Timing, ...]]]],
    console: Console,
) -> dict[Path, tuple[Timing, ...]]:
    """Each file's timings on other devices; EdgegraftError where a document has none
    of the files."""
    digests = {entry.model.digest for entry in entries}
    for path, timings in devices:
        others = len(timings.keys() - digests)
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
            timing
            for _, timings in devices
            for timing in timings.get(entry.model.digest, ())
        )
        for entry in entries
    }


def _deciding(here: Setting, measured: Sequence[Timing]) -> Setting:
    """The setting whose times decide: of the first other device if there is one, with
    as many threads as here, else with the fewest."""
    if not measured:
        return here
    host = measured[0].setting.host
    settings = [timing.setting for timing in measured if timing.setting.host == host]
    same = [setting for setting in settings if setting.threads == here.threads]
    return same[0] if same else min(settings, key=lambda setting: setting.threads)


def _score(
    runs: Sequence[Run],
    entries: Sequence[Candidate],
    options: CompareOptions,
    pixels: batches.Pixels | None,
    console: Console,
) -> tuple[HeldOut, dict[Path, Scored], dict[Path, Refusal]]:
    """Each file on the test photos, resized for its input, and on unknown photos."""
    labels = runs[0].labels if runs else None
    owners = _owners(entries)
    recipe_of: dict[Path, InputRecipe] = {}  # all are checked before any is measured
    for entry in entries:
        labels, recipe_of[entry.path] = scoring.recipe_of(
            entry.model, options.runtime, labels, options.foreign
        )
    assert labels is not None
    scored: dict[Path, Scored] = {}
    refusals: dict[Path, Refusal] = {}
    decoded: dict[InputRecipe, batches.Pixels] = {}
    with ExitStack() as stack:
        if options.photos is None:
            held_out = HeldOut.from_run(runs[0])
            if pixels is not None:
                decoded[runs[0].recipe] = pixels
        else:
            recipe = recipe_of[entries[0].path]
            held_out, decoded[recipe] = HeldOut.from_photos(
                options.photos, options.photo_options, labels, recipe, owners, console
            )
            stack.enter_context(closing(decoded[recipe]))
            for entry in entries:
                if entry.model.card is None:
                    recipe = replace(recipe_of[entry.path], white=held_out.white)
                    recipe_of[entry.path] = recipe
        unknown_set = _unknown_photos(held_out, runs, options, console)
        if unknown_set:
            stack.enter_context(closing(unknown_set))
        for entry in entries:
            recipe = recipe_of[entry.path]
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
            accuracy = result.evaluation.balanced_accuracy
            console.stage(
                f"{entry.title}: balanced test accuracy {accuracy:.1%}", detail=True
            )
            refusal: Refusal | None = None
            if unknown_set:
                refusal = unknown_set.refusal(entry.model, result, options.runtime)
            elif entry.run and held_out.run:
                refusal = recorded_refusal(entry.model, result)
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
) -> UnknownPhotos | None:
    if options.unknown is None:
        return None
    trained_with = frozenset().union(*(negatives_of(run) for run in runs))
    rows = [*held_out.rows, *(row for run in runs for row in run.split().rows)]
    return UnknownPhotos(options.unknown, rows, console, trained_with)


def _with_figures(
    entry: Candidate, scored: Scored, refusal: Refusal | None
) -> Candidate:
    """The file with its test figures in its card; written if they have changed."""
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
    exports: Mapping[Path, Mapping[str, Any]],
) -> tuple[MeasuredFile, ...]:
    """The records; each file against the float32 file of its own run."""
    references = {
        entry.run: scored[entry.path].evaluation
        for entry in entries
        if entry.path.name == f"{recipes.REFERENCE}.tflite" and entry.run
    }
    files = []
    for entry in entries:
        result, owner = scored[entry.path], entry.run or first
        evaluation = result.evaluation
        reference = references.get(owner) if owner else None
        if reference is evaluation:
            reference = None
        flat, card = entry.model.flatbuffer, entry.model.card
        tree = flatbuffer.parse(flat)
        refused = {n: targets.refusals(tree, len(flat), n) for n in targets.TARGETS}
        target = str(entry.run.config.get("target")) if entry.run else ""
        files.append(
            MeasuredFile(
                title=entry.title,
                run=entry.run.name if entry.run else "",
                variant=card.variant if card else entry.path.name.split(".")[0],
                path=entry.path,
                digest=entry.model.digest,
                rejected=rejected(entry.path) or bool(refused.get(target)),
                accuracy_runtime=result.runtime,
                recipe=result.recipe,
                evaluation=evaluation,
                agreement=_agreement(evaluation, reference) if reference else None,
                drop=reference.accuracy - evaluation.accuracy if reference else None,
                paired=paired_test(reference, evaluation) if reference else None,
                refusal=refusals.get(entry.path),
                flips=_flips(held_out, result, reference) if reference else (),
                size_bytes=len(entry.model.content),
                multiply_adds=flatbuffer.multiply_adds(tree),
                timings=times[entry.path],
                oldest_runtime=targets.oldest_runtime(tree),
                refused_by=tuple(name for name, why in refused.items() if why),
                card=card,
                export=exports.get(entry.path, {}),
            )
        )
    return tuple(files)


def _agreement(first: Evaluation, second: Evaluation) -> float:
    """Fraction of photos with the same predicted label."""
    same = first.probabilities.argmax(axis=1) == second.probabilities.argmax(axis=1)
    return float(np.mean(same))


def _flips(
    held_out: HeldOut, scored: Scored, reference: Evaluation
) -> tuple[Flip, ...]:
    """The photos that only the reference got right, the most confident mistake first;
    the first of them with their pixels."""
    evaluation = scored.evaluation
    confidence = evaluation.probabilities.max(axis=1)
    lost = np.flatnonzero(reference.right & ~evaluation.right)
    lost = lost[np.argsort(-confidence[lost], kind="stable")]
    flips: list[Flip] = []
    for row in lost.tolist():
        photo = held_out.rows[row].photo
        shown = len(flips) < FLIPS_SHOWN
        flips.append(
            Flip(
                photo.path.relative_to(held_out.root).as_posix(),
                photo.label,
                held_out.labels[evaluation.probabilities[row].argmax()],
                float(confidence[row]),
                load_pixels(photo.path, scored.recipe) if shown else None,
            )
        )
    return tuple(flips)
