"""The networks of Keras Applications: MobileNet v1 to v3, NASNet-Mobile, EfficientNet.

The weights are loaded by `backbones.weights`, so that a read-only or hand-filled cache
folder works too. Where Keras puts the scaling of pixels inside a network it is left out
here and done by `network.SCALING`, as for every other backbone; for the EfficientNets
that is (pixel / 255 - mean) / deviation, with ImageNet's mean and deviation per
channel. The first EfficientNet's weights file carries the mean and the deviation as
weights, too (the deviation where a variance should stand; Keras divides by its root
once more, but only when it downloads the file itself: tensorflow/tensorflow issue
49930), so they are compared on loading. `minimalistic` is MobileNetV3 without
hard-swish, squeeze-and-excite and 5x5 kernels.

Sources: MobileNet, Howard et al. 2017, arXiv:1704.04861; MobileNetV2, Sandler et al.
2018, arXiv:1801.04381; MobileNetV3, Howard et al. 2019, arXiv:1905.02244; NASNet-Mobile
(4 @ 1056), Zoph et al. 2018, arXiv:1707.07012; EfficientNet, Tan and Le 2019,
arXiv:1905.11946; EfficientNetV2, Tan and Le 2021, arXiv:2104.00298. Accuracies of the
MobileNets: TensorFlow's own tables of the published checkpoints (tensorflow/models,
research/slim/nets/mobilenet), ImageNet top-1 at 224; of the others: the table of
keras.io/api/applications. Plain int8: EfficientNet-B0 fell from 75 % to 46 %
(TensorFlow blog, March 2020, EfficientNet-Lite).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from backbones.keras import keras
from backbones.record import Backbone, Channels, Published
from edge.errors import EdgegraftError

_ADDRESS = "https://storage.googleapis.com/"
_FOLDER = "tensorflow/keras-applications/"  # there, of most weights
_KERAS = "keras.io/api/applications"
_SLIM = "tensorflow/models, research/slim/nets/mobilenet"


def _application(name: str, size: int, **options: Any) -> Any:
    """A network of Keras Applications: random weights, no top, pooled to [N, D]."""
    return getattr(keras().applications, name)(
        input_shape=(size, size, 3),
        include_top=False,
        weights=None,
        pooling="avg",
        **options,
    )


def _published(
    folder: str, file: str, sizes: tuple[int, ...], remote: str = ""
) -> Published:
    return Published(
        file=file,
        remote=remote,
        address=_ADDRESS + folder,
        sizes=sizes,
        source="Keras Applications",
        licence="Apache-2.0",
    )


# -- MobileNet, NASNet -----------------------------------------------------------------
# alpha -> published ImageNet top-1 at 224, parameters, multiply-adds
_MOBILENET_V1 = {
    0.25: (49.8, 218_544, 40_774_272),
    0.5: (63.3, 829_536, 148_985_088),
    0.75: (68.4, 1_832_976, 324_632_448),
    1.0: (70.9, 3_228_864, 567_716_352),
}
_MOBILENET_V2 = {
    0.35: (60.3, 410_208, 58_005_808),
    0.5: (65.4, 706_224, 95_851_840),
    0.75: (69.8, 1_382_064, 207_789_792),
    1.0: (71.8, 2_257_984, 299_494_272),
    1.3: (74.4, 3_766_048, 507_710_560),
    1.4: (75.0, 4_363_712, 580_403_824),
}
# model, alpha, minimalistic -> the same, and the block that `--unfreeze top` begins at
_MOBILENET_V3 = {
    ("small", 0.75, False): (65.4, 583_160, 41_932_976),
    ("small", 1.0, False): (68.1, 939_120, 54_896_576),
    ("small", 1.0, True): (61.9, 441_000, 50_674_624),
    ("large", 0.75, False): (73.3, 1_808_736, 152_359_024),
    ("large", 1.0, False): (75.6, 2_996_352, 214_080_960),
    ("large", 1.0, True): (72.3, 1_437_608, 206_627_904),
}
_V3_TOP = {"small": "expanded_conv_8/expand", "large": "expanded_conv_12/expand"}
_V2_SIZES = (96, 128, 160, 192, 224)
_V1_SIZES = (128, 160, 192, 224)
# Keras publishes the two widest MobileNetV2 for one size only
_V2_ONLY_224 = (1.3, 1.4)
_V1_FILE_NAMES = {0.25: "2_5", 0.5: "5_0", 0.75: "7_5", 1.0: "1_0"}


def _mobile(
    network: str,
    name: str,
    family: str,
    facts: tuple[float, int, int],
    top: str,
    weights: Published,
    int8: tuple[str, str],
    accuracy_source: str = _SLIM,
    **options: Any,
) -> Backbone:
    """`network`: the function of Keras Applications, called with `options`."""
    accuracy, parameters, multiply_adds = facts
    return Backbone(
        name=name,
        family=family,
        build=lambda size, _: _application(network, size, **options),
        scale=1 / 127.5,
        offset=-1.0,
        default_size=224,
        min_size=32,
        top=top,
        imagenet=weights,
        accuracy=accuracy,
        accuracy_source=accuracy_source,
        parameters=parameters,
        multiply_adds=multiply_adds,
        int8=int8[0],
        int8_reason=int8[1],
    )


def _mobilenet_v1(alpha: float) -> Backbone:
    file = f"mobilenet_{_V1_FILE_NAMES[alpha]}_{{size}}_tf_no_top.h5"
    return _mobile(
        "MobileNet",
        f"mobilenet_v1_{alpha}",
        "mobilenet_v1",
        _MOBILENET_V1[alpha],
        "conv_dw_12",
        _published(f"{_FOLDER}mobilenet/", file, _V1_SIZES),
        ("good", "ReLU6"),
        alpha=alpha,
    )


def _mobilenet_v2(alpha: float) -> Backbone:
    prefix = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels"
    file = f"{prefix}_{alpha}_{{size}}_no_top.h5"
    sizes = (224,) if alpha in _V2_ONLY_224 else _V2_SIZES
    return _mobile(
        "MobileNetV2",
        f"mobilenet_v2_{alpha}",
        "mobilenet_v2",
        _MOBILENET_V2[alpha],
        "block_13_expand",
        _published(f"{_FOLDER}mobilenet_v2/", file, sizes),
        ("good", "ReLU6"),
        alpha=alpha,
    )


def _mobilenet_v3(model: str, alpha: float, minimalistic: bool) -> Backbone:
    variant = "_minimalistic" if minimalistic else ""
    file = f"weights_mobilenet_v3_{model}{variant}_224_{alpha}_float_no_top_v2.h5"
    return _mobile(
        f"MobileNetV3{model.title()}",
        f"mobilenet_v3_{model}_{'minimalistic' if minimalistic else alpha}",
        "mobilenet_v3",
        _MOBILENET_V3[model, alpha, minimalistic],
        _V3_TOP[model],
        _published(f"{_FOLDER}mobilenet_v3/", file, (224,)),
        ("good", "ReLU, the minimalistic ones")
        if minimalistic
        else ("hard", "hard-swish, squeeze-and-excite"),
        alpha=alpha,
        minimalistic=minimalistic,
        include_preprocessing=False,
    )


def _nasnet_mobile() -> Backbone:
    file, remote = "nasnet_mobile_no_top.h5", "NASNet-mobile-no-top.h5"
    return _mobile(
        "NASNetMobile",
        "nasnet_mobile",
        "nasnet",
        (74.4, 4_269_716, 562_582_816),
        "reduction_conv_1_reduce_8",
        _published(f"{_FOLDER}nasnet/", file, (224,), remote),
        ("fair", "ReLU, but many additions and concatenations of unlike ranges"),
        _KERAS,
    )


# -- EfficientNet ----------------------------------------------------------------------
MEAN: Channels = (0.485, 0.456, 0.406)
DEVIATION: Channels = (0.229, 0.224, 0.225)
_SCALE: Channels = (1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225))
_OFFSET: Channels = (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225)
_BLOCKS_BEGIN = "stem_conv_pad"  # the layer behind Keras's scaling
_ROUNDING = 1e-5  # of float32 numbers in a file

# version -> published ImageNet top-1 at the default size, that size, parameters,
# multiply-adds
_EFFICIENTNET = {
    "B0": (77.1, 224, 4_049_564, 384_534_752),
    "B1": (79.1, 240, 6_575_232, 685_522_832),
    "B2": (80.1, 260, 7_768_562, 992_153_872),
    "B3": (81.6, 300, 10_783_528, 1_825_605_392),
}
_EFFICIENTNET_V2 = {
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


def _efficient(
    network: str, name: str, family: str, facts: tuple[Any, ...], address: str
) -> Backbone:
    """`network`: the function of Keras Applications; its weights: `address`."""
    accuracy, size, parameters, multiply_adds = facts
    scales = family == "efficientnet"  # inside the network, always

    def build(size: int, _: Any) -> Any:
        if not scales:
            return _application(network, size, include_preprocessing=False)
        model = _application(network, size)
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
        in_file=partial(_application, network) if scales else None,
        check_file=_check_scaling if scales else None,
        top="block6a_expand_conv",
        imagenet=_published(f"{folder}/", file, (size,)),
        accuracy=accuracy,
        accuracy_source=_KERAS,
        parameters=parameters,
        multiply_adds=multiply_adds,
        int8="hard",
        int8_reason="swish, squeeze-and-excite",
    )


def _efficientnet(version: str) -> Backbone:
    b = version.lower()
    return _efficient(
        f"EfficientNet{version}",
        f"efficientnet_{b}",
        "efficientnet",
        _EFFICIENTNET[version],
        f"keras-applications/efficientnet{b}_notop.h5",
    )


def _efficientnet_v2(version: str) -> Backbone:
    b = version.lower()
    return _efficient(
        f"EfficientNetV2{version}",
        f"efficientnet_v2_{b}",
        "efficientnet_v2",
        _EFFICIENTNET_V2[version],
        f"{_FOLDER}efficientnet_v2/efficientnetv2-{b}_notop.h5",
    )


RECORDS = (
    *map(_mobilenet_v1, _MOBILENET_V1),
    *map(_mobilenet_v2, _MOBILENET_V2),
    *(_mobilenet_v3(*key) for key in _MOBILENET_V3),
    _nasnet_mobile(),
    *map(_efficientnet, _EFFICIENTNET),
    *map(_efficientnet_v2, _EFFICIENTNET_V2),
)
