"""The measurements of one photo that an audit judges.

Light and blur are measured on the grey picture at `MEASURED` pixels a side at most,
near the size a network sees: a photo is blurred if it would be blurred there.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from data.audit import local_features
from edge.preprocess import open_photo

THUMB = 96  # pixels of a thumbnail, in both directions
MIN_SIDE = 224  # pixels a side that the decoder must give; an input of 224 shares it
MEASURED = 256  # pixels of the longer side
RADIUS = 4  # pixels of the second blur
ORIENTATION = 0x0112  # the EXIF tag
HEADERS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "HEIF")


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """The facts of one decoded photo.

    format, mode: Pillow's names, of the file as it is stored. width, height: pixels,
    upright. turn: the EXIF orientation, 1 to 8. size: bytes of the file. low, high:
    the 5th and 95th percentile of grey, 0..255; deviation: the standard deviation of
    grey. blur: 0 sharp to 1.
    thumb: THUMB x THUMB grey bytes, the whole photo squeezed into a square. features:
    `data.audit.local_features`, as bytes; none where OpenCV is not installed.
    """

    format: str
    mode: str
    width: int
    height: int
    turn: int
    size: int
    low: int
    high: int
    deviation: float
    blur: float
    thumb: bytes
    features: bytes = b""


@dataclass(frozen=True)
class Header:
    """What a file declares before it is decoded; zeros where it cannot be read."""

    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    turn: int = 1


def header(data: bytes) -> Header:
    """The header of a photo's bytes; an empty one where decoding will refuse it."""
    try:
        formats = [name for name in HEADERS if name in Image.OPEN]
        with Image.open(io.BytesIO(data), formats=formats) as image:
            turn = 1
            if "exif" in image.info or image.format in ("TIFF", "MPO"):
                turn = image.getexif().get(ORIENTATION, 1)
            if not (isinstance(turn, int) and 1 <= turn <= 8):
                turn = 1
            format = "JPEG" if image.format == "MPO" else str(image.format)
            mode = "transparent P" if "transparency" in image.info else str(image.mode)
            return Header(format, mode, image.width, image.height, turn)
    except Exception:  # Pillow's plugins raise whatever they trip over
        return Header()


def measure(
    data: bytes, image: Image.Image | None = None, *, features: bool = True
) -> PhotoFacts:
    """The facts of a photo's bytes. `image`: the same photo, opened by
    `edge.preprocess`, at least MIN_SIDE a side. PhotoError as `open_photo`."""
    if image is None:
        image = open_photo(data, min_size=(MIN_SIDE, MIN_SIDE))
    head = header(data)
    width, height = head.width or image.width, head.height or image.height
    if head.turn >= 5:
        width, height = height, width
    full = image.convert("L")
    grey = full
    scale = MEASURED / max(full.size)
    if scale < 1:
        size = max(1, round(full.width * scale)), max(1, round(full.height * scale))
        grey = full.resize(size, Image.Resampling.BOX)
    features = features and local_features.available()
    counts = np.array(grey.histogram(), np.int64)
    cumulative = np.cumsum(counts) / counts.sum()
    levels = np.arange(256)
    mean = float(counts @ levels) / float(counts.sum())
    variance = float(counts @ np.square(levels - mean)) / float(counts.sum())
    return PhotoFacts(
        format=head.format,
        mode=head.mode or "RGB",
        width=width,
        height=height,
        turn=head.turn,
        size=len(data),
        low=int(np.searchsorted(cumulative, 0.05)),
        high=int(np.searchsorted(cumulative, 0.95)),
        deviation=round(variance**0.5, 2),
        blur=round(blur(np.asarray(grey)), 3),
        thumb=full.resize((THUMB, THUMB), Image.Resampling.BOX).tobytes(),
        features=local_features.detect(full).tobytes() if features else b"",
    )


def blur(grey: np.ndarray) -> float:
    """0 sharp to 1 blurred: how little a second blur would change (Crete et al. 2007,
    "The blur effect"). `grey` is uint8 [H, W]; 0 where it is too small to say."""
    if min(grey.shape) < 4 * RADIUS:
        return 0.0
    blurs = []
    values = grey.astype(np.int16)
    window = 2 * RADIUS + 1
    for lines in (values, values.T):
        steps = np.abs(lines[:, RADIUS + 1 : -RADIUS] - lines[:, RADIUS : -RADIUS - 1])
        # a step of the mean over a window is the step of its ends over its length
        blurred = np.abs(lines[:, window:] - lines[:, :-window])
        lost = steps - blurred.astype(np.float32) / window
        total = float(steps.sum(dtype=np.int64))
        if total > 0:
            blurs.append(1 - float(np.maximum(lost, 0).sum()) / total)
    return max(blurs, default=0.0)
