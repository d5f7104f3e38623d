"""The quantization noise of each int8 layer, and what the worst layers cost.

The noise is measured by TensorFlow's QuantizationDebugger on the calibrated graph: each
operator runs on the same inputs as a float and as an integer operator, and the
difference of the outputs is its noise. The signal to quantization noise ratio is in
decibels, ``10 log10(E[x^2] / E[(x - q)^2])``: 30 dB is a noise of 3 %, 10 dB of 32 %.
It says little about the result: a small channel among large ones may vanish without
lowering it, and later layers may ignore noise. So the shift of the probabilities with
each operator alone in int8 is measured, too.

The report of a file (layers.json, layers.png) lists every layer. For the worst few, two
files are built and scored on the validation photos: with this layer alone int8, and
with it alone float.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones.keras import tensorflow
from backbones.network import BACKBONE
from edge.classifier import PROBABILITIES
from edge.errors import EdgegraftError
from edge.evaluate import Evaluation
from edge.files import write_atomic
from edge.terminal import silenced
from edge.text import percent
from finetune.console import Console
from finetune.figures import INK, MARK, MUTED, new_figure, plain, save
from quantize.conversion.builder import Builder, Candidate
from quantize.conversion.convert import one_line
from quantize.recovery.graph import Graph, Photos, batches
from quantize.tflite import flatbuffer

NOISE_PHOTOS = 20  # enough for a precision of a few tenths of a decibel
SHIFT_PHOTOS = 8  # the graph runs once for each operator and batch
SILENT_DB = 120.0  # reported for a layer without any noise
WORST = 5  # layers whose cost in accuracy is measured, with two files each
RECORD, PICTURE = "layers.json", "layers.png"

# The operation of a layer with weights, as the converter numbers it: Conv2D, Conv2D1
_WEIGHTED = re.compile(r"(Conv2D|depthwise|MatMul)\d*$")


@dataclass(frozen=True)
class LayerNoise:
    """One operator of the calibrated graph.

    `number`: its position in the graph, from 0. `tensor`: the name of its output.
    `name`: a readable layer name. `low`, `high`: the range of its int8 output.
    `sqnr_db`: of its own noise. `answer_shift`: mean total variation distance of the
    probabilities when this operator alone is int8 (0..1); None where unknown.
    """

    number: int
    operator: str
    tensor: str
    shape: tuple[int, ...]
    low: float
    high: float
    sqnr_db: float
    answer_shift: float | None = None

    @property
    def name(self) -> str:
        """The layer with the weights, such as ``block_1_expand`` or
        ``expanded_conv/project``, of the names of all fused layers."""
        paths = [part.split("/") for part in self.tensor.split(";") if part]
        weighted = [path for path in paths if _WEIGHTED.match(path[-1])]
        words = (weighted or paths or [[self.tensor]])[0]
        inside = [word for word in words[:-1] if word != BACKBONE]
        return "/".join(inside[1:] or inside or words)


def measure_noise(
    calibrated: bytes, photos: Photos, *, count: int = NOISE_PHOTOS
) -> tuple[LayerNoise, ...]:
    """The noise of each quantized operator, in the graph's order.

    `calibrated`: a float flatbuffer with ranges; `photos`: uint8 [N, H, W, 3], of
    which the first `count` are used.
    """
    photos = photos[:count]
    ratios, shifts = _ratios(calibrated, photos), _shifts(calibrated, photos)
    tree = flatbuffer.parse(calibrated)
    graph = tree.subgraphs[0]
    layers = []
    for number, operator in enumerate(graph.operators):
        output = graph.tensors[operator.outputs[0]]
        tensor = flatbuffer.text(output.name)
        if tensor not in ratios or output.quantization is None:
            continue
        layers.append(
            LayerNoise(
                number,
                flatbuffer.op(tree, operator)[0],
                tensor,
                tuple(int(side) for side in output.shape),
                float(output.quantization.min[0]),
                float(output.quantization.max[0]),
                ratios[tensor],
                shifts.get(tensor),
            )
        )
    return tuple(layers)


def worst_layers(layers: Sequence[LayerNoise], count: int) -> tuple[LayerNoise, ...]:
    """The layers that change the probabilities most; if unknown, the noisiest."""
    ranked = sorted(layers, key=lambda it: (-(it.answer_shift or 0.0), it.sqnr_db))
    return tuple(ranked[:count])


def _shifts(calibrated: bytes, photos: Photos) -> dict[str, float]:
    try:
        graph = Graph(calibrated)
    except EdgegraftError:  # an operator that `Graph` does not have
        return {}
    return answer_shifts(graph, photos[:SHIFT_PHOTOS], PROBABILITIES)


def answer_shifts(graph: Graph, photos: Photos, output: str) -> dict[str, float]:
    """Name of an operator's output -> shift of the probabilities if it alone is int8.

    The shift is the mean total variation distance over photos, 0..1. `output`: the
    signature's name of the probabilities.
    """
    tf = tensorflow()
    probabilities = graph.outputs[output]

    @tf.function(reduce_retracing=True)
    def step(images: Any, mask: Any) -> Any:
        return graph.run(images, fake_quant=mask)[probabilities]

    masks = np.eye(len(graph.nodes), dtype=bool)
    shifts = np.zeros(len(graph.nodes))
    for batch in batches(photos):
        exact = step(batch, tf.constant(np.zeros(len(graph.nodes), bool))).numpy()
        for index, mask in enumerate(masks):
            quantized = step(batch, tf.constant(mask)).numpy()
            shifts[index] += np.abs(quantized - exact).sum() / 2
    names = [graph.names[node.output] for node in graph.nodes]
    return dict(zip(names, (shifts / len(photos)).tolist(), strict=True))


def _ratios(calibrated: bytes, photos: Photos) -> dict[str, float]:
    """Tensor name -> signal to quantization noise ratio in decibels."""
    tf = tensorflow()
    from tensorflow.lite.python.convert import mlir_quantize

    def feed() -> Iterator[list[npt.NDArray[np.float32]]]:
        for photo in photos:
            yield [photo[None].astype(np.float32)]

    lite = tf.lite.experimental
    options = lite.QuantizationDebugOptions(
        layer_direct_compare_metrics={"signal": _signal, "noise": _noise}
    )
    with silenced(), one_line("measure the layers"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = mlir_quantize(
            calibrated,
            enable_numeric_verify=True,
            disable_per_channel_for_dense_layers=True,
        )
        debugger = lite.QuantizationDebugger(
            quant_debug_model_content=bytes(model),
            debug_dataset=feed,
            debug_options=options,
        )
        debugger.run()
    float_names = _float_names(bytes(model))
    return {
        float_names[name]: decibels(float(powers["signal"]), float(powers["noise"]))
        for name, powers in debugger.layer_statistics.items()
    }


def _float_names(debug_model: bytes) -> dict[str, str]:
    """Name of each comparison in a debug model -> name of its float tensor."""
    tree = flatbuffer.parse(debug_model)
    graph = tree.subgraphs[0]
    return {
        flatbuffer.text(graph.tensors[operator.outputs[0]].name): flatbuffer.text(
            graph.tensors[operator.inputs[1]].name
        )
        for operator in graph.operators
        if flatbuffer.op(tree, operator)[0] == "NumericVerify"
    }


def decibels(signal: float, noise: float) -> float:
    """The ratio of two powers, at most `SILENT_DB`."""
    if noise <= 0 or signal <= 0:
        return SILENT_DB if noise <= 0 else 0.0
    return min(10 * math.log10(signal / noise), SILENT_DB)


def _signal(x: Any, quantized: Any, scale: float, zero_point: int) -> float:
    return float(np.mean(np.square(x, dtype=np.float64)))


def _noise(x: Any, quantized: Any, scale: float, zero_point: int) -> float:
    dequantized = (quantized.astype(np.float64) - zero_point) * scale
    return float(np.mean(np.square(x - dequantized)))


# -- the report ----------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Validation accuracy when a layer alone is int8, and when it alone is float."""

    alone_int8: float
    kept_float: float


