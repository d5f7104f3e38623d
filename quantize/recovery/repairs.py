"""The repairs of an int8 file: they change its calibrated float graph in place.

`clip_ranges` narrows the ranges of activations, `correct` changes weights and biases,
and `equalize` scales channels. `ladder` says which of them a file gets.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones.keras import tensorflow
from edge.errors import EdgegraftError
from quantize.recovery.graph import WEIGHTED, Graph, Node, Photos, batches, rounded

Channels = npt.NDArray[np.float32]  # a value for each channel, [C]


# -- ranges of activations ------------------------------------------------------------

# Fractions of the observed range to try. Below these, clipping loses more than it
# gains, even for activations with a long tail.
FRACTIONS = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)


def clip_ranges(graph: Graph, photos: Photos, output: str) -> int:
    """Narrow each range of `graph` to that which changes the logits least, on photos;
    how many were narrowed. The ranges of the input, of the logits and of what they do
    not depend on stay.

    A narrower range has finer steps, and clips what lies outside (Banner et al. 2019,
    arXiv:1810.05723). The change of the logits is taken to first order: the error of
    each value times the gradient of a random sum of the logits. The squared error of
    the values themselves would clip the lightest pixels, which are rare, and the logits
    of the clearest photos.

    `output`: the signature's name of the probabilities.
    """
    tf = tensorflow()
    logits = logits_of(graph, output)
    nodes = graph.upstream(logits)
    tensors = [n.output for n in nodes if n.output in graph.ranges]
    tensors.remove(logits)
    random = np.random.default_rng(0)
    errors = np.zeros((len(tensors), len(FRACTIONS)))
    for images in batches(photos):
        values = {t: tf.constant(array) for t, array in graph.constants.items()}
        values[graph.image] = images
        with tf.GradientTape() as tape:
            for node in nodes:
                values[node.output] = graph.apply(node, values)
                tape.watch(values[node.output])
            shares = random.normal(size=values[logits].shape)
            shares -= shares.mean(axis=1, keepdims=True)  # the softmax ignores the mean
            total = tf.reduce_sum(values[logits] * tf.constant(shares, tf.float32))
        gradients = tape.gradient(total, [values[t] for t in tensors])
        for row, tensor, gradient in zip(errors, tensors, gradients, strict=True):
            if gradient is None:
                continue
            low, high = graph.ranges[tensor]
            exact = tf.reshape(values[tensor], (len(images), -1))
            gradient = tf.reshape(gradient, exact.shape)
            for column, f in enumerate(FRACTIONS):
                off = rounded(tf, exact, low * f, high * f) - exact
                moved = tf.einsum("np,np->n", off, gradient)
                row[column] += float(tf.reduce_sum(tf.square(moved)))
    narrowed = 0
    for tensor, row in zip(tensors, errors, strict=True):
        fraction = FRACTIONS[int(row.argmin())]
        low, high = graph.ranges[tensor]
        graph.ranges[tensor] = (low * fraction, high * fraction)
        narrowed += fraction < 1
    return narrowed


def logits_of(graph: Graph, output: str) -> int:
    """The index of the logits of the softmax that gives an output; EdgegraftError for
    another last operator."""
    softmax = graph.producer(graph.outputs[output])
    if softmax is None or softmax.kind != "SOFTMAX":
        raise EdgegraftError(
            "expected a network that ends in a softmax, got "
            f"{softmax.kind if softmax else 'nothing'}"
        )
    return softmax.inputs[0]


# -- weights and biases for the output of their layer ---------------------------------

WEIGHT_STEPS = 127  # of a weight on each side of zero
# Positions of all photos for the statistics of a layer, about
ROWS, DEPTHWISE_ROWS = 20_000, 4_000
_DAMPING = 0.01  # of the mean diagonal, for inputs that hardly vary
# The same for the regression. 1, 3 and 10 do as well (three networks fine-tuned on
# trashnet); at 0.3 it follows the noise of the photos.
RIDGE = 3.0
_CHUNK = 8  # photos whose patches are in memory at once
_SMALLEST_STEP = 1e-12  # of weights, and of the damping

Array = npt.NDArray[np.float64]


def correct(graph: Graph, photos: Photos, *, kept_float: Collection[str] = ()) -> int:
    """Correct the layers of a calibrated graph; how many biases changed.

    Each layer's output for rounded inputs is brought near to its float output for exact
    ones, in three steps:

    1. A ridge regression finds the weights that do this best, so that a layer takes
       back what the layers before it lost (asymmetric calibration: Li et al. 2025,
       arXiv:2504.02692).
    2. These are rounded. Rounding to the nearest of 255 steps is best for a single
       weight, not for the sum of a channel, so they are rounded one input at a time,
       and each error is spread over the weights not rounded yet, such that the output
       changes least (Frantar and Alistarh 2022, arXiv:2208.11580, solved column by
       column with a Cholesky factor as in GPTQ, arXiv:2210.17323). They become
       multiples of the step that TensorFlow Lite derives from the largest of them,
       which does not change: the converter's own rounding then changes nothing.
    3. The mean error of each channel is subtracted from the bias. Rounded weights and
       clipped activations shift it, most of all in depthwise layers, with few weights a
       channel (Nagel et al. 2019, arXiv:1906.04721, section 4.2, measured on photos
       rather than derived).

    One pass from input to output: each layer is corrected after its predecessors. Do
    this last: the float outputs of the corrected graph are biased.

    `photos`: uint8 [N, H, W, 3], all in memory at once, with two activations of each.
    `kept_float`: names of tensors whose operators stay float.
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
            if fake_quant and _is_unshared(graph, kernel) and not dilated:
                read = node.inputs[0]
                kernels = _weights_for_output(
                    tf, graph, node, exact[read], quantized[read]
                )
                graph.constants[kernel] = kernels
                current[kernel] = tf.constant(kernels)
            inputs = current | quantized
            error = _channel_mean(tf, graph.before(node, constants | exact))
            error -= _channel_mean(
                tf, graph.before(node, inputs, fake_quant=fake_quant)
            )
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


