"""A photo's bytes and a pool: what the page shows of it.

The same calls as `edge classify`: `open_photo`, `fit`, `Classifier.predict`. What is
kept of an answer are small JPEG and PNG files, so a page of photos stays light.

It does not know: Streamlit, where photos come from.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from edge.classifier import Prediction
from edge.preprocess import Pixels, fit, open_photo
from streamlit_app.model_pool import Pool

MOST_LABELS = 10  # in a ranking
VIEW_SIDE, THUMB_SIDE = 720, 96  # pixels, the longer side
_ANIMATED = {b"GIF8", b"RIFF", b"\x89PNG"}  # the formats whose files may move


class Answer:
    """What a model says of one photo.

    Milliseconds: decoding includes the resize; inference is the model alone.
    `animated`: only the first picture of the file was looked at. The picture is made
    when it is first asked for, so that it does not keep the answer waiting.
    """

    def __init__(
        self,
        prediction: Prediction,
        photo: Image.Image,
        decode_ms: float,
        inference_ms: float,
        animated: bool,
    ) -> None:
        self.prediction = prediction
        self.decode_ms, self.inference_ms = decode_ms, inference_ms
        self.animated = animated
        self._photo: Image.Image | None = photo

    @cached_property
    def view(self) -> bytes:
        """A JPEG of the upright photo; the decoded photo is let go of."""
        assert self._photo is not None
        photo, self._photo = self._photo, None
        photo.thumbnail((VIEW_SIDE, VIEW_SIDE), Image.Resampling.BILINEAR)
        return _encoded(photo, "JPEG", quality=85)


@dataclass(frozen=True)
class Row:
    """One photo of a batch: like an answer, with a thumbnail only."""

    prediction: Prediction
    thumbnail: bytes
    decode_ms: float
    inference_ms: float


def answer(pool: Pool, content: bytes, top_k: int = MOST_LABELS) -> Answer:
    """Of a photo's bytes; PhotoError when it cannot be read."""
    photo, prediction, decode_ms, inference_ms = _asked(pool, content, top_k)
    moves = _animated(content)
    return Answer(prediction, photo, decode_ms, inference_ms, moves)


def seen(pixels: Pixels) -> bytes:
    """A PNG of exactly the pixels that a model gets, uint8 [H, W, 3]."""
    return _encoded(Image.fromarray(pixels), "PNG", compress_level=1)


def row(pool: Pool, content: bytes, top_k: int) -> Row:
    """The same for a batch."""
    photo, prediction, decode_ms, inference_ms = _asked(pool, content, top_k)
    photo.thumbnail((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BOX)
    thumbnail = _encoded(photo, "JPEG", quality=80)
    return Row(prediction, thumbnail, decode_ms, inference_ms)


def _asked(
    pool: Pool, content: bytes, top_k: int
) -> tuple[Image.Image, Prediction, float, float]:
    recipe = pool.facts.recipe
    start = time.perf_counter()
    photo = open_photo(content, least=recipe.least)
    seen = fit(photo, recipe)
    decoded = time.perf_counter()
    with pool.borrow() as classifier:
        borrowed = time.perf_counter()
        prediction = classifier.predict(seen, top_k)
        done = time.perf_counter()
    return photo, prediction, (decoded - start) * 1e3, (done - borrowed) * 1e3


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _animated(content: bytes) -> bool:
    if content[:4] not in _ANIMATED:
        return False
    try:
        with Image.open(io.BytesIO(content)) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # it was decoded already: whatever it is, it does not move
        return False


def thumbnail(path: Path, side: int = 240) -> bytes:
    """A JPEG of a photo on this disk, its longer side `side`; PhotoError."""
    photo = open_photo(path, least=(side, side))
    photo.thumbnail((side, side), Image.Resampling.BILINEAR)
    return _encoded(photo, "JPEG", quality=80)
