"""Calibrate a trained network: its temperature, folded into the last layer.

Where the probe of few photos was kept, its head is first fitted to the validation
photos as well, and the temperature comes from out-of-fold predictions
(`finetune.head.cross_fit`), as it does where all photos were fine-tuned on
(`finetune.loop.folds`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.split import Split
from finetune.head import cross_fit, probe
from finetune.head.cross_fit import CrossFit, CrossValidated
from finetune.loop.examples import Floats, class_weights
from finetune.run import Run
from finetune.trained import TrainedNetwork


def calibrate(
    run: Run,
    trained: TrainedNetwork,
    split: Split,
    near_duplicates: Sequence[tuple[Path, Path]] = (),
    out_of_fold: Floats | None = None,
) -> dict[str, Any]:
    """Fold the temperature into the network; returns the record for run.json.

    out_of_fold: logits [N, L] of train, then validation, where a fine-tuned network was
    trained on both. Pairs of `near_duplicates` share a fold of the cross-validation;
    their paths are spelled as those of `split`, which `run.split()` does not promise.
    """
    if out_of_fold is not None:
        truth = trained.learned_truth
        fitted = probe.fit_temperature(out_of_fold, truth)
        probe.fold_temperature(trained.model, fitted)
        trained.take_out_of_fold(out_of_fold / np.float32(fitted))
        what = "fine-tuned on"
        return _record(run, trained, out_of_fold, fitted, what, {})
    head = _cross_fit(run, trained, split, near_duplicates)
    if head is None:
        logits, truth = trained.logits("val"), trained.parts["val"].truth
        fitted = probe.fit_temperature(logits, truth)
        probe.fold_temperature(trained.model, fitted)
        return probe.temperature_effect(logits, truth, fitted)
    trained.take_head(head)
    what, strength = "head fitted to", {"strength": head.strength}
    return _record(run, trained, head.logits, head.temperature, what, strength)


def _record(
    run: Run,
    trained: TrainedNetwork,
    logits: Floats,
    temperature: float,
    what: str,
    more: dict[str, Any],
) -> dict[str, Any]:
    """Print and record out-of-fold logits [N, L] of train, then validation."""
    truth = trained.learned_truth
    folds = CrossValidated.from_logits(logits, truth, run.labels)
    trained.console.stage(
        f"{what} all {len(truth)} training and validation photos: {folds}"
    )
    by_label = list(folds.by_label)
    return {
        **probe.temperature_effect(logits, truth, temperature),
        "cross_fit": {**more, "right": folds.right, "by_label": by_label},
    }


def _cross_fit(
    run: Run,
    trained: TrainedNetwork,
    split: Split,
    near_duplicates: Sequence[tuple[Path, Path]],
) -> CrossFit | None:
    """The head fitted to train and val; None unless the probe of few photos was kept.

    Fine-tuned features have been trained on the photos. A teacher has no part in the
    probe, unless it labelled more photos.
    """
    config, parts = run.config, trained.parts
    is_probe = config.get("probe") is not None and config["best"]["epoch"] == 0
    few = cross_fit.applies(len(parts["train"]), len(parts["val"]))
    if not is_probe or not few or run.settings.unlabelled is not None:
        return None
    truth, weights = trained.learned_truth, None
    if run.settings.balance == "weights":
        weights = class_weights(truth, len(run.labels))[truth]
    return cross_fit.fit(
        np.concatenate([trained.features("train"), trained.features("val")]),
        truth,
        len(run.labels),
        groups=cross_fit.learned_groups(split, near_duplicates),
        weights=weights,
        seed=run.settings.seed,
    )
