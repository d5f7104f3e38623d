"""One training run from photos to a calibrated network in a run folder.

    prepare (scan, pixels, audit, split) -> features -> probe -> train -> calibrate

Does not know: the command line, TFLite.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import registry, weights
from backbones.keras import preload
from data import batches
from data.source import choose
from edge.errors import EdgegraftError
from finetune import chief, label_issues, negatives
from finetune.console import Console
from finetune.distill import lesson as distill
from finetune.distributed import ALONE, Workers, join, on_all_gpus
from finetune.evaluate import Finished, reported, taught
from finetune.figures import augmentation
from finetune.head import learning_curve
from finetune.head.calibration import calibrated
from finetune.loop.fit import build, fit, unfrozen
from finetune.prepared import PARTS, Prepared, describe, prepare, write_unreadable
from finetune.run import Run
from finetune.settings import Settings

Floats = npt.NDArray[np.float32]


def train(
    run: Run,
    prepared: Prepared,
    origin: weights.Origin,
    console: Console,
    *,
    resume: bool,
    time_left: Callable[[], float] | None = None,
    lesson: distill.Lesson | None = None,
    workers: Workers = ALONE,
) -> Any:
    """Train, calibrate and report into `run`; returns the network.

    None on a worker that is not the chief.
    """
    settings, labels = run.settings, run.labels
    parts = {part: prepared.examples(part, settings.balance) for part in PARTS}
    learnt = dict(parts)
    if lesson is not None:
        learnt["train"], record = lesson.teach(
            parts["train"], prepared.split, prepared.pixels, settings, console
        )
        run.update(distillation=record)
    count, pretrained = len(learnt["train"]), origin.path is not None
    probed = unfrozen(settings, pretrained=pretrained, count=count) == "none"
    if settings.teacher_views > 1 or not probed:  # else no photo is varied
        augmentation.draw(
            run.folder / "augmentation.png",
            parts["train"],
            labels,
            settings.augment,
            settings.seed,
        )
    seen: list[Floats] = []  # features of train, then val, that the probe was fitted on

    def look(found: Floats) -> None:
        count, judged = len(parts["train"]), len(parts["val"])
        own = np.concatenate([found[:count], found[-judged:]])  # of labelled photos
        seen.append(own)
        learning_curve.record(run, own, parts["train"], parts["val"], console)
        photos = [*prepared.split.part("train"), *prepared.split.part("val")]
        label_issues.by_cross_validation(
            run, prepared.pixels, photos, own, prepared.together, console
        )

    model, trainer = fit(
        run,
        learnt,
        origin,
        console,
        resume=resume,
        time_left=time_left,
        workers=on_all_gpus(workers),
        on_features=look,
    )
    if not workers.is_chief:
        return None
    assert trainer.best is not None
    known = {}
    if seen and trainer.best.epoch == 0:  # else the features have changed
        count = len(parts["train"])
        known = {"train": seen[0][:count], "val": seen[0][count:]}
    finished = Finished(run, model, parts, known, console)
    run.update(calibration=calibrated(finished, prepared.together))
    val = reported(finished, trainer.history, trainer.best, taught(finished))
    if origin.path is None:
        label_issues.by_validation(
            run, prepared.pixels, prepared.split.part("val"), val.probabilities, console
        )
    run.save_model(model)
    run.update(
        status="trained",
        weights=origin.to_dict(),
    )
    trainer.clear()
    return model


def _countdown(seconds: float) -> Callable[[], float]:
    end = time.monotonic() + seconds
    return lambda: end - time.monotonic()


@dataclass(frozen=True)
class Options:
    """How to go about a run, as `finetune` explains; none of it is kept."""

    overwrite: bool
    resume: bool
    memory_limit: int
    exclude_from: Path | None
    add: Path | None
    time_limit: float | None


def finetune(
    photos: Path | None,
    settings: Settings,
    folder: Path,
    console: Console,
    *,
    overwrite: bool = False,
    resume: bool = False,
    memory_limit: int = batches.MEMORY_LIMIT,
    exclude_from: Path | None = None,
    add: Path | None = None,
    time_limit: float | None = None,
) -> tuple[Run, Prepared, Any]:
    """Train on `photos` into the run `folder`: (run, its photos, the network).

    photos: a folder, a list or an archive. exclude_from: an audit.csv or doubts.csv;
    the run keeps a copy of it. add: a folder of more photos to train on, by label.
    resume: go on with the run in `folder` after its last whole epoch, with its own
    settings; `photos` may then be None. time_limit: seconds from now after which
    training ends with what it has. EdgegraftError for bad input; an interrupt
    leaves a run that can be resumed. Where `TF_CONFIG` names several workers, those
    that are not the chief get None for the network, and their run vanishes.
    """
    preload()
    workers = join()
    options = Options(overwrite, resume, memory_limit, exclude_from, add, time_limit)
    with chief.place(workers, folder) as own, workers.together():
        if workers.several:
            console.stage(f"worker {workers.number} of {workers.count}, 0 is the chief")
        return _finetune(photos, settings, own, console, options, workers)


def _finetune(
    photos: Path | None,
    settings: Settings,
    folder: Path,
    console: Console,
    options: Options,
    workers: Workers,
) -> tuple[Run, Prepared, Any]:
    resume, exclude_from, add = options.resume, options.exclude_from, options.add
    time_limit = options.time_limit
    left = None if time_limit is None else _countdown(time_limit)
    if resume:
        chief.hand_over(workers, folder)
        run = Run.open(folder)
        settings, photos, exclude_from = run.settings, run.source, run.excluded
        add = run.added
    elif photos is None:
        raise EdgegraftError("expected a folder of photos, got none")
    else:
        Run.refuse_taken(folder, overwrite=options.overwrite)
    negatives.refuse_missing(settings.negatives)
    record = registry.get(settings.backbone)
    if add is not None:  # two folders are told from one root, however they were typed
        photos, add = photos.resolve(), add.resolve()
    found = choose(photos, exclude_from)
    lesson = distill.Lesson.of(settings, found.folder.labels)
    origin = weights.find(record, settings.size, settings.weights)
    if origin.of_user:  # weights that do not fit must leave no run behind
        build(settings, len(found.folder.labels), origin)
    known = run.split() if resume else None
    prepared = prepare(
        found,
        settings,
        console,
        known=known,
        unlabelled=lesson.unlabelled if lesson else (),
        memory_limit=options.memory_limit,
        add=add,
    )
    chief.refuse_others(workers, settings, prepared.split.fingerprint)
    if not resume:
        config = describe(prepared, settings, photos)
        run = Run.create(folder, config, overwrite=options.overwrite)
        prepared.split.write(run.folder / "split.csv", prepared.folder.root)
        write_unreadable(run, prepared)
        if found.exclusion is not None:
            run.write_bytes("excluded.csv", found.exclusion.content)
    elif run.trained:
        console.stage(f"{folder} is trained already")
        return run, prepared, run.model() if workers.is_chief else None
    model = train(
        run,
        prepared,
        origin,
        console,
        resume=resume,
        time_left=left,
        lesson=lesson,
        workers=workers,
    )
    return run, prepared, model
