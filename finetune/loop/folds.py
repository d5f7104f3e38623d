"""A few hundred photos: fine-tuned on all of them, and cross-validated.

A fifth of a few hundred photos is too few to judge a network, and is missed in its
training. So four networks are fine-tuned first, each from a probe of its own, on three
quarters of the training and validation photos, and answer the other quarter (copies
share a fold). These out-of-fold predictions choose the average with the probe
(`finetune.loop.trainer`; the probe itself is one) and the temperature, and estimate the
accuracy; then the network is fine-tuned on all photos, in the same way. As in
`finetune.head.cross_fit`, which does so for a probe alone.

Five trainings take five times as long, so up to `MAX_PHOTOS` (then as long as one with
2,000) and where a time limit allows it, by the first epochs.
tests/benchmarks/finetune_gain.py measures what it brings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from backbones import network
from edge.errors import EdgegraftError
from edge.files import write_atomic
from finetune.console import Console
from finetune.head import cross_fit, probe
from finetune.loop.examples import Examples, Floats, Ints, class_weights
from finetune.loop.history import Epoch
from finetune.loop.trainer import (
    ALPHAS,
    STATE,
    Advance,
    Point,
    Trainer,
    choose_average,
)

MAX_PHOTOS = 400  # training and validation photos
TIMED = 2  # epochs of the first fold: the first compiles, the second is timed


def applies(train: int, val: int) -> bool:
    """Whether so many training and validation photos are few enough."""
    return cross_fit.applies(train, val) and train + val <= MAX_PHOTOS


def begun(folder: Path) -> bool | None:
    """Whether the training in this folder was begun in folds; None where none was."""
    if (folder / "fold-0.npz").is_file() or (folder / "fold-0").is_dir():
        return True
    return False if (folder / STATE).is_file() else None


def joined(train: Examples, val: Examples, classes: int) -> Examples:
    """The photos of both parts; weighted where those of `train` are."""
    truth = np.concatenate([train.truth, val.truth])
    weights = None
    if train.weights is not None:
        weights = class_weights(truth, classes)[truth]
    rows = np.concatenate([train.rows, val.rows])
    return Examples(train.array, rows, truth, weights=weights)


def _only(photos: Examples, which: Any) -> Examples:
    weights = None if photos.weights is None else photos.weights[which]
    return Examples(
        photos.array, photos.rows[which], photos.truth[which], weights=weights
    )


@dataclass(frozen=True)
class OutOfFold:
    """Predictions for the N photos by networks that were not trained on them.

    logits: float32 [A, N, L], at each of `ALPHAS`. truth: int64 [N]. history: the mean
    of the folds, epoch by epoch.
    """

    logits: Floats
    truth: Ints
    history: tuple[Epoch, ...]

    def choose(self) -> tuple[Point, tuple[Point, ...]]:
        """The chosen average with the probe, and all that were tried."""
        return choose_average(self.logits, self.truth)

    def at(self, alpha: float) -> Floats:
        """The logits [N, L] of one average."""
        return self.logits[ALPHAS.index(alpha)]


def cross_validate(
    trainer: Trainer,
    features: Floats,
    groups: Sequence[int],
    *,
    console: Console,
    time_left: Callable[[], float] | None = None,
) -> OutOfFold | None:
    """Fine-tune the network of `trainer`, which is to train on all photos, once for
    each fold; it ends with the weights that it has now, and a head that is fitted to
    all photos.

    None, and the network as it was, where the folds and the training with all photos
    would take longer than `time_left`, in seconds.

    features: float32 [N, D] of the photos, of the backbone as it is. groups: as for
    `cross_fit.make_folds`, which finds folds. What each fold answers is kept in the
    folder of the trainer's checkpoint, for a run that is resumed.
    """
    model, photos = trainer.model, trainer.train
    folder, seed = trainer.checkpoint.folder, trainer.settings.seed
    classes = network.get_head(model)[1].shape[0]
    folds = cross_fit.make_folds(photos.truth, groups, classes, seed)
    head = cross_fit.fit(
        features,
        photos.truth,
        classes,
        groups=groups,
        weights=photos.weights,
        seed=seed,
    )
    assert folds is not None and head is not None
    console.stage(
        f"few photos: fine-tuning in {len(folds)} folds, then on all {len(photos)}"
    )
    start = model.get_weights()
    for index, (train, held_out) in enumerate(folds):
        path = folder / f"fold-{index}.npz"
        if path.is_file():
            continue
        model.set_weights(start)
        taught = _only(photos, train)
        fitted = probe.head(
            features[train],
            taught.truth,
            classes,
            head.strength,
            weights=taught.weights,
        )
        network.set_head(model, *fitted)
        one = trainer.other(taught, _only(photos, held_out), folder / f"fold-{index}")
        if not one.resume():
            one.start()
        with console.bar(
            f"fine-tuning, fold {index + 1} of {len(folds)}", "step"
        ) as bar:
            try:
                one.run(_watched(one, advance_bar(one, bar), time_left))
            except _TooLong as reason:
                one.checkpoint.clear()
                model.set_weights(start)
                console.stage(f"no folds: {reason}")
                return None
        time_left = None
        kept = {
            "held_out": held_out,
            "logits": one.tried_logits,
            "history": json.dumps([asdict(epoch) for epoch in one.history]),
        }
        write_atomic(path, partial(_save, kept))
        one.checkpoint.clear()
    model.set_weights(start)
    network.set_head(model, head.kernel, head.bias)
    return read(folder, photos)


class _TooLong(Exception):
    """More time would be needed than is left."""


def _watched(
    trainer: Trainer, advance: Advance, time_left: Callable[[], float] | None
) -> Advance:
    """`advance`, which raises `_TooLong` after `TIMED` epochs of the first fold if all
    folds, and the training with all photos, would take longer than `time_left`."""
    if time_left is None:
        return advance
    timed = min(TIMED, trainer.settings.epochs)

    def watch(epoch: int, step: int, result: Epoch | None) -> None:
        advance(epoch, step, result)
        if result is None or epoch != timed:
            return
        # with all photos, as many as in FOLDS / (FOLDS - 1) folds
        trainings = cross_fit.FOLDS + cross_fit.FOLDS / (cross_fit.FOLDS - 1)
        epochs = trainings * trainer.settings.epochs - timed
        needed, left = epochs * result.seconds, time_left()
        if needed > left:
            raise _TooLong(
                f"they would take {needed / 60:.1f} minutes more, --time-limit leaves "
                f"{max(0.0, left) / 60:.1f}"
            )

    return watch


def _save(arrays: dict[str, Any], path: Path) -> None:
    np.savez(path, **arrays)


def advance_bar(trainer: Trainer, bar: Callable[[int, int], None]) -> Advance:
    """What shows the steps of a training in a bar."""
    total = trainer.settings.epochs * trainer.steps

    def advance(epoch: int, step: int, result: Epoch | None) -> None:
        if result is None:
            bar((epoch - 1) * trainer.steps + step, total)

    return advance


def read(folder: Path, photos: Examples) -> OutOfFold:
    """What the folds in `folder` answered; EdgegraftError where it cannot be read."""
    logits: Any = np.zeros((0, 0, 0), np.float32)
    histories: list[list[Epoch]] = []
    sizes: list[int] = []
    for index in range(cross_fit.FOLDS):
        path = folder / f"fold-{index}.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                held_out, answered = stored["held_out"], stored["logits"]
                history = [Epoch(**row) for row in json.loads(str(stored["history"]))]
            if not histories:
                shape = len(answered), len(photos), answered.shape[2]
                logits = np.zeros(shape, np.float32)
            logits[:, held_out] = answered
        except Exception as error:  # numpy, zipfile and zlib raise many kinds
            reason = " ".join(str(error).split())[:120]
            raise EdgegraftError(
                f"expected what a fold of this run answered in {path}, got a file that "
                f"can't be read ({reason}); start again with --overwrite"
            ) from error
        histories.append(history)
        sizes.append(len(held_out))
    return OutOfFold(logits, photos.truth, _mean(histories, sizes))


def _mean(
    histories: Sequence[Sequence[Epoch]], sizes: Sequence[int]
) -> tuple[Epoch, ...]:
    """The mean of the folds, weighted by their photos; seconds add up."""

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.average(known, weights=sizes)) if known else None

    return tuple(
        Epoch(
            epochs[0].epoch,
            mean([epoch.train_loss for epoch in epochs]),
            mean([epoch.train_accuracy for epoch in epochs]),
            float(np.average([epoch.val_loss for epoch in epochs], weights=sizes)),
            float(np.average([epoch.val_accuracy for epoch in epochs], weights=sizes)),
            epochs[0].rate,
            sum(epoch.seconds for epoch in epochs),
        )
        for epochs in zip(*histories, strict=True)
    )
