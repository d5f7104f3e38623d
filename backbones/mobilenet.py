"""MobileNet v1 to v3, in every published width, and NASNet-Mobile.

The networks are those of Keras Applications, the weights are loaded by
`backbones.weights`, so that a read-only or hand-filled cache folder works too.

Sources: MobileNet, Howard et al. 2017, arXiv:1704.04861; MobileNetV2, Sandler et al.
2018, arXiv:1801.04381; MobileNetV3, Howard et al. 2019, arXiv:1905.02244. Accuracies:
TensorFlow's own tables of the published checkpoints (tensorflow/models,
research/slim/nets/mobilenet), ImageNet top-1 at 224. `minimalistic` is MobileNetV3
without hard-swish, squeeze-and-excite and 5x5 kernels. NASNet-Mobile (4 @ 1056): Zoph
et al. 2018, arXiv:1707.07012; accuracy: the table of keras.io/api/applications.
"""

from __future__ import annotations

from typing import Any

from backbones.keras import application
from backbones.record import Backbone, Published

_ADDRESS = "https://storage.googleapis.com/tensorflow/keras-applications/"
_SLIM = "tensorflow/models, research/slim/nets/mobilenet"

# alpha -> published ImageNet top-1 at 224, parameters, multiply-adds
_V1 = {
    0.25: (49.8, 218_544, 40_774_272),
    0.5: (63.3, 829_536, 148_985_088),
    0.75: (68.4, 1_832_976, 324_632_448),
    1.0: (70.9, 3_228_864, 567_716_352),
}
_V2 = {
    0.35: (60.3, 410_208, 58_005_808),
    0.5: (65.4, 706_224, 95_851_840),
    0.75: (69.8, 1_382_064, 207_789_792),
    1.0: (71.8, 2_257_984, 299_494_272),
    1.3: (74.4, 3_766_048, 507_710_560),
    1.4: (75.0, 4_363_712, 580_403_824),
}
# model, alpha, minimalistic -> the same, and the block that `--unfreeze top` begins at
_V3 = {
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


def _record(
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
        build=lambda size, _: application(network, size, **options),
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


def _v1(alpha: float) -> Backbone:
    file = f"mobilenet_{_V1_FILE_NAMES[alpha]}_{{size}}_tf_no_top.h5"
    return _record(
        "MobileNet",
        f"mobilenet_v1_{alpha}",
        "mobilenet_v1",
        _V1[alpha],
        "conv_dw_12",
        _published("mobilenet/", file, _V1_SIZES),
        ("good", "ReLU6"),
        alpha=alpha,
    )


def _v2(alpha: float) -> Backbone:
    prefix = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels"
    file = f"{prefix}_{alpha}_{{size}}_no_top.h5"
    sizes = (224,) if alpha in _V2_ONLY_224 else _V2_SIZES
    return _record(
        "MobileNetV2",
        f"mobilenet_v2_{alpha}",
        "mobilenet_v2",
        _V2[alpha],
        "block_13_expand",
        _published("mobilenet_v2/", file, sizes),
        ("good", "ReLU6"),
        alpha=alpha,
    )


def _v3(model: str, alpha: float, minimalistic: bool) -> Backbone:
    """Without Keras's own scaling layer: `network.SCALING` does it, once."""
    variant = "_minimalistic" if minimalistic else ""
    file = f"weights_mobilenet_v3_{model}{variant}_224_{alpha}_float_no_top_v2.h5"
    return _record(
        f"MobileNetV3{model.title()}",
        f"mobilenet_v3_{model}_{'minimalistic' if minimalistic else alpha}",
        "mobilenet_v3",
        _V3[model, alpha, minimalistic],
        _V3_TOP[model],
        _published("mobilenet_v3/", file, (224,)),
        ("good", "ReLU, the minimalistic ones")
        if minimalistic
        else ("hard", "hard-swish, squeeze-and-excite"),
        alpha=alpha,
        minimalistic=minimalistic,
        include_preprocessing=False,
    )


RECORDS = (
    *map(_v1, _V1),
    *map(_v2, _V2),
    *(_v3(*key) for key in _V3),
    _record(
        "NASNetMobile",
        "nasnet_mobile",
        "nasnet",
        (74.4, 4_269_716, 562_582_816),
        "reduction_conv_1_reduce_8",
        _published(
            "nasnet/", "nasnet_mobile_no_top.h5", (224,), "NASNet-mobile-no-top.h5"
        ),
        ("fair", "ReLU, but many additions and concatenations of unlike ranges"),
        "keras.io/api/applications",
    ),
)
