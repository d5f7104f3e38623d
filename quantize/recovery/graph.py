"""The float graph of a flatbuffer, run by TensorFlow: in batches, and with gradients.

The ladder works on the graph that becomes the int8 file, with batch norm folded and
activations fused, rather than on the Keras model. So it supports any network whose
operators are in `OPERATORS`, and need not imitate the converter.

With `fake_quant`, weights and activations are rounded as in TensorFlow Lite:
activations to 256 steps of their calibrated range; weights to 255 steps, with a range
for each output channel (dense layers: for all, as in `convert.quantize`). The gradient
passes through the rounding within the range (Jacob et al. 2018, arXiv:1712.05877).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones.keras import tensorflow
from edge.errors import EdgegraftError
from quantize.tflite import flatbuffer

Array = npt.NDArray[Any]
Photos = npt.NDArray[np.uint8]
Values = dict[int, Any]  # index of a tensor -> its values

# The layers with weights among `OPERATORS`
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
BATCH = 8  # photos; all activations of a batch are in memory at once
_TYPES = {"FLOAT32": np.float32, "INT32": np.int32, "INT64": np.int64}
_FUSED = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6")
# Ranges that TensorFlow Lite fixes
_FIXED = {"SOFTMAX": (0.0, 255 / 256), "LOGISTIC": (0.0, 255 / 256)}
_SMALLEST_SPAN = 1e-6  # of a range, so that an unused channel has a scale, too


def batches(photos: Photos) -> Iterator[Any]:
    """Photos uint8 [N, H, W, 3] for `Graph.run`: float32 [n, H, W, 3] each."""
    for start in range(0, len(photos), BATCH):
        yield tensorflow().constant(photos[start : start + BATCH], "float32")


@dataclass(frozen=True)
class Node:
    """An operator: position in the graph, kind, indices of its tensors, options."""

    position: int
    kind: str
    inputs: tuple[int, ...]
    output: int
    options: Any

    @property
    def weighted(self) -> bool:
        return self.kind in WEIGHTED

    @property
    def fused(self) -> str:
        """The fused activation: NONE, RELU, RELU6 ..."""
        value = getattr(self.options, "fusedActivationFunction", 0) or 0
        return _FUSED[value] if value < len(_FUSED) else f"activation {value}"


class Graph:
    """A float flatbuffer that can be run and changed.

    Tensors are known by their index. `constants`: index -> array; `model` writes
    changed ones. `ranges`: index -> (low, high), of a calibrated flatbuffer.
    EdgegraftError, naming the operator and its tensor, for one that is not in
    `OPERATORS`.
    """

    def __init__(self, model: bytes) -> None:
        self._tree = flatbuffer.parse(model)
        graph = self._tree.subgraphs[0]
        _unshare_constants(self._tree)
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
            index: (
                float(tensor.quantization.min[0]),
                float(tensor.quantization.max[0]),
            )
            for index, tensor in enumerate(graph.tensors)
            if tensor.quantization is not None and tensor.quantization.min is not None
        }

    def _read_constants(self, graph: Any) -> dict[int, Array]:
        constants: dict[int, Array] = {}
        for index, tensor in enumerate(graph.tensors):
            data = self._tree.buffers[tensor.buffer].data
            dtype = _TYPES.get(flatbuffer.type_name(tensor.type))
            if data is not None and len(data) and dtype is not None:
                array = np.frombuffer(bytes(data), dtype)
                constants[index] = array.reshape(self.shapes[index])
        return constants

    def _read_nodes(self, graph: Any) -> list[Node]:
        nodes = []
        for position, operator in enumerate(graph.operators):
            kind = flatbuffer.op(self._tree, operator)[0]
            inputs = tuple(map(int, operator.inputs))
            output = int(operator.outputs[0])
            if kind not in OPERATORS or len(operator.outputs) != 1:
                raise EdgegraftError(
                    f"no TensorFlow form of the operator {kind} "
                    f"({self.names[output]!r:.80})"
                )
            nodes.append(Node(position, kind, inputs, output, operator.builtinOptions))
        return nodes

    def users(self, tensor: int) -> list[Node]:
        """The operators that read a tensor."""
        return [node for node in self.nodes if tensor in node.inputs]

    def producer(self, tensor: int) -> Node | None:
        """The operator that writes a tensor."""
        return next((node for node in self.nodes if node.output == tensor), None)

    def upstream(self, tensor: int) -> tuple[Node, ...]:
        """The operators that a tensor depends on, in order; its own comes last."""
        needed, found = {tensor}, []
        for node in reversed(self.nodes):
            if node.output in needed:
                needed.update(node.inputs)
                found.append(node)
        return tuple(reversed(found))

    def run(self, images: Any, *, fake_quant: Any = False) -> Values:
        """Every activation for images float32 [N, H, W, 3], 0..255.

        `fake_quant`: whether to round, for all operators or, as a bool tensor, for
        each; needs ranges.
        """
        tf = tensorflow()
        values: Values = {t: tf.constant(array) for t, array in self.constants.items()}
        values[self.image] = images
        activations: Values = {self.image: images}
        for node in self.nodes:
            if isinstance(fake_quant, bool):
                output = self.apply(node, values, fake_quant=fake_quant)
            else:
                output = tf.cond(
                    fake_quant[node.position],
                    lambda n=node: self.apply(n, values, fake_quant=True),
                    lambda n=node: self.apply(n, values),
                )
            values[node.output] = activations[node.output] = output
        return activations

    def before(self, node: Node, values: Values, *, fake_quant: bool = False) -> Any:
        """The output of one operator before its fused activation and rounding."""
        tf = tensorflow()
        inputs = [values[index] if index >= 0 else None for index in node.inputs]
        if fake_quant and node.weighted:
            inputs[1] = _rounded_weights(tf, node.kind, inputs[1])
        return OPERATORS[node.kind](tf, node, inputs)

    def apply(self, node: Node, values: Values, *, fake_quant: bool = False) -> Any:
        """The output of one operator, given the values of its inputs."""
        tf = tensorflow()
        output = self.before(node, values, fake_quant=fake_quant)
        if hasattr(node.options, "fusedActivationFunction"):
            output = _fuse(tf, node.fused, output)
        span = _FIXED.get(node.kind) or self.ranges.get(node.output)
        return rounded(tf, output, *span) if fake_quant and span is not None else output

    def model(self) -> bytes:
        """The flatbuffer with the current constants and ranges."""
        tensors = self._tree.subgraphs[0].tensors
        for index, array in self.constants.items():
            data = np.frombuffer(array.tobytes(), np.uint8)
            self._tree.buffers[tensors[index].buffer].data = data
        for index, (low, high) in self.ranges.items():
            quantization = tensors[index].quantization
            quantization.min, quantization.max = [low], [high]
        return flatbuffer.pack(self._tree)


def _unshare_constants(tree: Any) -> None:
    """Give every layer weights and a bias that no other layer reads.

    The converter stores equal constants once, and omits a bias of zeros.
    """
    graph = tree.subgraphs[0]
    used_tensors: set[int] = set()
    for operator in graph.operators:
        kind = flatbuffer.op(tree, operator)[0]
        if kind not in WEIGHTED:
            continue
        inputs = list(operator.inputs)
        if len(inputs) < 3 or inputs[2] < 0:
            shape = graph.tensors[inputs[1]].shape
            channels = int(shape[-1] if kind == "DEPTHWISE_CONV_2D" else shape[0])
            inputs = [*inputs[:2], _add_bias(tree, channels, graph.tensors[inputs[0]])]
        for slot in (1, 2):
            if inputs[slot] in used_tensors:
                duplicate = copy.copy(graph.tensors[inputs[slot]])
                graph.tensors = [*graph.tensors, duplicate]
                inputs[slot] = len(graph.tensors) - 1
            used_tensors.add(inputs[slot])
        operator.inputs = inputs
    used_buffers: set[int] = set()
    for tensor in graph.tensors:
        buffer = tree.buffers[tensor.buffer]
        if tensor.buffer in used_buffers and buffer.data is not None:
            tree.buffers = [*tree.buffers, copy.copy(buffer)]
            tensor.buffer = len(tree.buffers) - 1
        used_buffers.add(tensor.buffer)


def _add_bias(tree: Any, channels: int, like: Any) -> int:
    """The index of a new bias of zeros, of the type of the tensor `like`."""
    types, graph = flatbuffer.schema(), tree.subgraphs[0]
    buffer, tensor = types.BufferT(), types.TensorT()
    buffer.data = np.zeros(channels * 4, np.uint8)  # float32 zeros
    tensor.name = f"{flatbuffer.text(like.name)}/bias{len(graph.tensors)}"
    tensor.shape, tensor.type, tensor.buffer = [channels], like.type, len(tree.buffers)
    tree.buffers = [*tree.buffers, buffer]
    graph.tensors = [*graph.tensors, tensor]
    return len(graph.tensors) - 1


def rounded(tf: Any, value: Any, low: float, high: float) -> Any:
    """`value` rounded to 256 steps from `low` to `high`, one of which is zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    high = max(high, low + _SMALLEST_SPAN)
    return tf.quantization.fake_quant_with_min_max_args(value, low, high)


