"""Cross-layer equalization: scales the channels of a tensor to similar ranges.

An int8 tensor has one scale for all channels, so channels with much smaller ranges than
others are rounded to nothing. Between two layers with only ReLU and pooling between
them, channel c may be divided by s and the weights that read it multiplied by s without
changing the float network (Nagel et al. 2019, "Data-Free Quantization",
arXiv:1906.04721). As TensorFlow Lite gives weights a scale for each output channel, the
first layer's weights do not matter here; the activation, as observed on the calibration
photos, is balanced against the weights that read it (as in Xiao et al. 2023,
"SmoothQuant", arXiv:2211.10438): ``s = sqrt(activation / weight)``. A depthwise layer
has a scale for each input channel, so there the activation is equalized fully. ReLU6
and swish are not scale-invariant. The ranges must be calibrated again afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quantize.recovery import activations
from quantize.recovery.graph import Graph
from quantize.recovery.tf_operators import Node

# Operators that work channel by channel and commute with a positive factor
_PASSING = ("AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN", "PAD", "RELU", "RESHAPE")
_WRITERS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_READERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_ROUNDS = 3  # a layer is the reader of one pair and the writer of the next
_DEAD = 1e-6  # a channel with a smaller range, relative to the largest, is unused

Factors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """Two layers with a tensor of C channels between them."""

    writer: Node
    reader: Node
    channels: int


def pairs(graph: Graph) -> tuple[Pair, ...]:
    """The pairs of layers that can be equalized."""
    return tuple(
        Pair(writer, reader, graph.shapes[writer.output][-1])
        for writer in graph.nodes
        if writer.kind in _WRITERS and (reader := _reader(graph, writer)) is not None
    )


def equalize(graph: Graph, photos: npt.NDArray[np.uint8]) -> int:
    """Equalize every pair in place, by the activations on photos; how many pairs."""
    layers = pairs(graph)
    if not layers:
        return 0
    maxima = activations.largest(graph, photos, [p.writer.output for p in layers])
    for _ in range(_ROUNDS):
        for pair in layers:
            maximum = maxima[pair.writer.output]
            factors = _factors(graph, pair, maximum)
            _apply(graph, pair, factors)
            maxima[pair.writer.output] = maximum / factors
    return len(layers)


def _reader(graph: Graph, writer: Node) -> Node | None:
    """The only layer that reads `writer`'s output, if it can be scaled."""
    if writer.fused not in ("NONE", "RELU"):
        return None
    channels = graph.shapes[writer.output][-1]
    tensor = writer.output
    while True:
        users = graph.users(tensor)
        if len(users) != 1 or tensor in graph.outputs.values():
            return None
        node = users[0]
        if node.inputs[0] != tensor:
            return None
        if node.kind in _READERS:
            return node if _reads_channels(graph, node, channels) else None
        if node.kind not in _PASSING or graph.shapes[node.output][-1] != channels:
            return None
        tensor = node.output


def _reads_channels(graph: Graph, reader: Node, channels: int) -> bool:
    weights = graph.constants.get(reader.inputs[1])
    return (
        weights is not None
        and weights.shape[-1] == channels
        and len(graph.users(reader.inputs[1])) == 1
    )


def _factors(graph: Graph, pair: Pair, maximum: Factors) -> Factors:
    """The divisor of each channel, float32 [C], about 1 on average."""
    used = maximum > _DEAD * maximum.max()
    if pair.reader.kind == "DEPTHWISE_CONV_2D":
        scales = maximum
    else:
        weights = np.abs(graph.constants[pair.reader.inputs[1]])
        largest_weight = weights.reshape(-1, pair.channels).max(axis=0)
        used &= largest_weight > 0
        scales = np.sqrt(maximum / np.where(used, largest_weight, 1.0))
    factors = np.ones(pair.channels, np.float32)
    if used.any():
        factors[used] = scales[used] / np.exp(np.log(scales[used]).mean())
        unused = (maximum > 0) & ~used  # must not widen the range of the others
        factors[unused] = maximum[unused] / (maximum[used] / factors[used]).min()
    return factors


def _apply(graph: Graph, pair: Pair, factors: Factors) -> None:
    """Divide the writer's output channels, multiply the reader's input channels."""
    constants = graph.constants
    kernel, *bias = (index for index in pair.writer.inputs[1:3] if index >= 0)
    if pair.writer.kind == "DEPTHWISE_CONV_2D":
        constants[kernel] = constants[kernel] / factors
    else:  # [O, H, W, I]
        constants[kernel] = constants[kernel] / factors[:, None, None, None]
    for index in bias:
        constants[index] = constants[index] / factors
    reader_kernel = pair.reader.inputs[1]
    constants[reader_kernel] = constants[reader_kernel] * factors
