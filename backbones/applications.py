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


def _v2(alpha: float) -> Backbone:
    def build(size: int, options: Any) -> Any:
        return keras().applications.MobileNetV2(
            input_shape=(size, size, 3),
            alpha=alpha,
            include_top=False,
            weights=None,
            pooling="avg",
        )

    return Backbone(
        name=f"mobilenet_v2_{alpha}",
        family="mobilenet_v2",
        build=build,
        scale=1 / 127.5,
        offset=-1.0,
        default_size=224,
        min_size=32,
        top="block_13_expand",
        imagenet=Published(
            file=f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}"
            "_{size}_no_top.h5",
            address=_KERAS_ADDRESS + "mobilenet_v2/",
            sizes=(224,) if alpha in _V2_ONLY_224 else _V2_SIZES,
            source="Keras Applications",
            licence="Apache-2.0",
        ),
        accuracy=_V2_ACCURACY[alpha],
        accuracy_source=_SLIM,
    )


def _v1(alpha: float) -> Backbone:
    def build(size: int, options: Any) -> Any:
        return keras().applications.MobileNet(
            input_shape=(size, size, 3),
            alpha=alpha,
            include_top=False,
            weights=None,
            pooling="avg",
        )

    return Backbone(
        name=f"mobilenet_v1_{alpha}",
        family="mobilenet_v1",
        build=build,
        scale=1 / 127.5,
        offset=-1.0,
        default_size=224,
        min_size=32,
        top="conv_dw_12",
        imagenet=Published(
            file=f"mobilenet_{_V1_FILE_PART[alpha]}" + "_{size}_tf_no_top.h5",
            address=_KERAS_ADDRESS + "mobilenet/",
            sizes=_V1_SIZES,
            source="Keras Applications",
            licence="Apache-2.0",
        ),
        accuracy=_V1_ACCURACY[alpha],
        accuracy_source=_SLIM,
    )


RECORDS = (*map(_v1, _V1_ACCURACY), *map(_v2, _V2_ACCURACY))
