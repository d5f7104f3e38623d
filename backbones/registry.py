"""The registry of backbones: one record a network, with its own preprocessing.

A record carries everything that belongs to a network and not to a training run:
how to build it, what its input range is, where its weights come from and for which
sizes they were published (the idea of torchvision's weights enums).

Does not know: labels, heads, training.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from edge.errors import EdgegraftError


@dataclass(frozen=True)
class Published:
    """Weights somebody published: file and address are made from the input size."""

    file: str  # with {size}
    address: str  # folder on the web, ends in /
    sizes: tuple[int, ...]
    source: str
    licence: str

    def file_for(self, size: int) -> str:
        return self.file.format(size=size)

    def address_for(self, size: int) -> str:
        return self.address + self.file_for(size)


@dataclass(frozen=True)
class Backbone:
    """A feature extractor.

    `build(size, options)` returns a tf-keras model that maps float32
    [N, size, size, 3], already scaled, to float32 features [N, D].
    `scale`, `offset`: the scaled input is `pixel * scale + offset` for pixels 0..255.
    `top`: name of the first layer that `--unfreeze top` trains.
    """

    name: str
    family: str
    build: Callable[[int, Any], Any]
    scale: float
    offset: float
    default_size: int
    min_size: int
    top: str | None = None
    imagenet: Published | None = None
    accuracy: float | None = None  # published ImageNet top-1 at the default size, %
    accuracy_source: str = ""
    options: type | None = None  # dataclass of --set options, if the network has any
    notes: str = field(default="")

    def __post_init__(self) -> None:
        if self.min_size > self.default_size:
            raise ValueError(f"{self.name}: min_size is above default_size")
        if self.imagenet and self.default_size not in self.imagenet.sizes:
            raise ValueError(f"{self.name}: no ImageNet weights for the default size")


_records: dict[str, Backbone] = {}


def register(records: Iterable[Backbone]) -> None:
    """Add records; a name that is taken is refused (ValueError)."""
    for record in records:
        if record.name in _records:
            raise ValueError(f"backbone {record.name!r} is registered twice")
        _records[record.name] = record


def _fill() -> None:
    if not _records:
        from backbones import applications, custom_cnn

        register(custom_cnn.RECORDS)
        register(applications.RECORDS)


def names() -> tuple[str, ...]:
    """All names, sorted as they were registered: families together, small first."""
    _fill()
    return tuple(_records)


def get(name: str) -> Backbone:
    """The record of that name. EdgegraftError that lists what exists otherwise."""
    _fill()
    if name in _records:
        return _records[name]
    close = difflib.get_close_matches(name, _records, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise EdgegraftError(
        f"expected a known backbone, got {name!r}{hint} (known: {', '.join(_records)})"
    )
