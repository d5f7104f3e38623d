"""Photo to uint8 RGB pixels: the one preprocessing of the whole project.

Training, calibration, scoring and the device call `load_pixels`; nobody else
decodes or resizes. So whatever this file decides (how a photo is turned, what
lies behind a transparent pixel, which filter shrinks it) is decided once.

The shrinking is done in two steps. A photo that is large enough is
first reduced by 2, 4 or 8: a JPEG inside the decoder (libjpeg's DCT scaling, several
times faster than decoding in full), anything else by averaging blocks. Then one
filtered resize, antialiased for every filter but ``nearest``, makes the final size.
How far the first step may go is the recipe's `margin`: the source pixels that it
leaves for each target pixel.

Measured on 2,000 training photos (tests/benchmarks/preprocessing.py, cross-validated
probe): margins 1, 2 and 8 score 94.9, 94.8 and 94.8 % with MobileNetV2 0.35 at 160 and
98.6, 98.6 and 98.6 % with 1.0 at 224; 1 takes 0.69 of the time of 2 at 160, and of
12-megapixel photos 0.81 at 224. No other filter is better beyond chance; box takes
0.88 of bilinear's time and has 94.6 %, nearest lost 1.5 points.

It does not know: labels, models, scaling to floats (that is inside the model's
graph), colour profiles (the numbers in the file are taken as sRGB).
"""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from edge.errors import EdgegraftError, PhotoError

Source = str | os.PathLike[str] | bytes | BinaryIO | Image.Image
Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 128_000_000  # a 108-megapixel phone passes; a bomb does not
MAX_SIDE = 4096  # of a model's input
MARGIN = 1  # of new recipes; measured, see above
OLD_MARGIN = 2  # of cards that name none: they were written when it was fixed
MOST_MARGIN = 8
PHOTO_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".gif"),
        *(".tif", ".tiff", ".ppm", ".pgm", ".avif", ".heic", ".heif"),
    )
)
_KINDS = "JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, PGM, MPO, AVIF, HEIC or HEIF"
RESIZES = ("stretch", "crop", "pad")
PLAIN = "bilinear-plain"  # without antialiasing: TensorFlow's resize_bilinear
FILTERS = ("bilinear", "bicubic", "lanczos", "box", "nearest", PLAIN)

# Only these are opened: Pillow's list also holds formats that start programs (EPS).
# The first group is loaded by Pillow on every start, the second only when needed.
_COMMON = ("JPEG", "PNG", "BMP", "GIF", "PPM")  # multi-picture MPO opens as JPEG
_RARER = {"WEBP": "WebP", "TIFF": "Tiff", "AVIF": "Avif"}
_AVIF_BRANDS = (b"avif", b"avis")  # Pillow reads it since 11.3
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
HEAD_BYTES = 32  # that say what a file holds
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # and BigTIFF
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", *_TIFF)
_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True)
class InputRecipe:
    """How a photo becomes a model's input.

    `resize` is ``stretch`` (both sides to the asked size, whatever the shape of
    the photo; what MediaPipe and ML Kit do), ``crop`` (the middle, in the asked
    shape) or ``pad`` (the whole photo with black beside it). `filter` is a
    Pillow filter's name in lower case. `margin` is how many source pixels, in width
    and in height, reduced decoding leaves for each target pixel. `central_fraction` is
    the middle share of both sides that is used (tf.image.central_crop).
    """

    width: int
    height: int
    resize: str = "stretch"
    filter: str = "bilinear"
    margin: int = MARGIN
    central_fraction: float = 1.0

    def __post_init__(self) -> None:
        for side in (self.width, self.height):
            if type(side) is not int or not 1 <= side <= MAX_SIDE:
                raise EdgegraftError(
                    f"input recipe: expected width and height from 1 to {MAX_SIDE}, "
                    f"got {self.width!r} x {self.height!r}"
                )
        if type(self.margin) is not int or not 1 <= self.margin <= MOST_MARGIN:
            raise EdgegraftError(
                f"input recipe: expected margin to be 1 to {MOST_MARGIN}, "
                f"got {self.margin!r}"
            )
        share = self.central_fraction
        if not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise EdgegraftError(
                f"input recipe: expected central_fraction above 0, at most 1, "
                f"got {share!r}"
            )
        for name, value, known in (
            ("resize", self.resize, RESIZES),
            ("filter", self.filter, FILTERS),
        ):
            if value not in known:
                raise EdgegraftError(
                    f"input recipe: expected {name} to be one of "
                    f"{', '.join(known)}, got {value!r}"
                )

    @property
    def least(self) -> tuple[int, int]:
        """Width and height that reduced decoding may not go below."""
        scale = self.margin / self.central_fraction
        return (math.ceil(self.width * scale), math.ceil(self.height * scale))

    def to_dict(self) -> dict[str, Any]:
        record: dict[str, Any] = {
            "width": self.width,
            "height": self.height,
            "resize": self.resize,
            "filter": self.filter,
            "margin": self.margin,
        }
        if self.central_fraction != 1.0:
            record["central_fraction"] = self.central_fraction
        return record

    @classmethod
    def from_dict(cls, record: Any) -> InputRecipe:
        """The recipe of a card; EdgegraftError when it is not one."""
        if not isinstance(record, dict) or not {"width", "height"} <= record.keys():
            raise EdgegraftError(
                f"input recipe: expected an object with width and height, "
                f"got {record!r:.80}"
            )
        return cls(
            record["width"],
            record["height"],
            record.get("resize", "stretch"),
            record.get("filter", "bilinear"),
            record.get("margin", OLD_MARGIN),
            record.get("central_fraction", 1.0),
        )


