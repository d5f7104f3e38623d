"""A trained network with the photos of its run: features, logits, evaluations.

The features of each part are computed once; the head is then one matrix product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backbones import network
from edge.evaluate import Evaluation, score
from finetune.console import Console
from finetune.head import probe
from finetune.head.cross_fit import CrossFit
from finetune.loop.examples import Examples, Floats, Ints
from finetune.model import compute_outputs


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
