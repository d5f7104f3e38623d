"""The trainable layers, and the learning rate of each at every step.

The rate rises linearly over the first tenth of the steps and falls as a cosine
(Loshchilov and Hutter 2017, arXiv:1608.03983). Lower layers have general features, so
they may have smaller rates (discriminative rates: Howard and Ruder 2018,
arXiv:1801.06146).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

from backbones import network
from backbones.record import Backbone
from edge.errors import EdgegraftError

WARM_UP = 0.1  # fraction of all steps
LAST = 0.01  # the cosine ends at this fraction of the peak
AUTO_FROZEN = 3  # 1/3 of the layers, the lowest, stay frozen: edges, colours
GROUPS = 4  # of layers with a learning rate of their own


@dataclass(frozen=True)
class Group:
    """Variables that are trained at `multiplier` times the learning rate."""

    multiplier: float
    variables: tuple[Any, ...]


def rate_at(step: int, steps: int, peak: float) -> float:
    """The learning rate of step 0..steps-1."""
    warm_up = max(1, round(steps * WARM_UP))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, steps - warm_up)
    return peak * (LAST + (1 - LAST) * (1 + math.cos(math.pi * progress)) / 2)


def _first_trained(names: list[str], backbone: Backbone, unfreeze: str) -> int:
    if unfreeze == "all":
        return 0
    if unfreeze == "auto":
        return len(names) // AUTO_FROZEN
    if unfreeze == "none":
        return len(names)
    if unfreeze == "top":
        return names.index(backbone.top) if backbone.top is not None else 0
    return max(0, len(names) - int(unfreeze))


def set_trainable(model: Any, backbone: Backbone, unfreeze: str) -> int:
    """Set which layers are trained; returns the number of trained weights.

    unfreeze: none, auto (all but the lowest third), top (from the layer that the
    backbone's record names), all, or the number of the backbone's last layers, counted
    as Keras lists them. EdgegraftError when it has fewer. Batch norm of a pretrained
    backbone keeps its statistics either way: the backbone is called in inference mode
    (`backbones.network`).
    """
    if not backbone.can_train and unfreeze != "none":
        raise EdgegraftError(
            f"expected --unfreeze none with {backbone.name}, a module that can't be "
            f"fine-tuned (in TF1's format, called through a signature, or without "
            f"weights to train), got {unfreeze}"
        )
    layers = model.get_layer(network.BACKBONE).layers
    if unfreeze.isdecimal() and int(unfreeze) > len(layers):
        raise EdgegraftError(
            f"expected --unfreeze to be at most {len(layers)}, the layers of "
            f"{backbone.name}, got {unfreeze}"
        )
    first = _first_trained([layer.name for layer in layers], backbone, unfreeze)
    for index, layer in enumerate(layers):
        layer.trainable = index >= first
    return int(sum(math.prod(weight.shape) for weight in model.trainable_weights))


def groups(model: Any, decay: float) -> tuple[Group, ...]:
    """Trained variables by learning-rate multiplier: the head 1, the lowest `decay`.

    The backbone's trained layers are cut into `GROUPS` equal groups, whose multiplier
    falls geometrically; at a decay of 1 there is one group.
    """
    if decay == 1:
        return (Group(1.0, tuple(model.trainable_variables)),)
    layers = model.get_layer(network.BACKBONE).layers
    trained = [layer for layer in layers if layer.trainable_variables]
    result = [Group(1.0, tuple(model.get_layer(network.LOGITS).trainable_variables))]
    cuts = [len(trained) * index // GROUPS for index in range(GROUPS + 1)]
    for index, (start, end) in enumerate(itertools.pairwise(cuts)):
        layers = trained[start:end]
        variables = tuple(v for layer in layers for v in layer.trainable_variables)
        if variables:
            result.append(Group(decay ** (1 - index / GROUPS), variables))
    return tuple(result)