def begins_like_a_photo(head: bytes) -> bool:
    """Whether a file's first `HEAD_BYTES` are those of a photo, whatever its name."""
    if head.startswith(_MAGIC):
        return True
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[:2] == b"BM":  # two letters are too few: the length of its header, too
        return int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)
    return head[4:8] == b"ftyp" and head[8:12] in (*_HEIF_BRANDS, *_AVIF_BRANDS)


def load_pixels(source: Source, recipe: InputRecipe) -> Pixels:
    """A photo as the model wants it: uint8 RGB [height, width, 3].

    PhotoError when the photo is missing, damaged, too large or no photo at all.
    """
    return fit(open_photo(source, least=recipe.least), recipe)


def open_photo(source: Source, *, least: tuple[int, int] | None = None) -> Image.Image:
    """A photo, decoded in full, upright, as an RGB image.

    With `least` (width and height) the image may come out smaller by 2, 4 or 8, but
    not under these. Transparent parts become white; 16 bits become the upper 8; of a
    GIF or a multi-picture file the first picture is taken. PhotoError for anything that
    is not a whole photo.
    """
    name = _name_of(source)
    try:
        if isinstance(source, Image.Image):
            return _upright_rgb(source.copy(), name, least)
        if isinstance(source, bytes):
            source = io.BytesIO(source)
        _quiet_pillow()
        with _opened(source) as image:
            return _upright_rgb(image, name, least)
    except PhotoError:
        raise
    except FileNotFoundError:
        raise PhotoError(name, "no such file") from None
    except IsADirectoryError:
        raise PhotoError(name, "expected a photo, got a folder") from None
    except PermissionError:
        raise PhotoError(name, "permission denied (chmod +r the file)") from None
    except MemoryError:
        raise PhotoError(name, "not enough memory to decode this photo") from None
    except UnidentifiedImageError:
        raise PhotoError(name, _why_unreadable(source)) from None
    except Image.DecompressionBombError:
        raise PhotoError(name, f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # Pillow's plugins raise whatever they trip over
        text = " ".join(str(error).split()) or type(error).__name__
        raise PhotoError(name, f"damaged photo: {text:.120}") from error


def fit(image: Image.Image, recipe: InputRecipe) -> Pixels:
    """Resize an RGB image by the recipe: uint8 [height, width, 3]."""
    size = (recipe.width, recipe.height)
    if recipe.central_fraction != 1.0 or recipe.filter == PLAIN:
        return _fit_middle(image, recipe)
    how = Image.Resampling[recipe.filter.upper()]
    if recipe.resize == "stretch":
        out = image.resize(size, how)
    elif recipe.resize == "crop":
        out = image.resize(size, how, box=_middle(image.size, size))
    else:
        inner = _inside(image.size, size)
        out = Image.new("RGB", size)
        corner = ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2)
        out.paste(image.resize(inner, how), corner)
    return np.array(out, dtype=np.uint8)


