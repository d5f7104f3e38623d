"""The ladder: a network that plain int8 ruins comes back, rung by rung, on the file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge.classifier import PROBABILITIES, Classifier
from edge.errors import EdgegraftError
from edge.model_file import ModelFile
from finetune.run import Run
from quantize.cli import main
from quantize.conversion.convert import Conversion, quantize
from quantize.export import export
from quantize.gate import Fidelity, Gate
from quantize.recovery import ladder, layer_noise, repairs
from quantize.recovery.graph import Graph, rounded
from quantize.tflite import flatbuffer
from tests.quantize_room import colour_network, pixels, write_photos, write_run

pytestmark = pytest.mark.slow  # networks are trained or converted

tf = pytest.importorskip("tensorflow", reason="needs the extra 'train'")


def damaged_network(most: float = 3000.0):
    """The colour network with the depthwise layer's channels scaled 1 to `most`.

    The dense layer takes the factors back, so the float network is the same; in int8
    the quiet channels have no steps left.
    """
    model = colour_network()
    depthwise, dense = model.get_layer("depthwise"), model.get_layer("logits")
    factors = np.geomspace(1.0, most, 8).astype(np.float32)[::-1]
    # the loudest is the brightness, which decides nothing
    factors = np.roll(factors, 6)
    kernel, bias = depthwise.get_weights()
    depthwise.set_weights([kernel * factors[None, None, :, None], bias * factors])
    weights, offset = dense.get_weights()
    dense.set_weights([weights / factors[:, None], offset])
    return model


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def damaged(tmp_path_factory, photos):
    return write_run(tmp_path_factory.mktemp("run") / "run", photos, damaged_network())


@pytest.fixture(scope="module")
def calibrated():
    return Conversion(colour_network(), calibration=pixels(16)).calibrated


@pytest.fixture
def run(damaged, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(damaged.folder, folder)
    return Run.open(folder)


def test_a_damaged_layer_is_brought_back(run, capsys):
    assert main([str(run.folder), "--calibration", "20"], "edgegraft quantize") == 0
    output = capsys.readouterr().out
    record = json.loads((run.exports / "exports.json").read_text())["int8"]
    plain, corrected = record["ladder"]
    assert (plain["rung"], corrected["rung"]) == ("plain", "corrected")
    assert plain["drop"] > 0.05 and not plain["reached"]
    assert plain["agreement"] < 0.99 <= corrected["agreement"] and corrected["reached"]
    assert corrected["shift"] < plain["shift"] / 2 and corrected["seconds"] > 0
    assert record["rung"] == "corrected" and not record["rejected"]
    assert record["target_reached"] and record["target_agreement"] == 0.99
    assert "trying repairs" in output and "(target 99% reached)" in output
    assert "by corrected, " in output
    card = ModelFile.read(run.exports / "int8.tflite").card
    assert card is not None and card.provenance["rung"] == "corrected"
    # the very file that was written, photo by photo
    rows = [row for row in run.split().rows if row.part == "val"]
    classifier = Classifier(run.exports / "int8.tflite")
    right = [classifier.classify(r.photo.path).label == r.photo.label for r in rows]
    assert np.mean(right) == record["validation"]["accuracy"]


def test_without_the_ladder_it_is_kept_aside(run, capsys):
    command = [str(run.folder), "--calibration", "20", "--no-ladder"]
    assert main(command, "edgegraft quantize") == 3
    assert "trying repairs" not in capsys.readouterr().out
    assert (run.exports / "int8.rejected.tflite").exists()
    record = json.loads((run.exports / "exports.json").read_text())["int8"]
    assert record["ladder"] == [] and record["rung"] == "plain"


def test_both_int8_files_take_the_rung(run):
    found = export(run, "int8,int8-float-io", calibration_count=20)
    assert [result.rung for result in found.values()] == ["corrected"] * 2
    assert all(result.validation.accuracy == 1 for result in found.values())


def test_equalizing_brings_it_back_too(run, monkeypatch):
    only = {ladder.EQUALIZED: ladder._RUNGS[ladder.EQUALIZED]}
    monkeypatch.setattr(ladder, "_RUNGS", only)
    result = export(run, "int8", calibration_count=20)["int8"]
    assert (result.rung, result.reached, result.rejected) == ("equalized", True, False)
    assert result.fidelity.shift < result.rungs[0].fidelity.shift / 2


def test_a_file_that_loses_accuracy_beyond_chance_is_equalized():
    """Layers are kept float, which is slower, only for a file that is rejected."""
    climber = object.__new__(ladder._Ladder)
    climber.gate = Gate()
    for drop_low, wanted in (
        (-0.001, {"corrected"}),
        (0.004, {"corrected", "equalized"}),
        (0.02, {"corrected", "equalized", "kept-float"}),
    ):
        climber._fidelity = Fidelity(0.983, 0.02, (), 0.03, drop_low, 1000)
        assert {name for name in ladder._RUNGS if climber.needs(name)} == wanted


def test_layers_kept_float_are_named_and_no_others_are_float(run, monkeypatch):
    monkeypatch.setattr(ladder, "_RUNGS", {ladder.KEPT: ladder._RUNGS[ladder.KEPT]})
    result = export(run, "int8", calibration_count=20)["int8"]
    assert result.rung == "kept-float" and not result.rejected
    kept = result.rungs[-1].kept_float
    card = ModelFile.read(result.path).card
    assert card is not None and card.provenance["layers_kept_float"] == list(kept)
    tree = flatbuffer.parse(result.path.read_bytes())
    graph = tree.subgraphs[0]
    floats = {
        flatbuffer.text(graph.tensors[op.outputs[0]].name)
        for op in graph.operators
        if flatbuffer.type_name(graph.tensors[op.outputs[0]].type) == "FLOAT32"
        and flatbuffer.op(tree, op)[0] != "DEQUANTIZE"
    }
    assert floats and floats <= set(kept)


def test_a_target_of_integers_gets_no_float_layer(run, monkeypatch, capsys):
    monkeypatch.setattr(ladder, "_RUNGS", {ladder.KEPT: ladder._RUNGS[ladder.KEPT]})
    command = [str(run.folder), "--calibration", "20", "--target", "edgetpu"]
    assert main(command, "edgegraft quantize") == 3
    output = capsys.readouterr().out
    assert "kept-float: skipped: edgetpu takes integer files only" in output


# -- what the rungs are made of ------------------------------------------------------


def test_the_graph_answers_as_the_file_does(calibrated):
    photos = pixels(16, seed=3)
    graph = Graph(calibrated)
    place = graph.outputs[PROBABILITIES]
    images = tf.constant(photos, tf.float32)
    want = colour_network()(images).numpy()
    # the same float operations, in another order
    assert np.abs(graph.run(images)[place].numpy() - want).max() < 1e-5
    from edge.runtime import open_interpreter

    _, interpreter = open_interpreter(quantize(calibrated), threads=1)
    runner = interpreter.get_signature_runner()
    rows = [runner(image=photo[None])[PROBABILITIES][0] for photo in photos]
    got = graph.run(images, fake_quant=True)[place].numpy()
    # Roundings agree but for ties: a step of a logit or two in the answer.
    assert np.abs(got - np.array(rows) / 256).max() < 4 / 256


def test_a_second_output_goes_through_the_graph():
    from finetune import familiarity

    random = np.random.default_rng(0)
    kernel, bias = random.random((8, 5)), random.random(5)
    found = familiarity.Familiarity(
        kernel.astype(np.float32), bias.astype(np.float32), np.zeros(4, np.float32)
    )
    model = familiarity.attach(colour_network(), found)
    graph = Graph(Conversion(model, calibration=pixels(8)).calibrated)
    images = tf.constant(pixels(4, seed=3), tf.float32)
    want, got = model(images), graph.run(images)
    for name in (PROBABILITIES, familiarity.OUTPUT):
        assert np.abs(got[graph.outputs[name]] - want[name]).max() < 1e-4
    assert repairs.correct(graph, pixels(8)) == 4
    tied = layer_noise.answer_shifts(graph, pixels(4), PROBABILITIES)
    assert max(tied.values()) < 0.1


def test_equalizing_leaves_the_float_network_as_it_was():
    model = damaged_network()
    graph = Graph(Conversion(model).base)
    images = tf.constant(pixels(8), tf.float32)
    assert repairs.equalize(graph, pixels(8)) == 1
    (pair,) = repairs.equalizable_pairs(graph)
    (spans,) = repairs.largest_activations(
        graph, pixels(8), [pair.writer.output]
    ).values()
    alive = spans[spans > 0]
    assert alive.max() / alive.min() < 40  # it was 4096 and more
    place = graph.outputs[PROBABILITIES]
    again = Graph(graph.model()).run(images)[place].numpy()
    assert np.abs(again - model(images).numpy()).max() < 1e-5


def test_a_range_twice_too_wide_is_narrowed(calibrated):
    graph = Graph(calibrated)
    place = next(n.output for n in graph.nodes if n.kind == "DEPTHWISE_CONV_2D")
    logits = repairs.logits_of(graph, PROBABILITIES)
    low, high = graph.ranges[place]
    graph.ranges[place] = (2 * low, 2 * high)
    before = graph.ranges[logits]
    assert repairs.clip_ranges(graph, pixels(16), PROBABILITIES) >= 1
    assert graph.ranges[place][1] == pytest.approx(high, rel=0.3)
    assert graph.ranges[graph.image] == (0.0, 255.0)
    assert graph.ranges[logits] == before  # a cut would even out the clearest answers


def test_a_range_is_narrowed_for_the_answer_not_for_its_own_error():
    """A few light pixels are not cut off for the sake of the many dark ones: 0..255 as
    -1..1 has 255 steps, which lie half a step from the values of most pixels."""
    random = np.random.default_rng(0)
    photos = random.integers(40, 60, pixels(16).shape).astype(np.uint8)
    photos[:, 3:5, 3:5] = random.integers(150, 255, (16, 2, 2, 3))
    graph = Graph(Conversion(colour_network(), calibration=photos).calibrated)
    add = next(node.output for node in graph.nodes if node.kind == "ADD")
    low, high = graph.ranges[add]
    exact = graph.run(tf.constant(photos, tf.float32))[add]

    def error(share: float) -> float:
        off = rounded(tf, exact, low * share, high * share) - exact
        return float(tf.reduce_mean(tf.square(off)))

    assert error(0.95) < error(1.0)
    repairs.clip_ranges(graph, photos, PROBABILITIES)
    assert graph.ranges[add] == (low, high)


def test_weights_are_fitted_to_what_the_layer_is_given(calibrated):
    """The output is nearer to the float layer's than with each weight rounded to the
    nearest step, and the converter takes the weights as they are."""
    images = pixels(16)
    uneven = Graph(calibrated)
    node = next(n for n in uneven.nodes if n.kind == "DEPTHWISE_CONV_2D")
    shape = uneven.constants[node.inputs[1]].shape
    random = np.random.default_rng(0)
    uneven.constants[node.inputs[1]] = random.normal(size=shape).astype(np.float32)
    low, high = uneven.ranges[node.inputs[0]]
    uneven.ranges[node.inputs[0]] = (low * 8, high * 8)  # what it is given is coarse
    calibrated = uneven.model()
    wanted = Graph(calibrated)
    exact = wanted.run(tf.constant(images, tf.float32))

    def error(graph: Graph) -> float:
        values = graph.run(tf.constant(images, tf.float32), fake_quant=True)
        constants = {k: tf.constant(v) for k, v in graph.constants.items()}
        got = graph.before(node, constants | values, fake_quant=True)
        off = got - wanted.before(node, {**wanted.constants, **exact})
        return float(tf.reduce_mean(tf.square(off - tf.reduce_mean(off, (0, 1, 2)))))

    graph = Graph(calibrated)
    repairs.correct(graph, images)
    assert error(graph) < 0.97 * error(Graph(calibrated))
    tree = flatbuffer.parse(quantize(graph.model()))
    kernel = graph.constants[node.inputs[1]]
    tensors = tree.subgraphs[0].tensors
    stored = next(t for t in tensors if np.array_equal(t.shape, kernel.shape))
    steps = np.frombuffer(bytes(tree.buffers[stored.buffer].data), np.int8)
    scale = np.asarray(stored.quantization.scale)
    np.testing.assert_allclose(steps.reshape(kernel.shape) * scale, kernel, atol=1e-6)


def test_a_regression_takes_back_what_rounding_did_to_the_inputs():
    random = np.random.default_rng(0)
    exact = random.normal(size=(5000, 3))
    given = exact + 0.5 * exact[:, [1, 2, 0]]  # each input leaks into another
    products, cross = (a.T @ given / 5000 for a in (given, exact))
    weights = random.normal(size=(1, 4, 3))
    fitted = repairs._regress(weights, products[None], cross[None])
    off, fitted_off = (
        np.square(given @ w[0].T - exact @ weights[0].T).mean()
        for w in (weights, fitted)
    )
    assert fitted_off < 0.7 * off
    # as given as computed: nothing to take back
    same = repairs._regress(weights, products[None], products[None])
    np.testing.assert_allclose(same, weights, atol=1e-12)
    dead = np.zeros((1, 3, 3))
    np.testing.assert_allclose(repairs._regress(weights, dead, dead), weights)


def test_correction_takes_back_the_mean(calibrated):
    """Weights that fall between two steps move the mean of a channel."""
    images = pixels(16)
    graph = Graph(calibrated)
    kernel = next(n.inputs[1] for n in graph.nodes if n.kind == "DEPTHWISE_CONV_2D")
    uneven = graph.constants[kernel].copy()
    uneven[0, 0] += 0.3 / 127  # beside a 1 in the middle: rounded away
    graph.constants[kernel] = uneven
    place = next(n.output for n in graph.nodes if n.kind == "DEPTHWISE_CONV_2D")
    wanted = graph.run(tf.constant(images, tf.float32))[place].numpy()

    def off() -> float:
        made = graph.run(tf.constant(images, tf.float32), fake_quant=True)[place]
        return float(np.abs((made.numpy() - wanted).mean(axis=(0, 1, 2))).max())

    before = off()
    assert (
        repairs.correct(graph, images) == 3
    )  # each layer has a bias, added if need be
    assert off() < before / 2
    quantize(graph.model())  # and the converter takes them


def test_an_operator_that_cannot_be_repaired_is_named(calibrated):
    tree = flatbuffer.parse(calibrated)
    code = next(c for c in tree.operatorCodes if flatbuffer.op_name(c) == "SOFTMAX")
    code.builtinCode = code.deprecatedBuiltinCode = (
        flatbuffer.schema().BuiltinOperator.LOG_SOFTMAX
    )
    with pytest.raises(EdgegraftError, match=r"LOG_SOFTMAX \('probabilities'\)"):
        Graph(flatbuffer.pack(tree))


# -- the layer report ----------------------------------------------------------------


def test_the_layer_report_names_the_damaged_layer(run, capsys):
    command = [str(run.folder), "--calibration", "20", "--no-ladder", "--layer-report"]
    assert main(command, "edgegraft quantize") == 3
    output = capsys.readouterr().out
    assert "shift  SQNR dB  only int8  only float  layer" in output
    assert "SQNR: signal to quantization noise ratio" in output
    record = json.loads((run.folder / "layers.json").read_text())
    assert record["float32_accuracy"] == 1 and record["int8_accuracy"] < 0.95
    assert record["validation_photos"] == 10 and record["noise_photos"] == 20
    by_operator = {layer["operator"]: layer for layer in record["layers"]}
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"} <= set(by_operator)
    # The dense layer, whose weights have one scale, has to take back all factors.
    dense = by_operator["FULLY_CONNECTED"]
    assert dense["cost"]["alone_int8"] < 0.95 < dense["cost"]["kept_float"] == 1
    assert by_operator["CONV_2D"]["answer_shift"] < 1e-3 < dense["answer_shift"]
    assert by_operator["CONV_2D"]["cost"]["alone_int8"] == 1
    assert min(record["layers"], key=lambda layer: layer["sqnr_db"]) is dense
    with Image.open(run.folder / "layers.png") as picture:
        assert picture.format == "PNG" and picture.width > 800


@pytest.mark.parametrize(
    ("tensor", "name"),
    [
        ("model_1/scaling/mul", "scaling"),
        ("m/backbone/re_lu_3/Relu;m/backbone/conv_1/expand/BatchNorm/FusedBatchNormV3;"
         "m/backbone/conv_1/expand/Conv2D1", "conv_1/expand"),
        ("m/backbone/re_lu/Relu;m/backbone/c/depthwise/depthwise;;m/backbone/c/pad/Pad",
         "c/depthwise"),
        ("model/logits/MatMul;model/logits/BiasAdd", "logits"),
        ("probabilities", "probabilities"),
    ],
)  # fmt: skip
def test_a_layer_is_called_by_the_layer_with_the_weights(tensor, name):
    layer = layer_noise.LayerNoise(0, "CONV_2D", tensor, (1,), 0.0, 1.0, 30.0)
    assert layer.name == name


def test_decibels():
    assert layer_noise.decibels(1.0, 0.001) == pytest.approx(30)
    assert layer_noise.decibels(1.0, 0.0) == layer_noise.SILENT_DB


def test_a_layer_report_needs_an_int8_file(damaged, tmp_path: Path, capsys):
    command = [str(damaged.folder), "--variants", "float32", "--layer-report"]
    assert main(command, "edgegraft quantize") == 2
    assert "expected int8 among --variants" in capsys.readouterr().err
