"""The whole network: scaling inside the graph, backbone, head, softmax.

    image float32 [N, S, S, 3], 0..255 -> scaling -> backbone -> logits -> probabilities

Other rooms access its parts through this module, by the layer names below.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from backbones.keras import keras
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
