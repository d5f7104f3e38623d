"""A damaged file costs one line, never the process: random damage from a seed."""

from __future__ import annotations

import numpy as np
import pytest

from edge import tflite
from edge.card import ModelCard
from edge.classifier import Classifier
from edge.errors import EdgegraftError, ModelError
from edge.model_file import ModelFile
from edge.preprocess import InputRecipe
from quantize.cli import main
from quantize.conversion.convert import Conversion
from quantize.tflite import flatbuffer, metadata
from tests.quantize_room import LABELS, SIZE, colour_network, pixels

pytest.importorskip("tensorflow", reason="needs the extra 'train'")


@pytest.fixture(scope="module")
def files():
    conversion = Conversion(colour_network(), calibration=pixels(8))
    return {name: conversion.make(name) for name in ("float32", "int8")}


def damaged(model: bytes, seed: int) -> bytes:
    """Cut off, some bytes changed, a hole of zeros, or a number overwritten."""
    random = np.random.default_rng(seed)
    data = bytearray(model)
    at = int(random.integers(8, len(data) - 64))
    kind = seed % 4
    if kind == 0:
        return bytes(data[:at])
    if kind == 1:
        for place in random.integers(8, len(data), random.integers(1, 9)):
            data[place] = random.integers(256)
    elif kind == 2:
        data[at : at + 64] = bytes(64)
    else:
        data[at : at + 4] = random.bytes(4)
    return bytes(data)


def without_scale(model: bytes) -> bytes:
    """Whole by its structure, and it ends the interpreter: int8 pixels that have
    neither shape nor scale, as a hole of zeros in the file leaves them."""
    tree = flatbuffer.parse(model)
    graph = tree.subgraphs[0]
    add = next(o for o in graph.operators if flatbuffer.op(tree, o)[0] == "ADD")
    graph.tensors[add.outputs[0]].quantization.scale = None
    graph.tensors[add.outputs[0]].quantization.zeroPoint = None
    graph.tensors[add.outputs[0]].shape = None
    return flatbuffer.pack(tree)


@pytest.mark.parametrize("name", ("int8", "float32"))
def test_random_damage_is_told_or_harmless(files, name):
    """300 damages each; the few that look whole are tried in a child, then here."""
    whole, refused, answered = files[name], 0, 0
    pixels_ = pixels(1)
    for seed in range(300):
        broken = damaged(whole, seed)
        try:
            tflite.check(broken, "m")
        except ModelError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        if answered >= 3:  # each costs a process
            continue
        try:
            classifier = Classifier(broken, labels=LABELS, threads=1)
            if classifier.recipe.height == classifier.recipe.width == SIZE:
                assert classifier.predict(pixels_[0]).label in LABELS
            answered += 1
        except EdgegraftError as error:
            assert "\n" not in str(error)
    assert refused > 200 and answered > 0


def test_a_file_that_ends_the_interpreter_does_not_end_us(files):
    killer = without_scale(files["int8"])
    tflite.check(killer, "m")
    with pytest.raises(ModelError, match="crashes on it"):
        Classifier(killer, labels=LABELS)


@pytest.mark.parametrize("scale", [-1.0, 0.0, float("nan"), 1e-30])
def test_an_odd_scale_ends_no_process(files, scale):
    tree = flatbuffer.parse(files["int8"])
    tree.subgraphs[0].tensors[0].quantization.scale = [scale]
    try:
        Classifier(flatbuffer.pack(tree), labels=LABELS).predict(pixels(1)[0])
    except ModelError as error:
        assert "\n" not in str(error)


def test_a_constant_of_another_length_ends_no_process(files):
    tree = flatbuffer.parse(files["float32"])
    graph = tree.subgraphs[0]
    conv = next(o for o in graph.operators if flatbuffer.op(tree, o)[0] == "CONV_2D")
    graph.tensors[conv.inputs[1]].shape = [8, 3, 3, 300]
    with pytest.raises(ModelError, match="model: "):
        Classifier(flatbuffer.pack(tree), labels=LABELS)


def test_damage_to_a_file_with_a_card_is_told_by_its_digest(files):
    card = ModelCard(labels=LABELS, input=InputRecipe(SIZE, SIZE), variant="int8")
    whole = metadata.embed(files["int8"], card)
    want = Classifier(whole).predict(pixels(1)[0])
    told = 0
    for seed in range(120):
        broken = damaged(whole, seed)
        try:
            if ModelFile.read(broken).card is None:
                continue  # its end is gone: a file without a card, as above
            found = Classifier(broken, threads=1)
        except EdgegraftError as error:
            assert "\n" not in str(error)
            told += 1
        else:  # what was hit was neither network nor card: alignment, dates in the zip
            assert found.predict(pixels(1)[0]) == want
    assert told > 60


def test_check_command_survives(files, tmp_path, capsys):
    path = tmp_path / "m.tflite"
    for seed in range(60):
        path.write_bytes(damaged(files["int8"], seed))
        assert main(["check", str(path)]) in (0, 2)
        told = capsys.readouterr().err
        assert told.count("\n") <= 1 and "Traceback" not in told