def _rounded_weights(tf: Any, kind: str, weights: Any) -> Any:
    """Weights rounded to 255 steps, symmetric about zero."""
    dense, depthwise = kind == "FULLY_CONNECTED", kind == "DEPTHWISE_CONV_2D"
    if not dense and not depthwise:  # output channels last
        weights = tf.transpose(weights, (1, 2, 3, 0))
    axes = None if dense else tuple(range(len(weights.shape) - 1))
    limit = tf.maximum(tf.reduce_max(tf.abs(weights), axes), _SMALLEST_SPAN)
    limit = tf.stop_gradient(limit)
    fake_quant = (
        tf.quantization.fake_quant_with_min_max_vars
        if dense
        else tf.quantization.fake_quant_with_min_max_vars_per_channel
    )
    weights = fake_quant(weights, -limit, limit, narrow_range=True)
    return weights if dense or depthwise else tf.transpose(weights, (3, 0, 1, 2))


# -- TensorFlow Lite's float operators as TensorFlow functions -----------------------
#
# Each is a function of (TensorFlow, node, input values) that returns the output before
# a fused activation, for batches of any size, although the graph has one photo.


def _fuse(tf: Any, activation: str, value: Any) -> Any:
    """`value` after a fused activation; EdgegraftError for an unknown one."""
    if activation == "NONE":
        return value
    if activation == "RELU":
        return tf.nn.relu(value)
    if activation == "RELU6":
        return tf.nn.relu6(value)
    if activation == "RELU_N1_TO_1":
        return tf.clip_by_value(value, -1.0, 1.0)
    raise EdgegraftError(f"no TensorFlow form of the fused activation {activation}")