def _fit_middle(image: Image.Image, recipe: InputRecipe) -> Pixels:
    """`fit` from the middle of the photo, also without antialiasing."""
    size = (recipe.width, recipe.height)
    have = image.size
    shape = size if recipe.resize == "crop" else have
    box = _middle(have, shape)
    share = recipe.central_fraction
    wide, high = (box[2] - box[0]) * share, (box[3] - box[1]) * share
    left, top = (have[0] - wide) / 2, (have[1] - high) / 2
    box = (max(left, 0.0), max(top, 0.0), left + wide, top + high)
    inner = size
    if recipe.resize == "pad":
        inner = _inside((round(wide) or 1, round(high) or 1), size)
    if recipe.filter == PLAIN:
        extent, bilinear = Image.Transform.EXTENT, Image.Resampling.BILINEAR
        out = image.transform(inner, extent, box, bilinear)
    else:
        box = (*box[:2], min(box[2], have[0]), min(box[3], have[1]))
        out = image.resize(inner, Image.Resampling[recipe.filter.upper()], box=box)
    if inner != size:
        padded = Image.new("RGB", size)
        padded.paste(out, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
        out = padded
    return np.array(out, dtype=np.uint8)


def _middle(
    have: tuple[int, int], want: tuple[int, int]
) -> tuple[float, float, float, float]:
    """The largest centred box of `have` in the shape of `want`."""
    scale = min(have[0] / want[0], have[1] / want[1])
    wide, high = want[0] * scale, want[1] * scale
    left, top = (have[0] - wide) / 2, (have[1] - high) / 2
    right, bottom = min(left + wide, have[0]), min(top + high, have[1])
    return (max(left, 0.0), max(top, 0.0), right, bottom)


def _inside(have: tuple[int, int], want: tuple[int, int]) -> tuple[int, int]:
    """The largest size in the shape of `have` that lies within `want`."""
    scale = min(want[0] / have[0], want[1] / have[1])
    return (
        min(max(round(have[0] * scale), 1), want[0]),
        min(max(round(have[1] * scale), 1), want[1]),
    )


def _name_of(source: Source) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return str(
        getattr(source, "name", "") or getattr(source, "filename", "") or "photo"
    )


def _quiet_pillow() -> None:
    """Silence Pillow's warnings: our own limit and errors say what matters.

    Done once, and for the whole process: `warnings.catch_warnings` is not safe
    when several threads decode.
    """
    mine = re.compile(r"PIL\.")
    if not any(entry[3] == mine for entry in warnings.filters):
        warnings.filterwarnings("ignore", module=mine.pattern)


def _opened(source: str | os.PathLike[str] | BinaryIO) -> Image.Image:
    try:
        return Image.open(source, formats=_COMMON)
    except UnidentifiedImageError:
        from importlib import import_module

        for plugin in _RARER.values():
            # a Pillow built without a library has the plugin but not the format
            with suppress(ImportError):
                import_module(f"PIL.{plugin}ImagePlugin")
        with suppress(ImportError):  # an extra; it turns its photos upright itself
            import_module("pillow_heif").register_heif_opener()
        rarer = [name for name in (*_RARER, "HEIF") if name in Image.OPEN]
        return Image.open(source, formats=rarer)


def _why_unreadable(source: Source) -> str:
    try:
        if isinstance(source, (str, os.PathLike)):
            with open(source, "rb") as file:
                head = file.read(12)
        elif isinstance(source, Image.Image):
            head = b"?"
        else:
            source.seek(0)  # type: ignore[union-attr]
            head = source.read(12)  # type: ignore[union-attr]
    except (OSError, ValueError):
        head = b"?"
    if not head:
        return f"expected a photo ({_KINDS}), got an empty file"
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if brand in _HEIF_BRANDS and "HEIF" not in Image.OPEN:
        return f"expected a photo ({_KINDS}), got HEIC; pip install pillow-heif"
    if brand in _AVIF_BRANDS and "AVIF" not in Image.OPEN:
        return f"expected a photo ({_KINDS}), got AVIF; pip install 'pillow>=11.3'"
    return f"expected a photo ({_KINDS}), got something else or a damaged header"


def _upright_rgb(
    image: Image.Image, name: str, least: tuple[int, int] | None
) -> Image.Image:
    wide, high = image.size
    if wide * high > MAX_PIXELS:
        raise PhotoError(
            name, f"expected at most {MAX_PIXELS:,} pixels, got {wide} x {high}"
        )
    if not wide or not high:
        raise PhotoError(name, f"expected a photo, got {wide} x {high} pixels")
    turn = _orientation(image)
    if least is not None and image.format in ("JPEG", "MPO"):
        wide, high = reversed(least) if turn in _SIDEWAYS else least
        image.draft(None, (wide, high))
    image.load()
    if least is not None and turn in _SIDEWAYS:
        least = (least[1], least[0])
    image = _rgb(image, name, least)
    return image.transpose(_TURNS[turn]) if turn in _TURNS else image


def _orientation(image: Image.Image) -> int:
    """The EXIF turn, 1 to 8; 1 when there is none (or none that can be read)."""
    if image.format == "TIFF":
        return 1  # Pillow turns these while it loads them
    if image.format in ("JPEG", "PNG", "WEBP") and "exif" not in image.info:
        return 1  # the usual case, without loading Pillow's EXIF code
    try:
        turn = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF must not cost us a whole photo
        return 1
    return turn if isinstance(turn, int) else 1


def _rgb(image: Image.Image, name: str, least: tuple[int, int] | None) -> Image.Image:
    if image.mode.startswith("I"):
        # 16-bit greys, also in Pillow's 32-bit "I": keep the upper 8 bits
        grey = np.asarray(image)
        if grey.dtype.itemsize > 2:
            grey = grey.clip(0, 65535)
        image = Image.fromarray((grey >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise PhotoError(name, "expected 8 or 16 bits a channel, got floating point")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or (
        "transparency" in image.info and image.mode != "CMYK"
    ):
        image = _shrunk(image.convert("RGBA"), least)
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        return white
    if image.mode not in ("RGB", "L"):
        image = image.convert("RGB")
    image = _shrunk(image, least)
    return image if image.mode == "RGB" else image.convert("RGB")


def _shrunk(image: Image.Image, least: tuple[int, int] | None) -> Image.Image:
    """Averaged down by the power of two that `draft` would have taken."""
    if least is None:
        return image
    spare = min(image.width // least[0], image.height // least[1])
    for factor in (8, 4, 2):
        if spare >= factor:
            return image.reduce(factor)
    return image
