"""A trained network with the photos of its run: features, logits, calibration.

The features of each part are computed once; the head is then one matrix product. The
temperature is folded into the last layer. Where the probe of few photos was kept, its
head is first fitted to the validation photos as well, and the temperature comes from
out-of-fold predictions (`finetune.head.cross_fit`), as it does where all photos were
fine-tuned on (`finetune.loop.folds`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backbones import network
from data.split import Split
from edge.evaluate import Evaluation, score
from finetune.console import Console
from finetune.head import cross_fit, probe
from finetune.head.cross_fit import CrossFit, CrossValidated
from finetune.loop.examples import Examples, Floats, Ints, class_weights
from finetune.model import compute_outputs
from finetune.run import Run


class TrainedNetwork:
    """`model` and its features of each part of the photos, float32 [N, D] each.

    features: those that were computed already.
    """

    def __init__(
        self,
        model: Any,
        labels: Sequence[str],
        parts: Mapping[str, Examples],
        console: Console,
        features: Mapping[str, Floats],
    ) -> None:
        self.model, self.labels, self.parts = model, tuple(labels), parts
        self.console = console
        self._features = dict(features)
        self._out_of_fold: Floats | None = None

    def features(self, part: str) -> Floats:
        """float32 [N, D], in the split's order."""
        if part not in self._features:
            examples = self.parts[part]
            with self.console.bar(f"features of {part}") as bar:
                self._features[part] = compute_outputs(
                    network.feature_model(self.model),
                    examples.array,
                    examples.rows,
                    progress=bar,
                )
        return self._features[part]

    def logits(self, part: str) -> Floats:
        """float32 [N, L]; those of validation photos come from the cross-validated
        heads where the final head was fitted to them."""
        if part == "val" and self._out_of_fold is not None:
            return self._out_of_fold
        kernel, bias = network.get_head(self.model)
        return np.asarray(self.features(part) @ kernel + bias, np.float32)

    def evaluation(self, part: str) -> Evaluation:
        """Metrics of the predictions for a part."""
        probabilities = probe.softmax(self.logits(part))
        return score(probabilities, self.parts[part].truth, self.labels)

    @property
    def learned_truth(self) -> Ints:
        """Class indices of train, then validation, int64 [N]."""
        return np.concatenate([self.parts[part].truth for part in ("train", "val")])

    def take_out_of_fold(self, logits: Floats) -> None:
        """Use calibrated out-of-fold logits [N, L] of train, then validation, for the
        validation photos, which the network was trained on."""
        self._out_of_fold = logits[len(self.parts["train"]) :]

    def take_head(self, head: CrossFit) -> None:
        """Use a head that was fitted to train and validation, with its temperature."""
        temperature = np.float32(head.temperature)
        network.set_head(self.model, head.kernel / temperature, head.bias / temperature)
        self.take_out_of_fold(head.logits / temperature)


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
        return _record(run, trained, out_of_fold, fitted, "fine-tuned on")
    head = _cross_fit(run, trained, split, near_duplicates)
    if head is None:
        logits, truth = trained.logits("val"), trained.parts["val"].truth
        fitted = probe.fit_temperature(logits, truth)
        probe.fold_temperature(trained.model, fitted)
        return probe.temperature_effect(logits, truth, fitted)
    trained.take_head(head)
    record = _record(run, trained, head.logits, head.temperature, "head fitted to")
    record["cross_fit"]["strength"] = head.strength
    return record


def _record(
    run: Run,
    trained: TrainedNetwork,
    logits: Floats,
    temperature: float,
    what: str,
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
        "cross_fit": {"right": folds.right, "by_label": by_label},
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