def _channel_mean(tf: Any, value: Any) -> Any:
    """The mean of each channel."""
    return tf.reduce_mean(value, tuple(range(len(value.shape) - 1)))


def _weights_for_output(
    tf: Any, graph: Graph, node: Node, exact: Any, inputs: Any
) -> npt.NDArray[np.float32]:
    """The rounded weights, in their shape in the graph, for rounded `inputs` of the
    layer and those of the float network."""
    weights = graph.constants[node.inputs[1]].astype(np.float64)
    if node.kind == "DEPTHWISE_CONV_2D":  # [1, h, w, C]: a group for each channel
        columns = weights.reshape(-1, weights.shape[-1]).T[:, None, :]
    else:  # [O, ...]: one group, all outputs read the same inputs
        columns = weights.reshape(1, len(weights), -1)
    products, cross = _input_products(tf, node, weights.shape, exact, inputs)
    columns = _regress(columns, products, cross)
    shared = node.kind == "FULLY_CONNECTED"  # one step for all outputs
    step = (
        np.abs(columns).max(axis=(1, 2) if shared else 2, keepdims=True) / WEIGHT_STEPS
    )
    step = np.broadcast_to(np.maximum(step, _SMALLEST_STEP), (*columns.shape[:2], 1))
    result = _round_columns(columns, step, products)
    if node.kind == "DEPTHWISE_CONV_2D":
        result = result[:, 0, :].T
    return np.ascontiguousarray(result.reshape(weights.shape), np.float32)


