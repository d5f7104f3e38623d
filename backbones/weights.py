"""Where weights come from: the Keras cache, a download, a file; never random unasked.

The cache folder is Keras's own (`$KERAS_HOME/models`, else `~/.keras/models`), looked
at directly: Keras would leave a read-only cache aside and download again.

Does not know: what the weights are trained into.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones.keras import keras
from backbones.record import Backbone, Published
from edge.errors import EdgegraftError


def cache_folder() -> Path:
    """The folder in which Keras keeps downloaded weights."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models"


def _published(backbone: Backbone, size: int) -> Published:
    published = backbone.imagenet
    if published is None:
        raise EdgegraftError(
            f"expected a backbone with ImageNet weights, got {backbone.name}, which "
            "has none; train it from scratch with --weights none"
        )
    if size not in published.sizes and not published.any_size:
        sizes = ", ".join(map(str, published.sizes))
        raise EdgegraftError(
            f"expected a size that {backbone.name} has ImageNet weights for ({sizes}), "
            f"got --size {size}; take one of these, or load another size's file on "
            "purpose with --weights FILE"
        )
    return published


def locate(backbone: Backbone, size: int) -> Path | None:
    """The ImageNet weights file in the cache, or None when it isn't there."""
    path = cache_folder() / _published(backbone, size).file_for(size)
    return path if path.is_file() else None


def _of_other_size(backbone: Backbone) -> Path | None:
    """The file in the cache for the largest size, whose weights fit any input."""
    assert backbone.imagenet is not None
    sizes = sorted(backbone.imagenet.sizes, reverse=True)
    return next(filter(None, (locate(backbone, size) for size in sizes)), None)


def _download(backbone: Backbone, size: int) -> Path:
    published = _published(backbone, size)
    file, address = published.file_for(size), published.address_for(size)
    folder = cache_folder()
    temporary = f"{file}.download-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(sys.stderr):  # stdout may carry JSON
            got = keras().utils.get_file(
                temporary, address, cache_dir=str(folder.parent), cache_subdir="models"
            )
        os.replace(got, folder / file)
    except Exception as error:  # Keras raises a bare Exception for any network fault
        (folder / temporary).unlink(missing_ok=True)
        other = _of_other_size(backbone)
        instead = (
            f"take those of another size, which are here, with --weights {other}"
            if other
            else "train from scratch with --weights none"
        )
        raise EdgegraftError(
            f"expected ImageNet weights {file}, got no download; fetch {address} "
            f"on a machine with network and put it into {folder}, or {instead}"
        ) from error
    return folder / file


USERS = "a file of the user's"


@dataclass(frozen=True)
class Origin:
    """Where a network's weights come from. `path` is None for random ones."""

    path: Path | None
    weights: str
    source: str
    licence: str

    @property
    def of_user(self) -> bool:
        """A file that may not fit, and is worth a try before any work is done."""
        return self.source == USERS

    def to_dict(self) -> dict[str, str | None]:
        return {
            "weights": self.weights,
            "file": self.path.name if self.path else None,
            "source": self.source,
            "licence": self.licence,
        }


def find(backbone: Backbone, size: int, weights: str) -> Origin:
    """Get hold of weights before any work is done; downloads what is missing.

    weights: "imagenet" (from the cache, else downloaded), "none" (random, asked for),
    or the path of an .h5 file of this very architecture without its top.
    EdgegraftError, with what to put where, when they can't be had.
    """
    if backbone.own_weights:
        if weights != "imagenet":  # the default
            raise EdgegraftError(
                f"expected no --weights with {backbone.name}, which has its own, got "
                f"{weights!r}"
            )
        path = Path(backbone.own_weights)
        return Origin(path, "its own", backbone.name, "the module's: see its page")
    if weights == "none":
        return Origin(None, "none", "random initialisation", "none")
    if weights == "imagenet":
        published = _published(backbone, size)
        path = locate(backbone, size) or _download(backbone, size)
        return Origin(path, "imagenet", published.source, published.licence)
    if not Path(weights).is_file():
        raise EdgegraftError(
            f"expected --weights imagenet, none or a file, got {weights!r}, "
            "which does not exist"
        )
    return Origin(Path(weights), Path(weights).name, USERS, "unknown")


def load(model: Any, backbone: Backbone, origin: Origin) -> None:
    """Fill `model` (the backbone without a head); EdgegraftError if it doesn't fit."""
    if origin.path is None or backbone.own_weights:
        return
    whole = model
    if backbone.in_file is not None:
        whole = backbone.in_file(model.input_shape[1])
    try:
        whole.load_weights(str(origin.path))
    except Exception as error:  # h5py and Keras raise many kinds here
        reason = " ".join(str(error).split())[:160]
        raise EdgegraftError(
            f"expected weights of {backbone.name} without its top "
            f"({model.count_params():,} parameters) in {origin.path}, got a file that "
            f"does not fit: {reason}"
        ) from error
    if backbone.check_file is not None:
        backbone.check_file(whole)
    if whole is not model:
        for layer in model.layers:
            if layer.weights:
                layer.set_weights(whole.get_layer(layer.name).get_weights())
