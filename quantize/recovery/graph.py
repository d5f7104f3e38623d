"""The float graph of a flatbuffer, run by TensorFlow: in batches, and with gradients.

The ladder works on the graph that becomes the int8 file, with batch norm folded and
activations fused, rather than on the Keras model. So it supports any network whose
operators are in `tf_operators`, and need not imitate the converter.

With `fake_quant`, weights and activations are rounded as in TensorFlow Lite:
activations to 256 steps of their calibrated range; weights to 255 steps, with a range
for each output channel (dense layers: for all, as in `convert.quantize`). The gradient
passes through the rounding within the range (Jacob et al. 2018, arXiv:1712.05877).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones.keras import tensorflow
from edge.errors import EdgegraftError
from quantize.recovery.tf_operators import OPERATORS, Node, fuse
from quantize.tflite import flatbuffer

Array = npt.NDArray[Any]
Values = dict[int, Any]  # index of a tensor -> its values

_TYPES = {"FLOAT32": np.float32, "INT32": np.int32, "INT64": np.int64}
# Ranges that TensorFlow Lite fixes
_FIXED = {"SOFTMAX": (0.0, 255 / 256), "LOGISTIC": (0.0, 255 / 256)}
_BIASED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_SMALLEST_SPAN = 1e-6  # of a range, so that an unused channel has a scale, too


class Graph:
    """A float flatbuffer that can be run and changed.

    Tensors are known by their index. `constants`: index -> array; `model` writes
    changed ones. `ranges`: index -> (low, high), of a calibrated flatbuffer.
    EdgegraftError, naming the operator and its tensor, for one that is not in
    `tf_operators`.
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
                    f"({self.names[output]!r:.80}) in tf_operators"
                )
            nodes.append(Node(position, kind, inputs, output, operator.builtinOptions))
        return nodes

    def users(self, tensor: int) -> list[Node]:
        """The operators that read a tensor."""
        return [node for node in self.nodes if tensor in node.inputs]

    def producer(self, tensor: int) -> Node | None:
        """The operator that writes a tensor."""
        return next((node for node in self.nodes if node.output == tensor), None)

    def run(
        self,
        images: Any,
        *,
        changed: Mapping[int, Any] | None = None,
        fake_quant: Any = False,
    ) -> Values:
        """Every activation for images float32 [N, H, W, 3], 0..255.

        `changed`: values in place of constants. `fake_quant`: whether to round, for all
        operators or, as a bool tensor, for each; needs ranges.
        """
        tf = tensorflow()
        values: Values = {t: tf.constant(array) for t, array in self.constants.items()}
        values |= dict(changed or {})
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
            output = fuse(tf, node.fused, output)
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
        if kind not in _BIASED:
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
