"""Signal to quantization noise ratio of each layer.

Measured by TensorFlow's QuantizationDebugger on the calibrated graph: each operator
runs on the same inputs as a float and as an integer operator, and the difference of the
outputs is its noise. The ratio is in decibels, ``10 log10(E[x^2] / E[(x - q)^2])``:
30 dB is a noise of 3 %, 10 dB of 32 %. It says little about the result: a small channel
among large ones may vanish without lowering it, and later layers may ignore noise. So
the shift of the probabilities with each operator alone in int8 is measured, too.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones.keras import tensorflow
from backbones.network import BACKBONE
from edge.errors import EdgegraftError
from edge.terminal import silenced
from quantize.conversion.convert import one_line
from quantize.recovery import activations
from quantize.recovery.graph import Graph
from quantize.tflite import flatbuffer
from quantize.tflite.io_tensors import PROBABILITIES

PHOTOS = 20  # enough for a precision of a few tenths of a decibel
SHIFT_PHOTOS = 8  # the graph runs once for each operator and batch
SILENT_DB = 120.0  # reported for a layer without any noise

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


def measure(
    calibrated: bytes, photos: npt.NDArray[np.uint8], *, count: int = PHOTOS
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


def worst(layers: Sequence[LayerNoise], count: int) -> tuple[LayerNoise, ...]:
    """The layers that change the probabilities most; if unknown, the noisiest."""
    ranked = sorted(layers, key=lambda it: (-(it.answer_shift or 0.0), it.sqnr_db))
    return tuple(ranked[:count])


def _shifts(calibrated: bytes, photos: npt.NDArray[np.uint8]) -> dict[str, float]:
    try:
        graph = Graph(calibrated)
    except EdgegraftError:  # an operator that is not in `tf_operators`
        return {}
    return activations.answer_shifts(graph, photos[:SHIFT_PHOTOS], PROBABILITIES)


def _ratios(calibrated: bytes, photos: npt.NDArray[np.uint8]) -> dict[str, float]:
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
