"""Every backbone record: it builds, sees the right pixels, finds the right weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backbones import applications, custom_cnn, network, registry, weights
from backbones.keras import keras
from edge.errors import EdgegraftError

ROOT = Path(__file__).resolve().parents[1]
RECORDS = [registry.get(name) for name in registry.names()]
PRETRAINED = [record for record in RECORDS if record.imagenet]


def ids(record: registry.Backbone) -> str:
    return record.name


@pytest.mark.parametrize("record", RECORDS, ids=ids)
def test_builds_and_answers_evenly_before_training(record: registry.Backbone) -> None:
    model = network.assemble(record, 32, 3)
    photos = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    answer = model.predict(photos, verbose=0)
    assert answer.shape == (2, 3)
    # the head starts at zero: any other answer is a head that was trained by nobody
    np.testing.assert_allclose(answer, 1 / 3, atol=1e-6)


@pytest.mark.parametrize("record", RECORDS, ids=ids)
def test_black_and_white_become_the_range_the_network_wants(
    record: registry.Backbone,
) -> None:
    scaling = network.assemble(record, 32, 2).get_layer(network.SCALING)
    got = scaling(np.array([0.0, 127.5, 255.0], np.float32)).numpy()
    np.testing.assert_allclose(got, [-1, 0, 1], atol=1e-6)


@pytest.mark.parametrize("record", PRETRAINED, ids=ids)
def test_the_part_that_top_trains_exists(record: registry.Backbone) -> None:
    layers = [layer.name for layer in record.build(32, None).layers]
    assert record.top in layers[len(layers) // 2 :]


@pytest.mark.parametrize("record", PRETRAINED, ids=ids)
def test_file_names_and_addresses_are_those_of_keras(
    record: registry.Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ask Keras itself for ImageNet weights, and see what it would download."""
    asked: list[tuple[str, str]] = []

    class Stop(Exception):
        pass

    def get_file(name: str, address: str, **_: Any) -> str:
        asked.append((name, address))
        raise Stop

    family = {"mobilenet_v1": "mobilenet"}.get(record.family, record.family)
    module = __import__(f"tf_keras.src.applications.{family}", fromlist=["x"])
    monkeypatch.setattr(module.data_utils, "get_file", get_file)
    make = {"mobilenet": module.__dict__.get("MobileNet")}.get(
        family, module.__dict__.get("MobileNetV2")
    )
    assert make is not None and record.imagenet is not None
    alpha = float(record.name.rsplit("_", 1)[1])
    for size in {record.imagenet.sizes[0], record.imagenet.sizes[-1]}:
        with pytest.raises(Stop):
            make((size, size, 3), alpha=alpha, include_top=False, weights="imagenet")
        assert asked.pop() == (
            record.imagenet.file_for(size),
            record.imagenet.address_for(size),
        )


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
        registry.get("mobilnet_v2_1.0")
    assert "did you mean mobilenet_v2_1.0?" in str(caught.value)
    assert all(name in str(caught.value) for name in registry.names())


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="registered twice"):
        registry.register([registry.get("custom_cnn")])


# -- weights ------------------------------------------------------------------

