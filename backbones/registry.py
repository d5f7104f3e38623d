"""The records of all backbones, found by name.

A record carries what belongs to its network: how to build it, which numbers it wants
to see, the sizes it has weights for, and what is known about it. Names that begin
with `hub:` are made into records by `backbones.hub`.

Does not know: where weights lie on this machine.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from edge.errors import EdgegraftError

HUB = "hub:"  # begins the name of a TF-Hub module
INT8 = ("good", "fair", "hard", "unknown")
_SHORT = 40  # letters of a module's handle in a folder's name
Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Published:
    """Weights somebody published: file and address are made from the input size.

    file: its name in the Keras cache. A `{size}` in it means one file for each of
    `sizes`; without it one file serves every size, and `sizes` says which it was
    trained at. remote: its name on the web, where that is another.
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
class Backbone:
    """A feature extractor.

    `build(size, options)` returns a tf-keras model that maps float32
    [N, size, size, 3], already scaled, to float32 features [N, D].
    `scale`, `offset`: the scaled input is `pixel * scale + offset` for pixels 0..255,
    one number for all channels or one for each. The network itself must not scale.
    `in_file(size)`: the network as a weights file holds it, where that is another than
    `build` gives; its layers of the same names are taken, after `check_file` has seen
    it with the file's weights (EdgegraftError if these don't belong here).
    `top`: name of the first layer that `--unfreeze top` trains.
    `parameters` are those of the extractor, without a head; `multiply_adds` are for
    one photo at the default size. `int8`: how plain int8 quantization treats it.
    `max_size`: None for any. `own_weights`: where the network that `build` gives has
    its weights from already. `can_train`: False where only its head can be trained.
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
    top: str | None = None
    imagenet: Published | None = None
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
    if name.startswith(HUB):
        from backbones import hub

        return hub.record(name)
    _fill()
    if name in _records:
        return _records[name]
    meant = _meant(name)
    if not meant:
        raise EdgegraftError(
            f"expected a known backbone, got {name!r} (known: "
            f"{', '.join(_records)}, and {HUB}HANDLE for a module of TF-Hub)"
        )
    which = meant[0] if len(meant) == 1 else f"one of {', '.join(meant)}"
    raise EdgegraftError(
        f"expected a known backbone, got {name!r}; did you mean {which}? "
        "(edgegraft backbones lists all)"
    )


def _meant(name: str) -> list[str]:
    """Of a family that is named, however it is spelt, all; else the name next to it."""

    def letters(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    begun = letters(name)
    family = [known for known in _records if begun and letters(known).startswith(begun)]
    return family or difflib.get_close_matches(name, _records, n=1, cutoff=0.5)


def full_name(name: str) -> str:
    """The name that means the same from any folder: a module's path made whole."""
    if not name.startswith(HUB):
        return name
    from backbones import hub

    return hub.full_name(name)


def short_name(name: str) -> str:
    """A name fit for a folder: of a module, the last parts of its handle."""
    if not name.startswith(HUB):
        return name
    plain = re.sub(r"[^A-Za-z0-9.]+", "_", name[len(HUB) :]).strip("_.")
    return f"hub-{plain[-_SHORT:].strip('_.')}"
