"""The whole network: scaling inside the graph, backbone, head, softmax.

    image float32 [N, S, S, 3], 0..255 -> scaling -> backbone -> logits -> probabilities

Other rooms access its parts through this module, by the layer names below. In training
the batch norm of a frozen backbone is folded into its convolutions: called in inference
mode, it normalizes with constant statistics,

    gamma (conv(x, kernel) - mean) / sqrt(variance + epsilon) + beta
        = conv(x, kernel scale) + (beta - mean scale),
    scale = gamma / sqrt(variance + epsilon)

(Jacob et al. 2018, arXiv:1712.05877, section 3.2). Up to rounding, the right side has
the same outputs and, since it uses the same variables, the same gradients; kernels are
small where feature maps are large, so a step saves every pass of batch norm over them,
forward and backward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones.keras import keras, tensorflow
from backbones.record import Backbone
from edge.errors import EdgegraftError

INPUT, SCALING, BACKBONE = "image", "scaling", "backbone"
LOGITS, OUTPUT = "logits", "probabilities"


def assemble(
    backbone: Backbone,
    size: int,
    classes: int,
    options: Any = None,
    *,
    frozen: bool = True,
) -> Any:
    """A tf-keras model float32 [N, size, size, 3] (0..255) -> probabilities [N, L].

    The weights are random until loaded or trained; the head starts at zero, so an
    untrained network answers 1/L for everything. frozen: the backbone is always called
    in inference mode, so that pretrained batch-norm statistics stay as they are while
    its weights are trained. EdgegraftError for a size that the backbone does not take.
    """
    if size < backbone.min_size:
        raise EdgegraftError(
            f"expected --size of at least {backbone.min_size} for {backbone.name}, "
            f"got {size}"
        )
    if backbone.max_size is not None and size > backbone.max_size:
        raise EdgegraftError(
            f"expected --size of at most {backbone.max_size} for {backbone.name}, "
            f"got {size}"
        )
    layers = keras().layers
    features = backbone.build(size, options)
    features._name = BACKBONE
    image = keras().Input((size, size, 3), name=INPUT)
    x = scaling(backbone)(image)
    x = features(x, training=False) if frozen else features(x)
    # in float32 under a mixed-precision policy, too
    x = layers.Dense(classes, kernel_initializer="zeros", name=LOGITS, dtype="float32")(
        x
    )
    x = layers.Softmax(name=OUTPUT, dtype="float32")(x)
    return keras().Model(image, x, name="classifier")


def scaling(backbone: Backbone) -> Any:
    """The layer that scales pixels 0..255 to the input range of the backbone."""
    scale, offset = (
        list(numbers) if isinstance(numbers, tuple) else numbers
        for numbers in (backbone.scale, backbone.offset)
    )
    return keras().layers.Rescaling(scale, offset, name=SCALING)


def feature_model(model: Any) -> Any:
    """The part image -> features float32 [N, D], sharing weights with `model`."""
    return keras().Model(model.input, model.get_layer(LOGITS).input)


def logit_model(model: Any) -> Any:
    """The part image -> logits float32 [N, L], sharing weights with `model`."""
    return keras().Model(model.input, model.get_layer(LOGITS).output)


def feature_and_logit_model(model: Any) -> Any:
    """The part image -> features [N, D] and logits [N, L], sharing weights."""
    head = model.get_layer(LOGITS)
    return keras().Model(model.input, [head.input, head.output])


def set_head(
    model: Any, kernel: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]
) -> None:
    """Set the last layer: kernel [D, L], bias [L]."""
    model.get_layer(LOGITS).set_weights([kernel, bias])


def get_head(model: Any) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The last layer's kernel [D, L] and bias [L]."""
    kernel, bias = model.get_layer(LOGITS).get_weights()
    return kernel, bias


# -- in training, with batch norm folded -----------------------------------------------
def is_frozen(model: Any) -> bool:
    """Whether the network always calls its backbone in inference mode."""
    nodes = model.get_layer(BACKBONE)._inbound_nodes
    return all(node.call_kwargs.get("training") is False for node in nodes)


def _is_foldable(layer: Any) -> bool:
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


