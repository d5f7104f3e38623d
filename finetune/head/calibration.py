"""How sure a trained network may be: the temperature, folded into its last layer.

Where the probe of few photos was kept, its head is fitted again first, to the
validation photos as well, and the temperature comes from out-of-fold answers
(`finetune.head.cross_fit`).

Does not know: how the network was trained, TFLite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.split import chained
from edge.evaluate import calibration_error
from finetune.evaluate import Finished
from finetune.head import cross_fit, probe, temperature
from finetune.head.cross_validation import Crossed
from finetune.loop.examples import Floats, class_weights


def calibrated(
    finished: Finished, together: Sequence[tuple[Path, Path]] = ()
) -> dict[str, Any]:
    """Fold the temperature into the network; what run.json says of it.

    A probe with few validation photos is fitted again, to them as well
    (`finetune.head.cross_fit`); photos that are `together` share a fold.
    """
    found = _refit(finished, together)
    if found is not None:
        finished.refit(found)
        truth = _learnt(finished)
        right = int((found.logits.argmax(axis=1) == truth).sum())
        crossed = Crossed(len(truth), right)
        finished.console.stage(
            f"fitted again to all {len(truth)} photos but the test part: {crossed}"
        )
        finished.console.say(
            "  believe this figure and the test part's, not validation's: "
            f"{len(finished.parts['val'])} photos are few, and the network has now "
            "learnt from them"
        )
        return {
            **_certainty(found.logits, truth, found.temperature),
            "refit": {"strength": found.strength, "right": right},
        }
    logits, truth = finished.logits("val"), finished.parts["val"].truth
    degrees = temperature.temperature(logits, truth)
    temperature.fold(finished.model, degrees)
    told = _certainty(logits, truth, degrees)
    if told["val_loss_after"] > told["val_loss_before"]:
        finished.console.say(f"  {less_sure(told)}")
    return told


def less_sure(found: Mapping[str, Any]) -> str:
    """Why the temperature of this record makes the loss worse, which looks wrong."""
    return (
        f"{found['photos']} validation photos cannot show that more than "
        f"{found['platt_target']:.1%} are right in the long run: its answers are made "
        f"less sure, by temperature {found['temperature']:.2f} (validation loss "
        f"{found['val_loss_before']:.3f} before, {found['val_loss_after']:.3f} after)"
    )


def _learnt(finished: Finished) -> npt.NDArray[np.int64]:
    return np.concatenate([finished.parts[part].truth for part in ("train", "val")])


def _certainty(
    logits: Floats, truth: npt.NDArray[np.int64], degrees: float
) -> dict[str, Any]:
    cooled = logits / np.float32(degrees)
    return {
        "temperature": degrees,
        "photos": len(truth),
        "platt_target": temperature.platt_target(len(truth)),
        "val_loss_before": probe.log_loss(logits, truth),
        "val_loss_after": probe.log_loss(cooled, truth),
        "val_error_before": calibration_error(probe.softmax(logits), truth),
        "val_error_after": calibration_error(probe.softmax(cooled), truth),
    }


def _refit(
    finished: Finished, together: Sequence[tuple[Path, Path]]
) -> cross_fit.Refit | None:
    """The head fitted to train and val; None unless the probe of few photos was kept.

    Fine-tuned features have learnt the training photos, and a teacher's pupil more
    than their labels.
    """
    run, parts = finished.run, finished.parts
    config = run.config
    probed = config.get("probe") is not None and config["best"]["epoch"] == 0
    count, judged = len(parts["train"]), len(parts["val"])
    enough = judged >= cross_fit.FEW or count + judged > cross_fit.MOST
    if not probed or enough or config.get("distillation") is not None:
        return None
    split = run.split()
    photos = [*split.part("train"), *split.part("val")]
    digests = {row.photo.path: row.sha256 for row in split.rows}
    chains = chained(photos, digests, together)
    chain = {photo.path: k for k, unit in enumerate(chains) for photo in unit}
    truth, weights = _learnt(finished), None
    if run.settings.balance == "weights":
        weights = class_weights(truth, len(run.labels))[truth]
    return cross_fit.fit(
        np.concatenate([finished.features("train"), finished.features("val")]),
        truth,
        len(run.labels),
        groups=[chain[photo.path] for photo in photos],
        weights=weights,
        seed=run.settings.seed,
    )
