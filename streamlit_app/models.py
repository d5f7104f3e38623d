"""The model files the page can choose from, and one of them answering photos.

An interpreter serves one thread at a time and Streamlit serves each visitor in a
thread of its own: every answer is made under the model's lock.

It does not know: Streamlit, or how a photo is classified (edge does).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge.classifier import Classifier, Prediction
from edge.preprocess import fit, open_photo
from edge.quiet import without_chatter

EXPORTS = "*/exports/*.tflite"
LEFT_OUT = ".rejected.tflite"  # lost more accuracy than its run allowed


@dataclass(frozen=True)
class ModelFile:
    """A file to choose: `stamp` changes when the file does, `name` is for people."""

    path: Path
    name: str
    stamp: tuple[int, int]


@dataclass(frozen=True)
class Answer:
    """What a model says of one photo.

    `photo` is upright RGB, reduced; `seen` is uint8 [H, W, 3], the model's input.
    Times in milliseconds: decoding includes the resize, inference the whole answer.
    """

    prediction: Prediction
    photo: Image.Image
    seen: npt.NDArray[np.uint8]
    decode_ms: float
    inference_ms: float


class Model:
    """A classifier that several threads may ask. ModelError for a bad file."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        with without_chatter():
            self.classifier = Classifier(path)

    def answer(self, source: Any, top_k: int) -> Answer:
        """Of a photo's bytes or open file; PhotoError when it cannot be read."""
        recipe = self.classifier.recipe
        start = time.perf_counter()
        photo = open_photo(source, hint=(recipe.width, recipe.height))
        seen = fit(photo, recipe)
        decoded = time.perf_counter()
        with self._lock:
            waited = time.perf_counter()
            prediction = self.classifier.predict(seen, top_k)
            done = time.perf_counter()
        return Answer(
            prediction, photo, seen, (decoded - start) * 1e3, (done - waited) * 1e3
        )


def find_models(artifacts: Path, given: Iterable[Path] = ()) -> list[ModelFile]:
    """The files that were given, then those of the runs, the newest run first.

    Within a run int8 comes first: it is the one to deploy. A file that vanishes
    while looking is left out, one that was given is not: opening it says what is
    wrong.
    """
    found = [ModelFile(path, str(path), _stamp(path)) for path in given]
    seen = {entry.path.resolve() for entry in found}
    exports = [
        path
        for path in artifacts.glob(EXPORTS)
        if not path.name.endswith(LEFT_OUT) and path.resolve() not in seen
    ]
    stamps = {path: _stamp(path) for path in exports}
    newest: dict[Path, int] = {}
    for path, (modified, _) in stamps.items():
        run = path.parent.parent
        newest[run] = max(newest.get(run, 0), modified)
    exports.sort(
        key=lambda path: (
            -newest[path.parent.parent],
            path.parent.parent.name,
            path.stem != "int8",
            path.stem,
        )
    )
    return found + [
        ModelFile(path, f"{path.parent.parent.name} / {path.stem}", stamps[path])
        for path in exports
        if stamps[path] != (0, 0)
    ]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_size)
