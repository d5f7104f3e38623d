"""The state that pages share: configuration, visitor, selected model, open models."""

from __future__ import annotations

import argparse
import re
import secrets
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
from edge.files import sha256
from edge.preprocess import InputRecipe, load_pixels
from edge.run_folder import ARTIFACTS
from streamlit_app.dropzone import DRAWN, MAX_ZIP_BYTES
from streamlit_app.feedback import Feedback
from streamlit_app.model_pool import ClassifierPool, ForeignSettings, ModelPool
from streamlit_app.runs import SEARCH_FILE, ListedModel, find_models
from streamlit_app.style import literal

Value = TypeVar("Value")
THRESHOLD = 60  # percent; the default confidence threshold
TOP_K = 3  # labels shown by default
VISITORS = "visitors"  # folder of artifacts/ with one folder per browser
COOKIE = "edgegraft_visitor"
COOKIE_SECONDS = 31_536_000  # a year
_SECRET = re.compile(r"[0-9a-f]{32}")
LOCAL = ("localhost", "127.0.0.1", "::1")  # addresses of this machine alone
CACHED = 96  # pictures, answers and heat maps of a session, about 0.1 MB each


@dataclass(frozen=True)
class AppConfig:
    """The folder of runs, and the model files of the command line."""

    artifacts: Path
    files: tuple[Path, ...]
    labels: Path | None = None
    shared: bool = False

    def models(self) -> list[ListedModel]:
        """The files to choose from, this visitor's own runs first."""
        dropped = sorted(self.dropped_models().glob("*.tflite"))
        return find_models(self.run_folders(), (*self.files, *dropped))

    def dropped_models(self) -> Path:
        """The folder of model files that this visitor opened by drop."""
        return self.own_folder() / "models"

    def run_folders(self) -> list[Path]:
        """The folders that hold runs which this visitor may see."""
        folders = [self.own_folder() / "runs", self.artifacts]
        searches = [p.parent for f in folders for p in f.glob(f"*/{SEARCH_FILE}")]
        return [*folders, *searches]

    def own_folder(self) -> Path:
        """The folder of this visitor's photos and runs; with --shared that of all
        visitors."""
        return self.artifacts if self.shared else self.artifacts / VISITORS / visitor()

    @property
    def train_queue(self) -> Path:
        """The folder of tickets that lets one visitor train at a time."""
        return self.artifacts / ".training"

    @property
    def feedback(self) -> Feedback:
        return Feedback(self.own_folder() / "feedback")


def config() -> AppConfig:
    """From the command line of the server, the same for all visitors."""
    return _config(*sys.argv[1:])


@lru_cache(maxsize=1)
def _config(*arguments: str) -> AppConfig:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--artifacts", type=Path, default=Path(ARTIFACTS))
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--shared", action="store_true")
    args = parser.parse_args(arguments)
    return AppConfig(args.artifacts, tuple(args.models), args.labels, args.shared)


def models() -> ModelPool:
    """The open models, shared by all visitors."""
    return _models(config().labels)


@st.cache_resource(show_spinner=False)
def _models(labels: Path | None) -> ModelPool:
    # Pillow loads its codecs with the first photo: do that before a visitor waits
    for path in DRAWN.glob("*.jpg"):
        load_pixels(path, InputRecipe(8, 8))
    return ModelPool(labels)


def begin() -> None:
    """Note when this run of the script began; keep uploads off the disk.

    Starlette writes a part larger than `spool_max_size` to a temporary file while it
    arrives; with this limit it stays in memory, where Streamlit keeps it anyway.
    """
    st.session_state["began"] = time.perf_counter()
    MultiPartParser.spool_max_size = MAX_ZIP_BYTES


def visitor() -> str:
    """A name for this visitor's browser, the same after a reload: the digest of a
    random cookie, so that folder names do not reveal the cookie."""
    secret = st.session_state.get(COOKIE) or st.context.cookies.get(COOKIE)
    if not isinstance(secret, str) or not _SECRET.fullmatch(secret):
        secret = secrets.token_hex(16)
    st.session_state[COOKIE] = secret
    return sha256(secret.encode())[:16]


def remember_visitor() -> None:
    """Give the browser its cookie, where it has none yet."""
    visitor()
    secret = st.session_state[COOKIE]
    if not config().shared and st.context.cookies.get(COOKIE) != secret:
        st.html(
            f"<script>document.cookie = '{COOKIE}={secret}; path=/; SameSite=Strict; "
            f"max-age={COOKIE_SECONDS}';</script>",
            unsafe_allow_javascript=True,
        )


def is_local() -> bool:
    """Whether only this machine reaches the page: then it may name folders here."""
    return st.get_option("server.address") in LOCAL


def elapsed_ms() -> float:
    """Milliseconds since the server began with this visitor's request."""
    began: float = st.session_state.get("began", time.perf_counter())
    return (time.perf_counter() - began) * 1e3


def entry() -> ListedModel:
    """The model that is selected in the sidebar."""
    selected: ListedModel = st.session_state["entry"]
    return selected


def pool(model: ListedModel | None = None) -> ClassifierPool | None:
    """The classifiers of a model (default: the selected one); None after an error was
    shown."""
    model = model or entry()
    try:
        return opened(model)
    except EdgegraftError as error:
        reason = str(error).removeprefix("model: ")
        if "no labels inside" in reason:
            reason = (
                "the file contains no labels; enter them in the sidebar, or give a "
                "file with one label per line: edgegraft app MODEL --labels FILE"
            )
        st.error(
            f"Cannot open **{literal(model.name)}**: {literal(reason)}",
            icon=":material/error:",
        )
        return None


def opened(model: ListedModel) -> ClassifierPool:
    """The classifiers of a model, with this visitor's settings; ModelError."""
    settings = foreign_settings(model.path)
    return models().open(model.path, model.stamp, model.folder, settings)


def foreign_settings(path: Path) -> ForeignSettings:
    """This visitor's settings for a file without a card."""
    settings: ForeignSettings = st.session_state.get(
        f"feeding {path}", ForeignSettings()
    )
    return settings


def keep_foreign_settings(path: Path, settings: ForeignSettings) -> None:
    st.session_state[f"feeding {path}"] = settings


def threshold() -> float:
    """The confidence threshold, 0 to 1: below it an answer counts as uncertain."""
    return float(st.session_state.get("threshold", THRESHOLD)) / 100


def top_k() -> int:
    return int(st.session_state.get("top_k", TOP_K))


def cached(key: Hashable, make: Callable[[], Value]) -> Value:
    """The session's cached value of `key`, made on first use; the least recently used
    is dropped."""
    cache: OrderedDict[Hashable, Any]
    cache = st.session_state.setdefault("kept", OrderedDict())
    if key not in cache:
        cache[key] = make()
    cache.move_to_end(key)
    while len(cache) > CACHED:
        cache.popitem(last=False)
    value: Value = cache[key]
    return value