def _regress(weights: Array, products: Array, cross: Array) -> Array:
    """Weights [G, O, K] whose sums over rounded inputs are nearest to those of
    `weights` over exact ones, and that are near to `weights`: a ridge regression.

    `products`: [G, K, K], covariances of rounded inputs; `cross`: of exact inputs
    (rows) with rounded ones.
    """
    ridge = _diagonal(products, RIDGE)
    sums = (weights @ (cross + ridge)).transpose(0, 2, 1)
    found = np.linalg.solve(products + ridge, sums)
    return np.asarray(found.transpose(0, 2, 1), np.float64)


def _diagonal(products: Array, share: float) -> Array:
    """A diagonal matrix [G, K, K] of `share` times the mean diagonal of `products`."""
    size = products.shape[1]
    means = share * np.trace(products, axis1=1, axis2=2) / size + _SMALLEST_STEP
    return np.asarray(means[:, None, None] * np.eye(size))


def _round_columns(weights: Array, step: Array, products: Array) -> Array:
    """Round weights [G, O, K] to multiples of step [G, O, 1], one input at a time.

    `products`: [G, K, K], covariances of the inputs of each group.
    """
    weights, size = weights.copy(), weights.shape[2]
    largest = np.abs(weights).argmax(axis=2)  # defines the step, so it is fixed
    fixed = np.abs(weights).max(axis=2) >= step[:, :, 0] * (WEIGHT_STEPS - 0.5)
    signs = np.sign(np.take_along_axis(weights, largest[:, :, None], 2))[:, :, 0]
    inverse = np.linalg.inv(products + _diagonal(products, _DAMPING))
    upper = np.linalg.cholesky(inverse).transpose(0, 2, 1)
    result = np.empty_like(weights)
    for k in range(size):
        steps = np.clip(
            np.round(weights[:, :, k] / step[:, :, 0]), -WEIGHT_STEPS, WEIGHT_STEPS
        )
        steps = np.where((largest == k) & fixed, WEIGHT_STEPS * signs, steps)
        result[:, :, k] = steps * step[:, :, 0]
        error = (weights[:, :, k] - result[:, :, k]) / upper[:, k, k][:, None]
        weights[:, :, k:] -= error[:, :, None] * upper[:, None, k, k:]
    return result


def _input_products(
    tf: Any, node: Node, shape: tuple[int, ...], exact: Any, inputs: Any
) -> tuple[Array, Array]:
    """Covariances of the inputs of the weights, [G, K, K], and of exact inputs (rows)
    with them. The means are left out, as the bias takes care of them."""
    sums: list[Any] = [0.0] * 4
    near_mean: Any = None  # subtracted first, so that no digits are lost
    count = 0
    for start in range(0, len(inputs), _CHUNK):
        x, y = (
            _patches(tf, node, shape, values[start : start + _CHUNK], len(inputs))
            for values in (exact, inputs)
        )
        count += y.shape[2]
        if near_mean is None:
            near_mean = tf.reduce_mean(y, axis=2, keepdims=True)
        x, y = x - near_mean, y - near_mean
        found = (
            tf.matmul(y, y, transpose_b=True),
            tf.matmul(x, y, transpose_b=True),
            tf.reduce_sum(y, axis=2),
            tf.reduce_sum(x, axis=2),
        )
        sums = [total + new for total, new in zip(sums, found, strict=True)]
    products, cross, mean, exact_mean = (
        np.asarray(total, np.float64) / count for total in sums
    )
    products -= mean[:, :, None] * mean[:, None, :]
    cross -= exact_mean[:, :, None] * mean[:, None, :]
    return products, cross


