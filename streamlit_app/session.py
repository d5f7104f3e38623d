"""What every page stands on: the arguments, the model that is chosen, the pools.

`app` chooses the model in the sidebar before a page runs; a page asks here for it.

It does not know: what the pages show.
"""

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
from streamlit_app.model_pool import Pool, Shelf
from streamlit_app.models import ModelFile, find_models
from streamlit_app.style import plain
from streamlit_app.uploads import MOST_ZIP_BYTES
from streamlit_app.widgets.dropzone import DRAWN

Found = TypeVar("Found")
LABELS = "give a file with one label on each line: edgegraft app MODEL --labels FILE"
REMEMBERED = 24  # answers and heat maps a visitor's session keeps, about 0.1 MB each


@dataclass(frozen=True)
class House:
    """Where runs lie and which files were given on the command line."""

    artifacts: Path
    given: tuple[Path, ...]
    labels: Path | None = None

    def models(self) -> list[ModelFile]:
        return find_models(self.artifacts, self.given)

    @property
    def feedback(self) -> Feedback:
        return Feedback(self.artifacts / "feedback")


def house() -> House:
    """From the command line of the process, which all visitors share."""
    return _house(*sys.argv[1:])


@lru_cache(maxsize=1)
def _house(*arguments: str) -> House:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--artifacts", type=Path, default=Path(ARTIFACTS))
    parser.add_argument("--labels", type=Path)
    args = parser.parse_args(arguments)
    return House(args.artifacts, tuple(args.models), args.labels)


def shelf() -> Shelf:
    """The open models, shared by all visitors."""
    return _shelf(house().labels)


@st.cache_resource(show_spinner=False)
def _shelf(labels: Path | None) -> Shelf:
    # What Pillow loads with its first photo, so that no visitor waits for it
    for path in DRAWN.glob("*.jpg"):
        load_pixels(path, InputRecipe(8, 8))
    return Shelf(labels)


def begin() -> None:
    """Note when this run of the script began; keep uploads off the disk.

    Starlette puts what is larger than `spool_max_size` into a temporary file while it
    arrives; here it stays in memory, as Streamlit keeps it afterwards anyway.
    """
    st.session_state["began"] = time.perf_counter()
    MultiPartParser.spool_max_size = MOST_ZIP_BYTES


def so_far_ms() -> float:
    """Milliseconds since the server began with this visitor's request."""
    began: float = st.session_state.get("began", time.perf_counter())
    return (time.perf_counter() - began) * 1e3


def entry() -> ModelFile:
    """The model that is chosen in the sidebar."""
    found: ModelFile = st.session_state["entry"]
    return found


def pool(of: ModelFile | None = None) -> Pool | None:
    """The pool of a model (the chosen one); None after saying why there is none."""
    of = of or entry()
    try:
        return shelf().pool(of.path, of.stamp)
    except EdgegraftError as error:
        reason = str(error).removeprefix("model: ")
        if "no labels inside" in reason:
            reason = "no labels inside, so its answers would be numbers; " + LABELS
        st.error(
            f"**{plain(of.name)}** cannot be used: {plain(reason)}",
            icon=":material/error:",
        )
        return None


def threshold() -> float:
    """From what probability on an answer counts as sure, 0 to 1."""
    return float(st.session_state.get("threshold", 60)) / 100


def top_k() -> int:
    return int(st.session_state.get("top_k", 3))


def remembered(key: Hashable, make: Callable[[], Found]) -> Found:
    """What `make` gave for `key` before in this session; the oldest is forgotten."""
    kept: OrderedDict[Hashable, Any] = st.session_state.setdefault(
        "kept", OrderedDict()
    )
    if key not in kept:
        kept[key] = make()
    kept.move_to_end(key)
    while len(kept) > REMEMBERED:
        kept.popitem(last=False)
    found: Found = kept[key]
    return found
