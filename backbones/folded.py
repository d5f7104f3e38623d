"""A frozen backbone's batch norm, folded into its convolutions while it is trained.

A backbone that is called in inference mode normalizes with statistics that stand still:

    gamma (conv(x, kernel) - mean) / sqrt(variance + epsilon) + beta
        = conv(x, kernel scale) + (beta - mean scale),
    scale = gamma / sqrt(variance + epsilon)

(Jacob et al. 2018, arXiv:1712.05877, section 3.2.) The right side gives the same
answers and, since it is made of the same variables, the same gradients, but for
rounding; kernels are small where photos are large, so a step saves every pass of batch
norm over the photos, forwards and backwards. The variables stay those of the model.

Does not know: losses, photos, which variables are trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from backbones import network
from backbones.keras import keras, tensorflow


def is_frozen(model: Any) -> bool:
    """Whether the network calls its backbone in inference mode always."""
    nodes = model.get_layer(network.BACKBONE)._inbound_nodes
    return all(node.call_kwargs.get("training") is False for node in nodes)


def _takes_in(layer: Any) -> bool:
    """Whether batch norm after this layer can be folded into it."""
    layers = keras().layers
    if type(layer) not in (layers.Conv2D, layers.DepthwiseConv2D):
        return False
    return bool(
        layer.activation is keras().activations.linear
        and layer.data_format == "channels_last"
        and layer.dilation_rate == (1, 1)
        and layer.groups == 1
    )


def pairs(backbone: Any) -> dict[Any, Any]:
    """The convolutions that can take in the batch norm after them: {conv: norm}."""
    nodes = [node for same in backbone._nodes_by_depth.values() for node in same]
    calls = Counter(node.layer for node in nodes)
    source = {name: node.layer for node in nodes for name in node.flat_output_ids}
    found = {}
    for node in nodes:
        if type(node.layer) is not keras().layers.BatchNormalization:
            continue
        (name,) = node.flat_input_ids
        before = source[name]
        alone = backbone._tensor_usage_count[name] == 1  # no other layer reads it
        if alone and calls[before] == calls[node.layer] == 1 and _takes_in(before):
            found[before] = node.layer
    return found


def _pointwise(x: Any, kernel: Any) -> Any:
    """conv2d with a 1 x 1 kernel [1, 1, C, D], stride 1.

    Its kernel's gradient is one product of two matrices, which a CPU is faster at than
    at TensorFlow's own (a whole step: tests/benchmarks/training_throughput.py).
    """
    tf = tensorflow()

    @tf.custom_gradient
    def convolve(x: Any, kernel: Any) -> Any:
        def gradient(above: Any) -> tuple[Any, Any]:
            below = tf.nn.conv2d(above, tf.transpose(kernel, (0, 1, 3, 2)), 1, "SAME")
            pixels, answers = (tf.reshape(t, (-1, t.shape[-1])) for t in (x, above))
            product = tf.matmul(pixels, answers, transpose_a=True)
            return below, tf.reshape(product, kernel.shape)

        return tf.nn.conv2d(x, kernel, 1, "SAME"), gradient

    return convolve(x, kernel)


def _convolved(conv: Any, norm: Any, x: Any) -> Any:
    """`norm` of `conv` of x in one convolution, in the numbers that they compute in."""
    tf = tensorflow()
    numbers = conv.compute_dtype
    scale = tf.math.rsqrt(norm.moving_variance + norm.epsilon)
    if norm.gamma is not None:
        scale *= norm.gamma
    offset = -norm.moving_mean if conv.bias is None else conv.bias - norm.moving_mean
    offset *= scale
    if norm.beta is not None:
        offset += norm.beta
    x, offset = tf.cast(x, numbers), tf.cast(offset, numbers)
    padding = conv.padding.upper()
    if isinstance(conv, keras().layers.DepthwiseConv2D):
        kernel = conv.depthwise_kernel
        kernel = tf.cast(kernel * tf.reshape(scale, kernel.shape[2:]), numbers)
        x = tf.nn.depthwise_conv2d(x, kernel, (1, *conv.strides, 1), padding)
    else:
        kernel = tf.cast(conv.kernel * scale, numbers)
        if conv.kernel_size == conv.strides == (1, 1):
            x = _pointwise(x, kernel)
        else:
            x = tf.nn.conv2d(x, kernel, conv.strides, padding)
    return tf.nn.bias_add(x, offset)


def _walk(backbone: Any, folded: dict[Any, Any], image: Any) -> Any:
    """What Keras does when it calls a model, but for the pairs in `folded`."""
    norms, times = set(folded.values()), backbone._tensor_usage_count
    known = {str(id(backbone.inputs[0])): image}
    known = {name: [value] * times[name] for name, value in known.items()}
    for depth in sorted(backbone._nodes_by_depth, reverse=True):
        for node in backbone._nodes_by_depth[depth]:
            if node.is_input:
                continue
            args, options = node.map_arguments(known)
            if node.layer in folded:
                found = _convolved(node.layer, folded[node.layer], *args)
            elif node.layer in norms:
                found = args[0]
            else:
                if node.layer._expects_training_arg:
                    options["training"] = False
                found = node.layer(*args, **options)
            name = node.flat_output_ids[0]
            known[name] = [found] * times[name]
    return known[str(id(backbone.outputs[0]))][0]


def outputs(model: Any) -> Callable[..., tuple[Any, Any]]:
    """image float32 [N, S, S, 3] -> features [N, D] and logits float32 [N, L].

    For training `model`: call it with `training=True` inside `tf.function`, once for
    each trace. A backbone whose statistics are learnt, or that has nothing to fold, is
    called as Keras does.
    """
    backbone = model.get_layer(network.BACKBONE)
    folded = pairs(backbone) if is_frozen(model) and backbone.layers else {}
    if not folded:
        plain: Callable[..., tuple[Any, Any]] = network.feature_and_logit_model(model)
        return plain

    def answer(image: Any, training: bool) -> tuple[Any, Any]:
        x = model.get_layer(network.SCALING)(image)
        x = _walk(backbone, folded, x)
        return x, model.get_layer(network.LOGITS)(x, training=training)

    return answer
