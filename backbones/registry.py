"""The networks: found by name, or chosen for `--backbone auto`.

`hub:HANDLE` names a module of TF-Hub. `auto` is the best pretrained network whose
weights are on this machine.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from backbones import custom_cnn, efficientnet_lite, hub, keras_applications, weights
from backbones.record import HUB, Backbone, Packaged
from edge.errors import EdgegraftError

AUTO, SMALL = "auto", "small"  # names for a network to be chosen

# (network, input size in pixels), best first. Lite0 by tests/benchmarks/input_size.py:
# cross-validated log loss of a probe in nats at 96, 128, 160, 192 and 224 pixels on 600
# training photos of trashnet 0.690, 0.599, 0.564, 0.548, 0.539, on 600 of cats and dogs
# 0.217, 0.118, 0.061, 0.042, 0.038; its int8 file takes 0.95, 1.47, 2.28, 3.14 and 4.2
# ms. 192 is the smallest within one standard error of 224 on both. The benchmark's rule
# for a small one would take 160; 128 costs two thirds of that.
_PREFERRED = (
    ("efficientnet_lite0", 192),
    ("mobilenet_v2_1.0", 224),
    ("mobilenet_v2_0.35", 224),
)
_PREFERRED_SMALL = (
    ("efficientnet_lite0", 128),
    ("mobilenet_v2_0.35", 224),
    ("mobilenet_v2_0.35", 160),
    ("mobilenet_v2_0.35", 128),
)

_SHORT = 40  # characters of a module's handle in a folder's name
_RECORDS = {
    record.name: record
    for family in (efficientnet_lite, keras_applications, custom_cnn)
    for record in family.RECORDS
}


def names() -> tuple[str, ...]:
    """All names, families together, small first."""
    return tuple(_RECORDS)


def get(name: str) -> Backbone:
    """The record of that name. EdgegraftError that lists what exists otherwise."""
    if name.startswith(HUB):
        return hub.record(name)
    if name in _RECORDS:
        return _RECORDS[name]
    similar = _similar(name)
    if not similar:
        raise EdgegraftError(
            f"expected a known backbone, got {name!r} (known: "
            f"{', '.join(_RECORDS)}, and {HUB}HANDLE for a module of TF-Hub)"
        )
    suggestion = similar[0] if len(similar) == 1 else f"one of {', '.join(similar)}"
    raise EdgegraftError(
        f"expected a known backbone, got {name!r}; did you mean {suggestion}? "
        "(edgegraft backbones lists all)"
    )


def _similar(name: str) -> list[str]:
    """All networks of a family, however it is spelt; else the most similar name."""

    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    prefix = plain(name)
    family = [known for known in _RECORDS if prefix and plain(known).startswith(prefix)]
    return family or difflib.get_close_matches(name, _RECORDS, n=1, cutoff=0.5)


def full_name(name: str) -> str:
    """The name of the same network from any folder: a module's path is resolved."""
    return hub.full_name(name) if name.startswith(HUB) else name


def short_name(name: str) -> str:
    """A name for a folder: of a module, the end of its handle."""
    if not name.startswith(HUB):
        return name
    plain = re.sub(r"[^A-Za-z0-9.]+", "_", name[len(HUB) :]).strip("_.")
    return f"hub-{plain[-_SHORT:].strip('_.')}"


# -- `--backbone auto` -----------------------------------------------------------------
@dataclass(frozen=True)
class Choice:
    """A network and its input size in pixels, for the option that was given.

    missing: the command that brings the weights of a better network, if any.
    """

    backbone: Backbone
    size: int
    option: str
    missing: str = ""

    @property
    def line(self) -> str:
        """What was chosen and why, for people."""
        if self.missing:
            why = f"the best with weights on this machine; better: {self.missing}"
        else:
            why = "pretrained on ImageNet, a network made for int8"
        return f"{self.backbone.name} at {self.size}: {why} ({self.option})"


def choose_pretrained(size: int | None = None, *, small: bool = False) -> Choice:
    """The first network of the list that has ImageNet weights here at this size.

    size: where the user named one; None for the size that suits the network. small:
    for slow devices. EdgegraftError with the command that brings weights when there are
    none; nothing is downloaded.
    """
    first = get(_PREFERRED[0][0])
    assert isinstance(first.imagenet, Packaged)
    for name, preferred_size in _PREFERRED_SMALL if small else _PREFERRED:
        backbone, pixels = get(name), preferred_size if size is None else size
        imagenet = backbone.imagenet
        if imagenet is None or not (imagenet.any_size or pixels in imagenet.sizes):
            continue
        if weights.locate(backbone, pixels) is not None:
            missing = "" if backbone is first else first.imagenet.install
            option = "--small" if small else "--backbone auto"
            return Choice(backbone, pixels, option, missing)
    raise EdgegraftError(
        "expected pretrained weights on this machine for --backbone auto, got none; "
        f"{first.imagenet.install}, or name another network "
        "(edgegraft backbones lists them)"
    )
