"""TensorFlow Lite's float operators as TensorFlow functions.

An operator is a function of (TensorFlow, node, input values) that returns the output
before a fused activation, for batches of any size, although the graph has one photo. A
new operator is a new line in `OPERATORS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge.errors import EdgegraftError
from quantize.tflite.operators import WEIGHTED

_FUSED = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6")


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


def fuse(tf: Any, activation: str, value: Any) -> Any:
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