def _patches(
    tf: Any, node: Node, shape: tuple[int, ...], inputs: Any, photos: int
) -> Any:
    """The inputs of the weights, [G, K, positions]: about `ROWS`, evenly spaced, of all
    `photos`."""
    if node.kind == "FULLY_CONNECTED":
        return tf.transpose(tf.reshape(inputs, (-1, shape[-1], 1)))
    height, width = shape[1:3]
    down, across = node.options.strideH, node.options.strideW
    area = inputs.shape[1] * inputs.shape[2] / (down * across)
    depthwise = node.kind == "DEPTHWISE_CONV_2D"
    most = DEPTHWISE_ROWS if depthwise else ROWS
    apart = math.ceil(math.sqrt(photos * area / most))
    down, across = down * apart, across * apart
    if (height, width) == (1, 1):
        inputs = inputs[:, ::down, ::across]
    else:
        padding = "VALID" if node.options.padding else "SAME"
        inputs = tf.image.extract_patches(
            inputs,
            (1, height, width, 1),
            (1, down, across, 1),
            (1, 1, 1, 1),
            padding,
        )
    groups = shape[-1] if depthwise else 1
    rows = tf.reshape(inputs, (-1, height * width * shape[-1] // groups, groups))
    return tf.transpose(rows)


# -- equalized channels ----------------------------------------------------------------

# Operators that work channel by channel and commute with a positive factor
_PASSING = ("AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN", "PAD", "RELU", "RESHAPE")
_WRITERS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_ROUNDS = 3  # a layer is the reader of one pair and the writer of the next
_DEAD = 1e-6  # a channel with a smaller range, relative to the largest, is unused


@dataclass(frozen=True)
class Pair:
    """Two layers with a tensor of C channels between them."""

    writer: Node
    reader: Node
    channels: int


def equalizable_pairs(graph: Graph) -> tuple[Pair, ...]:
    """The pairs of layers that can be equalized."""
    return tuple(
        Pair(writer, reader, graph.shapes[writer.output][-1])
        for writer in graph.nodes
        if writer.kind in _WRITERS and (reader := _reader(graph, writer)) is not None
    )


def equalize(graph: Graph, photos: Photos) -> int:
    """Scale the channels of the tensors between layers to similar ranges, by the
    activations on photos; how many pairs of layers. Calibrate again afterwards.

    An int8 tensor has one scale for all channels, so channels with much smaller ranges
    than others are rounded to nothing. Between two layers with only ReLU and pooling
    between them, channel c may be divided by s and the weights that read it multiplied
    by s without changing the float network (Nagel et al. 2019, "Data-Free
    Quantization", arXiv:1906.04721). As TensorFlow Lite gives weights a scale for each
    output channel, the first layer's weights do not matter here; the activation, as
    observed on the calibration photos, is balanced against the weights that read it (as
    in Xiao et al. 2023, "SmoothQuant", arXiv:2211.10438):
    ``s = sqrt(activation / weight)``. A depthwise layer has a scale for each input
    channel, so there the activation is equalized fully. ReLU6 and swish are not
    scale-invariant.
    """
    layers = equalizable_pairs(graph)
    if not layers:
        return 0
    maxima = largest_activations(graph, photos, [p.writer.output for p in layers])
    for _ in range(_ROUNDS):
        for pair in layers:
            maximum = maxima[pair.writer.output]
            factors = _factors(graph, pair, maximum)
            _scale_channels(graph, pair, factors)
            maxima[pair.writer.output] = maximum / factors
    return len(layers)


def largest_activations(
    graph: Graph, photos: Photos, tensors: Sequence[int]
) -> dict[int, Channels]:
    """Tensor index -> the largest absolute value of each channel, float32 [C]."""
    tf = tensorflow()

    @tf.function(reduce_retracing=True)
    def step(images: Any) -> Any:
        values = graph.run(images)
        return [
            tf.reduce_max(tf.abs(values[t]), tuple(range(len(values[t].shape) - 1)))
            for t in tensors
        ]

    maxima: list[Any] = []
    for batch in batches(photos):
        new = [maximum.numpy() for maximum in step(batch)]
        maxima = [np.maximum(*pair) for pair in zip(maxima or new, new, strict=True)]
    return dict(zip(tensors, maxima, strict=True))


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
        if node.kind in WEIGHTED:
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


def _factors(graph: Graph, pair: Pair, maximum: Channels) -> Channels:
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


def _scale_channels(graph: Graph, pair: Pair, factors: Channels) -> None:
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
