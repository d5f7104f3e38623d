"""The float graph of a flatbuffer, run by TensorFlow: in batches, and with gradients.

The ladder inspects and trains the very graph that becomes the int8 file, with batch
norm folded and activations fused, rather than the Keras model it came from. So any
network works whose operators are in `tf_operators`, whatever layers built it, and
nothing that the converter did has to be imitated.

With `fake_quant`, weights and activations are rounded as TensorFlow Lite will round
them: activations to 256 steps of their calibrated range; weights to 255 steps, one
range an output channel (dense layers: one in all, as `convert.quantize` asks). The
gradient passes through the rounding where the value is within the range
(Jacob et al. 2018, arXiv:1712.05877).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import EdgegraftError
from quantize.recovery.tf_operators import OPERATORS, Node, fuse
from quantize.tflite import flatbuffer

Array = npt.NDArray[Any]
Values = dict[int, Any]  # place of a tensor -> its values

_TYPES = {"FLOAT32": np.float32, "INT32": np.int32, "INT64": np.int64}
# Ranges that TensorFlow Lite fixes, whatever was observed
_FIXED = {"SOFTMAX": (0.0, 255 / 256), "LOGISTIC": (0.0, 255 / 256)}
_BIASED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_SMALLEST_SPAN = 1e-6  # of a range, so that a dead channel has a scale, too


class Graph:
    """A float flatbuffer that can be run and changed.

    `constants`: place -> array; change one and `model` writes it. `ranges`: place ->
    (low, high), of a calibrated flatbuffer. EdgegraftError, naming the operator and
    its tensor, for one that `tf_operators` lacks.
    """

    def __init__(self, model: bytes) -> None:
        self._tree = flatbuffer.parse(model)
        graph = self._tree.subgraphs[0]
        _give_each_its_own(self._tree)
        self.names = [flatbuffer.text(tensor.name) for tensor in graph.tensors]
        self.shapes = [
            tuple(int(s) for s in tensor.shape if s is not None)
            if tensor.shape is not None
            else ()
            for tensor in graph.tensors
        ]
        self.image = int(graph.inputs[0])
        self.outputs = {
            flatbuffer.text(entry.name): int(entry.tensorIndex)
            for entry in self._tree.signatureDefs[0].outputs
        }
        self.constants = self._read_constants(graph)
        self.nodes = tuple(self._read_nodes(graph))
        self.ranges = {
            place: (
                float(tensor.quantization.min[0]),
                float(tensor.quantization.max[0]),
            )
            for place, tensor in enumerate(graph.tensors)
            if tensor.quantization is not None and tensor.quantization.min is not None
        }

    def _read_constants(self, graph: Any) -> dict[int, Array]:
        found: dict[int, Array] = {}
        for place, tensor in enumerate(graph.tensors):
            data = self._tree.buffers[tensor.buffer].data
            kind = _TYPES.get(flatbuffer.type_name(tensor.type))
            if data is not None and len(data) and kind is not None:
                raw = np.frombuffer(bytes(data), kind)
                found[place] = raw.reshape(self.shapes[place])
        return found

    def _read_nodes(self, graph: Any) -> list[Node]:
        nodes = []
        for number, operator in enumerate(graph.operators):
            kind = flatbuffer.op(self._tree, operator)[0]
            places = tuple(int(place) for place in operator.inputs)
            out = int(operator.outputs[0])
            node = Node(number, kind, places, out, operator.builtinOptions)
            if kind not in OPERATORS or len(operator.outputs) != 1:
                raise EdgegraftError(
                    f"no TensorFlow form of the operator {kind} "
                    f"({self.names[out]!r:.80}) in tf_operators"
                )
            nodes.append(node)
        return nodes

    def users(self, place: int) -> list[Node]:
        """The operators that read a tensor."""
        return [node for node in self.nodes if place in node.inputs]

    def producer(self, place: int) -> Node | None:
        """The operator that writes a tensor."""
        return next((node for node in self.nodes if node.output == place), None)

    def run(
        self,
        images: Any,
        *,
        changed: Mapping[int, Any] | None = None,
        fake_quant: Any = False,
    ) -> Values:
        """Every activation for images float32 [N, H, W, 3], 0..255.

        `changed`: values in place of constants. `fake_quant`: whether to round, or a
        bool tensor that says it for each operator; needs ranges.
        """
        from backbones.keras import tensorflow

        tf = tensorflow()
        values: Values = {place: tf.constant(v) for place, v in self.constants.items()}
        values |= dict(changed or {})
        values[self.image] = images
        made: Values = {self.image: images}
        for node in self.nodes:
            if isinstance(fake_quant, bool):
                out = self.one(node, values, fake_quant=fake_quant)
            else:
                out = tf.cond(
                    fake_quant[node.number],
                    lambda n=node: self.one(n, values, fake_quant=True),
                    lambda n=node: self.one(n, values),
                )
            values[node.output] = made[node.output] = out
        return made

    def before(self, node: Node, values: Values, *, fake_quant: bool = False) -> Any:
        """The output of one operator before its fused activation and rounding."""
        from backbones.keras import tensorflow

        tf = tensorflow()
        inputs = [values[place] if place >= 0 else None for place in node.inputs]
        if fake_quant and node.weighted:
            inputs[1] = _rounded_weights(tf, node.kind, inputs[1])
        return OPERATORS[node.kind](tf, node, inputs)

    def one(self, node: Node, values: Values, *, fake_quant: bool = False) -> Any:
        """The output of one operator, given the values of the tensors it reads."""
        from backbones.keras import tensorflow

        tf = tensorflow()
        out = self.before(node, values, fake_quant=fake_quant)
        if hasattr(node.options, "fusedActivationFunction"):
            out = fuse(tf, node.fused, out)
        span = _FIXED.get(node.kind) or self.ranges.get(node.output)
        return rounded(tf, out, *span) if fake_quant and span is not None else out

    def model(self) -> bytes:
        """The flatbuffer, with the constants and ranges as they are now."""
        graph = self._tree.subgraphs[0]
        for place, array in self.constants.items():
            data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
            self._tree.buffers[graph.tensors[place].buffer].data = data
        for place, (low, high) in self.ranges.items():
            numbers = graph.tensors[place].quantization
            numbers.min, numbers.max = [low], [high]
        return flatbuffer.pack(self._tree)


def _give_each_its_own(tree: Any) -> None:
    """Every layer gets weights and a bias that no other reads.

    The converter stores equal constants once, and leaves out a bias of zeros.
    """
    graph, seen = tree.subgraphs[0], set()
    for operator in graph.operators:
        if flatbuffer.op(tree, operator)[0] not in _BIASED:
            continue
        places = list(operator.inputs)
        if len(places) < 3 or places[2] < 0:
            kernel = graph.tensors[places[1]]
            first = flatbuffer.op(tree, operator)[0] != "DEPTHWISE_CONV_2D"
            channels = int(kernel.shape[0] if first else kernel.shape[-1])
            places = [*places[:2], _add_bias(tree, channels, graph.tensors[places[0]])]
        for number in (1, 2):
            if places[number] in seen:
                graph.tensors = [
                    *graph.tensors,
                    copy.copy(graph.tensors[places[number]]),
                ]
                places[number] = len(graph.tensors) - 1
            seen.add(places[number])
        operator.inputs = places
    used: set[int] = set()
    for tensor in graph.tensors:
        if tensor.buffer in used and tree.buffers[tensor.buffer].data is not None:
            tree.buffers = [*tree.buffers, copy.copy(tree.buffers[tensor.buffer])]
            tensor.buffer = len(tree.buffers) - 1
        used.add(tensor.buffer)


def _add_bias(tree: Any, channels: int, like: Any) -> int:
    """The place of a new bias of zeros, of the type of the tensor `like`."""
    types, graph = flatbuffer.schema(), tree.subgraphs[0]
    buffer, tensor = types.BufferT(), types.TensorT()
    buffer.data = np.zeros(channels * 4, np.uint8)  # float32 zeros
    tensor.name = f"{flatbuffer.text(like.name)}/bias{len(graph.tensors)}"
    tensor.shape, tensor.type, tensor.buffer = [channels], like.type, len(tree.buffers)
    tree.buffers = [*tree.buffers, buffer]
    graph.tensors = [*graph.tensors, tensor]
    return len(graph.tensors) - 1


def rounded(tf: Any, value: Any, low: float, high: float) -> Any:
    """`value` in 256 steps from `low` to `high`; zero is one of them."""
    low, high = min(low, 0.0), max(high, 0.0)
    high = max(high, low + _SMALLEST_SPAN)
    return tf.quantization.fake_quant_with_min_max_args(value, low, high)


def _rounded_weights(tf: Any, kind: str, weights: Any) -> Any:
    """Weights in 255 steps, symmetric about zero."""
    fake = tf.quantization
    if kind == "FULLY_CONNECTED":
        most = tf.maximum(tf.reduce_max(tf.abs(weights)), _SMALLEST_SPAN)
        most = tf.stop_gradient(most)
        return fake.fake_quant_with_min_max_vars(
            weights, -most, most, narrow_range=True
        )
    last = kind == "DEPTHWISE_CONV_2D"  # old_runtime the output channel comes first
    if not last:
        weights = tf.transpose(weights, (1, 2, 3, 0))
    axes = tuple(range(len(weights.shape) - 1))
    most = tf.maximum(tf.reduce_max(tf.abs(weights), axes), _SMALLEST_SPAN)
    most = tf.stop_gradient(most)
    weights = fake.fake_quant_with_min_max_vars_per_channel(
        weights, -most, most, narrow_range=True
    )
    return weights if last else tf.transpose(weights, (3, 0, 1, 2))
