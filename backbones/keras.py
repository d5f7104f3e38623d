"""Which Keras: tf-keras, chosen before TensorFlow loads. No other module imports one.

tf-keras is Keras 2. TensorFlow's own `tf.keras` and TF-Hub follow it only when
`TF_USE_LEGACY_KERAS=1` is in the environment before TensorFlow is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
import threading
import warnings
from types import ModuleType
from typing import Any

import numpy as np

from edge.errors import EdgegraftError
from edge.terminal import native_stderr_hidden

_importing = threading.RLock()  # two threads must not move descriptor 2 at once
# edgegraft is on no package index: its extras are those of a checkout
INSTALL = "install the training extra: in the checkout, pip install -e '.[train]'"
# The modules of the extra `train`, by the names they are imported under
MODULES = (
    "tensorflow",
    "tf_keras",
    "flatbuffers",
    "matplotlib",
    "scipy",
    "sklearn",
    "threadpoolctl",
)


def require_packages(command: str) -> None:
    """EdgegraftError with the packages that `command` needs and are not installed.

    Nothing is imported; called before a photo is decoded.
    """
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise EdgegraftError(
            f"expected what {command} needs to be installed, got no "
            f"{', '.join(missing)}; {INSTALL}"
        )


def _load(name: str) -> ModuleType:
    try:
        with _importing:  # also keeps a half-imported module of `preload` from others
            if name not in sys.modules:
                _import(name)
            return sys.modules[name]
    except ImportError as error:
        raise EdgegraftError(
            f"expected {name} to be importable, got '{error}'; {INSTALL}"
        ) from error


def _import(name: str) -> None:
    """Not inlined: AutoGraph, which follows calls into `_load`, prints what it cannot
    trace, in a notebook with the whole environment."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with native_stderr_hidden():
        importlib.import_module(name)
    for logger in ("tensorflow", "absl"):  # the import has set their levels
        logging.getLogger(logger).setLevel(logging.ERROR)


def tensorflow() -> ModuleType:
    """TensorFlow, quiet and with legacy Keras; EdgegraftError if it is missing."""
    return _load("tensorflow")


def keras() -> ModuleType:
    """The `tf_keras` module; EdgegraftError with the extra to install if missing."""
    _load("tensorflow")
    return _load("tf_keras")


def tensorflow_hub() -> ModuleType:
    """TensorFlow Hub, on the same Keras; EdgegraftError if it is missing."""
    keras()  # it takes the Keras that is there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports pkg_resources, which complains
        return _load("tensorflow_hub")


def preload() -> threading.Thread:
    """Start importing Keras, which takes seconds, in the background."""

    def load() -> None:
        try:
            keras()
        except EdgegraftError:
            return  # the foreground call reports it

    thread = threading.Thread(target=load, name="import-keras", daemon=True)
    thread.start()
    return thread


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and TensorFlow, for weight initialisation and dropout.

    Layers created afterwards use generators that `reset_dropout` can set.
    """
    keras().utils.set_random_seed(seed)
    keras().backend.experimental.enable_tf_random_generator()


def reset_dropout(model: Any, seed: int, epoch: int) -> None:
    """Set every random layer of `model`, nested ones too, to (seed, epoch)."""
    for index, layer in enumerate(model._flatten_layers()):
        random = getattr(layer, "_random_generator", None)
        generator = getattr(random, "_generator", None)
        if generator is not None:
            state = np.random.SeedSequence([seed, epoch, index]).generate_state(1)
            generator.reset_from_seed(int(state[0]))
