"""Hints: the student also learns its teacher's features, not only its predictions.

Soft predictions of a few labels carry little more than the labels; the features they
come from differ between photos of one label, and a pretrained teacher has them from a
million other pictures. So the student's features, through a linear map that is trained
with it and dropped afterwards, are drawn towards the teacher's (FitNets: Romero et al.
2015, arXiv:1412.6550, here for the last features, along with the predictions):

    loss + weight * mean(1 - cosine(map(student's features), hint))

A hint is the teacher's features in their `MOST` widest directions over the training
photos, each at unit variance (PCA, whitened), at length 1. What it gains a network from
scratch is measured by tests/benchmarks/distillation.py; a pretrained one gained nothing
(the same with --set teacher_hints=2), so for these it is off by default.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backbones import network
from backbones.keras import keras, tensorflow
from finetune.loop.examples import Floats

MOST = 64  # directions; beyond them lies what a small network can't follow


class Directions:
    """The widest directions of a teacher's features, float32 [N, D] of N photos."""

    def __init__(self, features: Floats, seed: int) -> None:
        from sklearn.decomposition import PCA

        kept = min(MOST, features.shape[1], len(features) - 1)
        self._pca = PCA(kept, whiten=True, random_state=seed).fit(features)

    def hints(self, features: Floats) -> Floats:
        """float32 [n, D] -> float32 [n, at most MOST], each row of length 1."""
        along = self._pca.transform(features)
        length = np.sqrt((along**2).sum(axis=1, keepdims=True))
        return np.asarray(along / np.maximum(length, 1e-12), np.float32)


class Follower:
    """The linear map from the features of `model` [D] to hints [width].

    weight: how much following them counts beside the answers. `variables` are trained
    with the model's.
    """

    def __init__(self, model: Any, width: int, weight: float) -> None:
        self._weight = weight
        self.map = keras().layers.Dense(width, name="hints", dtype="float32")
        self.map.build((None, model.get_layer(network.LOGITS).input.shape[-1]))
        self.variables = self.map.trainable_variables

    def losses(self, features: Any, hints: Any) -> Any:
        """Of each photo: features [n, D], hints [n, width] -> float32 [n].

        Hints need not be of length 1 (mixed photos have mixed ones).
        """
        tf = tensorflow()
        mapped = tf.math.l2_normalize(self.map(tf.cast(features, tf.float32)), axis=1)
        targets = tf.math.l2_normalize(hints, axis=1)
        return self._weight * (1.0 - tf.reduce_sum(mapped * targets, axis=1))
