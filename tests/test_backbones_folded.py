"""Batch norm folded for training: the same answers and gradients, nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backbones import custom_cnn, network, registry
from backbones.keras import keras, seed_everything, tensorflow
from backbones.record import Backbone

pytestmark = pytest.mark.slow  # networks are trained or converted

SIZE, CLASSES, PHOTOS = 64, 3, 2
# Two orders of summing float32 numbers, through up to 80 layers
ROUNDING = 2e-5


def vary(model: Any) -> None:
    """Statistics, gains and a head as training leaves them, not as they start."""
    random = np.random.default_rng(0)
    for weight in model.get_layer(network.BACKBONE).weights:
        if any(part in weight.name for part in ("moving_mean", "beta", "bias")):
            weight.assign(random.normal(0, 0.1, weight.shape))
        if any(part in weight.name for part in ("moving_variance", "gamma")):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    kernel, bias = network.get_head(model)
    network.set_head(model, random.normal(0, 0.1, kernel.shape), bias)


def logits_and_gradients(model: Any, function: Any) -> tuple[Any, list[Any]]:
    tf, random = tensorflow(), np.random.default_rng(1)
    photos = random.integers(0, 255, (PHOTOS, SIZE, SIZE, 3)).astype(np.float32)
    targets = tf.one_hot([0, 2], CLASSES)

    with tf.GradientTape() as tape:  # not traced, which would take longer
        _, logits = function(tf.constant(photos), training=True)
        loss = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
    gradients = tape.gradient(loss, model.trainable_variables)
    return logits.numpy(), [gradient.numpy() for gradient in gradients]


def assert_alike(model: Any) -> None:
    vary(model)
    expected, theirs = logits_and_gradients(
        model, network.feature_and_logit_model(model)
    )
    logits, mine = logits_and_gradients(model, network.training_outputs(model))
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(logits, expected, atol=ROUNDING * np.abs(expected).max())
    for got, wanted in zip(mine, theirs, strict=True):
        assert np.abs(wanted).max() > 0
        assert np.linalg.norm(got - wanted) <= ROUNDING * np.linalg.norm(wanted)


def test_a_folded_backbone_answers_and_learns_alike() -> None:
    seed_everything(0)
    model = network.assemble(registry.get("mobilenet_v1_0.25"), SIZE, CLASSES)
    before = [weight.name for weight in model.weights]
    assert len(network.foldable_pairs(model.get_layer(network.BACKBONE))) == 27
    assert_alike(model)
    assert [weight.name for weight in model.weights] == before


def small(**options: Any) -> Any:
    """A network cut out of a longer one, with two foldable pairs.

    Beside them are three pairs that must be left alone, a gate and a dropout, which
    must not drop anything in inference mode.
    """
    layers = keras().layers

    def build(size: int, _: Any) -> Any:
        image = keras().Input((size, size, 3))
        x = begin = layers.Rescaling(1.0)(image)
        x = layers.Conv2D(4, 3, use_bias=True)(x)
        x = layers.BatchNormalization(**options)(x)
        x = layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2)(x)
        x = layers.BatchNormalization(**options)(x)
        gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
        x = layers.Multiply()([x, layers.Conv2D(8, 1, activation="sigmoid")(gate)])
        both = layers.Conv2D(4, 3, padding="same")(x)  # wanted by two
        x = layers.Add()([layers.BatchNormalization()(both), both])
        x = layers.Conv2D(4, 3, activation="relu")(x)
        x = layers.BatchNormalization()(layers.Dropout(0.5)(x))
        x = layers.BatchNormalization()(layers.Conv2D(4, 3, dilation_rate=2)(x))
        return keras().Model(begin, layers.GlobalAveragePooling2D()(x))

    return build


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}])
def test_only_a_convolution_that_nobody_else_wants_is_folded(
    options: dict[str, Any],
) -> None:
    seed_everything(0)
    record = Backbone(**{**vars(registry.get("custom_cnn")), "build": small(**options)})
    model = network.assemble(record, SIZE, CLASSES)
    assert len(network.foldable_pairs(model.get_layer(network.BACKBONE))) == 2
    assert_alike(model)


def test_learnt_statistics_are_not_folded() -> None:
    record = registry.get("custom_cnn")
    options = custom_cnn.from_mapping({}, "test")
    model = network.assemble(record, SIZE, CLASSES, options, frozen=False)
    assert not network.is_frozen(model)
    means = next(w for w in model.weights if "moving_mean" in w.name)
    before = means.numpy()
    photo = np.full((1, SIZE, SIZE, 3), 99.0, np.float32)
    network.training_outputs(model)(photo, training=True)
    assert not np.array_equal(means.numpy(), before)
