"""What a network costs to run: its multiply-adds, counted layer by layer.

One multiply-add is one weight times one number, added to a sum; convolutions and
dense layers are counted, as the papers of the networks do (arXiv:1801.04381, table 4),
the rest (batch norm, which folds away; activations; additions) is not.

Does not know: how fast a device does them.
"""

from __future__ import annotations

import math
from typing import Any


def multiply_adds(model: Any) -> int:
    """Multiply-adds of a tf-keras model for one photo of its fixed input size."""
    return sum(_layer(layer) for layer in model.layers)


def _layer(layer: Any) -> int:
    kind = type(layer).__name__
    if hasattr(layer, "layers"):
        return multiply_adds(layer)
    if kind == "Dense":
        return math.prod(layer.kernel.shape)
    if kind == "SeparableConv2D":
        places = math.prod(layer.output_shape[1:3])
        kernels = layer.depthwise_kernel, layer.pointwise_kernel
        return places * sum(math.prod(kernel.shape) for kernel in kernels)
    if kind == "DepthwiseConv2D":
        return math.prod(layer.output_shape[1:3]) * math.prod(
            layer.depthwise_kernel.shape
        )
    if kind == "Conv2D":
        return math.prod(layer.output_shape[1:3]) * math.prod(layer.kernel.shape)
    return 0
