"""TF-Hub modules: saved here, of each format, then used as any other backbone.

No network: addresses are tried against a cache folder that the test fills.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backbones import hub, network, registry, weights
from backbones.keras import keras, tensorflow
from edge.errors import EdgegraftError
from finetune.loop.step import set_trainable

pytestmark = pytest.mark.slow  # networks are trained or converted

SIZE, FEATURES = 16, 6
ADDRESS = "https://tfhub.dev/google/imagenet/tiny/feature_vector/5"


def _network(*, pooled: bool = True) -> Any:
    k = keras()
    image = k.Input((SIZE, SIZE, 3))
    x = k.layers.Conv2D(FEATURES, 3, 2, padding="same", activation="relu6")(image)
    x = k.layers.BatchNormalization()(x)
    return k.Model(image, k.layers.GlobalAveragePooling2D()(x) if pooled else x)


def save_module(folder: Path, *, fixed: bool = True, pooled: bool = True) -> Any:
    """A TF2 module with the attributes of a reusable SavedModel, as published ones."""
    tf = tensorflow()
    inner = _network(pooled=pooled)
    side = SIZE if fixed else None
    module = tf.train.Checkpoint(inner=inner)

    @tf.function
    def call(inputs: Any, training: bool = False) -> Any:
        return inner(inputs, training=training)

    for training in (True, False):
        spec = tf.TensorSpec((None, side, side, 3), tf.float32)
        call.get_concrete_function(spec, training=training)
    module.__call__ = call
    module.variables = inner.variables
    module.trainable_variables = inner.trainable_variables
    module.regularization_losses = []
    tf.saved_model.save(module, str(folder))
    return inner


def save_signature_only(folder: Path) -> Any:
    tf = tensorflow()
    inner = _network()
    holder = tf.Module()
    holder.inner = inner

    @tf.function(input_signature=[tf.TensorSpec((None, SIZE, SIZE, 3), tf.float32)])
    def serve(images: Any) -> Any:
        return {"logits": inner(images, training=False)}

    tf.saved_model.save(holder, str(folder), signatures={"serving_default": serve})
    return inner


Saved = Callable[[str], tuple[Path, Any]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The folder of a module of each kind, and the network in it; saved once."""

    @functools.cache
    def save(kind: str) -> tuple[Path, Any]:
        folder = tmp_path_factory.mktemp("module") / "module"
        if kind == "signature":
            return folder, save_signature_only(folder)
        pooled = kind != "feature map"
        return folder, save_module(folder, fixed=kind != "any size", pooled=pooled)

    return save


def photos() -> Any:
    return np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype("f4")


@pytest.mark.parametrize("kind", ["fixed", "any size", "feature map", "signature"])
def test_a_local_module_is_a_backbone(
    kind: str, saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, inner = saved(kind)
    folder = shutil.copytree(source, tmp_path / "module")  # nobody has named it yet
    for _ in range(2):
        record = registry.get(f"hub:{folder}")
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "a program and runs with your rights" in line] == [
        f"edgegraft: warning: hub:{folder}: a TF-Hub module is a program and "
        "runs with your rights; use only those whose author you trust"
    ]  # once, however often it is named
    assert record.default_size == (224 if kind == "any size" else SIZE)
    assert record.can_train == (kind != "signature")
    origin = weights.find(record, SIZE, "imagenet")
    model = network.assemble(record, SIZE, 3)
    weights.load(model.get_layer(network.BACKBONE), record, origin)
    # called, not `predict`ed: that would trace the networks, which takes longer
    got = network.feature_model(model)(photos(), training=False).numpy()
    # 0..1 by convention, once
    wanted = inner(photos() / 255, training=False).numpy()
    if kind == "feature map":
        wanted = wanted.mean(axis=(1, 2))
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    assert got.shape == (2, FEATURES) and got.std() > 0.01


