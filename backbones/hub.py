"""TF-Hub modules as backbones: `hub:HANDLE`, a handle's address or a local folder.

Feature vectors (features [N, D]) and classification modules (logits [N, L], which are
features like any other for the head behind them) are taken, and feature maps
[N, h, w, D], which are averaged. Two formats: the SavedModel of TF2, called directly,
and what has to be called through a signature (TF1's hub format, and SavedModels whose
object can't be called), which can't be fine-tuned. Pixels are scaled to 0..1, the
common convention for image modules (tensorflow.org/hub/common_signatures/images).

Modules are cached where TF-Hub itself does: `$TFHUB_CACHE_DIR`, else `tfhub_modules`
in the system's temporary folder, each in a folder named by the sha1 of its handle.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from backbones.keras import keras, tensorflow, tensorflow_hub
from backbones.record import HUB, Backbone
from edge.errors import EdgegraftError
from edge.text import printable

DEFAULT_SIZE = 224  # of a module that takes any size and names none
MIN_SIZE = 8
SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
_SIGNATURES = ("image_feature_vector", "default", "serving_default")
_WEB = ("http://", "https://")


def cache_folder() -> Path:
    """The folder in which TF-Hub keeps downloaded modules."""
    if folder := os.environ.get("TFHUB_CACHE_DIR"):
        return Path(folder)
    return Path(tempfile.gettempdir()) / "tfhub_modules"


def cached_at(handle: str) -> Path:
    """The folder for a module of the web, downloaded or put there by hand."""
    return cache_folder() / hashlib.sha1(handle.encode("utf-8")).hexdigest()


def _is_module(folder: Path) -> bool:
    return any((folder / name).is_file() for name in SAVED_MODEL)


def find(handle: str) -> Path:
    """The folder of a module; downloads one that is named by its address.

    EdgegraftError, with what to put where, when it can't be had.
    """
    if not handle.startswith(_WEB):
        folder = Path(handle)
        if _is_module(folder):
            return folder
        what = "a folder without one" if folder.is_dir() else "no such folder"
        raise EdgegraftError(
            f"expected a TF-Hub module, a folder with {SAVED_MODEL[0]}, at {handle}, "
            f"got {what}; unpack the module's archive there, or give its address "
            f"({HUB}https://...)"
        )
    if _is_module(cached_at(handle)):
        return cached_at(handle)
    try:
        return Path(tensorflow_hub().resolve(handle))
    except Exception as error:  # TF-Hub passes on whatever the network raises
        reason = " ".join(str(error).split())[:120]
        raise EdgegraftError(
            f"expected the TF-Hub module {handle}, got no download ({reason}); fetch "
            "its archive (TF2 SavedModel) on a machine with network and unpack it, so "
            f"that {SAVED_MODEL[0]} lies in {cached_at(handle)} (TFHUB_CACHE_DIR says "
            f"where), or unpack it anywhere and say {HUB}FOLDER"
        ) from error


def _module(folder: Path) -> Any:
    try:
        return tensorflow_hub().load(str(folder))
    except EdgegraftError:
        raise
    except Exception as error:  # TensorFlow raises many kinds for a damaged module
        reason = " ".join(str(error).split())[:160]
        raise EdgegraftError(
            f"expected a SavedModel in {folder}, got one that can't be loaded: {reason}"
        ) from error


def _signature(module: Any, folder: Path) -> tuple[str | None, str | None]:
    """(signature, its output) to call the module by; (None, None) to call it itself."""
    legacy = bool(getattr(module, "_is_hub_module_v1", False))
    if callable(module) and not legacy:
        return None, None
    signatures = getattr(module, "signatures", {})
    for name in _SIGNATURES:
        if name in signatures:
            outputs = list(signatures[name].structured_outputs)
            return name, "default" if "default" in outputs else outputs[0]
    raise EdgegraftError(
        f"expected a module that can be called, or a signature out of "
        f"{', '.join(_SIGNATURES)}, in {folder}, got {', '.join(signatures) or 'none'}"
    )


def image_size(module: Any, signature: str | None) -> int | None:
    """The height and width that a module takes, or None when it takes any."""
    tf = tensorflow()
    if signature is not None:
        functions = [module.signatures[signature]]
    else:
        functions = getattr(module.__call__, "concrete_functions", [])
    inputs = [function.structured_input_signature for function in functions]
    for spec in tf.nest.flatten(inputs):
        if isinstance(spec, tf.TensorSpec) and spec.shape.rank == 4:
            height, width = spec.shape[1:3]
            if height and height == width:
                return int(height)
    return None


def _builder(
    handle: str,
    folder: Path,
    signature: str | None,
    output: str | None,
    can_train: bool,
) -> Callable[[int, Any], Any]:
    def build(size: int, _: Any) -> Any:
        layers = keras().layers
        options: dict[str, Any] = {}
        if signature is not None:
            options = {"signature": signature, "output_key": output}
        image = keras().Input((size, size, 3))
        try:
            layer = tensorflow_hub().KerasLayer(
                str(folder), trainable=can_train, name="module", **options
            )
            features = layer(image)
        except Exception as error:  # a shape it was not traced for, a missing op ...
            reason = " ".join(str(error).split())[:160]
            raise EdgegraftError(
                f"expected {HUB}{handle} to take photos [N, {size}, {size}, 3], got: "
                f"{reason}"
            ) from error
        rank = features.shape.rank if hasattr(features, "shape") else None
        if rank == 4:
            features = layers.GlobalAveragePooling2D()(features)
        elif rank != 2 or features.shape[-1] is None:
            raise EdgegraftError(
                f"expected {HUB}{handle} to answer features [N, D] or a feature map "
                f"[N, h, w, D], got {getattr(features, 'shape', type(features))}; take "
                "a module for feature vectors or classification"
            )
        return keras().Model(image, features)

    return build


@cache
def _warn(name: str) -> None:
    """Once in a process, whatever loads the module."""
    print(
        f"edgegraft: warning: {printable(name)}: a TF-Hub module is a program and "
        "runs with your rights; use only those whose author you trust",
        file=sys.stderr,
    )


def full_name(name: str) -> str:
    """The name of the same module from any folder: a local one by its whole path."""
    handle = name[len(HUB) :]
    return name if handle.startswith(_WEB) else HUB + str(Path(handle).resolve())


def record(name: str) -> Backbone:
    """The record of `hub:HANDLE`; loads the module to read its input size."""
    handle = name[len(HUB) :]
    folder = find(handle)
    _warn(name)
    module = _module(folder)
    signature, output = _signature(module, folder)
    size = image_size(module, signature)
    can_train = signature is None and bool(getattr(module, "trainable_variables", ()))
    return Backbone(
        name=name,
        family="hub",
        build=_builder(handle, folder, signature, output, can_train),
        scale=1 / 255,
        offset=0.0,
        default_size=size or DEFAULT_SIZE,
        min_size=size or MIN_SIZE,
        max_size=size,
        own_weights=str(folder),
        can_train=can_train,
        notes="a module of TF-Hub, with the weights it comes with",
    )
