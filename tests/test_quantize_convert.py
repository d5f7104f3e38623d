"""Conversion and what verification makes of it, on a network understood by hand."""

from __future__ import annotations

import os

import numpy as np
import pytest

from edge.card import ModelCard
from edge.classifier import Classifier
from edge.errors import EdgegraftError, ModelError
from edge.preprocess import InputRecipe
from quantize import recipes
from quantize.conversion.convert import Conversion
from quantize.tflite import flatbuffer, metadata, targets
from quantize.tflite.verify import behind_input, verify
from tests.quantize_room import LABELS, SIZE, colour_network, pixels

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

pytestmark = pytest.mark.slow  # networks are trained or converted
RECIPE = InputRecipe(SIZE, SIZE)


@pytest.fixture(scope="module")
def network():
    return colour_network()


@pytest.fixture(scope="module")
def made(network):
    """Every variant of one conversion, calibrated on photos taken in the dark."""
    steps: list[tuple[int, int]] = []
    conversion = Conversion(
        network,
        calibration=pixels(16, dim=0.2),
        progress=lambda done, total: steps.append((done, total)),
    )
    base = conversion.base
    files = {name: conversion.make(name) for name in recipes.VARIANTS}
    assert conversion.base is base  # traced and converted once for all
    return files, steps


def probabilities(model: bytes, photos):
    """The bare graph run by hand: no card, no labels."""
    from edge.runtime import open_interpreter

    _, interpreter = open_interpreter(model, threads=1)
    runner = interpreter.get_signature_runner()
    entry = runner.get_output_details()["probabilities"]
    scale, zero = entry["quantization"]
    rows = [runner(image=photo[None])["probabilities"][0] for photo in photos]
    values = np.array(rows, np.float32)
    return (values - zero) * scale if scale else values


def test_float32_is_the_keras_network_behind_a_uint8_input(network, made):
    photos = pixels(20, seed=3)
    want = network.predict(photos.astype(np.float32), verbose=0)
    got = probabilities(made[0]["float32"], photos)
    # The same float operations in another order: rounding of the last digits only.
    assert np.abs(want - got).max() < 1e-5
    facts = verify(made[0]["float32"], "float32", RECIPE, LABELS)
    assert (facts.input_type, facts.input_shape) == ("UINT8", (1, SIZE, SIZE, 3))
    assert facts.output_types == {"probabilities": "FLOAT32"}
    assert targets.TFLITE_RUNTIME not in facts.refused_by


def test_int8_holds_integers_only(made):
    facts = verify(made[0]["int8"], "int8", RECIPE, LABELS)
    assert set(facts.tensor_types) <= {"UINT8", "INT8", "INT32"}
    assert facts.output_types == {"probabilities": "UINT8"}
    assert facts.size_bytes == len(made[0]["int8"])
    assert len(facts.ran_on) == 1 and "litert" in facts.ran_on[0]
    assert targets.TFLITE_RUNTIME not in facts.refused_by


def test_int8_input_is_0_to_255_though_calibrated_in_the_dark(made):
    """Ranges taken from dark photos would clip every bright one at the door."""
    facts = verify(made[0]["int8"], "int8", RECIPE, LABELS)
    assert (facts.input_scale, facts.input_zero_point) == (1.0, 0)
    tree = flatbuffer.parse(made[0]["int8"])
    graph = tree.subgraphs[0]
    first = next(
        op
        for op in graph.operators
        if flatbuffer.op_name(tree.operatorCodes[op.opcodeIndex]) == "CONV_2D"
    )
    scaled = graph.tensors[first.inputs[0]].quantization
    low, high = (scaled.scale[0] * (q - scaled.zeroPoint[0]) for q in (-128, 127))
    # Behind the scaling, -1..1; an eight-bit step is 2 / 255.
    assert low == pytest.approx(-1, abs=2 / 255)
    assert high == pytest.approx(1, abs=2 / 255)


def test_int8_decides_as_keras_does(network):
    made = Conversion(network, calibration=pixels(16)).make("int8")
    photos = pixels(40, seed=5)
    want = network.predict(photos.astype(np.float32), verbose=0)
    got = probabilities(made, photos)
    assert (got.argmax(axis=1) == want.argmax(axis=1)).all()
    # Output steps of 1/256 and activations of 8 bits: a few steps apart at most.
    assert np.abs(got - want).max() < 8 / 256


