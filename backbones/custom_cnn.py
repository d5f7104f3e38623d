"""The configurable CNN: blocks of convolutions, trained from scratch.

Configured by a TOML file or by `--set name=value`; every field has a default that
makes a small, int8-friendly network. Batch norm folds into the convolutions on
export; a global pooling keeps the head small. Its maximum learned faster than its
average on few photos (drawn and real ones, judged on validation parts).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from backbones.keras import keras
from backbones.record import Backbone
from edge.errors import EdgegraftError

_POOLINGS = ("max", "average", "stride")
_HEADS = ("max", "average", "flatten")
_ACTIVATIONS = ("relu", "relu6")


@dataclass(frozen=True)
class CnnConfig:
    """The architecture of the CNN. EdgegraftError for contradictions.

    filters: output channels, one entry a block. convolutions: how many in a block.
    pooling: how a block halves height and width. separable: depthwise + pointwise
    after the first block. head: how the last feature map becomes a vector.
    dense: units of a hidden layer before the logits, 0 for none. dropout: before the
    logits, as a fraction.
    """

    filters: tuple[int, ...] = (24, 48, 96, 128)
    convolutions: int = 1
    kernel: int = 3
    pooling: str = "max"
    separable: bool = False
    batch_norm: bool = True
    activation: str = "relu"
    head: str = "max"
    dense: int = 0
    dropout: float = 0.2

    def __post_init__(self) -> None:
        def expect(name: str, what: str, ok: bool) -> None:
            if not ok:
                raise EdgegraftError(
                    f"expected custom_cnn {name} to be {what}, "
                    f"got {getattr(self, name)!r}"
                )

        for value in (self.convolutions, self.kernel, self.dense, *self.filters):
            if not isinstance(value, int) or isinstance(value, bool):
                raise EdgegraftError(
                    f"expected whole numbers in the custom_cnn options, got {value!r}"
                )
        expect(
            "filters",
            "1 to 8 whole numbers of at least 1",
            1 <= len(self.filters) <= 8 and min(self.filters, default=0) >= 1,
        )
        expect("convolutions", "1 to 4", 1 <= self.convolutions <= 4)
        expect("kernel", "1, 3, 5 or 7", self.kernel in (1, 3, 5, 7))
        expect("pooling", " or ".join(_POOLINGS), self.pooling in _POOLINGS)
        expect("head", " or ".join(_HEADS), self.head in _HEADS)
        expect("activation", " or ".join(_ACTIVATIONS), self.activation in _ACTIVATIONS)
        expect("separable", "true or false", isinstance(self.separable, bool))
        expect("batch_norm", "true or false", isinstance(self.batch_norm, bool))
        expect("dense", "0 or more units", self.dense >= 0)
        expect(
            "dropout",
            "a number from 0 to below 1",
            isinstance(self.dropout, (int, float)) and 0 <= self.dropout < 1,
        )

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def from_mapping(values: Mapping[str, Any], where: str) -> CnnConfig:
    """A config from plain values; EdgegraftError with the options for unknown ones."""
    options = [field.name for field in dataclasses.fields(CnnConfig)]
    for name in values:
        if name not in options:
            raise EdgegraftError(
                f"expected custom_cnn options among {', '.join(options)}, "
                f"got {name!r} in {where}"
            )
    if "filters" in values:
        filters = values["filters"]
        listed = isinstance(filters, (list, tuple))
        values = {**values, "filters": tuple(filters) if listed else (filters,)}
    return CnnConfig(**values)


def read_config(
    path: str | PathLike[str] | None, settings: Iterable[str] = ()
) -> CnnConfig:
    """Read a TOML file (top level or a [custom_cnn] table), then `name=value` texts.

    Values in `settings` are TOML too, so `filters=[16,32]`, `pooling="stride"`; a bare
    word is taken as text. EdgegraftError for a missing file, bad TOML, unknown names.
    """
    if sys.version_info >= (3, 11):
        import tomllib as toml
    else:
        import tomli as toml
    values: dict[str, Any] = {}
    where = "--set"
    if path is not None:
        where = str(path)
        try:
            document = toml.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise EdgegraftError(
                f"expected a TOML file with custom_cnn options at {path}, "
                f"got: {error.strerror}"
            ) from error
        except (toml.TOMLDecodeError, UnicodeDecodeError) as error:
            raise EdgegraftError(f"expected TOML in {path}, got: {error}") from error
        values = dict(document.get("custom_cnn", document))
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise EdgegraftError(f"expected --set name=value, got {setting!r}")
        try:
            value = toml.loads(f"value = {text}")["value"]
        except toml.TOMLDecodeError:
            value = text
        values[name.strip()] = value
    return from_mapping(values, where)


def _build(size: int, options: CnnConfig | None) -> Any:
    config = options or CnnConfig()
    blocks = len(config.filters)
    if size < 2**blocks:
        raise EdgegraftError(
            f"expected a size of at least {2**blocks} for a custom_cnn with {blocks} "
            f"blocks (each halves it), got {size}; use fewer filters or a larger --size"
        )
    layers = keras().layers
    x = image = keras().Input((size, size, 3))
    for block, filters in enumerate(config.filters):
        for index in range(config.convolutions):
            last = index == config.convolutions - 1
            separable = config.separable and block > 0
            convolution = layers.SeparableConv2D if separable else layers.Conv2D
            x = convolution(
                filters,
                config.kernel,
                strides=2 if last and config.pooling == "stride" else 1,
                padding="same",
                use_bias=not config.batch_norm,
                name=f"block_{block + 1}_conv_{index + 1}",
            )(x)
            if config.batch_norm:
                x = layers.BatchNormalization(momentum=0.9)(x)
            x = layers.ReLU(6.0 if config.activation == "relu6" else None)(x)
        if config.pooling == "max":
            x = layers.MaxPooling2D(2)(x)
        elif config.pooling == "average":
            x = layers.AveragePooling2D(2)(x)
    heads = {
        "flatten": layers.Flatten,
        "max": layers.GlobalMaxPooling2D,
        "average": layers.GlobalAveragePooling2D,
    }
    x = heads[config.head]()(x)
    if config.dense:
        x = layers.Dense(config.dense, activation="relu", name="hidden")(x)
    if config.dropout:
        x = layers.Dropout(config.dropout)(x)
    return keras().Model(image, x)


RECORDS = (
    Backbone(
        name="custom_cnn",
        family="custom_cnn",
        build=_build,
        scale=1 / 127.5,
        offset=-1.0,
        default_size=96,
        min_size=8,
        parameters=164_264,  # of the default configuration, as the next
        multiply_adds=69_672_960,
        int8="good",
        int8_reason="ReLU",
        options=CnnConfig,
        notes="trained from scratch; configure with --cnn FILE.toml or --set",
    ),
)
