"""Networks as people bring them: every family converts; what cannot is named.

The operator and the layer that stand in the way, in one line.
"""

from __future__ import annotations

import numpy as np
import pytest

from edge.errors import EdgegraftError
from edge.preprocess import InputRecipe
from quantize import recipes
from quantize.conversion.convert import Conversion
from quantize.export import export
from quantize.tflite import targets
from quantize.tflite.verify import verify
from tests.quantize_room import (
    LABELS,
    SIZE,
    colour_network,
    pixels,
    write_photos,
    write_run,
)

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

pytestmark = pytest.mark.slow  # networks are trained or converted


def network_with(name: str, function):
    """A network with a Lambda layer called `name` in its backbone."""
    from backbones.keras import keras

    k = keras()
    image = k.Input((SIZE, SIZE, 3))
    x = k.layers.Conv2D(4, 3, activation="relu6")(image)
    inner = k.Model(image, k.layers.Lambda(function, name=name)(x), name="backbone")
    outer = k.Input((SIZE, SIZE, 3))
    x = k.layers.GlobalAveragePooling2D()(inner(outer))
    return k.Model(outer, k.layers.Dense(2, activation="softmax")(x))


def odd(x):
    import tensorflow as tf

    return tf.math.betainc(x * 0 + 1.0, x * 0 + 2.0, x / 6)


def one_line(model, variant: str) -> str:
    with pytest.raises(EdgegraftError) as caught:
        Conversion(model, calibration=pixels(4)).make(variant)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("variant", ["float32", "int8"])
def test_an_unsupported_operator_is_named_with_its_layer(variant):
    told = one_line(network_with("odd", odd), variant)
    assert "TFLite has no operator for Betainc (layer 'model" in told
    assert "/backbone/odd')" in told


def test_an_export_that_cannot_be_writes_nothing(tmp_path):
    photos = write_photos(tmp_path / "photos", per_label=8)
    run = write_run(tmp_path / "run", photos, colour_network())
    with pytest.raises(EdgegraftError, match=r"Betainc \(layer 'model.*/backbone/odd'"):
        export(run, model=network_with("odd", odd))
    assert not run.exports.exists() and not (run.folder / "calibration.csv").exists()


@pytest.mark.parametrize("variant", ["float32", "int8", "int16x8"])
def test_a_branch_inside_is_named(variant):
    def choose(x):
        import tensorflow as tf

        bright = tf.reduce_mean(x) > 0.5
        return x * tf.cond(bright, lambda: tf.ones(4), lambda: tf.zeros(4))

    told = one_line(network_with("choose", choose), variant)
    assert "without branches, loops and variables inside, got IF (" in told
    assert "/choose/cond)" in told


def test_a_variable_that_nobody_tracks_is_a_constant():
    import tensorflow as tf

    flag = tf.Variable(False, trainable=False)

    def choose(x):
        return tf.cond(flag, lambda: x * 2.0, lambda: x + 1.0)

    made = Conversion(network_with("choose", choose), calibration=pixels(4)).make(
        "int8"
    )
    verify(made, "int8", InputRecipe(SIZE, SIZE), LABELS)


@pytest.mark.parametrize("kind", ["training", "flag"])
def test_a_module_that_branches_on_a_constant_becomes_int8(kind, tmp_path):
    """As TF-Hub modules do by `training`, or by a variable that nobody sets."""
    import tensorflow as tf

    from backbones import network, registry
    from backbones.keras import keras

    k = keras()
    image = k.Input((SIZE, SIZE, 3))
    x = k.layers.Conv2D(6, 3, 2, activation="relu6")(image)
    inner = k.Model(image, k.layers.GlobalAveragePooling2D()(x))
    module = tf.train.Checkpoint(inner=inner)
    module.flag = tf.Variable(False, trainable=False)

    @tf.function
    def call(inputs, training=False):
        chosen = tf.constant(training) if kind == "training" else module.flag
        return tf.cond(chosen, lambda: inner(inputs) * 2.0, lambda: inner(inputs))

    for training in (True, False):
        spec = tf.TensorSpec((None, SIZE, SIZE, 3), tf.float32)
        call.get_concrete_function(spec, training=training)
    module.__call__ = call
    module.variables = [*inner.variables, module.flag]
    module.trainable_variables = inner.trainable_variables
    module.regularization_losses = []
    tf.saved_model.save(module, str(tmp_path / "module"))
    record = registry.get(f"hub:{tmp_path / 'module'}")
    model = network.assemble(record, SIZE, len(LABELS))
    random = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    network.set_head(model, random, np.zeros(2, np.float32))
    conversion = Conversion(model, calibration=pixels(8))
    for name in ("float32", "int8"):
        verify(conversion.make(name), name, InputRecipe(SIZE, SIZE), LABELS)


def test_an_operator_without_inputs_is_no_obstacle():
    """Noise drawn inside: float32 holds it, and int8 says what stayed float."""

    def noise(x):
        import tensorflow as tf

        return x + tf.random.uniform((1, SIZE - 2, SIZE - 2, 4))

    conversion = Conversion(network_with("noise", noise), calibration=pixels(4))
    recipe = InputRecipe(SIZE, SIZE)
    verify(conversion.make("float32"), "float32", recipe, LABELS)
    with pytest.raises(EdgegraftError, match="RANDOM_UNIFORM works on FLOAT32"):
        verify(conversion.make("int8"), "int8", recipe, LABELS)


def test_a_model_without_a_fixed_size_is_refused():
    from backbones.keras import keras

    k = keras()
    image = k.Input((None, None, 3))
    model = k.Model(image, k.layers.GlobalAveragePooling2D()(image))
    with pytest.raises(EdgegraftError, match="one image input"):
        Conversion(model).make("float32")


FAMILIES = {  # the first in every variant; `make backbones` has all in all
    "custom_cnn": tuple(recipes.VARIANTS),
    "mobilenet_v1_0.25": ("float32", "int8"),
    "mobilenet_v2_0.35": ("float32", "int8"),
}


def living_network(backbone: str, photos):
    """Random weights, and batch norms that know them.

    Without, the values fade to zero on their way through, and a layer of zeros has no
    range to quantize.
    """
    from backbones import network as networks
    from backbones import registry
    from backbones.keras import keras, seed_everything

    seed_everything(3)
    record = registry.get(backbone)
    model = networks.assemble(record, photos.shape[1], 2, frozen=False)
    for layer in model.submodules:
        if isinstance(layer, keras().layers.BatchNormalization):
            layer.momentum = 0.0
    model(photos.astype(np.float32), training=True)
    kernel, _ = networks.get_head(model)
    random = np.random.default_rng(2).normal(size=kernel.shape).astype(np.float32)
    networks.set_head(model, random, np.zeros(2, np.float32))
    return model


@pytest.mark.parametrize("backbone", FAMILIES)
def test_every_family_of_backbones_converts(backbone):
    size = 32
    photos = np.random.default_rng(1).integers(0, 256, (4, size, size, 3), np.uint8)
    model = living_network(backbone, photos)
    conversion = Conversion(model, calibration=photos)
    sizes = {}
    for name in FAMILIES[backbone]:
        made = conversion.make(name)
        facts = verify(made, name, InputRecipe(size, size), LABELS)
        assert targets.TFLITE_RUNTIME not in facts.refused_by
        sizes[name] = len(made)
    most = {"float16": 0.6, "dynamic": 0.5, "int8": 0.5}
    for name in sizes.keys() & most:
        assert sizes[name] < most[name] * sizes["float32"]