def _biased(value: Any, inputs: list[Any]) -> Any:
    return value + inputs[2] if len(inputs) > 2 and inputs[2] is not None else value


def _padding(options: Any) -> str:
    return "VALID" if options.padding else "SAME"


def _strides(options: Any) -> tuple[int, int, int, int]:
    return (1, options.strideH, options.strideW, 1)


def _conv(tf: Any, node: Node, inputs: list[Any]) -> Any:
    o = node.options
    kernel = tf.transpose(inputs[1], (1, 2, 3, 0))
    dilations = (1, o.dilationHFactor, o.dilationWFactor, 1)
    output = tf.nn.conv2d(
        inputs[0], kernel, _strides(o), _padding(o), dilations=dilations
    )
    return _biased(output, inputs)


def _depthwise(tf: Any, node: Node, inputs: list[Any]) -> Any:
    o = node.options
    kernel = tf.reshape(
        inputs[1], (*inputs[1].shape[1:3], int(inputs[0].shape[-1]), -1)
    )
    dilations = (o.dilationHFactor, o.dilationWFactor)
    output = tf.nn.depthwise_conv2d(
        inputs[0], kernel, _strides(o), _padding(o), dilations=dilations
    )
    return _biased(output, inputs)


def _dense(tf: Any, node: Node, inputs: list[Any]) -> Any:
    flat = tf.reshape(inputs[0], (-1, inputs[1].shape[-1]))
    output = _biased(tf.matmul(flat, inputs[1], transpose_b=True), inputs)
    if getattr(node.options, "keepNumDims", False):
        shape = tf.concat([tf.shape(inputs[0])[:-1], [output.shape[-1]]], 0)
        output = tf.reshape(output, shape)
    return output


