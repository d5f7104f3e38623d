"""EfficientNet and EfficientNetV2, B0 to B3, of Keras Applications.

Keras puts the scaling of pixels inside these networks. It is left out here and done
by `network.SCALING`, as for every other backbone: (pixel / 255 - mean) / deviation,
with ImageNet's mean and deviation per channel. The first EfficientNet's weights file
carries the mean and the deviation as weights, too (the deviation where a variance
should stand; Keras divides by its root once more, but only when it downloads the file
itself: tensorflow/tensorflow issue 49930), so they are compared on loading.

Sources: EfficientNet, Tan and Le 2019, arXiv:1905.11946; EfficientNetV2, Tan and Le
2021, arXiv:2104.00298. Accuracies: the table of keras.io/api/applications. Plain int8:
EfficientNet-B0 fell from 75 % to 46 % (TensorFlow blog, March 2020, EfficientNet-Lite).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from backbones.keras import application, keras
from backbones.record import Backbone, Channels, Published
from edge.errors import EdgegraftError

MEAN: Channels = (0.485, 0.456, 0.406)
DEVIATION: Channels = (0.229, 0.224, 0.225)
_SCALE: Channels = (1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225))
_OFFSET: Channels = (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225)
_BLOCKS_BEGIN = "stem_conv_pad"  # the layer behind Keras's scaling
_ROUNDING = 1e-5  # of float32 numbers in a file

# name -> published ImageNet top-1 at the default size, that size, parameters,
# multiply-adds
_V1 = {
    "B0": (77.1, 224, 4_049_564, 384_534_752),
    "B1": (79.1, 240, 6_575_232, 685_522_832),
    "B2": (80.1, 260, 7_768_562, 992_153_872),
    "B3": (81.6, 300, 10_783_528, 1_825_605_392),
}
_V2 = {
    "B0": (78.7, 224, 5_919_312, 716_806_176),
    "B1": (79.8, 240, 6_931_124, 1_195_539_360),
    "B2": (80.5, 260, 8_769_374, 1_696_134_832),
    "B3": (82.0, 300, 12_930_622, 3_009_922_816),
}


def _check_scaling(network: Any) -> None:
    """Refuse a weights file whose scaling is not that of `network.SCALING`."""
    layer = next(x for x in network.layers if type(x).__name__ == "Normalization")
    mean, deviation, _ = layer.get_weights()  # or the variance
    fits = np.allclose(mean, MEAN, atol=_ROUNDING) and (
        np.allclose(deviation, DEVIATION, atol=_ROUNDING)
        or np.allclose(deviation, np.square(DEVIATION), atol=_ROUNDING)
    )
    if not fits:
        raise EdgegraftError(
            f"expected EfficientNet weights for pixels normalised with mean {MEAN} and "
            f"deviation {DEVIATION}, got mean {mean.round(4).tolist()} and "
            f"{deviation.round(4).tolist()}; weights made for other pixels can't be "
            "used"
        )


def _record(
    network: str, name: str, family: str, facts: tuple[Any, ...], address: str
) -> Backbone:
    """`network`: the function of Keras Applications; its weights: `address`."""
    accuracy, size, parameters, multiply_adds = facts
    scales = family == "efficientnet"  # inside the network, always

    def build(size: int, _: Any) -> Any:
        if not scales:
            return application(network, size, include_preprocessing=False)
        model = application(network, size)
        return keras().Model(model.get_layer(_BLOCKS_BEGIN).input, model.output)

    folder, _, file = address.rpartition("/")
    return Backbone(
        name=name,
        family=family,
        build=build,
        scale=_SCALE,
        offset=_OFFSET,
        default_size=size,
        min_size=32,
        in_file=partial(application, network) if scales else None,
        check_file=_check_scaling if scales else None,
        top="block6a_expand_conv",
        imagenet=Published(
            file=file,
            address=f"https://storage.googleapis.com/{folder}/",
            sizes=(size,),
            source="Keras Applications",
            licence="Apache-2.0",
        ),
        accuracy=accuracy,
        accuracy_source="keras.io/api/applications",
        parameters=parameters,
        multiply_adds=multiply_adds,
        int8="hard",
        int8_reason="swish, squeeze-and-excite",
    )


def _v1(version: str) -> Backbone:
    b = version.lower()
    return _record(
        f"EfficientNet{version}",
        f"efficientnet_{b}",
        "efficientnet",
        _V1[version],
        f"keras-applications/efficientnet{b}_notop.h5",
    )


def _v2(version: str) -> Backbone:
    b = version.lower()
    return _record(
        f"EfficientNetV2{version}",
        f"efficientnet_v2_{b}",
        "efficientnet_v2",
        _V2[version],
        f"tensorflow/keras-applications/efficientnet_v2/efficientnetv2-{b}_notop.h5",
    )


RECORDS = (*map(_v1, _V1), *map(_v2, _V2))
