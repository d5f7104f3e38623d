"""Hints: the student also learns its teacher's features, not only its predictions.

Soft predictions of a few labels carry little more than the labels; the features differ
between photos of one label, and a pretrained teacher has learned them from a million
other pictures. So the student's features, through a linear map that is trained with it
and dropped afterwards, are matched to the teacher's (FitNets: Romero et al. 2015,
arXiv:1412.6550, here for the last features, along with the predictions):

    loss + weight * mean(1 - cosine(map(student's features), hint))

A hint is the first `MAX_COMPONENTS` whitened principal components of the teacher's
features over the training photos, normalised to length 1. The gain of a network from
scratch is measured by tests/benchmarks/distillation.py; a pretrained one gained nothing
(the same with --set teacher_hints=2), so for these it is off by default.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backbones import network
from backbones.keras import keras, tensorflow
from finetune.loop.examples import Floats

MAX_COMPONENTS = 64  # principal components; a small network can't match further ones


class HintComponents:
    """Principal components of a teacher's features, float32 [N, D] of N photos."""

    def __init__(self, features: Floats, seed: int) -> None:
        from sklearn.decomposition import PCA

        count = min(MAX_COMPONENTS, features.shape[1], len(features) - 1)
        self._pca = PCA(count, whiten=True, random_state=seed).fit(features)

    def hints(self, features: Floats) -> Floats:
        """float32 [n, D] -> float32 [n, <= MAX_COMPONENTS], each row of length 1."""
        components = self._pca.transform(features)
        length = np.linalg.norm(components, axis=1, keepdims=True)
        return np.asarray(components / np.maximum(length, 1e-12), np.float32)


class HintRegressor:
    """The linear map from the features of `model` [D] to hints [width].

    weight: of the hints' loss beside that of the predictions. `variables` are trained
    with the model's.
    """

    def __init__(self, model: Any, width: int, weight: float) -> None:
        self._weight = weight
        self.map = keras().layers.Dense(width, name="hints", dtype="float32")
        self.map.build((None, model.get_layer(network.LOGITS).input.shape[-1]))
        self.variables = self.map.trainable_variables

    def losses(self, features: Any, hints: Any) -> Any:
        """The loss of each photo: features [n, D], hints [n, width] -> float32 [n].

        Hints need not be of length 1 (mixup and CutMix mix them).
        """
        tf = tensorflow()
        mapped = tf.math.l2_normalize(self.map(tf.cast(features, tf.float32)), axis=1)
        targets = tf.math.l2_normalize(hints, axis=1)
        return self._weight * (1.0 - tf.reduce_sum(mapped * targets, axis=1))