def test_calibration_progress_ends_at_all_photos(made):
    steps = made[1]
    assert steps[0] == (0, 16) and steps[-1] == (16, 16)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_conversion_prints_nothing(network, capfd):
    Conversion(network, calibration=pixels(4)).make("int8")
    out, err = capfd.readouterr()
    assert out == "" and "quantize" not in err and "WARNING" not in err


def test_an_interrupt_while_calibrating_comes_through(network):
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Conversion(network, calibration=pixels(4), progress=stop).make("int8")
    os.write(1, b"")  # standard output is still there


@pytest.mark.parametrize(
    ("photos", "message"),
    [
        (None, "needs calibration photos, got none"),
        (np.zeros((0, SIZE, SIZE, 3), np.uint8), r"got uint8 \[0, "),
        (np.zeros((2, SIZE, SIZE, 3), np.float32), "got float32"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"got uint8 \[2, 8, 8, 3\]"),
    ],
)
def test_wrong_calibration_photos(network, photos, message):
    with pytest.raises(EdgegraftError, match=message):
        Conversion(network, calibration=photos).make("int8")


def test_unknown_variant_lists_the_known(network):
    with pytest.raises(EdgegraftError, match=r"float32, .*int16x8, got 'int4'"):
        Conversion(network).make("int4")
    with pytest.raises(EdgegraftError, match="at least one variant"):
        recipes.variants(" , ")
    assert [v.name for v in recipes.variants("int8, float32,int8")] == [
        "int8",
        "float32",
    ]


# -- files that break the contract are found out ------------------------------


def edited(model: bytes, change) -> bytes:
    tree = flatbuffer.parse(model)
    change(tree, tree.subgraphs[0])
    return flatbuffer.pack(tree)


def clip_the_input(tree, graph):
    graph.tensors[graph.inputs[0]].quantization.scale = [0.25]


def shift_the_input(tree, graph):
    graph.tensors[graph.inputs[0]].quantization.zeroPoint = [3]


def drop_the_signature(tree, graph):
    tree.signatureDefs = []


def rename_the_output(tree, graph):
    tree.signatureDefs[0].outputs[0].name = "scores"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (clip_the_input, "scale 1.0 and zero point 0, got 0.25 and 0"),
        (shift_the_input, "got 1.0 and 3"),
        (drop_the_signature, "a signature that names the outputs"),
        (rename_the_output, r"named \['probabilities'\], got \['scores'\]"),
    ],
)
def test_verify_finds_a_broken_int8_file(made, change, message):
    with pytest.raises(ModelError, match=message):
        verify(edited(made[0]["int8"], change), "int8", RECIPE, LABELS)


def test_verify_finds_the_wrong_kind_of_file(made):
    files = made[0]
    with pytest.raises(ModelError, match="expected output UINT8, got FLOAT32"):
        verify(edited(files["float32"], pretend_scale), "int8", RECIPE, LABELS)
    with pytest.raises(ModelError, match=r"of shape \[1, 32, 32, 3\]"):
        verify(files["int8"], "int8", InputRecipe(32, 32), LABELS)
    with pytest.raises(ModelError, match=r"of shape \[1, 3\], got \[1, 2\]"):
        verify(files["int8"], "int8", RECIPE, ("a", "b", "c"))
    with pytest.raises(ModelError, match="TFL3"):
        verify(b"PK\x03\x04 not a model", "int8", RECIPE, LABELS)


def pretend_scale(tree, graph):
    types = flatbuffer.schema()
    numbers = types.QuantizationParametersT()
    numbers.scale, numbers.zeroPoint = [1.0], [0]
    graph.tensors[graph.inputs[0]].quantization = numbers


def test_verify_names_the_operator_that_stayed_float():
    """ELU has no integer kernel: the converter keeps it float without a word."""
    from backbones.keras import keras

    k = keras()
    image = k.Input((SIZE, SIZE, 3))
    x = k.layers.Conv2D(4, 3, activation="elu")(image)
    x = k.layers.GlobalAveragePooling2D()(x)
    model = k.Model(image, k.layers.Dense(2, activation="softmax")(x))
    made = Conversion(model, calibration=pixels(4)).make("int8")
    with pytest.raises(ModelError, match="works on FLOAT32"):
        verify(made, "int8", RECIPE, LABELS)


