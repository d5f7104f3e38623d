"""Keras Applications as backbones: MobileNet v1 and v2, every published alpha.

The networks are tf-keras's own; the weights are loaded by `backbones.weights`, so
that a read-only or hand-filled cache folder works too.

Sources: MobileNet, Howard et al. 2017, arXiv:1704.04861; MobileNetV2, Sandler et al.
2018, arXiv:1801.04381. Accuracies: TensorFlow's own tables of the published
checkpoints (tensorflow/models, research/slim/nets/mobilenet), ImageNet top-1 at 224.

Does not know: where weights lie, heads, training.
"""

from __future__ import annotations

from typing import Any

from backbones.keras import keras
from backbones.registry import Backbone, Published

_KERAS_ADDRESS = "https://storage.googleapis.com/tensorflow/keras-applications/"
_SLIM = "tensorflow/models, research/slim/nets/mobilenet"

# alpha -> published ImageNet top-1 at 224
_V2_ACCURACY = {0.35: 60.3, 0.5: 65.4, 0.75: 69.8, 1.0: 71.8, 1.3: 74.4, 1.4: 75.0}
_V1_ACCURACY = {0.25: 49.8, 0.5: 63.3, 0.75: 68.4, 1.0: 70.9}
_V2_SIZES = (96, 128, 160, 192, 224)
_V1_SIZES = (128, 160, 192, 224)
# Keras publishes the two widest MobileNetV2 for one size only
_V2_ONLY_224 = (1.3, 1.4)
_V1_FILE_PART = {0.25: "2_5", 0.5: "5_0", 0.75: "7_5", 1.0: "1_0"}


def _mobilenet(
    network: str, name: str, accuracy: float, top: str, weights: Published, alpha: float
) -> Backbone:
    """`network` is the function of Keras Applications, `name` ours without alpha."""

    def build(size: int, options: Any) -> Any:
        return getattr(keras().applications, network)(
            input_shape=(size, size, 3),
            alpha=alpha,
            include_top=False,
            weights=None,
            pooling="avg",
        )

    return Backbone(
        name=f"{name}_{alpha}",
        family=name,
        build=build,
        scale=1 / 127.5,
        offset=-1.0,
        default_size=224,
        min_size=32,
        top=top,
        imagenet=weights,
        accuracy=accuracy,
        accuracy_source=_SLIM,
    )


def _published(folder: str, file: str, sizes: tuple[int, ...]) -> Published:
    return Published(
        file=file,
        address=_KERAS_ADDRESS + folder,
        sizes=sizes,
        source="Keras Applications",
        licence="Apache-2.0",
    )


def _v1(alpha: float) -> Backbone:
    file = f"mobilenet_{_V1_FILE_PART[alpha]}" + "_{size}_tf_no_top.h5"
    weights = _published("mobilenet/", file, _V1_SIZES)
    top, accuracy = "conv_dw_12", _V1_ACCURACY[alpha]
    return _mobilenet("MobileNet", "mobilenet_v1", accuracy, top, weights, alpha)


def _v2(alpha: float) -> Backbone:
    kernels = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_"
    sizes = (224,) if alpha in _V2_ONLY_224 else _V2_SIZES
    weights = _published(
        "mobilenet_v2/", kernels + f"{alpha}_{{size}}_no_top.h5", sizes
    )
    top, accuracy = "block_13_expand", _V2_ACCURACY[alpha]
    return _mobilenet("MobileNetV2", "mobilenet_v2", accuracy, top, weights, alpha)


RECORDS = (*map(_v1, _V1_ACCURACY), *map(_v2, _V2_ACCURACY))
