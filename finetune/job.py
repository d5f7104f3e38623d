"""One training run from photos to a calibrated network in a run folder.

    scan -> load pixels -> audit -> split -> features -> probe -> train -> calibrate

Does not know: the command line, TFLite.
"""

from __future__ import annotations

import csv
import datetime
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import custom_cnn, network, registry, weights
from backbones.keras import preload, seed_everything
from data import added as additions
from data import batches
from data.added import Added
from data.audit import Audit
from data.folder import Photo, PhotoFolder
from data.source import Source, choose
from data.split import Split, make_split
from edge.errors import EdgegraftError
from finetune import doubtful, features, probe, unwanted
from finetune.checkpoint import STATE
from finetune.console import Console
from finetune.examples import Examples, class_weights
from finetune.finished import Finished, calibrated, reported, taught
from finetune.run import Run, write_atomic
from finetune.schedule import set_trainable
from finetune.settings import Settings
from finetune.train import Trainer

PARTS = ("train", "val", "test")
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prepared:
    """The photos of a run, decoded once, and where each of them belongs."""

    source: Source
    split: Split
    pixels: batches.Pixels
    together: tuple[tuple[Path, Path], ...] = ()  # near-duplicates
    added: Added | None = None  # photos of another folder, trained on only

    @property
    def folder(self) -> PhotoFolder:
        return self.source.folder

    def examples(self, part: str, balance: str = "none") -> Examples:
        """Rows and class numbers of one part, in the split's order."""
        numbers = {label: number for number, label in enumerate(self.folder.labels)}
        photos: Sequence[Photo] = self.split.part(part)
        truth = np.array([numbers[p.label] for p in photos], np.int64)
        rows = np.array([self.pixels.rows[p.path] for p in photos], np.int64)
        weights = None
        if part == "train" and balance == "weights":
            weights = class_weights(truth, len(numbers))[truth]
        return Examples(self.pixels.array, rows, truth, weights=weights)


def prepare(
    source: Source,
    settings: Settings,
    console: Console,
    *,
    known: Split | None = None,
    memory_limit: int = batches.MEMORY_LIMIT,
    add: Path | None = None,
) -> Prepared:
    """Decode, audit and split the photos. `known` is a resumed run's split; `add` a
    folder of more photos to train on, which leave the split as it is without them."""
    folder = source.folder
    added = None if add is None else additions.find(add, folder.labels)
    everything = folder.photos + (added.photos if added else ())
    console.stage(f"{len(folder.photos):,} photos of {', '.join(folder.labels)}")
    with console.bar("decoding photos") as bar:
        pixels = batches.load_through_cache(
            everything,
            settings.recipe,
            memory_limit=memory_limit,
            progress=bar,
            told=console.say,
        )
    if pixels.recalled:
        console.stage(f"{pixels.recalled:,} of them decoded by an earlier run")
    audit = _audited(folder, pixels)
    for line in audit.lines() if audit.findings else ():
        console.say("  " + line)
    for line in source.lines(pixels.digests):
        console.say("  " + line)
    if audit.obstacles:
        raise EdgegraftError("; ".join(audit.obstacles))
    split = make_split(
        audit.usable(folder.photos),
        pixels.digests,
        seed=settings.seed,
        val=settings.val,
        test=settings.test,
        together=audit.alike,
    )
    if added is not None:
        split, added = additions.join(split, added, pixels)
        for line in added.lines():
            console.say("  " + line)
        source = replace(source, folder=additions.together(folder, added))
    if known is not None and known.fingerprint != split.fingerprint:
        raise EdgegraftError(
            f"expected the photos this run was started with, got a changed set in "
            f"{folder.root} (data fingerprint {split.fingerprint[:12]}, the run has "
            f"{known.fingerprint[:12]}); start a new run"
        )
    return Prepared(source, split, pixels, audit.alike, added)


def _audited(folder: PhotoFolder, pixels: batches.Pixels) -> Audit:
    """The audit of the folder alone, whatever else was decoded beside it."""
    mine = {photo.path for photo in folder.photos}
    failures = [failure for failure in pixels.failures if failure[0] in mine]
    return Audit.from_pass(folder, pixels.digests, failures, pixels.looks)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("edgegraft", "tensorflow", "tf-keras", "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "from source"
    return found


def describe(prepared: Prepared, settings: Settings, given: Path) -> dict[str, Any]:
    """What run.json says before training starts; `given` is what was pointed at."""
    split, exclusion = prepared.split, prepared.source.exclusion
    added = prepared.added
    return {
        "edgegraft_run": 1,
        "status": "training",
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(
            timespec="seconds"
        ),
        "source": str(given.resolve()),
        "photos": str(prepared.folder.root.resolve()),
        "labels": list(prepared.folder.labels),
        "settings": settings.to_dict(),
        "data": {
            "fingerprint": split.fingerprint,
            "parts": {part: len(split.part(part)) for part in PARTS},
            "unreadable": len(prepared.pixels.failures),
            "near_duplicates": len(prepared.together),
            "groups": len({p.group for p in prepared.folder.photos} - {None}),
            "excluded": None if exclusion is None else exclusion.to_dict(),
            "added": None if added is None else added.to_dict(),
        },
        "versions": _versions(),
        "host": {"machine": platform.machine(), "system": platform.system()},
    }


def _write_unreadable(run: Run, prepared: Prepared) -> None:
    def write(to: Path) -> None:
        with to.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "reason"])
            writer.writerows((str(p), why) for p, why in prepared.pixels.failures)

    write_atomic(run.folder / "unreadable.csv", write)


