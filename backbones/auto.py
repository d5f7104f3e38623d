"""`--backbone auto`: the best pretrained network whose weights are on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from backbones import registry, weights
from backbones.record import Backbone, Packaged
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
_SMALL = (
    ("efficientnet_lite0", 128),
    ("mobilenet_v2_0.35", 224),
    ("mobilenet_v2_0.35", 160),
    ("mobilenet_v2_0.35", 128),
)


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


def choose(size: int | None = None, *, small: bool = False) -> Choice:
    """The first network of the list that has ImageNet weights here at this size.

    size: where the user named one; None for the size that suits the network. small:
    for slow devices. EdgegraftError with the command that brings weights when there are
    none; nothing is downloaded.
    """
    first = registry.get(_PREFERRED[0][0])
    assert isinstance(first.imagenet, Packaged)
    for name, preferred_size in _SMALL if small else _PREFERRED:
        backbone, pixels = registry.get(name), preferred_size if size is None else size
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