V2 = registry.get("mobilenet_v2_0.35")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Keras cache, and no way out to the network."""

    def get_file(*_: Any, **__: Any) -> str:
        raise Exception("URL fetch failure on ...: None -- Name not known")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(keras().utils, "get_file", get_file)
    return tmp_path / "keras" / "models"


def test_missing_weights_say_what_to_put_where(cache: Path) -> None:
    with pytest.raises(EdgegraftError) as caught:
        weights.find(V2, 224, "imagenet")
    line = str(caught.value)
    file = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
    assert "\n" not in line
    assert "https://storage.googleapis.com/tensorflow/keras-applications/" in line
    assert file in line and str(cache) in line and "--weights none" in line
    assert not list(cache.glob("*")), "a half-fetched file was left"


def test_downloaded_weights_are_renamed_when_whole(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_file(name: str, address: str, *, cache_dir: str, cache_subdir: str) -> str:
        path = Path(cache_dir, cache_subdir, name)
        path.write_bytes(b"weights")
        return str(path)

    monkeypatch.setattr(keras().utils, "get_file", get_file)
    found = weights.find(V2, 96, "imagenet").path
    assert found is not None and found.name.endswith("0.35_96_no_top.h5")
    assert [p.name for p in cache.iterdir()] == [found.name]


def test_a_filled_cache_is_used_without_network(cache: Path) -> None:
    cache.mkdir(parents=True)
    source = V2.build(32, None)
    assert V2.imagenet is not None
    source.save_weights(str(cache / V2.imagenet.file_for(128)))
    model = network.assemble(V2, 128, 2)
    weights.load(model.get_layer("backbone"), V2, weights.find(V2, 128, "imagenet"))
    for mine, theirs in zip(
        model.get_layer("backbone").get_weights(), source.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("name", "size", "choice", "says"),
    [
        ("mobilenet_v2_0.35", 200, "imagenet", "96, 128, 160, 192, 224"),
        ("mobilenet_v2_1.3", 160, "imagenet", "ImageNet weights for (224)"),
        ("custom_cnn", 128, "imagenet", "--weights none"),
        ("mobilenet_v2_0.35", 224, "nowhere.h5", "which does not exist"),
    ],
)
def test_weights_that_cannot_be(
    cache: Path, name: str, size: int, choice: str, says: str
) -> None:
    with pytest.raises(EdgegraftError) as caught:
        weights.find(registry.get(name), size, choice)
    assert says in str(caught.value)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    registry.get("mobilenet_v1_0.25").build(32, None).save_weights(str(path))
    text = tmp_path / "text.h5"
    text.write_text("not weights")
    for wrong in (path, text):
        model = network.assemble(V2, 32, 2)
        origin = weights.find(V2, 32, str(wrong))
        with pytest.raises(EdgegraftError, match="does not fit") as caught:
            weights.load(model.get_layer("backbone"), V2, origin)
        assert "\n" not in str(caught.value)


def test_none_is_random_and_says_so() -> None:
    origin = weights.find(V2, 224, "none")
    assert origin.path is None and origin.to_dict()["source"].startswith("random")


def test_real_weights_see_what_keras_documents(assets: Path) -> None:
    """Scaling inside the graph equals Keras's own preprocess_input, not twice it."""
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
    path = assets / "keras_home" / "models" / name
    mobilenet_v2 = keras().applications.mobilenet_v2
    peer = mobilenet_v2.MobileNetV2(
        (224, 224, 3), alpha=0.35, include_top=False, weights=str(path), pooling="avg"
    )
    model = network.assemble(V2, 224, 2)
    weights.load(model.get_layer("backbone"), V2, weights.find(V2, 224, str(path)))
    photo = np.random.default_rng(1).uniform(0, 255, (1, 224, 224, 3)).astype("float32")
    wanted = peer.predict(mobilenet_v2.preprocess_input(photo.copy()), verbose=0)
    got = network.feature_model(model).predict(photo, verbose=0)
    # two orders of the same float32 sums
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    assert wanted.std() > 0.1


# -- custom CNN -----------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"filters": [8], "head": "flatten", "dense": 16},
        {"filters": [8, 16], "pooling": "stride", "convolutions": 2},
        {"filters": [8, 16], "separable": True, "pooling": "average", "kernel": 5},
        {"filters": [8, 16], "batch_norm": False, "dropout": 0, "head": "max"},
        {"activation": "relu6"},
    ],
    ids=json.dumps,
)
def test_every_option_of_the_cnn_builds(options: dict[str, Any]) -> None:
    config = custom_cnn.from_mapping(options, "test")
    record = registry.get("custom_cnn")
    model = network.assemble(record, 32, 2, config, frozen=False)
    inner = model.get_layer(network.BACKBONE)
    kinds = [type(layer).__name__ for layer in inner.layers]
    assert model.predict(np.zeros((1, 32, 32, 3)), verbose=0).shape == (1, 2)
    assert ("BatchNormalization" in kinds) == config.batch_norm
    assert ("SeparableConv2D" in kinds) == (
        config.separable and len(config.filters) > 1
    )
    assert ("Dropout" in kinds) == (config.dropout > 0)
    convolutions = [kind for kind in kinds if kind.endswith("Conv2D")]
    assert len(convolutions) == len(config.filters) * config.convolutions


def test_toml_file_and_options_are_read_in_that_order(tmp_path: Path) -> None:
    file = tmp_path / "net.toml"
    file.write_text("[custom_cnn]\nfilters = [8, 16]\nkernel = 5\nhead = 'max'\n")
    config = custom_cnn.read_config(file, ["kernel=3", "pooling=stride", "dropout=0.5"])
    assert config.filters == (8, 16) and config.kernel == 3 and config.head == "max"
    assert config.pooling == "stride" and config.dropout == 0.5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("filtres = [8]", "expected custom_cnn options among filters"),
        ("kernel = 4", "kernel to be 1, 3, 5 or 7, got 4"),
        ("filters = []", "filters to be 1 to 8"),
        ("filters = ['a']", "whole numbers"),
        ("dropout = 1.0", "dropout to be a number from 0 to below 1"),
        ("pooling = 'both'", "max or average or stride"),
        ("filters = [8", "expected TOML"),
    ],
)
def test_bad_cnn_files_get_one_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "net.toml"
    file.write_text(text)
    with pytest.raises(EdgegraftError) as caught:
        custom_cnn.read_config(file)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_missing_cnn_file_and_too_small_a_photo(tmp_path: Path) -> None:
    with pytest.raises(EdgegraftError, match="expected a TOML file"):
        custom_cnn.read_config(tmp_path / "none.toml")
    with pytest.raises(EdgegraftError, match="size of at least 16"):
        network.assemble(registry.get("custom_cnn"), 8, 2)
    with pytest.raises(EdgegraftError, match="at least 32 for mobilenet_v2"):
        network.assemble(V2, 16, 2)


def test_accuracies_name_their_source() -> None:
    for record in applications.RECORDS:
        assert record.accuracy and record.accuracy_source and record.imagenet