def test_verify_runs_the_file_and_wants_probabilities():
    made = Conversion(colour_network(softmax=False)).make("float32")
    with pytest.raises(ModelError, match="sum to 1 for a grey photo"):
        verify(made, "float32", RECIPE, LABELS)


def test_what_tflite_runtime_refuses_is_said(made):
    def newer(tree, graph):
        for code in tree.operatorCodes:
            if flatbuffer.op_name(code) == "FULLY_CONNECTED":
                code.version = 12

    facts = verify(edited(made[0]["int8"], newer), "int8", RECIPE, LABELS)
    assert facts.refused_by == {
        targets.TFLITE_RUNTIME: ("FULLY_CONNECTED version 12, it knows up to 10",)
    }
    assert facts.oldest_runtime == "2.17"
    assert targets.refused([("STABLEHLO_ADD", 1)]) == (
        "STABLEHLO_ADD is unknown to it",
    )


def test_a_written_flatbuffer_computes_what_it_computed(made):
    for name in ("float32", "float16", "dynamic", "int8", "int16x8"):
        model = made[0][name]
        again = flatbuffer.pack(flatbuffer.parse(model))
        photos = pixels(8, seed=9)
        assert (probabilities(model, photos) == probabilities(again, photos)).all()
        assert flatbuffer.pack(flatbuffer.parse(again)) == again


def test_a_converted_file_runs_through_the_classifier(made):

    card = ModelCard(LABELS, RECIPE, "int8")
    classifier = Classifier(metadata.embed(made[0]["int8"], card))
    photos = pixels(10, seed=11)
    found = [classifier.predict(photo).label for photo in photos]
    assert found == ["blue", "red"] * 5


# -- the other variants -----------------------------------------------------------


@pytest.mark.parametrize("name", list(recipes.VARIANTS))
def test_every_variant_is_what_its_name_says(network, made, name):
    record = recipes.variant(name)
    facts = verify(made[0][name], name, RECIPE, LABELS)
    assert facts.input_type == record.input_type
    assert facts.output_types == {"probabilities": record.output_type}
    assert targets.TFLITE_RUNTIME not in facts.refused_by
    card = ModelCard(LABELS, RECIPE, name)
    photos = pixels(40, seed=5)
    got = Classifier(metadata.embed(made[0][name], card)).probabilities(photos)
    want = network.predict(photos.astype(np.float32), verbose=0)
    # Floats: weights rounded to 11 bits (float16) or not at all. Integers: 8-bit
    # weights and, but for int16x8, 8-bit activations calibrated in the dark.
    off = {"float32": 1e-5, "float16": 2e-3}.get(name, 0.35)
    assert np.abs(got - want).max() < off
    assert (got.argmax(axis=1) == want.argmax(axis=1)).all()


def test_16_bit_activations_are_nearer_to_keras_than_8(network):
    conversion = Conversion(network, calibration=pixels(16))
    photos = pixels(40, seed=5)
    want = network.predict(photos.astype(np.float32), verbose=0)

    def off(name: str) -> float:
        return float(np.abs(probabilities(conversion.make(name), photos) - want).mean())

    assert off("int16x8") < off("int8") / 3


def test_the_pixels_of_int8_float_io_keep_their_steps(made):
    tree = flatbuffer.parse(made[0]["int8-float-io"])
    quantized = behind_input(tree)
    assert quantized.quantization.scale[0] == 1.0
    assert quantized.quantization.zeroPoint[0] == -128
    quantized.quantization.scale = [0.5]
    with pytest.raises(ModelError, match=r"zero point 0, got 0\.5"):
        verify(flatbuffer.pack(tree), "int8-float-io", RECIPE, LABELS)


def test_a_variant_is_not_taken_for_another(made):
    files = made[0]
    for name, other, words in (
        ("float32", "float16", "weights of CONV_2D as FLOAT16, got FLOAT32"),
        ("float16", "float32", "weights of CONV_2D as FLOAT32, got FLOAT16"),
        ("float32", "int16x8", "works on FLOAT32"),
        ("int8-float-io", "int8", "expected input UINT8, got FLOAT32"),
    ):
        with pytest.raises(ModelError, match=words):
            verify(files[name], other, RECIPE, LABELS)
