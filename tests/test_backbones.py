"""Every backbone record: it builds, sees the right pixels, finds the right weights."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backbones import (
    custom_cnn,
    efficientnet,
    efficientnet_lite,
    mobilenet,
    network,
    registry,
    weights,
)
from backbones.keras import keras
from backbones.record import Backbone, Published
from edge.errors import EdgegraftError
from tests.backbones_room import (
    keras_own,
    multiply_adds,
    wrong_downloads,
    wrong_facts,
)

pytestmark = pytest.mark.slow  # networks are trained or converted

ROOT = Path(__file__).resolve().parents[1]
RECORDS = [registry.get(name) for name in registry.names()]


def ids(record: Backbone) -> str:
    return record.name


SIZE = 32  # the smallest that all take


# every_backbone.py (`make backbones`) checks all of them
ONE_OF_A_FAMILY = [
    ("mobilenet_v1_0.25", 128),
    ("mobilenet_v2_0.35", 96),
    ("mobilenet_v3_small_0.75", SIZE),
    ("mobilenet_v3_small_minimalistic", SIZE),
    ("efficientnet_b0", SIZE),
    ("efficientnet_v2_b0", SIZE),
]
OF_FAMILIES = [registry.get(name) for name, _ in ONE_OF_A_FAMILY]


@functools.cache
def built(name: str) -> Any:
    """The extractor at SIZE, once for all tests: only its structure is to be used."""
    return registry.get(name).build(SIZE, None)


@pytest.mark.parametrize("record", OF_FAMILIES, ids=ids)
def test_a_record_is_true_of_its_network(record: Backbone) -> None:
    assert wrong_facts(record, built(record.name)) == []


def test_multiply_adds_counted_by_hand() -> None:
    layers = keras().layers
    model = keras().Sequential(
        [
            layers.Conv2D(4, 3, 2, padding="same", input_shape=(8, 8, 3)),
            layers.BatchNormalization(),
            layers.SeparableConv2D(8, 3, padding="same"),
            layers.DepthwiseConv2D(3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )
    convolution, depthwise, dense = 16 * 9 * 3 * 4, 4 * 9 * 8, 8 * 2
    separable = 16 * (9 * 4 + 4 * 8)
    assert multiply_adds(model) == convolution + separable + depthwise + dense


@pytest.mark.parametrize("name", ["custom_cnn", "mobilenet_v2_0.35"])
def test_multiply_adds_of_a_record(name: str) -> None:
    """tests/legs/every_backbone.py counts those of all records."""
    record = registry.get(name)
    model = record.build(record.default_size, None)
    assert multiply_adds(model) == record.multiply_adds


@pytest.mark.parametrize("name", ["custom_cnn", "mobilenet_v3_small_minimalistic"])
def test_answers_evenly_before_training(name: str) -> None:
    model = network.assemble(registry.get(name), SIZE, 3)
    photos = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3))
    answer = model.predict(photos.astype("float32"), verbose=0)
    assert answer.shape == (2, 3)
    # the head starts at zero: any other answer is a head that was trained by nobody
    np.testing.assert_allclose(answer, 1 / 3, atol=1e-6)


@pytest.mark.parametrize("record", RECORDS, ids=ids)
def test_black_and_white_become_the_range_the_network_wants(
    record: Backbone,
) -> None:
    scaling = network.scaling(record)
    black, grey, white = (
        scaling(np.full((1, 1, 1, 3), shade, np.float32)).numpy().ravel()
        for shade in (0, 127.5, 255)
    )
    if record.family == "efficientnet_lite":
        np.testing.assert_allclose([black, white], [[-127 / 128] * 3, [1] * 3])
    elif record.family.startswith("efficientnet"):  # ImageNet's mean and deviation
        np.testing.assert_allclose(black, [-2.1179, -2.0357, -1.8044], atol=1e-4)
        np.testing.assert_allclose(white, [2.2489, 2.4286, 2.64], atol=1e-4)
    else:
        np.testing.assert_allclose([black, white], [[-1] * 3, [1] * 3], atol=1e-6)
    np.testing.assert_allclose(grey, (black + white) / 2, atol=1e-6)


@pytest.mark.parametrize("record", OF_FAMILIES, ids=ids)
def test_file_names_and_addresses_are_those_of_keras(record: Backbone) -> None:
    assert wrong_downloads(record, SIZE) == []


@pytest.mark.parametrize(("name", "size"), ONE_OF_A_FAMILY)
def test_raw_pixels_mean_what_they_mean_to_keras(
    name: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The double rescaling test: our network, fed 0..255, and Keras's own, fed the way
    its documentation says, give the same features from the same weights file, each
    loading it by its own code for ImageNet weights."""
    record = registry.get(name)
    assert isinstance(record.imagenet, Published)
    module, make = keras_own(record)
    cache = tmp_path / "models"
    cache.mkdir()
    file = cache / record.imagenet.file_for(size)
    source = make(input_shape=(size, size, 3), include_top=False, weights=None)
    normalization = [x for x in source.layers if type(x).__name__ == "Normalization"]
    if normalization and normalization[0].weights:  # as the published files have it
        mean, second = efficientnet.MEAN, efficientnet.DEVIATION
        normalization[0].set_weights([np.array(mean), np.array(second), np.array(0)])
    source.save_weights(str(file))

    shape = (size, size, 3)
    monkeypatch.setattr(module.data_utils, "get_file", lambda *_, **__: str(file))
    theirs = make(
        input_shape=shape, include_top=False, weights="imagenet", pooling="avg"
    )
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    model = network.assemble(record, size, 2)
    weights.load(
        model.get_layer(network.BACKBONE),
        record,
        weights.find(record, size, "imagenet"),
    )

    photos = np.random.default_rng(1).uniform(0, 255, (2, *shape)).astype("float32")
    photos[1] /= 4  # a dark one
    # called, not `predict`ed: that would trace the networks, which takes longer
    wanted = theirs(module.preprocess_input(photos.copy()), training=False).numpy()
    extractor = network.feature_model(model)
    got = extractor(photos, training=False).numpy()
    largest = np.abs(wanted).max()
    # float32 sums in another order, relative to the largest feature
    np.testing.assert_allclose(got / largest, wanted / largest, atol=1e-4)
    # and the test can tell: scaled once more, the features are others
    scaled = model.get_layer(network.SCALING)(photos)
    twice = extractor(scaled, training=False).numpy()
    assert np.abs(twice - wanted).max() / largest > 0.05