def _build(settings: Settings, classes: int, origin: weights.Origin) -> Any:
    """The network with its weights; random ones learn with batch norm unfrozen."""
    record = registry.get(settings.backbone)
    options = None
    if record.options is not None:
        options = custom_cnn.from_mapping(settings.cnn or {}, "run.json")
    frozen = origin.path is not None
    model = network.assemble(record, settings.size, classes, options, frozen=frozen)
    weights.load(model.get_layer(network.BACKBONE), record, origin)
    return model


def _fit_probe(
    model: Any, train: Examples, val: Examples, classes: int, console: Console
) -> tuple[dict[str, Any], Floats]:
    """What was tried, and the features of train, then val."""
    extractor = network.feature_model(model)
    with console.bar("features") as bar:
        rows = np.concatenate([train.rows, val.rows])
        found = features.compute(extractor, train.array, rows, progress=bar)
    fitted = probe.fit(
        found[: len(train)], train.truth, found[len(train) :], val.truth, classes
    )
    network.set_head(model, fitted.kernel, fitted.bias)
    return {"strength": fitted.strength, "tried": list(fitted.tried)}, found


def train(
    run: Run,
    prepared: Prepared,
    origin: weights.Origin,
    console: Console,
    *,
    resume: bool,
) -> Any:
    """Train, calibrate and report into `run`; returns the network."""
    settings, labels = run.settings, run.labels
    parts = {part: prepared.examples(part, settings.balance) for part in PARTS}
    seed_everything(settings.seed)
    model, pretrained = _build(settings, len(labels), origin), origin.path is not None
    record = registry.get(settings.backbone)
    console.stage(f"{record.name} at {settings.size}, weights: {origin.weights}")
    trainer_folder = run.folder / "checkpoint"
    resumed = resume and (trainer_folder / STATE).is_file()
    seen = None
    if pretrained and not resumed:
        found, seen = _fit_probe(
            model, parts["train"], parts["val"], len(labels), console
        )
        run.update(probe=found)
        photos = [*prepared.split.part("train"), *prepared.split.part("val")]
        doubtful.by_cross_validation(
            run, prepared.pixels, photos, seen, prepared.together, console
        )
    unfreeze = settings.unfreeze if pretrained else "all"
    count = set_trainable(model, record, unfreeze)
    trainer = Trainer(
        model,
        settings,
        parts["train"],
        parts["val"],
        from_probe=pretrained,
        checkpoint=trainer_folder,
    )
    if resumed:
        trainer.resume()
        console.stage(f"resumed after epoch {len(trainer.history) - 1}")
    else:
        trainer.start()
    start = "linear probe" if pretrained else "untrained"
    if pretrained and not resumed:
        console.stage(f"linear probe: validation {trainer.history[0].val_accuracy:.1%}")
    if not pretrained or unfreeze != "none":
        console.stage(f"training {count:,} weights")
        with console.epochs(settings.epochs, trainer.steps) as advance:
            trainer.run(advance)
    best = trainer.best
    assert best is not None
    kept = f"the {start}" if best.epoch == 0 else f"epoch {best.epoch}"
    highest = max(epoch.val_accuracy for epoch in trainer.history)
    doubt = " (no epoch is better beyond chance)" if highest > best.val_accuracy else ""
    console.stage(f"kept {kept}: validation {best.val_accuracy:.1%}{doubt}")
    known = {}
    if seen is not None and best.epoch == 0:  # else the features have changed
        known = {
            "train": seen[: len(parts["train"])],
            "val": seen[len(parts["train"]) :],
        }
    finished = Finished(run, model, parts, known, console)
    calibration = calibrated(finished)
    val = reported(finished, trainer.history, best.epoch, taught(finished))
    if not pretrained:
        doubtful.by_validation(
            run, prepared.pixels, prepared.split.part("val"), val.probabilities, console
        )
    run.save_model(model)
    run.update(
        status="trained",
        weights=origin.to_dict(),
        calibration=calibration,
        best={"epoch": best.epoch, "val_accuracy": best.val_accuracy},
    )
    trainer.clear()
    return model


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
) -> tuple[Run, Prepared, Any]:
    """Train on `photos` into the run `folder`: (run, its photos, the network).

    photos: a folder, a list or an archive. exclude_from: an audit.csv or doubts.csv;
    the run keeps a copy of it. add: a folder of more photos to train on, by label.
    resume: go on with the run in `folder` after its last whole epoch, with its own
    settings; `photos` may then be None. EdgegraftError for bad input; an interrupt
    leaves a run that can be resumed.
    """
    preload()
    if resume:
        run = Run.open(folder)
        settings, photos, exclude_from = run.settings, run.source, run.excluded
        add = run.added
    elif photos is None:
        raise EdgegraftError("expected a folder of photos, got none")
    else:
        Run.refuse_taken(folder, overwrite=overwrite)
    unwanted.refuse_missing(settings.negatives)
    record = registry.get(settings.backbone)
    found = choose(photos, exclude_from)
    origin = weights.find(record, settings.size, settings.weights)
    known = run.split() if resume else None
    prepared = prepare(
        found, settings, console, known=known, memory_limit=memory_limit, add=add
    )
    if not resume:
        config = describe(prepared, settings, photos)
        run = Run.create(folder, config, overwrite=overwrite)
        prepared.split.write(run.folder / "split.csv", prepared.folder.root)
        _write_unreadable(run, prepared)
        if found.exclusion is not None:
            run.write_bytes("excluded.csv", found.exclusion.content)
    elif run.trained:
        console.stage(f"{folder} is trained already")
        return run, prepared, run.model()
    return run, prepared, train(run, prepared, origin, console, resume=resume)
