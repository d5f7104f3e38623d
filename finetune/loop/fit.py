"""From examples to a trained network: probe, fine-tuning, what is kept of it.

    weights -> features -> probe -> epochs -> the point between probe and end

Does not know: files of photos, pictures, TFLite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from backbones import custom_cnn, network, registry, weights
from backbones.keras import seed_everything
from finetune.console import Console
from finetune.distributed import ALONE, Workers
from finetune.head import features, probe
from finetune.loop.epochs import Epoch
from finetune.loop.examples import Examples, Floats, unbalance
from finetune.loop.precision import policy, policy_for
from finetune.loop.schedule import set_trainable
from finetune.loop.tensorboard import FOLDER, Logs
from finetune.loop.trainer import Trainer
from finetune.loop.unused import without_epochs
from finetune.loop.wise_ft import Point
from finetune.run import Run
from finetune.settings import Settings

# Fewer photos cannot move a pretrained network for the better, nor show that they did
AUTO_LEAST = 200
UNBALANCED = 5.0  # photos of the largest class for one of the smallest: worth a word


def build(settings: Settings, classes: int, origin: weights.Origin) -> Any:
    """The network with its weights; random ones learn with batch norm unfrozen."""
    record = registry.get(settings.backbone)
    options = None
    if record.options is not None:
        options = custom_cnn.from_mapping(settings.cnn or {}, "run.json")
    frozen = origin.path is not None
    model = network.assemble(record, settings.size, classes, options, frozen=frozen)
    weights.load(model.get_layer(network.BACKBONE), record, origin)
    return model


def fit_probe(
    model: Any, train: Examples, val: Examples, classes: int, console: Console
) -> tuple[dict[str, Any], Floats]:
    """Give the network the best head on its frozen features.

    Returns what was tried, and the features of train, then val, float32 [n, D].
    """
    extractor = network.feature_model(model)
    with console.bar("features") as bar:
        rows = np.concatenate([train.rows, val.rows])
        found = features.compute(extractor, train.array, rows, progress=bar)
    fitted = probe.fit(
        found[: len(train)],
        train.truth,
        found[len(train) :],
        val.truth,
        classes,
        weights=train.weights,
    )
    network.set_head(model, fitted.kernel, fitted.bias)
    record = {
        "strength": fitted.strength,
        "tried_loss": "train_loss and val_loss: nats, of the head as fitted, without a "
        "temperature",
        "tried": list(fitted.tried),
    }
    return record, found


def _warn_of_unbalance(train: Examples, run: Run, console: Console) -> None:
    labels, settings = run.labels, run.settings
    ratio = unbalance(train.truth, len(labels))
    if ratio < UNBALANCED or settings.balance != "none":
        return
    counts = np.bincount(train.truth, minlength=len(labels))
    most, least = int(counts.argmax()), int(counts.argmin())
    console.say(
        f"  unbalanced: {counts[most]:,} photos of {labels[most]} and "
        f"{counts[least]:,} of {labels[least]} to train on; rare labels are recognised "
        "less often: add photos, or try --balance weights"
    )


def unfrozen(settings: Settings, *, pretrained: bool, count: int) -> str:
    """What is trained on `count` photos, as `--unfreeze` names it; none: the probe."""
    if not pretrained:
        return "all"
    few = settings.unfreeze == "auto" and count < AUTO_LEAST
    return "none" if few else settings.unfreeze


def _tell_unused(
    settings: Settings,
    train: Examples,
    console: Console,
    *,
    fine: bool,
    time_limit: bool,
) -> None:
    """Options of fine-tuning (`fine`) or of the probe alone that do nothing."""
    if fine:
        if settings.patience != Settings.patience:
            console.say(
                f"  --patience {settings.patience} has no effect on a pretrained "
                "network: it is trained to the last of its epochs"
            )
        return
    few = settings.unfreeze == "auto"
    if few:
        console.say(
            f"  {len(train)} photos to train on: fine-tuning is left out below "
            f"{AUTO_LEAST} (--unfreeze all does it nevertheless)"
        )
    unused = without_epochs(settings, time_limit=time_limit)
    if unused:
        verb = "has" if len(unused) == 1 else "have"
        console.say(
            f"  without fine-tuning {', '.join(unused)} {verb} no effect"
            + ("" if few else " (--unfreeze none leaves it out)")
        )


def _verdict(trainer: Trainer, pretrained: bool) -> str:
    best = trainer.best
    assert best is not None
    start = "the linear probe" if pretrained else "the untrained network"
    kept = f"epoch {best.epoch}"
    if best.epoch == 0:
        kept = start
    elif trainer.share < 1:
        kept = f"{trainer.share:.0%} of the way from {start} to epoch {best.epoch}"
    told = f"kept {kept}: validation {best.val_accuracy:.1%}"
    if trainer.way:
        told += (
            f" (chosen by log loss; accuracies of {len(trainer.val)} photos differ by "
            "chance)"
        )
    if best.epoch == 0 and not pretrained:
        told += "; training made it no better: try another --rate, or more --epochs"
    return told


def _way(points: tuple[Point, ...]) -> list[Mapping[str, float]]:
    return [vars(point) for point in points]


def fit(
    run: Run,
    parts: Mapping[str, Examples],
    origin: weights.Origin,
    console: Console,
    *,
    resume: bool,
    time_left: Callable[[], float] | None = None,
    workers: Workers = ALONE,
    on_features: Callable[[Floats], None] | None = None,
) -> tuple[Any, Trainer]:
    """Train on parts["train"], judge on parts["val"]: (network, its trainer).

    on_features is given the features of train, then val, that the probe was fitted on.
    workers: who trains; all of them call this, each with a run folder of its own.
    resume: go on from the checkpoint, where there is one. The checkpoint stays until
    the caller has the network safe and calls `Trainer.clear`.
    """
    settings, labels = run.settings, run.labels
    train, val = parts["train"], parts["val"]
    seed_everything(settings.seed)
    pretrained, numbers = origin.path is not None, policy_for(settings.precision)
    with policy(numbers):
        model, mirrored = build(settings, len(labels), origin), None
        if workers.strategy is not None:
            with workers.strategy.scope():
                mirrored = build(settings, len(labels), origin)
    record = registry.get(settings.backbone)
    mixed_numbers = numbers != "float32"
    console.stage(
        f"{record.name} at {settings.size}, weights: {origin.weights}"
        + (", trained in bfloat16" if mixed_numbers else "")
    )
    _warn_of_unbalance(train, run, console)
    unfreeze = unfrozen(settings, pretrained=pretrained, count=len(train))
    if pretrained:
        limited, fine = time_left is not None, unfreeze != "none"
        _tell_unused(settings, train, console, fine=fine, time_limit=limited)
    count = set_trainable(model, record, unfreeze)
    if mirrored is not None:
        set_trainable(mirrored, record, unfreeze)
    trainer = Trainer(
        model,
        settings,
        train,
        val,
        from_probe=pretrained,
        checkpoint=run.folder / "checkpoint",
        workers=workers,
        mirrored=mirrored,
        time_left=time_left,
    )
    resumed = resume and trainer.resume()
    logs = Logs(run.folder / FOLDER)  # a checkpoint that is refused leaves none
    if resumed:
        console.stage(f"resumed after epoch {len(trainer.history) - 1}")
    else:
        if pretrained and workers.is_chief:  # the others begin with its weights
            tried, seen = fit_probe(model, train, val, len(labels), console)
            run.update(probe=tried)
            if on_features is not None:
                on_features(seen)
        trainer.start()
        logs.add(trainer.history[0])
        if pretrained:
            accuracy = trainer.history[0].val_accuracy
            console.stage(f"linear probe: validation {accuracy:.1%}")
    if not pretrained or unfreeze != "none":
        console.stage(f"training {count:,} weights")
        with console.epochs(settings.epochs, trainer.steps) as bar:

            def advance(number: int, step: int, done: Epoch | None) -> None:
                bar(number, step, done)
                if done is not None:
                    logs.add(done)

            trainer.run(advance)
        if trainer.ended:
            done = len(trainer.history) - 1
            console.stage(f"stopped after epoch {done}: {trainer.ended}")
    told = _verdict(trainer, pretrained)
    if mixed_numbers:
        told += "; trained in bfloat16, kept in float32"
    console.stage(told)
    best = trainer.best
    assert best is not None
    run.update(
        best={
            "epoch": best.epoch,
            "share": trainer.share,
            "val_accuracy": best.val_accuracy,
            "way_loss": "val_loss of way: nats, each point at its own calibration "
            "temperature (targets: calibration.platt_target)",
            "way": _way(trainer.way),
        },
        unfrozen=unfreeze,
        trained_in=numbers,
    )
    if mixed_numbers:
        mixed, model = model, build(settings, len(labels), origin)
        model.set_weights(mixed.get_weights())
    return model, trainer