def test_efficientnet_weights_for_other_pixels_are_refused(tmp_path: Path) -> None:
    record = registry.get("efficientnet_b0")
    assert record.in_file is not None
    file = tmp_path / "mine.h5"
    record.in_file(SIZE).save_weights(str(file))  # normalisation: mean 0, variance 1
    with pytest.raises(EdgegraftError, match="normalised with mean") as caught:
        weights.load(
            built("efficientnet_b0"), record, weights.find(record, SIZE, str(file))
        )
    assert "\n" not in str(caught.value)


def test_importing_in_the_background_and_in_front_at_once() -> None:
    """Nobody may see a half-imported Keras: fresh processes, since it happens once."""
    code = (
        "from backbones import keras as k\n"
        "k.preload()\n"
        "assert k.keras().utils.get_file and k.tensorflow().constant(1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # TensorFlow's greeting is hidden, too


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(EdgegraftError) as caught:
        registry.get("resnet")
    assert "did you mean" not in str(caught.value)
    assert all(name in str(caught.value) for name in registry.names())


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("mobilnet_v2_1.0", "mobilenet_v2_1.0"),
        ("MobileNetV2-1.0", "mobilenet_v2_1.0"),
        ("efficientnetb0", "efficientnet_b0"),
    ],
)
def test_a_name_misspelt_is_guessed(typed: str, meant: str) -> None:
    with pytest.raises(EdgegraftError, match=rf"did you mean {re.escape(meant)}\?"):
        registry.get(typed)


def test_of_a_family_all_are_named() -> None:
    with pytest.raises(EdgegraftError) as caught:
        registry.get("mobilenetv2")
    family = [name for name in registry.names() if name.startswith("mobilenet_v2_")]
    assert f"did you mean one of {', '.join(family)}?" in str(caught.value)
    assert "mobilenet_v1" not in str(caught.value)


def test_no_name_is_taken_twice() -> None:
    families = (custom_cnn, efficientnet_lite, mobilenet, efficientnet)
    assert len(registry.names()) == sum(len(family.RECORDS) for family in families)


def test_accuracies_name_their_source() -> None:
    for record in RECORDS:
        assert (record.accuracy is None) == (record.name == "custom_cnn")
        assert bool(record.accuracy_source) == (record.accuracy is not None)
