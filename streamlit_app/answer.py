"""The answer to a photo, why, and the small pictures of it that a page shows.

Makes the same calls as `edge classify`: `open_photo`, `fit`, `Classifier.predict`.
Only small JPEG and PNG files of a photo stay in memory.

Why: which parts of a photo the answer depends on, by occlusion of the exported file. A
grey patch covers one region after another and the model runs again; regions where the
answer's probability drops matter (Zeiler and Fergus 2014, "Visualizing and
Understanding Convolutional Networks", arXiv:1311.2901). Patches overlap by half, and
each pixel gets the mean drop of the patches that cover it. All classifiers of the pool
run at once; as many patches are run as fit into `OCCLUSION_S`, so a slow network gets a
coarser map. The map does not show that a region alone is enough for the answer; two
regions that each suffice both look unimportant.
"""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge.classifier import Prediction
from edge.preprocess import Pixels, fit, open_for, open_photo
from streamlit_app.model_pool import ClassifierPool

MAX_LABELS = 10  # in a ranking
VIEW_SIDE, THUMBNAIL_SIDE = 720, 96  # pixels, the longer side
OCCLUSION_S = 1.2  # for the patches of one heat map
FULL_DROP = 0.1  # drop of probability that gets the strongest colour
GRIDS = (14, 11, 9, 7, 5, 4, 3)  # patches along a side, finest first
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


@dataclass(frozen=True)
class OcclusionMap:
    """`heat` is float32 [H, W] of mean drops in probability, else 0.

    `max_drop` is the largest drop of a single patch; `patches` the number of patches.
    """

    label: str
    probability: float
    heat: npt.NDArray[np.float32]
    max_drop: float
    patches: int
    seconds: float


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


def occlude(
    pool: ClassifierPool, pixels: Pixels, seconds: float = OCCLUSION_S
) -> OcclusionMap:
    """Where the best label's probability drops; `pixels` is uint8 [H, W, 3]."""
    start = time.perf_counter()
    with pool.borrow() as classifier:
        probabilities = classifier.probabilities(pixels[None])[0]
        warm_start = time.perf_counter()
        classifier.probabilities(pixels[None])
        run_s = time.perf_counter() - warm_start
    best = int(probabilities.argmax())
    probability = float(probabilities[best])
    grid = _grid(run_s, pool.size, seconds)
    boxes = _boxes(pixels.shape[0], pixels.shape[1], grid)
    grey = pixels.reshape(-1, 3).mean(axis=0).astype(np.uint8)

    def covered_probability(box: tuple[int, int, int, int]) -> float:
        top, bottom, left, right = box
        covered = pixels.copy()
        covered[top:bottom, left:right] = grey
        with pool.borrow() as classifier:
            return float(classifier.probabilities(covered[None])[0, best])

    with ThreadPoolExecutor(pool.size) as threads:
        covered_probabilities = list(threads.map(covered_probability, boxes))
    drops = [max(probability - covered, 0.0) for covered in covered_probabilities]
    total = np.zeros(pixels.shape[:2], np.float32)
    covers = np.zeros(pixels.shape[:2], np.float32)
    for (top, bottom, left, right), drop in zip(boxes, drops, strict=True):
        total[top:bottom, left:right] += drop
        covers[top:bottom, left:right] += 1
    heat = _smooth(total / np.maximum(covers, 1), min(pixels.shape[:2]) / (grid + 1))
    return OcclusionMap(
        pool.facts.labels[best],
        probability,
        heat,
        max(drops),
        len(boxes),
        time.perf_counter() - start,
    )


def overlay(pixels: Pixels, drops: OcclusionMap) -> Pixels:
    """The photo in grey, the parts that matter in colour: uint8 [H, W, 3].

    The colour is strongest where a patch lowers the probability by `FULL_DROP` or more;
    a photo whose answer hardly changes stays grey.
    """
    heat = drops.heat
    grey = pixels.mean(axis=2, keepdims=True) * 0.55 + 60
    strength = (heat / max(float(heat.max()), 1e-6))[..., None] ** 0.8
    strength = strength * min(drops.max_drop / FULL_DROP, 1.0)
    yellow, orange = np.array([255, 214, 90]), np.array([255.0, 96.0, 0.0])
    colour = orange * strength + yellow * (1 - strength)
    mixed = grey * (1 - 0.75 * strength) + colour * 0.75 * strength
    return np.asarray(mixed.clip(0, 255), np.uint8)


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


def _grid(run_s: float, workers: int, seconds: float) -> int:
    """The finest grid whose patches `workers` can run within `seconds`."""
    fitting = (grid for grid in GRIDS if grid * grid * run_s / workers <= seconds)
    return next(fitting, GRIDS[-1])


def _boxes(height: int, width: int, grid: int) -> list[tuple[int, int, int, int]]:
    """(top, bottom, left, right) of patches, each twice as long as their step."""
    edges = []
    for side in (height, width):
        step = side / (grid + 1)
        starts = [round(k * step) for k in range(grid)]
        edges.append([(s, min(max(s + round(2 * step), s + 1), side)) for s in starts])
    return [(*rows, *columns) for rows in edges[0] for columns in edges[1]]


def _smooth(heat: npt.NDArray[Any], step: float) -> npt.NDArray[np.float32]:
    """A box filter of one step's width, which removes the edges of the patches."""
    width = max(round(step), 1) | 1
    kernel = np.ones(width) / width
    heat = np.pad(heat, width // 2, mode="edge")
    for axis in (0, 1):
        heat = np.apply_along_axis(np.convolve, axis, heat, kernel, "valid")
    return heat.astype(np.float32)


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
