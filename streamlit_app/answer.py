"""The answer to a photo and the small pictures of it that a page shows.

Makes the same calls as `edge classify`: `open_photo`, `fit`, `Classifier.predict`.
Only small JPEG and PNG files of a photo stay in memory.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from edge.classifier import Prediction
from edge.preprocess import Pixels, fit, open_for, open_photo
from streamlit_app.model_pool import ClassifierPool

MAX_LABELS = 10  # in a ranking
VIEW_SIDE, THUMBNAIL_SIDE = 720, 96  # pixels, the longer side
# First bytes of the formats that can be animated
_ANIMATED = {b"GIF8", b"RIFF", b"\x89PNG"}


@dataclass
class Answer:
    """A prediction with its times in ms (decoding includes resizing) and a picture.

    `animated` files are classified by their first frame. The picture is encoded on
    first use, so that it does not delay the answer.
    """

    prediction: Prediction
    _photo: Image.Image | None
    decode_ms: float
    inference_ms: float
    animated: bool

    @cached_property
    def view(self) -> bytes:
        """A JPEG of the upright photo; the decoded photo is released."""
        assert self._photo is not None
        photo, self._photo = self._photo, None
        photo.thumbnail((VIEW_SIDE, VIEW_SIDE), Image.Resampling.BILINEAR)
        return _encoded(photo, "JPEG", quality=85)


@dataclass(frozen=True)
class Row:
    """A photo of a batch: its prediction, times in ms, and a JPEG thumbnail."""

    prediction: Prediction
    thumbnail: bytes
    decode_ms: float
    inference_ms: float


def answer(pool: ClassifierPool, content: bytes, top_k: int = MAX_LABELS) -> Answer:
    """Classify one photo; PhotoError when it cannot be read."""
    photo, prediction, decode_ms, inference_ms = _classify(pool, content, top_k)
    return Answer(prediction, photo, decode_ms, inference_ms, _is_animated(content))


def row(pool: ClassifierPool, content: bytes, top_k: int) -> Row:
    """Classify one photo of a batch; PhotoError when it cannot be read."""
    photo, prediction, decode_ms, inference_ms = _classify(pool, content, top_k)
    photo.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    thumbnail = _encoded(photo, "JPEG", quality=80)
    return Row(prediction, thumbnail, decode_ms, inference_ms)


def png(pixels: Pixels) -> bytes:
    """A PNG of exactly these pixels, uint8 [H, W, 3]."""
    return _encoded(Image.fromarray(pixels), "PNG", compress_level=1)


def is_png(content: bytes) -> bool:
    """Whether these bytes are a PNG that can be decoded."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.load()
    except Exception:  # Pillow raises many kinds for a damaged file
        return False
    return True


def thumbnail(source: Path | bytes, side: int = 240) -> bytes:
    """A JPEG of a photo (a path, or its bytes), its longer side `side`; PhotoError."""
    photo = open_photo(source, min_size=(side, side))
    photo.thumbnail((side, side), Image.Resampling.BILINEAR)
    return _encoded(photo, "JPEG", quality=80)


def with_box(picture: bytes, box: tuple[float, float, float, float]) -> bytes:
    """A JPEG of a picture, darkened around a box: left, top, right, bottom as fractions
    of its sides."""
    with Image.open(io.BytesIO(picture)) as image:
        photo = image.convert("RGB")
    left, right = (round(x * photo.width) for x in box[::2])
    top, bottom = (round(y * photo.height) for y in box[1::2])
    inside = photo.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    darkened = photo.point(lambda level: level // 3)
    darkened.paste(inside, (left, top))
    return _encoded(darkened, "JPEG", quality=80)


def _classify(
    pool: ClassifierPool, content: bytes, top_k: int
) -> tuple[Image.Image, Prediction, float, float]:
    recipe = pool.facts.recipe
    start = time.perf_counter()
    photo = open_for(content, recipe)
    pixels = fit(photo, recipe)
    decoded = time.perf_counter()
    with pool.borrow() as classifier:
        borrowed = time.perf_counter()
        prediction = classifier.predict(pixels, top_k)
        done = time.perf_counter()
    return photo, prediction, (decoded - start) * 1e3, (done - borrowed) * 1e3


def _encoded(image: Image.Image, file_format: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def _is_animated(content: bytes) -> bool:
    if content[:4] not in _ANIMATED:
        return False
    try:
        with Image.open(io.BytesIO(content)) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # the photo was decoded already, so this is not its error
        return False
