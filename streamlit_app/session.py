"""What every page uses: the app's configuration, the chosen model, open models."""

from __future__ import annotations

import argparse
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import streamlit as st
from starlette.formparsers import MultiPartParser

from edge.errors import EdgegraftError
from edge.preprocess import InputRecipe, load_pixels
from edge.run_folder import ARTIFACTS
from streamlit_app.feedback import Feedback
from streamlit_app.model_pool import ClassifierPool, ModelPool
from streamlit_app.models import ListedModel, find_models
from streamlit_app.style import literal
from streamlit_app.uploads import MOST_ZIP_BYTES
from streamlit_app.widgets.dropzone import DRAWN

Value = TypeVar("Value")
THRESHOLD = 60  # percent; the confidence threshold a session begins with
TOP_K = 3  # labels shown at first
CACHED = 24  # answers and heat maps a session keeps, about 0.1 MB each


@dataclass(frozen=True)
class AppConfig:
    """The folder of runs, and the files given on the command line."""

    artifacts: Path
    given: tuple[Path, ...]
    labels: Path | None = None

    def models(self) -> list[ListedModel]:
        return find_models(self.artifacts, self.given)

    @property
    def feedback(self) -> Feedback:
        return Feedback(self.artifacts / "feedback")


def config() -> AppConfig:
    """From the command line of the server, the same for all visitors."""
    return _config(*sys.argv[1:])


@lru_cache(maxsize=1)
def _config(*arguments: str) -> AppConfig:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--artifacts", type=Path, default=Path(ARTIFACTS))
    parser.add_argument("--labels", type=Path)
    args = parser.parse_args(arguments)
    return AppConfig(args.artifacts, tuple(args.models), args.labels)


def models() -> ModelPool:
    """The open models, shared by all visitors."""
    return _models(config().labels)


@st.cache_resource(show_spinner=False)
def _models(labels: Path | None) -> ModelPool:
    # Pillow loads its codecs with the first photo: do it before a visitor waits.
    for path in DRAWN.glob("*.jpg"):
        load_pixels(path, InputRecipe(8, 8))
    return ModelPool(labels)


def begin() -> None:
    """Note when this run of the script began; keep uploads off the disk.

    Starlette writes a part larger than `spool_max_size` to a temporary file while it
    arrives; with this limit it stays in memory, where Streamlit keeps it anyway.
    """
    st.session_state["began"] = time.perf_counter()
    MultiPartParser.spool_max_size = MOST_ZIP_BYTES


def elapsed_ms() -> float:
    """Milliseconds since the server began with this visitor's request."""
    began: float = st.session_state.get("began", time.perf_counter())
    return (time.perf_counter() - began) * 1e3


def entry() -> ListedModel:
    """The model that is chosen in the sidebar."""
    chosen: ListedModel = st.session_state["entry"]
    return chosen


def pool(of: ListedModel | None = None) -> ClassifierPool | None:
    """The classifiers of a model (default: the chosen one); None after an error was
    shown."""
    of = of or entry()
    try:
        return models().open(of.path, of.stamp)
    except EdgegraftError as error:
        reason = str(error).removeprefix("model: ")
        if "no labels inside" in reason:
            reason = (
                "the file contains no labels; give a file with one label per line: "
                "edgegraft app MODEL --labels FILE"
            )
        st.error(
            f"Cannot open **{literal(of.name)}**: {literal(reason)}",
            icon=":material/error:",
        )
        return None


def threshold() -> float:
    """The confidence threshold, 0 to 1: below it an answer counts as uncertain."""
    return float(st.session_state.get("threshold", THRESHOLD)) / 100


def top_k() -> int:
    return int(st.session_state.get("top_k", TOP_K))


def cached(key: Hashable, make: Callable[[], Value]) -> Value:
    """What `make` gave for `key` before in this session; the oldest is dropped."""
    kept: OrderedDict[Hashable, Any] = st.session_state.setdefault(
        "kept", OrderedDict()
    )
    if key not in kept:
        kept[key] = make()
    kept.move_to_end(key)
    while len(kept) > CACHED:
        kept.popitem(last=False)
    value: Value = kept[key]
    return value