def _pool(name: str) -> Callable[[Any, Node, list[Any]], Any]:
    def pool(tf: Any, node: Node, inputs: list[Any]) -> Any:
        o = node.options
        window = (1, o.filterHeight, o.filterWidth, 1)
        return getattr(tf.nn, name)(inputs[0], window, _strides(o), _padding(o))

    return pool


def _reduce(name: str) -> Callable[[Any, Node, list[Any]], Any]:
    def reduce(tf: Any, node: Node, inputs: list[Any]) -> Any:
        keep = bool(node.options.keepDims)
        return getattr(tf, name)(inputs[0], inputs[1], keepdims=keep)

    return reduce


def _plain(function: Callable[[Any], Callable[..., Any]]) -> Callable[..., Any]:
    """An operator whose inputs are the arguments of a TensorFlow function."""
    return lambda tf, node, inputs: function(tf)(*inputs)


def _reshape(tf: Any, node: Node, inputs: list[Any]) -> Any:
    shape = [int(side) for side in tf.get_static_value(inputs[1])]
    return tf.reshape(inputs[0], [-1, *shape[1:]])  # traced for a batch of one


OPERATORS: dict[str, Callable[[Any, Node, list[Any]], Any]] = {
    "ADD": _plain(lambda tf: tf.add),
    "AVERAGE_POOL_2D": _pool("avg_pool2d"),
    "CONCATENATION": lambda tf, node, inputs: tf.concat(inputs, node.options.axis),
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DIV": _plain(lambda tf: tf.divide),
    "EXP": _plain(lambda tf: tf.exp),
    "FULLY_CONNECTED": _dense,
    "HARD_SWISH": _plain(lambda tf: lambda x: x * tf.nn.relu6(x + 3.0) / 6.0),
    "L2_NORMALIZATION": _plain(lambda tf: lambda x: tf.nn.l2_normalize(x, -1)),
    "LOGISTIC": _plain(lambda tf: tf.sigmoid),
    "MAXIMUM": _plain(lambda tf: tf.maximum),
    "MAX_POOL_2D": _pool("max_pool2d"),
    "MEAN": _reduce("reduce_mean"),
    "MINIMUM": _plain(lambda tf: tf.minimum),
    "MUL": _plain(lambda tf: tf.multiply),
    "NEG": _plain(lambda tf: tf.negative),
    "PAD": _plain(lambda tf: tf.pad),
    "REDUCE_MAX": _reduce("reduce_max"),
    "REDUCE_MIN": _reduce("reduce_min"),
    "RELU": _plain(lambda tf: tf.nn.relu),
    "RELU6": _plain(lambda tf: tf.nn.relu6),
    "RESHAPE": _reshape,
    "RSQRT": _plain(lambda tf: tf.math.rsqrt),
    "SOFTMAX": lambda tf, node, inputs: tf.nn.softmax(inputs[0] * node.options.beta),
    "SQRT": _plain(lambda tf: tf.sqrt),
    "SQUARE": _plain(lambda tf: tf.square),
    "SQUARED_DIFFERENCE": _plain(lambda tf: tf.math.squared_difference),
    "SUB": _plain(lambda tf: tf.subtract),
    "SUM": _reduce("reduce_sum"),
    "TANH": _plain(lambda tf: tf.tanh),
}
