"""Cross-layer equalization: channels of one tensor scaled to similar ranges.

An int8 tensor has one scale for all channels. Where one channel spans a thousand and
another one, the second is rounded to nothing. Between two layers with nothing but
ReLU and pooling between, channel c may be divided by s and the weights that read it
multiplied by s: the float network stays the same (Nagel et al. 2019, "Data-Free
Quantization", arXiv:1906.04721). As TensorFlow Lite gives weights a scale for each
output channel, the writing layer's weights do not matter here; what is balanced is the
activation, as observed on the calibration photos, against the weights that read it (as
in Xiao et al. 2023, "SmoothQuant", arXiv:2211.10438): ``s = sqrt(activation /
weight)``. A depthwise layer reads each channel with a scale of its own, so there the
activation is levelled fully. ReLU6 and swish do not let a factor through. The ranges
have to be observed again afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quantize.recovery import activations
from quantize.recovery.graph import Graph
from quantize.recovery.tf_operators import Node

# An activation is one of these channel by channel, and keeps a positive factor
_PASSING = ("AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN", "PAD", "RELU", "RESHAPE")
_WRITERS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_READERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_ROUNDS = 3  # a layer is the reader of one pair and the writer of the next
# A channel that the calibration photos left this much below the largest is dead
_DEAD = 1e-6

Factors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """Two layers and the tensor between them, [..., C] as `reader` gets it."""

    writer: Node
    reader: Node
    channels: int


def pairs(graph: Graph) -> tuple[Pair, ...]:
    """The pairs of layers that can be equalized."""
    pairs_found = []
    for writer in graph.nodes:
        reader = _reader(graph, writer) if writer.kind in _WRITERS else None
        if reader is not None:
            pairs_found.append(Pair(writer, reader, graph.shapes[writer.output][-1]))
    return tuple(pairs_found)


def equalize(graph: Graph, photos: npt.NDArray[np.uint8]) -> int:
    """Balance every pair in place, by the activations on photos; how many pairs."""
    found = pairs(graph)
    if not found:
        return 0
    spans = activations.largest(graph, photos, [p.writer.output for p in found])
    for _ in range(_ROUNDS):
        for pair in found:
            span = spans[pair.writer.output]
            factors = _factors(graph, pair, span)
            _apply(graph, pair, factors)
            spans[pair.writer.output] = span / factors
    return len(found)


def _reader(graph: Graph, writer: Node) -> Node | None:
    """The only layer that reads `writer`'s output, if a factor gets through to it."""
    if writer.fused not in ("NONE", "RELU"):
        return None
    channels = graph.shapes[writer.output][-1]
    place = writer.output
    while True:
        users = graph.users(place)
        if len(users) != 1 or place in graph.outputs.values():
            return None
        node = users[0]
        if node.inputs[0] != place:
            return None
        if node.kind in _READERS:
            return node if _reads_channels(graph, node, channels) else None
        if node.kind not in _PASSING or graph.shapes[node.output][-1] != channels:
            return None
        place = node.output


def _reads_channels(graph: Graph, reader: Node, channels: int) -> bool:
    weights = graph.constants.get(reader.inputs[1])
    return (
        weights is not None
        and weights.shape[-1] == channels
        and len(graph.users(reader.inputs[1])) == 1
    )


def _factors(graph: Graph, pair: Pair, span: Factors) -> Factors:
    """What each channel is divided by, float32 [C], about 1 on average."""
    alive = span > _DEAD * span.max()
    if pair.reader.kind == "DEPTHWISE_CONV_2D":
        wanted = span
    else:
        weights = np.abs(graph.constants[pair.reader.inputs[1]])
        reading = weights.reshape(-1, pair.channels).max(axis=0)
        alive &= reading > 0
        wanted = np.sqrt(span / np.where(alive, reading, 1.0))
    factors = np.ones(pair.channels, np.float32)
    if alive.any():
        middle = np.exp(np.log(wanted[alive]).mean())
        factors[alive] = wanted[alive] / middle
        unread = (span > 0) & ~alive  # must not stretch the range for the others
        factors[unread] = span[unread] / (span[alive] / factors[alive]).min()
    return factors


def _apply(graph: Graph, pair: Pair, factors: Factors) -> None:
    """Divide the writer's output channels, multiply the reader's input channels."""
    kernel, *bias = (place for place in pair.writer.inputs[1:3] if place >= 0)
    weights = graph.constants[kernel]
    if pair.writer.kind == "DEPTHWISE_CONV_2D":
        graph.constants[kernel] = weights / factors
    else:  # [O, H, W, I]
        graph.constants[kernel] = weights / factors[:, None, None, None]
    for place in bias:
        graph.constants[place] = graph.constants[place] / factors
    reading = pair.reader.inputs[1]
    graph.constants[reading] = graph.constants[reading] * factors
