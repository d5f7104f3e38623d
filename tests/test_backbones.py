"""Every backbone record: it builds, sees the right pixels, finds the right weights."""

from __future__ import annotations

import dataclasses
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backbones import (
    custom_cnn,
    efficientnet_lite,
    keras_applications,
    network,
    registry,
    weights,
)
from backbones.keras import keras
from backbones.record import Backbone, Published
from edge.errors import EdgegraftError
from tests.backbones_room import keras_own, multiply_adds, wrong_facts

pytestmark = pytest.mark.slow  # networks are trained or converted

ROOT = Path(__file__).resolve().parents[1]
RECORDS = [registry.get(name) for name in registry.names()]


def ids(record: Backbone) -> str:
    return record.name


SIZE = 32  # the smallest that all take


# every_backbone.py (`make backbones`) checks all of them, at the default size too
ONE_OF_A_FAMILY = [
    ("mobilenet_v1_0.25", 128),
    ("mobilenet_v2_0.35", 96),
    ("mobilenet_v3_small_0.75", SIZE),
    ("efficientnet_b0", SIZE),
    ("efficientnet_v2_b0", SIZE),
]


EFFICIENTNET = "efficientnet_b0"


@functools.cache
def in_file(size: int) -> Any:
    """The network that its weights files hold, built once: it takes seconds."""
    make = registry.get(EFFICIENTNET).in_file
    assert make is not None
    return make(size)


@dataclasses.dataclass
class Twins:
    """Our network of a record and Keras's own, on the same file of weights."""

    record: Backbone
    size: int
    ours: Any
    theirs: Any
    preprocess: Any  # Keras's own, for the pixels of `theirs`
    asked: tuple[str, str]  # the file and the address that Keras would download


@pytest.fixture(scope="module", params=ONE_OF_A_FAMILY, ids=lambda pair: pair[0])
def twins(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    """Each loads the file by its own code for ImageNet weights; Keras's network has
    written it before, since building another for that takes seconds."""
    name, size = request.param
    record, home = registry.get(name), tmp_path_factory.mktemp("keras")
    assert isinstance(record.imagenet, Published)
    module, make = keras_own(record)
    file = home / "models" / record.imagenet.file_for(size)
    file.parent.mkdir()
    asked: list[tuple[str, str]] = []
    load = keras().Model.load_weights

    def get_file(name: str, address: str, **_: Any) -> str:
        asked.append((name, address))
        return str(file)

    def load_weights(model: Any, path: str) -> Any:
        layers = [x for x in model.layers if type(x).__name__ == "Normalization"]
        if layers and layers[0].weights:  # as the published files have it
            mean = keras_applications.MEAN
            second = keras_applications.DEVIATION
            layers[0].set_weights([np.array(mean), np.array(second), np.array(0)])
        model.save_weights(path)
        return load(model, path)

    if record.name == EFFICIENTNET:
        record = dataclasses.replace(record, in_file=in_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_HOME", str(home))
        patch.setattr(module.data_utils, "get_file", get_file)
        with pytest.MonkeyPatch.context() as saving:
            saving.setattr(keras().Model, "load_weights", load_weights)
            theirs = make(
                input_shape=(size, size, 3),
                include_top=False,
                weights="imagenet",
                pooling="avg",
            )
        ours = network.assemble(record, size, 2)
        patch.setattr(keras().utils, "get_file", None)  # ours finds it without network
        origin = weights.find(record, size, "imagenet")
        assert origin.path == file
        weights.load(ours.get_layer(network.BACKBONE), record, origin)
        (only,) = asked
        yield Twins(record, size, ours, theirs, module.preprocess_input, only)


def pixels(size: int) -> Any:
    photos = np.random.default_rng(1).uniform(0, 255, (2, size, size, 3))
    photos[1] /= 4  # a dark one
    return photos.astype("float32")


def test_a_record_is_true_of_its_network(twins: Twins) -> None:
    extractor = twins.ours.get_layer(network.BACKBONE)
    assert wrong_facts(twins.record, extractor) == []


def test_the_file_name_and_address_are_those_of_keras(twins: Twins) -> None:
    published = twins.record.imagenet
    assert isinstance(published, Published)
    wanted = published.file_for(twins.size), published.address_for(twins.size)
    assert twins.asked == wanted


def test_raw_pixels_mean_what_they_mean_to_keras(twins: Twins) -> None:
    """The double rescaling test: our network, fed 0..255, and Keras's own, fed the way
    its documentation says, give the same features from the same weights file."""
    photos = pixels(twins.size)
    # called, not `predict`ed: that would trace the networks, which takes longer
    wanted = twins.theirs(twins.preprocess(photos.copy()), training=False).numpy()
    extractor = network.feature_model(twins.ours)
    got = extractor(photos, training=False).numpy()
    largest = np.abs(wanted).max()
    # float32 sums in another order, relative to the largest feature
    np.testing.assert_allclose(got / largest, wanted / largest, atol=1e-4)
    # and the test can tell: scaled once more, the features are others
    scaled = twins.ours.get_layer(network.SCALING)(photos)
    twice = extractor(scaled, training=False).numpy()
    assert np.abs(twice - wanted).max() / largest > 0.05


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


def test_the_small_cnn_answers_evenly_and_counts_its_multiply_adds() -> None:
    """tests/legs/every_backbone.py counts those of all records."""
    record = registry.get("custom_cnn")
    model = network.assemble(record, record.default_size, 3)
    extractor = model.get_layer(network.BACKBONE)
    assert multiply_adds(extractor) == record.multiply_adds
    answer = model(pixels(record.default_size), training=False).numpy()
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


def test_efficientnet_weights_for_other_pixels_are_refused(tmp_path: Path) -> None:
    whole, file = in_file(SIZE), tmp_path / "mine.h5"
    record = dataclasses.replace(registry.get(EFFICIENTNET), in_file=in_file)
    (normal,) = (x for x in whole.layers if type(x).__name__ == "Normalization")
    normal.set_weights([np.zeros(3), np.ones(3), np.array(0)])  # as Keras makes it
    whole.save_weights(str(file))
    with pytest.raises(EdgegraftError, match="normalised with mean") as caught:
        weights.load(whole, record, weights.find(record, SIZE, str(file)))
    assert "\n" not in str(caught.value)


def test_importing_in_the_background_and_in_front_at_once(tmp_path: Path) -> None:
    """Nobody may see a half-imported Keras, nor TensorFlow's greeting: stand-ins that
    take a while and say something, in a process of their own."""
    for name, ends_with in (("tensorflow", "constant"), ("tf_keras", "utils")):
        (tmp_path / f"{name}.py").write_text(
            "import os, time\n"
            "os.write(2, b'greetings\\n')\n"
            "time.sleep(0.2)\n"
            f"{ends_with} = True\n"
        )
    code = (
        "import sys\n"
        "from backbones import keras as k\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "k.preload()\n"
        "while 'tensorflow' not in sys.modules: pass\n"
        "assert k.tensorflow().constant\n"
        "while 'tf_keras' not in sys.modules: pass\n"
        "assert k.keras().utils\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


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
    families = (custom_cnn, efficientnet_lite, keras_applications)
    assert len(registry.names()) == sum(len(family.RECORDS) for family in families)


def test_accuracies_name_their_source() -> None:
    for record in RECORDS:
        assert (record.accuracy is None) == (record.name == "custom_cnn")
        assert bool(record.accuracy_source) == (record.accuracy is not None)