def test_a_module_is_fine_tuned_saved_and_exported(
    saved: Saved, tmp_path: Path
) -> None:
    from edge.classifier import Classifier
    from quantize.conversion.convert import Conversion

    tf = tensorflow()
    record = registry.get(f"hub:{saved('fixed')[0]}")
    model = network.assemble(record, SIZE, 2)
    kernel = np.linspace(-9, 9, FEATURES * 2).reshape(FEATURES, 2).astype("f4")
    network.set_head(model, kernel, np.zeros(2, "f4"))
    trained = set_trainable(model, record, "all")
    assert trained == 3 * 9 * FEATURES + FEATURES + FEATURES * 2 + FEATURES * 2 + 2
    before = [v.numpy() for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(model(photos(), training=True)[:, 0])
    gradients = tape.gradient(loss, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        variable.assign_sub(0.1 * gradient)
    moved = [
        np.abs(old - new.numpy()).max() > 0
        for old, new in zip(before, model.trainable_variables, strict=True)
    ]
    assert all(moved)
    assert set_trainable(model, record, "none") == FEATURES * 2 + 2

    answers = model(photos(), training=False).numpy()
    again = network.assemble(record, SIZE, 2)
    again.set_weights(model.get_weights())
    # the fine-tuned weights come back, not those of the module's folder
    back = again(photos(), training=False).numpy()
    np.testing.assert_allclose(back, answers, atol=1e-6)

    pixels = photos().astype(np.uint8)
    wanted = again(pixels.astype("f4"), training=False).numpy()
    conversion = Conversion(again, calibration=pixels)
    for variant, off in (("float32", 1e-5), ("int8", 0.05)):
        file = tmp_path / f"{variant}.tflite"
        file.write_bytes(conversion.make(variant))
        answered = Classifier(file, labels=("a", "b")).probabilities(pixels)
        np.testing.assert_allclose(answered, wanted, atol=off)


def test_a_module_that_only_answers_cannot_be_fine_tuned(saved: Saved) -> None:
    record = registry.get(f"hub:{saved('signature')[0]}")
    model = network.assemble(record, SIZE, 2)
    assert set_trainable(model, record, "none") == FEATURES * 2 + 2
    with pytest.raises(EdgegraftError, match="--unfreeze none"):
        set_trainable(model, record, "all")


def test_the_cache_folder_is_that_of_tf_hub(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that lies where TF-Hub caches it is found by its address; TF-Hub, asked
    itself, looks into the very same folder."""
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    folder = hub.cached_at(ADDRESS)
    shutil.copytree(saved("fixed")[0], folder)
    assert hub.find(ADDRESS) == folder
    assert registry.get(f"hub:{ADDRESS}").default_size == SIZE
    from backbones.keras import tensorflow_hub

    assert Path(tensorflow_hub().resolve(ADDRESS)) == folder


def test_an_unknown_handle_says_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backbones.keras import tensorflow_hub

    def resolve(handle: str) -> str:
        raise OSError("<urlopen error [Errno -2] Name or service not known>")

    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tensorflow_hub(), "resolve", resolve)
    with pytest.raises(EdgegraftError) as caught:
        registry.get(f"hub:{ADDRESS}")
    line = str(caught.value)
    assert "\n" not in line and ADDRESS in line and "saved_model.pb" in line
    assert str(hub.cached_at(ADDRESS)) in line and str(tmp_path) in line


@pytest.mark.parametrize("what", ["nothing", "empty", "damaged"])
def test_a_folder_without_a_module(what: str, tmp_path: Path) -> None:
    folder = tmp_path / "module"
    if what != "nothing":
        folder.mkdir()
    if what == "damaged":
        (folder / "saved_model.pb").write_bytes(b"not a model")
    with pytest.raises(EdgegraftError) as caught:
        registry.get(f"hub:{folder}")
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_size_the_module_does_not_take_and_weights_it_has(saved: Saved) -> None:
    record = registry.get(f"hub:{saved('fixed')[0]}")
    for size in (SIZE - 8, SIZE + 8):
        with pytest.raises(EdgegraftError, match=r"--size of at (least|most) 16"):
            network.assemble(record, size, 2)
    with pytest.raises(EdgegraftError, match="has its own"):
        weights.find(record, SIZE, "none")


def test_names_for_folders() -> None:
    assert registry.short_name("mobilenet_v2_1.0") == "mobilenet_v2_1.0"
    short = registry.short_name(f"hub:{ADDRESS}")
    assert short.startswith("hub-") and "/" not in short and ":" not in short
    assert registry.full_name("hub:here").endswith(str(Path.cwd() / "here"))
