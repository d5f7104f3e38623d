"""The stages of training, called by `finetune.job.train`: head, then loop.

features -> probe -> epochs -> the average of probe and fine-tuned weights
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backbones import network, registry, weights
from backbones.keras import seed_everything
from edge.text import plural
from finetune.console import Console
from finetune.distributed import ALONE, Workers
from finetune.head import probe
from finetune.loop.examples import Examples, Floats, unbalance
from finetune.loop.folds import OutOfFold, advance_bar
from finetune.loop.history import LOGS, Epoch, Logs
from finetune.loop.step import set_trainable
from finetune.loop.trainer import Trainer
from finetune.model import build, compute_outputs, policy, policy_for
from finetune.settings import Settings, without_effect

# With 100 and 120 photos fine-tuning gains no more than 0.8 points over the probe, in
# folds neither (tests/benchmarks/finetune_gain.py)
AUTO_MIN = 200
UNBALANCED = 5.0  # ratio of the largest to the smallest label that is reported


@dataclass(frozen=True)
class Plan:
    """What is trained: `unfreeze` as in `Settings`, and the Keras dtype policy."""

    unfreeze: str
    pretrained: bool
    policy: str

    @classmethod
    def from_settings(cls, settings: Settings, count: int, *, pretrained: bool) -> Plan:
        """The plan for `count` training photos."""
        unfreeze = settings.unfreeze if pretrained else "all"
        if unfreeze == "auto" and count < AUTO_MIN:
            unfreeze = "none"
        return cls(unfreeze, pretrained, policy_for(settings.precision))

    @property
    def probe_only(self) -> bool:
        return self.unfreeze == "none"

    @property
    def mixed(self) -> bool:
        return self.policy != "float32"


def build_networks(
    settings: Settings,
    classes: int,
    origin: weights.Origin,
    plan: Plan,
    workers: Workers = ALONE,
) -> tuple[Any, Any | None]:
    """The seeded network, with the layers of the plan trainable, and on several devices
    the one that is trained in its place, in the scope of their strategy."""
    seed_everything(settings.seed)
    record, mirrored = registry.get(settings.backbone), None
    with policy(plan.policy):
        model = build(settings, classes, origin)
        if workers.strategy is not None:
            with workers.strategy.scope():
                mirrored = build(settings, classes, origin)
                set_trainable(mirrored, record, plan.unfreeze)
    set_trainable(model, record, plan.unfreeze)
    return model, mirrored


def fit_probe(
    model: Any, train: Examples, val: Examples, classes: int, console: Console
) -> tuple[dict[str, Any], Floats]:
    """Set the network's head to the best probe on its frozen features.

    Returns the record of the probe, and the features of train, then val, float32
    [N, D].
    """
    extractor = network.feature_model(model)
    with console.bar("features") as bar:
        rows = np.concatenate([train.rows, val.rows])
        computed = compute_outputs(extractor, train.array, rows, progress=bar)
    fitted = probe.fit(
        computed[: len(train)],
        train.truth,
        computed[len(train) :],
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
    return record, computed


def train_epochs(
    trainer: Trainer,
    folder: Path,
    plan: Plan,
    console: Console,
    *,
    resumed: bool,
    out_of_fold: OutOfFold | None = None,
) -> None:
    """Run the epochs of the plan and load the best weights; logs go to `folder`.

    out_of_fold: chooses the average with the probe where there is no validation part;
    the history is then that of the folds.
    """
    logs = Logs(folder / LOGS)
    if out_of_fold is not None:
        _train_on_all(trainer, out_of_fold, console)
        for epoch in trainer.history:
            logs.add(epoch)
        return
    if not resumed:
        logs.add(trainer.history[0])
    if plan.pretrained and plan.probe_only:
        return
    count = sum(int(np.prod(w.shape)) for w in trainer.model.trainable_weights)
    console.stage(f"training {count:,} weights", detail=True)
    with console.epochs(trainer.settings.epochs, trainer.steps) as bar:

        def advance(epoch: int, step: int, result: Epoch | None) -> None:
            bar(epoch, step, result)
            if result is not None:
                logs.add(result)

        trainer.run(advance)
    if trainer.ended:
        done = len(trainer.history) - 1
        console.stage(f"stopped after epoch {done}: {trainer.ended}")


def _train_on_all(trainer: Trainer, out_of_fold: OutOfFold, console: Console) -> None:
    chosen, trainer.tried = out_of_fold.choose()
    trainer.average_at = trainer.alpha = chosen.alpha
    if chosen.alpha:
        with console.bar("fine-tuning with all photos", unit="step") as bar:
            trainer.run(advance_bar(trainer, bar))
    trainer.history = list(out_of_fold.history)
    kept = trainer.history[-1 if chosen.alpha else 0]
    logits = out_of_fold.at(chosen.alpha)
    trainer.best = replace(
        kept,
        val_loss=probe.log_loss(logits, out_of_fold.truth),
        val_accuracy=chosen.val_accuracy,
    )


# -- messages --------------------------------------------------------------------------
def notes(
    settings: Settings,
    labels: tuple[str, ...],
    train: Examples,
    plan: Plan,
) -> list[str]:
    """Messages before training: unbalanced labels, options without effect."""
    lines = []
    if unbalance(train.truth, len(labels)) >= UNBALANCED and settings.balance == "none":
        counts = np.bincount(train.truth, minlength=len(labels))
        common, rare = int(counts.argmax()), int(counts.argmin())
        lines.append(
            f"unbalanced: {plural(int(counts[common]), 'training photo')} of "
            f"{labels[common]}, {counts[rare]:,} of {labels[rare]}; rare labels are "
            "recognized less often; try --balance weights"
        )
    if not plan.pretrained:
        return lines
    if not plan.probe_only:
        if settings.patience != Settings.patience:
            lines.append(
                f"--patience {settings.patience} has no effect on a pretrained network"
            )
        return lines
    too_few_photos = settings.unfreeze == "auto"
    if too_few_photos:
        lines.append(
            f"{len(train)} training photos: no fine-tuning below {AUTO_MIN} "
            "(--unfreeze all forces it)"
        )
    unused = without_effect(settings)
    if unused:
        verb = "has" if len(unused) == 1 else "have"
        lines.append(
            f"without fine-tuning {', '.join(unused)} {verb} no effect"
            + ("" if too_few_photos else " (--unfreeze none)")
        )
    return lines


def verdict(trainer: Trainer, *, pretrained: bool) -> str:
    """Which weights were kept and their validation accuracy."""
    best = trainer.best
    assert best is not None
    kept = f"epoch {best.epoch}"
    if best.epoch == 0:
        kept = "the linear probe" if pretrained else "the untrained network"
    elif trainer.alpha < 1:
        kept = (
            f"{trainer.alpha:.0%} epoch {best.epoch}, {1 - trainer.alpha:.0%} linear "
            "probe (WiSE-FT)"
        )
    part = "validation" if trainer.val is not None else "cross-validated"
    line = f"kept {kept}: {part} {best.val_accuracy:.1%}"
    if trainer.tried:
        line += ", chosen by log loss"
    if best.epoch == 0 and not pretrained:
        line += "; training did not improve it: try another --rate or more --epochs"
    return line


def record(trainer: Trainer, plan: Plan) -> dict[str, Any]:
    """The entries of run.json about the training."""
    best = trainer.best
    assert best is not None
    return {
        "best": {
            "epoch": best.epoch,
            "alpha": trainer.alpha,
            "val_accuracy": best.val_accuracy,
            "wise_ft_loss": "val_loss of wise_ft: nats, each alpha at its own "
            "calibration temperature",
            "wise_ft": [vars(point) for point in trainer.tried],
        },
        "unfrozen": plan.unfreeze,
        "trained_in": plan.policy,
    }
