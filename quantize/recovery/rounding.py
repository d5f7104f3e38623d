"""Bias correction, and rounding of weights for the output of their layer.

`correct` subtracts the mean error of each channel from its layer's bias. Rounded
weights and clipped activations also shift the mean of a channel, most of all in
depthwise layers, with few weights a channel (Nagel et al. 2019, arXiv:1906.04721,
section 4.2, measured on photos rather than derived).

With `weights`, the weights are rounded for the layer's output first. Rounding to the
nearest of 255 steps is best for a single weight, not for the sum of a channel. So the
weights are rounded one input at a time, and each error is spread over the weights not
rounded yet, such that the layer's output on calibration photos changes least (Frantar
and Alistarh 2022, arXiv:2208.11580, solved column by column with a Cholesky factor as
in GPTQ, arXiv:2210.17323). They become multiples of the step that TensorFlow Lite
derives from the largest of them, which does not change: the converter's own rounding
then changes nothing.

One pass from input to output: each layer is corrected after its predecessors. The noise
of rounded activations remains.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones.keras import tensorflow
from quantize.recovery.graph import Graph
from quantize.recovery.tf_operators import Node

Array = npt.NDArray[np.float64]

STEPS = 127  # of a weight on each side of zero
ROWS = 100_000  # inputs of a layer for its output error, at most
_DAMPING = 0.01  # of the mean diagonal, for inputs that hardly vary
_CHUNK = 4  # photos whose patches are in memory at once
_TINY = 1e-12
_ROUNDED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def correct(
    graph: Graph,
    photos: npt.NDArray[np.uint8],
    *,
    weights: bool = False,
    kept_float: Collection[str] = (),
) -> int:
    """Correct the layers of a calibrated graph in place; how many biases changed.

    `photos`: uint8 [N, H, W, 3], all in memory at once, with two activations of each.
    `weights`: round them, too. `kept_float`: names of tensors whose operators stay
    float. Do this last: the float outputs of the corrected graph are biased.
    """
    tf = tensorflow()
    constants: dict[int, Any] = {k: tf.constant(v) for k, v in graph.constants.items()}
    images = tf.constant(photos, tf.float32)
    exact: dict[int, Any] = {graph.image: images}
    quantized: dict[int, Any] = {graph.image: images}
    last_use = {index: node.position for node in graph.nodes for index in node.inputs}
    corrected = 0
    for node in graph.nodes:
        fake_quant = graph.names[node.output] not in kept_float
        current = dict(constants)
        kernel, bias = (*node.inputs[1:3], -1, -1)[:2]
        if node.weighted and _is_unshared(graph, bias):
            dilated = getattr(node.options, "dilationHFactor", 1) != 1
            roundable = node.kind in _ROUNDED and not dilated
            if weights and fake_quant and _is_unshared(graph, kernel) and roundable:
                rounded = _round(tf, graph, node, quantized[node.inputs[0]])
                graph.constants[kernel] = rounded
                current[kernel] = tf.constant(rounded)
            inputs = current | quantized
            error = _mean(tf, graph.before(node, constants | exact))
            error -= _mean(tf, graph.before(node, inputs, fake_quant=fake_quant))
            graph.constants[bias] = graph.constants[bias] + error.numpy()
            current[bias] = tf.constant(graph.constants[bias])
            corrected += 1
        exact[node.output] = graph.apply(node, constants | exact)
        quantized[node.output] = graph.apply(
            node, current | quantized, fake_quant=fake_quant
        )
        for index in node.inputs:  # free the memory of tensors that are not read again
            if last_use[index] == node.position:
                exact.pop(index, None)
                quantized.pop(index, None)
    return corrected


def _is_unshared(graph: Graph, tensor: int) -> bool:
    """Whether a tensor is a constant that only one layer reads."""
    return tensor in graph.constants and len(graph.users(tensor)) == 1


def _mean(tf: Any, value: Any) -> Any:
    """The mean of each channel."""
    return tf.reduce_mean(value, tuple(range(len(value.shape) - 1)))


def _round(tf: Any, graph: Graph, node: Node, inputs: Any) -> npt.NDArray[np.float32]:
    """The rounded weights, in their shape in the graph."""
    weights = graph.constants[node.inputs[1]].astype(np.float64)
    if node.kind == "DEPTHWISE_CONV_2D":  # [1, h, w, C]: a group for each channel
        columns = weights.reshape(-1, weights.shape[-1]).T[:, None, :]
    else:  # [O, ...]: one group, all outputs read the same inputs
        columns = weights.reshape(1, len(weights), -1)
    shared = node.kind == "FULLY_CONNECTED"  # one step for all outputs
    step = np.abs(columns).max(axis=(1, 2) if shared else 2, keepdims=True) / STEPS
    step = np.broadcast_to(np.maximum(step, _TINY), (*columns.shape[:2], 1))
    products = _input_products(tf, node, weights.shape, inputs)
    rounded = _round_columns(columns, step, products)
    if node.kind == "DEPTHWISE_CONV_2D":
        rounded = rounded[:, 0, :].T
    return np.ascontiguousarray(rounded.reshape(weights.shape), np.float32)


def _round_columns(weights: Array, step: Array, products: Array) -> Array:
    """Round weights [G, O, K] to multiples of step [G, O, 1], one input at a time.

    `products`: [G, K, K], mean products of the inputs of each group.
    """
    weights, size = weights.copy(), weights.shape[2]
    largest = np.abs(weights).argmax(axis=2)  # defines the step, so it is fixed
    fixed = np.abs(weights).max(axis=2) >= step[:, :, 0] * (STEPS - 0.5)
    signs = np.sign(np.take_along_axis(weights, largest[:, :, None], 2))[:, :, 0]
    damping = _DAMPING * np.trace(products, axis1=1, axis2=2) / size + _TINY
    inverse = np.linalg.inv(products + damping[:, None, None] * np.eye(size))
    upper = np.linalg.cholesky(inverse).transpose(0, 2, 1)
    rounded = np.empty_like(weights)
    for k in range(size):
        steps = np.clip(np.round(weights[:, :, k] / step[:, :, 0]), -STEPS, STEPS)
        steps = np.where((largest == k) & fixed, STEPS * signs, steps)
        rounded[:, :, k] = steps * step[:, :, 0]
        error = (weights[:, :, k] - rounded[:, :, k]) / upper[:, k, k][:, None]
        weights[:, :, k:] -= error[:, :, None] * upper[:, None, k, k:]
    return rounded


def _input_products(tf: Any, node: Node, shape: tuple[int, ...], inputs: Any) -> Array:
    """Mean products of the inputs of the weights, [G, K, K]."""
    area = int(np.prod(inputs.shape[1:-1])) or 1
    photos = int(min(len(inputs), max(_CHUNK, ROWS // area)))
    total: Any = 0.0
    for start in range(0, photos, _CHUNK):
        patches = _patches(tf, node, shape, inputs[start : start + _CHUNK])
        total = total + tf.einsum("pkg,plg->gkl", patches, patches)
    return np.asarray(total, np.float64) / (photos * area)


def _patches(tf: Any, node: Node, shape: tuple[int, ...], inputs: Any) -> Any:
    """The inputs of the weights, [positions, K, G]."""
    if node.kind == "FULLY_CONNECTED":
        return tf.reshape(inputs, (-1, shape[-1], 1))
    height, width = shape[1:3]
    strides = (1, node.options.strideH, node.options.strideW, 1)
    if (height, width) != (1, 1) or strides != (1, 1, 1, 1):
        padding = "VALID" if node.options.padding else "SAME"
        inputs = tf.image.extract_patches(
            inputs, (1, height, width, 1), strides, (1, 1, 1, 1), padding
        )
    groups = shape[-1] if node.kind == "DEPTHWISE_CONV_2D" else 1
    return tf.reshape(inputs, (-1, height * width * shape[-1] // groups, groups))
