"""One training run, from photos to a calibrated network in a run folder.

    prepare -> features -> head -> loop -> calibrate -> evaluate

`run_job` prepares the photos and the run folder, `train` does the rest in this order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from backbones import registry, weights
from backbones.keras import preload
from data.photos import PARTS
from data.source import PhotoOptions, choose, region_of
from edge import run_folder
from edge.errors import EdgegraftError
from edge.files import write_atomic, write_csv
from edge.run_folder import RUN_FILE
from finetune import distributed, label_issues, model
from finetune import evaluate as evaluation
from finetune.console import Console
from finetune.distill import Lesson
from finetune.distributed import ALONE, Workers
from finetune.familiarity import refuse_missing_negatives
from finetune.head import cross_fit, learning_curve
from finetune.loop import fit, folds
from finetune.loop.examples import Examples, Floats, draw_augmented
from finetune.loop.history import draw_history, write_history
from finetune.loop.trainer import Trainer
from finetune.prepared import Prepared, describe, prepare
from finetune.run import Run, locked
from finetune.settings import Settings, option, refuse_out_of_bounds
from finetune.trained import TrainedNetwork, calibrate


@dataclass(frozen=True)
class Job:
    """What to train on, with which settings, into which folder.

    photos: a folder, a list or an archive; None with `resume`, which continues the run
    in `folder` after its last complete epoch, with the run's own settings. Fields with
    an `Option` are command-line options (`finetune.cli`).
    """

    photos: Path | None
    settings: Settings
    folder: Path
    time_limit: float | None = option(
        None,
        "end training after this many minutes with the weights it has; the learning "
        "rate falls in time",
        metavar="MINUTES",
        above=0,
        below=1e6,
        expected="in minutes above 0",
    )
    memory_limit: float = option(
        0.25,
        "decoded photos beyond this go to a temporary file (default: 0.25)",
        metavar="GB",
        above=0,
        below=10_000,
        expected="in GB above 0",
    )
    exclude_from: Path | None = option(
        None,
        "leave out the photos that this audit.csv or label_issues.csv marks with "
        "exclude = yes",
        metavar="CSV",
    )
    add: Path | None = option(
        None,
        "more photos to train on, in DIR/LABEL, such as those labelled on the page's "
        "Review; validation and test stay the same",
        metavar="DIR",
    )
    photo_options: PhotoOptions = field(default_factory=PhotoOptions)
    overwrite: bool = option(False, "replace a run of that name")
    resume: bool = option(False, "resume an interrupted run")

    def __post_init__(self) -> None:
        refuse_out_of_bounds(self)
        if self.photos is None and not self.resume:
            raise EdgegraftError("expected a folder of photos, got none")


@dataclass(frozen=True)
class Trained:
    """A finished job: the run, its decoded photos, the network in memory.

    `network` is None on a worker that is not the chief (`finetune.distributed`), whose
    run is temporary. Close `prepared.pixels` when the photos are no longer needed.
    """

    run: Run
    prepared: Prepared
    network: Any


def finetune(
    photos: Path | str | None,
    settings: Settings,
    folder: Path | str,
    *,
    console: Console | None = None,
    **options: Any,
) -> Run:
    """Train on `photos` into the run `folder`; returns the run.

    options: fields of `Job`. EdgegraftError for bad input; an interrupt leaves a run
    that can be resumed.
    """
    source = None if photos is None else Path(photos)
    job = Job(source, settings, Path(folder), **options)
    trained = run_job(job, console or Console())
    trained.prepared.pixels.close()
    return trained.run


def run_job(job: Job, console: Console) -> Trained:
    """Run a job. Errors as `finetune`; the decoded photos stay open for the caller."""
    preload()
    workers = distributed.join()
    with distributed.run_folder(workers, job.folder) as folder, workers.together():
        if workers.several:
            console.stage(f"worker {workers.index} of {workers.count}, 0 is the chief")
        if not job.resume:
            Run.refuse_taken(folder, overwrite=job.overwrite)
        elif workers.is_chief:
            Run.open(folder)  # create no lock file where there is no run
        with locked(folder):
            return _prepare_and_train(job, folder, console, workers)


def _prepare_and_train(
    job: Job, folder: Path, console: Console, workers: Workers
) -> Trained:
    time_left = None if job.time_limit is None else countdown(60 * job.time_limit)
    settings, photos, exclude_from, add = _inputs(job, folder, workers)
    refuse_missing_negatives(settings.negatives)
    record = registry.get(settings.backbone)
    reading = Run.open(folder).photo_options if job.resume else job.photo_options
    source = choose(photos, exclude_from, reading)
    if not job.resume:
        region = region_of(source.folder, settings.region)
        settings = replace(settings, white=source.folder.white, region=region)
    lesson = Lesson.from_settings(settings, source.folder.labels)
    origin = weights.find(record, settings.size, settings.weights)
    if origin.is_user_file:  # refuse weights that do not fit before a run is created
        model.build(settings, len(source.folder.labels), origin)
    prepared = prepare(
        source,
        settings,
        console,
        resumed_split=Run.open(folder).split() if job.resume else None,
        unlabelled=lesson.unlabelled if lesson else (),
        memory_limit=int(job.memory_limit * 2**30),
        add=add,
    )
    distributed.refuse_differences(workers, settings, prepared.split.fingerprint)
    if job.resume:
        run = Run.open(folder)
        if run.trained:
            console.stage(f"{folder} is trained already")
            return Trained(run, prepared, model.load(run) if workers.is_chief else None)
    else:
        run = _new_run(folder, prepared, settings, photos, overwrite=job.overwrite)
    network = train(
        run,
        prepared,
        origin,
        console,
        resume=job.resume,
        time_left=time_left,
        lesson=lesson,
        workers=workers,
    )
    return Trained(run, prepared, network)


def _inputs(
    job: Job, folder: Path, workers: Workers
) -> tuple[Settings, Path, Path | None, Path | None]:
    """(settings, photos, exclude_from, add) of the job, or of the run it resumes."""
    if job.resume:
        distributed.share_run(workers, folder)
        run = Run.open(folder)
        return run.settings, run.source, run.excluded, run.added
    assert job.photos is not None
    if job.add is None:
        return job.settings, job.photos, job.exclude_from, None
    # absolute, since photos of both folders need a common root
    return job.settings, job.photos.resolve(), job.exclude_from, job.add.resolve()


def _new_run(
    folder: Path,
    prepared: Prepared,
    settings: Settings,
    photos: Path,
    *,
    overwrite: bool,
) -> Run:
    """The run folder with the files that describe its photos."""
    config = describe(prepared, settings, photos)
    run = Run.create(folder, config, overwrite=overwrite)
    prepared.split.write(folder / "split.csv", prepared.folder.root)
    failures = prepared.pixels.failures
    write_csv(folder / "unreadable.csv", ("path", "reason"), failures)
    if prepared.source.exclusion is not None:
        write_atomic(folder / "excluded.csv", prepared.source.exclusion.content)
    return run


def countdown(seconds: float) -> Callable[[], float]:
    """A function that returns how many of these seconds are left."""
    end = time.monotonic() + seconds
    return lambda: end - time.monotonic()


# -- features -> head -> loop -> calibrate -> evaluate ---------------------------------
def train(
    run: Run,
    prepared: Prepared,
    origin: weights.Origin,
    console: Console,
    *,
    resume: bool,
    time_left: Callable[[], float] | None = None,
    lesson: Lesson | None = None,
    workers: Workers = ALONE,
) -> Any:
    """Train, calibrate and evaluate into `run`; returns the network.

    None on a worker that is not the chief.
    """
    settings, labels = run.settings, run.labels
    parts = {part: prepared.examples(part, settings.balance) for part in PARTS}
    train_set = parts["train"]
    if lesson is not None:
        train_set, distillation = lesson.teach(
            parts["train"], prepared.split, prepared.pixels, settings, console
        )
        run.update(distillation=distillation)
    plan = fit.Plan.from_settings(
        settings, len(train_set), pretrained=origin.path is not None
    )
    if settings.teacher_views > 1 or not plan.probe_only:  # else nothing is augmented
        path = run.folder / "augmentation.png"
        draw_augmented(path, parts["train"], labels, settings.augment, settings.seed)

    workers = distributed.on_all_gpus(workers)
    built, mirrored = fit.build_networks(settings, len(labels), origin, plan, workers)
    mixed = ", trained in bfloat16" if plan.mixed else ""
    console.stage(
        f"{registry.get(settings.backbone).name} at {settings.size}, weights: "
        f"{origin.weights}{mixed}"
    )
    for line in fit.notes(settings, labels, train_set, plan):
        console.say("  " + line)
    checkpoint = run.folder / "checkpoint"
    begun = folds.begun(checkpoint) if resume else None
    one_device = workers.strategy is None
    if begun and not one_device:
        raise EdgegraftError(
            "expected one device for a run that was begun in folds, got several; "
            "resume it on one, or start again with --overwrite"
        )
    groups = None  # of a few photos: of those that share a fold
    if begun or (begun is None and lesson is None and one_device):
        groups = _fold_groups(prepared, parts, plan, settings)
    if begun and time_left is not None:
        console.say("  --time-limit has no effect: the run was begun in folds")
        time_left = None

    def trainer_of(taught: Examples, judges: Examples | None) -> Trainer:
        return Trainer(
            built,
            settings,
            taught,
            judges,
            from_probe=plan.pretrained,
            checkpoint=checkpoint,
            workers=workers,
            mirrored=mirrored,
            time_left=None if judges is None else time_left,
        )

    if groups is None:
        trainer = trainer_of(train_set, parts["val"])
    else:
        joined = folds.joined(train_set, parts["val"], len(labels))
        trainer = trainer_of(joined, None)
    resumed = resume and trainer.resume()

    # features and head
    features: dict[str, Floats] = {}
    out_of_fold = None
    if resumed and groups is not None:
        console.stage("resumed after the cross-validation")
        out_of_fold = folds.read(checkpoint, joined)
    elif resumed:
        console.stage(f"resumed after epoch {len(trainer.history) - 1}")
    else:
        if plan.pretrained and workers.is_chief:  # the others copy its weights
            features = _fit_head(run, prepared, built, parts, train_set, console)
        if groups is not None:
            out_of_fold = folds.cross_validate(
                trainer,
                np.concatenate([features["train"], features["val"]]),
                groups,
                console=console,
                time_left=time_left,
            )
            if out_of_fold is None:
                trainer = trainer_of(train_set, parts["val"])
        trainer.start()
        if plan.pretrained and out_of_fold is None:
            accuracy = trainer.history[0].val_accuracy
            console.stage(f"linear probe: validation {accuracy:.1%}", detail=True)

    # loop
    fit.train_epochs(
        trainer,
        run.folder,
        plan,
        console,
        resumed=resumed,
        out_of_fold=out_of_fold,
    )
    precision = "; trained in bfloat16, kept in float32" if plan.mixed else ""
    console.stage(fit.verdict(trainer, pretrained=plan.pretrained) + precision)
    run.update(**fit.record(trainer, plan))
    network = built
    if plan.mixed:
        network = model.build(settings, len(labels), origin)
        network.set_weights(built.get_weights())
    if not workers.is_chief:
        return None

    # calibrate and evaluate
    assert trainer.best is not None
    if trainer.best.epoch != 0:
        features = {}  # the backbone has changed
    trained = TrainedNetwork(network, labels, parts, console, features)
    split, pairs = prepared.split, prepared.near_duplicates
    answered = None
    if out_of_fold is not None and trainer.alpha:
        answered = out_of_fold.at(trainer.alpha)
    run.update(calibration=calibrate(run, trained, split, pairs, answered))
    _evaluate(run, prepared, trained, trainer, origin)
    model.save(run, network)
    run.update(status="trained", weights=origin.to_dict())
    trainer.checkpoint.clear()  # the result is written
    return network


def _fold_groups(
    prepared: Prepared,
    parts: Mapping[str, Examples],
    plan: fit.Plan,
    settings: Settings,
) -> list[int] | None:
    """The photos that share a fold, of training, then validation, where the fine-tuning
    of `plan` is cross-validated; None where the validation part judges it."""
    train, val = parts["train"], parts["val"]
    few = folds.applies(len(train), len(val))
    if not few or not plan.pretrained or plan.probe_only:
        return None
    if any(photo.part == "val" for photo in prepared.folder.photos):
        return None
    groups = cross_fit.learned_groups(prepared.split, prepared.near_duplicates)
    truth = np.concatenate([train.truth, val.truth])
    classes = len(prepared.folder.labels)
    possible = cross_fit.make_folds(truth, groups, classes, settings.seed)
    return None if possible is None else groups


def _fit_head(
    run: Run,
    prepared: Prepared,
    network: Any,
    parts: Mapping[str, Examples],
    train_set: Examples,
    console: Console,
) -> dict[str, Floats]:
    """Fit the probe; from its features, the learning curve and label issues.

    Returns the features of train and val.
    """
    record, features = fit.fit_probe(
        network, train_set, parts["val"], len(run.labels), console
    )
    run.update(probe=record)
    train, val = features[: len(parts["train"])], features[len(train_set) :]
    both = np.concatenate([train, val])
    learning_curve.record(run, both, parts["train"], parts["val"], console)
    label_issues.by_cross_validation(
        run,
        prepared.pixels,
        [*prepared.split.part("train"), *prepared.split.part("val")],
        both,
        prepared.near_duplicates,
        console,
    )
    return {"train": train, "val": val}


def _evaluate(
    run: Run,
    prepared: Prepared,
    trained: TrainedNetwork,
    trainer: Trainer,
    origin: weights.Origin,
) -> None:
    """metrics.json, history.csv and the pictures of the run."""
    calibration, console = run.config["calibration"], trained.console
    familiarity = evaluation.fit_familiarity(run, trained)
    if familiarity is not None:
        count = familiarity.kernel.shape[1]
        console.stage(f"familiarity: {count} prototypes", detail=True)
    evaluated = evaluation.evaluate(trained, calibration["temperature"])
    metrics = evaluation.metrics(run, trained, evaluated, familiarity)
    run.write_json("metrics.json", metrics)
    write_history(run.folder / "history.csv", trainer.history)
    assert trainer.best is not None
    draw_history(
        run.folder / "training.png",
        trainer.history,
        trainer.best,
        run.config.get("probe"),
        augmented=run.settings.augment != "none",
        alpha=run.config["best"]["alpha"],
        cross_fit=calibration.get("cross_fit"),
        in_folds=trainer.val is None,
    )
    test = trained.parts["test"]
    evaluation.draw_evaluation(
        run.folder,
        evaluated.test,
        [photo.path for photo in run.part("test")],
        lambda row: test.array[test.rows[row]],
        "test part, Keras",
        (
            ("Before calibration", evaluated.uncalibrated["test"]),
            ("After", evaluated.test.probabilities),
        ),
        f"Temperature {calibration['temperature']:.2f}, set by "
        f"{calibration['photos']} other photos",
    )
    if origin.path is None:
        label_issues.by_validation(
            run,
            prepared.pixels,
            prepared.split.part("val"),
            evaluated.val.probabilities,
            console,
        )


@contextmanager
def resumable(job: Job, verb: str) -> Iterator[None]:
    """Ctrl-C within prints the command that resumes the job's run, if it was started.

    verb: finetune or build.
    """

    def modified() -> int | None:
        try:
            return (job.folder / RUN_FILE).stat().st_mtime_ns
        except OSError:
            return None

    before = None if job.resume else modified()
    try:
        yield
    except KeyboardInterrupt:
        if modified() in (None, before):  # no run yet, or only an older one
            raise
        run = Run.open(job.folder)
        if verb == "finetune" and run.trained:
            raise
        command = run_folder.resume_command(str(run.folder), verb)
        raise KeyboardInterrupt(f"resume with: {command}") from None
