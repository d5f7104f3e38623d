"""Where weights come from: a Python package, the Keras cache, a download, a file.

Random weights are used only on request. Of a package only the weights file is read: no
code of it runs. The cache folder is Keras's own (`$KERAS_HOME/models`, else
`~/.keras/models`), read directly: Keras would ignore a read-only cache and download
again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones import torch_file
from backbones.keras import keras
from backbones.record import Backbone, Packaged, Published
from edge.errors import EdgegraftError
from edge.files import sha256_of_file

_CHECKPOINTS = (".pth", ".pt")  # PyTorch's; anything else is Keras's HDF5


def cache_folder() -> Path:
    """The folder in which Keras keeps downloaded weights."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models"


def _imagenet(backbone: Backbone, size: int) -> Published | Packaged:
    """The record's ImageNet weights; EdgegraftError without any of this size."""
    imagenet = backbone.imagenet
    if imagenet is None:
        if backbone.from_torch is not None:
            raise EdgegraftError(
                f"expected --weights FILE (.pth or .h5) for {backbone.name}, of which "
                "no package carries weights, got --weights imagenet"
            )
        raise EdgegraftError(
            f"expected a backbone with ImageNet weights, got {backbone.name}, which "
            "has none; train it from scratch with --weights none"
        )
    if size not in imagenet.sizes and not imagenet.any_size:
        sizes = ", ".join(map(str, imagenet.sizes))
        raise EdgegraftError(
            f"expected a size that {backbone.name} has ImageNet weights for ({sizes}), "
            f"got --size {size}; take one of these, or load another size's file on "
            "purpose with --weights FILE"
        )
    return imagenet


def _in_package(packaged: Packaged) -> Path | None:
    """The file among the installed packages, none of which is imported."""
    module, _, file = packaged.file.partition("/")
    spec = importlib.util.find_spec(module)
    folders = spec.submodule_search_locations if spec is not None else None
    paths = (Path(folder, file) for folder in folders or ())
    return next((path for path in paths if path.is_file()), None)


def locate(backbone: Backbone, size: int) -> Path | None:
    """The ImageNet weights on this machine, or None where there are none.

    EdgegraftError for a size, or a network, without ImageNet weights.
    """
    imagenet = _imagenet(backbone, size)
    if isinstance(imagenet, Packaged):
        return _in_package(imagenet)
    path = cache_folder() / imagenet.file_for(size)
    return path if path.is_file() else None


def _packaged(backbone: Backbone, packaged: Packaged) -> Path:
    path = _in_package(packaged)
    if path is None:
        raise EdgegraftError(
            f"expected the ImageNet weights of {backbone.name}, which the package "
            f"{packaged.package} carries, got no such package; {packaged.install}"
        )
    digest = sha256_of_file(path)
    if digest != packaged.sha256:
        raise EdgegraftError(
            f"expected {path} with sha256 {packaged.sha256}, got {digest}; install it "
            f"again: {packaged.install} --force-reinstall"
        )
    return path


def _of_other_size(backbone: Backbone) -> Path | None:
    """The cached file of the largest size; its weights fit any input."""
    assert backbone.imagenet is not None
    sizes = sorted(backbone.imagenet.sizes, reverse=True)
    return next(filter(None, (locate(backbone, size) for size in sizes)), None)


def _download(backbone: Backbone, published: Published, size: int) -> Path:
    file, address = published.file_for(size), published.address_for(size)
    folder = cache_folder()
    temporary = f"{file}.download-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(sys.stderr):  # stdout may carry JSON
            download = keras().utils.get_file(
                temporary, address, cache_dir=str(folder.parent), cache_subdir="models"
            )
        os.replace(download, folder / file)
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
    def is_user_file(self) -> bool:
        """Whether it may not fit: such a file is tried before any work is done."""
        return self.source == USERS

    def to_dict(self) -> dict[str, str | None]:
        return {
            "weights": self.weights,
            "file": self.path.name if self.path else None,
            "source": self.source,
            "licence": self.licence,
        }


def find(backbone: Backbone, size: int, weights: str) -> Origin:
    """Locate weights before any work is done; downloads what is missing.

    weights: "imagenet" (from a package or the cache, else downloaded), "none" (random,
    asked for), or the path of a file for this very architecture: .h5 without its top,
    or a PyTorch checkpoint (.pth) for an EfficientNet-Lite.
    EdgegraftError, with what to put where, when they are not available.
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
        imagenet = _imagenet(backbone, size)
        if isinstance(imagenet, Packaged):
            path = _packaged(backbone, imagenet)
        else:
            path = locate(backbone, size) or _download(backbone, imagenet, size)
        return Origin(path, "imagenet", imagenet.source, imagenet.licence)
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
    in_file = model
    if backbone.in_file is not None:
        in_file = backbone.in_file(model.input_shape[1])
    try:
        if origin.path.suffix in _CHECKPOINTS:
            if backbone.from_torch is None:
                raise EdgegraftError(
                    f"expected a Keras weights file (.h5) for {backbone.name}, got "
                    f"{origin.path}, a PyTorch checkpoint; only EfficientNet-Lite is "
                    "read from these"
                )
            backbone.from_torch(model, torch_file.read(origin.path))
            return
        in_file.load_weights(str(origin.path))
    except EdgegraftError:
        raise
    except Exception as error:  # h5py and Keras raise many kinds here
        reason = " ".join(str(error).split())[:160]
        raise EdgegraftError(
            f"expected weights of {backbone.name} without its top "
            f"({model.count_params():,} parameters) in {origin.path}, got a file that "
            f"does not fit: {reason}"
        ) from error
    if backbone.check_file is not None:
        backbone.check_file(in_file)
    if in_file is not model:
        for layer in model.layers:
            if layer.weights:
                layer.set_weights(in_file.get_layer(layer.name).get_weights())