@dataclass(frozen=True)
class LayerReport:
    """The layers of a candidate. `costs`: by the number of the layer."""

    rung: str
    layers: tuple[LayerNoise, ...]
    costs: dict[int, Cost]
    float32: float
    int8: float
    noise_photos: int
    photos: int

    def worst(self) -> tuple[LayerNoise, ...]:
        """The layers that change the probabilities most, worst first."""
        return worst_layers(self.layers, WORST)

    def to_dict(self) -> dict[str, Any]:
        """For JSON. Accuracies are fractions of the validation photos, on the file."""
        return {
            "what": "sqnr_db: signal to quantization noise ratio of the layer's own "
            "noise; answer_shift: mean total variation distance of the probabilities "
            "when it alone is int8 (0..1); cost, of the worst layers: validation "
            "accuracy when it alone is int8, and when it alone stays float",
            "rung": self.rung,
            "noise_photos": self.noise_photos,
            "validation_photos": self.photos,
            "float32_accuracy": self.float32,
            "int8_accuracy": self.int8,
            "layers": [self._row(layer) for layer in self.layers],
        }

    def _row(self, layer: LayerNoise) -> dict[str, Any]:
        cost = self.costs.get(layer.number)
        return {
            "number": layer.number,
            "operator": layer.operator,
            "name": layer.name,
            "tensor": layer.tensor,
            "shape": list(layer.shape),
            "range": [layer.low, layer.high],
            "sqnr_db": round(layer.sqnr_db, 2),
            "answer_shift": layer.answer_shift,
            "cost": cost
            and {"alone_int8": cost.alone_int8, "kept_float": cost.kept_float},
        }

    def write(self, folder: Path) -> None:
        """layers.json and layers.png into a run's folder."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"
        write_atomic(folder / RECORD, text)
        _draw(folder / PICTURE, self)


def report_layers(
    builder: Builder,
    candidate: Candidate,
    float32: Evaluation,
    int8: Evaluation,
) -> LayerReport:
    """Measure the layers of a candidate, whose own figures are `int8`."""
    assert builder.photos is not None
    console = builder.console
    layers = measure_noise(candidate.calibrated, builder.photos)
    layer_report = LayerReport(
        candidate.rung,
        layers,
        {},
        float32.accuracy,
        int8.accuracy,
        min(NOISE_PHOTOS, len(builder.photos)),
        int8.photos,
    )
    names = [layer.tensor for layer in layers]
    with console.bar("layers", unit="file") as bar:
        for done, layer in enumerate(layer_report.worst()):
            others = tuple(name for name in names if name != layer.tensor)
            alone = replace(candidate, kept_float=others)
            kept = (*candidate.kept_float, layer.tensor)
            layer_report.costs[layer.number] = Cost(
                builder.evaluate(alone).accuracy,
                builder.evaluate(replace(candidate, kept_float=kept)).accuracy,
            )
            bar(2 * done + 2, 2 * min(WORST, len(layers)))
    return layer_report


def print_worst_layers(console: Console, layers: LayerReport) -> None:
    """The worst layers, a line each."""
    console.say(
        f"  worst layers (accuracy on {layers.photos:,} validation photos: float32 "
        f"{layers.float32:.1%}, int8 {layers.int8:.1%}); shift: change of the "
        "probabilities when this layer alone is int8, in points; SQNR: signal to "
        "quantization noise ratio (higher is better); the last two: validation "
        "accuracy with this layer alone int8, alone float"
    )
    console.say("    shift  SQNR dB  only int8  only float  layer")
    for layer in layers.worst():
        cost = layers.costs.get(layer.number)
        alone = percent(cost.alone_int8 if cost else None)
        kept = percent(cost.kept_float if cost else None)
        console.say(
            f"    {100 * (layer.answer_shift or 0):5.2f}  {layer.sqnr_db:7.1f}  "
            f"{alone:>9}  {kept:>10}  {layer.operator} {layer.name}"
        )


def _draw(path: Path, layers: LayerReport) -> None:
    """layers.png: the ratio of every layer, and the accuracy with one of the worst
    changed."""
    figure = new_figure(9, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    worst = layers.worst()
    _draw_ratios(left, layers.layers, {layer.number for layer in worst})
    _draw_costs(right, layers, worst)
    plain(left, "Signal to quantization noise of each int8 layer")
    plain(right, "Accuracy with one layer changed", "x")
    save(figure, path)


def _draw_ratios(axes: Any, layers: Sequence[LayerNoise], marked: set[int]) -> None:
    shown = [layer for layer in layers if layer.sqnr_db < SILENT_DB]
    numbers = [layer.number for layer in shown]
    ratios = [layer.sqnr_db for layer in shown]
    colours = [MARK if number in marked else MUTED for number in numbers]
    axes.vlines(numbers, 0, ratios, color=colours, linewidth=1.2, alpha=0.5)
    axes.scatter(numbers, ratios, color=colours, s=16, zorder=3)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(
        "layer, from input to output\norange: the worst",
        fontsize=8,
        color=MUTED,
    )
    axes.set_ylabel("dB (higher is better)", fontsize=8, color=MUTED)


def _draw_costs(axes: Any, layers: LayerReport, worst: Sequence[LayerNoise]) -> None:
    shown = [layer for layer in worst if layer.number in layers.costs]
    rows = range(len(shown))
    alone = [100 * layers.costs[layer.number].alone_int8 for layer in shown]
    kept = [100 * layers.costs[layer.number].kept_float for layer in shown]
    axes.axvline(100 * layers.float32, color=INK, linewidth=1, label="all float")
    axes.axvline(
        100 * layers.int8, color=MARK, linewidth=1, linestyle="--", label="all int8"
    )
    axes.scatter(alone, rows, color=MARK, s=26, label="this layer alone int8", zorder=3)
    axes.scatter(
        kept,
        rows,
        facecolors="white",
        edgecolors=INK,
        s=40,
        label="this layer alone float",
        zorder=2,
    )
    names = [f"{it.number}  {'/'.join(it.name.split('/')[-2:])}" for it in shown]
    axes.set_yticks(list(rows), names)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.margins(x=0.15)
    axes.set_xlabel(
        f"accuracy on {layers.photos:,} validation photos, %", fontsize=8, color=MUTED
    )
    axes.legend(
        fontsize=7,
        frameon=False,
        labelcolor=INK,
        ncols=2,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.14),
    )