def foldable_pairs(backbone: Any) -> dict[Any, Any]:
    """The convolutions whose batch norm can be folded into them: {conv: norm}."""
    nodes = [node for level in backbone._nodes_by_depth.values() for node in level]
    calls = Counter(node.layer for node in nodes)
    source = {name: node.layer for node in nodes for name in node.flat_output_ids}
    result = {}
    for node in nodes:
        norm = node.layer
        if type(norm) is not keras().layers.BatchNormalization:
            continue
        (name,) = node.flat_input_ids
        conv = source[name]
        one_reader = backbone._tensor_usage_count[name] == 1
        if one_reader and calls[conv] == calls[norm] == 1 and _is_foldable(conv):
            result[conv] = norm
    return result


def _pointwise(x: Any, kernel: Any) -> Any:
    """conv2d with a 1 x 1 kernel [1, 1, C, D], stride 1.

    Its kernel's gradient is one product of two matrices, which is faster on a CPU than
    TensorFlow's own (a whole step: tests/benchmarks/training_throughput.py).
    """
    tf = tensorflow()

    @tf.custom_gradient
    def convolve(x: Any, kernel: Any) -> Any:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            transposed = tf.transpose(kernel, (0, 1, 3, 2))
            inputs, outputs = (tf.reshape(t, (-1, t.shape[-1])) for t in (x, upstream))
            product = tf.matmul(inputs, outputs, transpose_a=True)
            return (
                tf.nn.conv2d(upstream, transposed, 1, "SAME"),
                tf.reshape(product, kernel.shape),
            )

        return tf.nn.conv2d(x, kernel, 1, "SAME"), gradient

    return convolve(x, kernel)


def _convolved(conv: Any, norm: Any, x: Any) -> Any:
    """`norm` of `conv` of x in one convolution, in the dtype of `conv`."""
    tf = tensorflow()
    dtype = conv.compute_dtype
    scale = tf.math.rsqrt(norm.moving_variance + norm.epsilon)
    if norm.gamma is not None:
        scale *= norm.gamma
    offset = -norm.moving_mean if conv.bias is None else conv.bias - norm.moving_mean
    offset *= scale
    if norm.beta is not None:
        offset += norm.beta
    x, offset = tf.cast(x, dtype), tf.cast(offset, dtype)
    padding = conv.padding.upper()
    if isinstance(conv, keras().layers.DepthwiseConv2D):
        kernel = conv.depthwise_kernel
        kernel = tf.cast(kernel * tf.reshape(scale, kernel.shape[2:]), dtype)
        x = tf.nn.depthwise_conv2d(x, kernel, (1, *conv.strides, 1), padding)
    else:
        kernel = tf.cast(conv.kernel * scale, dtype)
        if conv.kernel_size == conv.strides == (1, 1):
            x = _pointwise(x, kernel)
        else:
            x = tf.nn.conv2d(x, kernel, conv.strides, padding)
    return tf.nn.bias_add(x, offset)


def _walk(backbone: Any, folded: dict[Any, Any], image: Any) -> Any:
    """Call the model as Keras does, except for the pairs in `folded`."""
    norms, usage_count = set(folded.values()), backbone._tensor_usage_count
    name = str(id(backbone.inputs[0]))
    tensors = {name: [image] * usage_count[name]}  # one for each layer that reads it
    for depth in sorted(backbone._nodes_by_depth, reverse=True):
        for node in backbone._nodes_by_depth[depth]:
            if node.is_input:
                continue
            args, options = node.map_arguments(tensors)
            if node.layer in folded:
                output = _convolved(node.layer, folded[node.layer], *args)
            elif node.layer in norms:
                output = args[0]
            else:
                if node.layer._expects_training_arg:
                    options["training"] = False
                output = node.layer(*args, **options)
            name = node.flat_output_ids[0]
            tensors[name] = [output] * usage_count[name]
    return tensors[str(id(backbone.outputs[0]))][0]


def training_outputs(model: Any) -> Callable[..., tuple[Any, Any]]:
    """image float32 [N, S, S, 3] -> features [N, D] and logits float32 [N, L].

    For training `model`: call it with `training=True` inside `tf.function`, once for
    each trace. A backbone whose statistics are trained, or that has nothing to fold, is
    called as usual.
    """
    backbone = model.get_layer(BACKBONE)
    folded = foldable_pairs(backbone) if is_frozen(model) and backbone.layers else {}
    if not folded:
        plain: Callable[..., tuple[Any, Any]] = feature_and_logit_model(model)
        return plain

    def call(image: Any, training: bool) -> tuple[Any, Any]:
        x = model.get_layer(SCALING)(image)
        x = _walk(backbone, folded, x)
        return x, model.get_layer(LOGITS)(x, training=training)

    return call
