"""Photo to uint8 RGB pixels: the one preprocessing of the whole project.

Training, calibration, scoring and the device call `load_pixels`; nothing else decodes
or resizes. So whatever is decided here and in `edge.photo_kinds` (how a photo is
turned, what lies behind a transparent pixel, which filter shrinks it) is decided once.

The shrinking is done in two steps. A photo that is large enough is
first reduced by a power of two: a JPEG by up to 8 inside the decoder (libjpeg's DCT
scaling, several times faster than decoding in full), the rest and anything else by
averaging blocks. Then one
filtered resize, antialiased for every filter but ``nearest``, makes the final size.
How far the first step may go is the recipe's `margin`: the source pixels that it
leaves for each target pixel.

Measured on 2,000 training photos (tests/benchmarks/preprocessing.py, cross-validated
probe): margins 1, 2 and 8 score 94.9, 94.8 and 94.8 % with MobileNetV2 0.35 at 160 and
98.6, 98.6 and 98.6 % with 1.0 at 224; 1 takes 0.69 of the time of 2 at 160, and of
12-megapixel photos 0.81 at 224. No other filter is better beyond chance; box takes
0.88 of bilinear's time and has 94.6 %, nearest lost 1.5 points.

What decoding would cost is estimated from the header, and refused above `MEMORY` bytes
or what $EDGEGRAFT_MAX_MEGAPIXELS allows. Large photos are reduced while they are
converted, band by band. Scaling to floats is inside the model's graph.
"""

from __future__ import annotations

import errno
import io
import math
import os
import re
import stat
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from edge.errors import EdgegraftError, PhotoError

if TYPE_CHECKING:
    from edge.region import Region

Source = str | os.PathLike[str] | bytes | BinaryIO | Image.Image
Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 128_000_000  # a 108-megapixel phone passes; a bomb does not
MEMORY = 360_000_000  # bytes that decoding one photo may take; with Python 400 MB
SMALL = 64_000_000  # bytes that need no look at the free memory
MEGAPIXELS = "EDGEGRAFT_MAX_MEGAPIXELS"  # the environment variable that raises both
ORDINARY = 4_000_000  # pixels that cost little, whatever their format
_JPEG = ("JPEG", "MPO")
_MAY_BE_DEEP = ("PNG", "TIFF")  # formats with up to 16 bits a channel
BAND = 1 << 21  # pixels that are converted at a time
FULL = 65535  # the white of 16 bits
WHITES = (1023, 4095, 16383, FULL)  # of 10, 12, 14 and 16 bits
MAX_SIDE = 4096  # of a model's input
MARGIN = 1  # of new recipes; measured, see above
OLD_MARGIN = 2  # of cards that name none: they were written when it was fixed
MOST_MARGIN = 8
RESIZES = ("stretch", "crop", "pad")
PLAIN = "bilinear-plain"  # without antialiasing: TensorFlow's resize_bilinear
FILTERS = ("bilinear", "bicubic", "lanczos", "box", "nearest", PLAIN)
# Only these are opened: Pillow's list also holds formats that start programs (EPS).
# The first group is loaded by Pillow on every start, the second only when needed.
_COMMON = ("JPEG", "PNG", "BMP", "GIF", "PPM")  # multi-picture MPO opens as JPEG
_RARER = {"WEBP": "WebP", "TIFF": "Tiff", "AVIF": "Avif"}
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
    the middle share of both sides that is used (tf.image.central_crop). `white` is the
    level of 16-bit channels that is white (4095 for photos of a 12-bit camera).
    `to_srgb`: wide colour spaces are converted. `region` is the part of the upright
    photo that is used, as x, y, width and height: shares of its sides, or pixels where
    one of them is above 1; the others apply within it.
    """

    width: int
    height: int
    resize: str = "stretch"
    filter: str = "bilinear"
    margin: int = MARGIN
    central_fraction: float = 1.0
    white: int = FULL
    to_srgb: bool = True
    region: Region | None = None

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
        if self.white not in WHITES:
            raise EdgegraftError(
                f"input recipe: expected white to be one of {WHITES}, got "
                f"{self.white!r:.40}"
            )
        if type(self.to_srgb) is not bool:
            raise EdgegraftError(
                "input recipe: expected to_srgb to be true or false, got "
                f"{self.to_srgb!r:.40}"
            )
        if self.region is not None:
            from edge.region import check_region

            check_region(self.region)
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
        """Width and height that reduced decoding may not go below, in the region."""
        scale = self.margin / self.central_fraction
        return (math.ceil(self.width * scale), math.ceil(self.height * scale))

    def to_dict(self) -> dict[str, Any]:
        record: dict[str, Any] = {
            "width": self.width,
            "height": self.height,
            "resize": self.resize,
            "filter": self.filter,
            "margin": self.margin,
            "to_srgb": self.to_srgb,
        }
        if self.white != FULL:
            record["white"] = self.white
        if self.central_fraction != 1.0:
            record["central_fraction"] = self.central_fraction
        if self.region is not None:
            record["region"] = list(self.region)
        return record

    @classmethod
    def from_dict(cls, record: Any) -> InputRecipe:
        """The recipe of a card; EdgegraftError when it is not one."""
        if not isinstance(record, dict) or not {"width", "height"} <= record.keys():
            raise EdgegraftError(
                f"input recipe: expected an object with width and height, "
                f"got {record!r:.80}"
            )
        region = record.get("region")
        return cls(
            record["width"],
            record["height"],
            record.get("resize", "stretch"),
            record.get("filter", "bilinear"),
            record.get("margin", OLD_MARGIN),
            record.get("central_fraction", 1.0),
            record.get("white", FULL),
            record.get("to_srgb", False),  # cards that do not name it: never converted
            tuple(region) if isinstance(region, list) else region,
        )


def load_pixels(source: Source, recipe: InputRecipe) -> Pixels:
    """A photo as the model wants it: uint8 RGB [height, width, 3].

    PhotoError when the photo is missing, damaged, too large or no photo at all.
    """
    return fit(open_for(source, recipe), recipe)


def open_for(source: Source, recipe: InputRecipe) -> Image.Image:
    """A photo as RGB image, at least as large as the recipe wants; `fit` it next."""
    return open_photo(
        source,
        least=recipe.least,
        white=recipe.white,
        to_srgb=recipe.to_srgb,
        region=recipe.region,
    )


def open_photo(
    source: Source,
    *,
    least: tuple[int, int] | None = None,
    white: int = FULL,
    to_srgb: bool = True,
    region: Region | None = None,
) -> Image.Image:
    """A photo, decoded, upright, as an RGB image; of a `region`, that part alone.

    With `least` (width and height) the image may come out smaller by a power of two,
    but not under these. Transparent parts become white; of a GIF or a multi-picture
    file the first picture is taken. `white`: the level of 16-bit channels that is
    white.
    `to_srgb`: wide colour spaces are converted. Where its end is cut off,
    `info["missing"]` is the share of rows that is lost.

    PhotoError for anything that is not a whole photo, or too large.
    """
    name = _name_of(source)
    reading = _Reading(name, least, white, to_srgb, region)
    known = isinstance(source, (str, os.PathLike, bytes, Image.Image))
    if not known and not hasattr(source, "read"):
        raise PhotoError(
            name,
            "expected one photo: a path, bytes, a PIL image, an open file or an array, "
            f"got a {type(source).__name__}",
        )
    if isinstance(source, io.TextIOBase):
        raise PhotoError(
            name, "expected a file opened with 'rb', got one opened as text"
        )
    try:
        if isinstance(source, Image.Image):
            return reading.upright(source.copy())
        if isinstance(source, bytes):
            source = io.BytesIO(source)
        _quiet_pillow()
        if isinstance(source, (str, os.PathLike)):
            refuse_special(source)
        with _opened(source) as image:
            reading.refuse_costly(image)
            return reading.upright(image)
    except PhotoError:
        raise
    except EdgegraftError as error:  # a region outside this photo
        raise PhotoError(name, str(error)) from None
    except FileNotFoundError:
        raise PhotoError(name, "no such file") from None
    except IsADirectoryError:
        raise PhotoError(name, "expected a photo, got a folder") from None
    except PermissionError:
        raise PhotoError(name, "permission denied (chmod +r the file)") from None
    except MemoryError:
        raise PhotoError(name, "not enough memory to decode this photo") from None
    except UnidentifiedImageError:
        raise PhotoError(name, _why(source)) from None
    except Image.DecompressionBombError:
        raise PhotoError(name, f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # Pillow's plugins raise whatever they trip over
        if getattr(error, "errno", None) == errno.ELOOP:
            raise PhotoError(name, "a link that leads to itself") from None
        text = " ".join(str(error).split()) or type(error).__name__
        raise PhotoError(name, f"damaged photo: {text:.120}") from error


def refuse_special(path: str | os.PathLike[str]) -> None:
    """PhotoError for a pipe, socket or device: opening one could block for ever."""
    if stat.S_IFMT(os.stat(path).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
        raise PhotoError(os.fspath(path), "not an ordinary file")


def deep_white(source: str | os.PathLike[str]) -> int:
    """The least of `WHITES` that a 16-bit PNG or TIFF stays within; 0 for other photos,
    and for those that say their own range or cannot be read."""
    from edge import photo_kinds

    with suppress(Exception):  # what is wrong with it shows when it is decoded
        refuse_special(source)
        with open(source, "rb") as file:
            if not photo_kinds.may_be_deep(file.read(photo_kinds.HEAD_BYTES)):
                return 0
        _quiet_pillow()
        with _opened(source) as image:
            _Reading("", None, FULL, False).refuse_costly(image)
            most = photo_kinds.most(image)
            if most is not None:
                return next((level for level in WHITES if most <= level), FULL)
    return 0


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


class _Reading:
    """How one photo is opened."""

    def __init__(
        self,
        name: str,
        least: tuple[int, int] | None,
        white: int,
        to_srgb: bool,
        region: Region | None = None,
    ) -> None:
        self.name = name
        self.least = least
        self.white = white
        self.to_srgb = to_srgb
        self.region = region

    def refuse_costly(self, image: Image.Image) -> None:
        """PhotoError for what would take too much memory or time."""
        wide, high = image.size
        pixels, allowed = wide * high, _megapixels()
        if pixels > (allowed or MAX_PIXELS):
            raise PhotoError(
                self.name,
                f"expected at most {allowed or MAX_PIXELS:,} pixels, got {wide} x "
                f"{high} (--max-megapixels allows more)",
            )
        progressive = "progressive" in image.info
        plain = image.format in _JPEG and self.least is not None and not progressive
        if plain or (pixels < ORDINARY and not progressive):
            return
        from edge import photo_kinds

        cost = pixels * photo_kinds.cost(
            image, reduced=self.least is not None, white=self.white
        )
        free = photo_kinds.free_memory() if cost > SMALL else MEMORY * 2
        if not allowed and cost > min(MEMORY, free // 2):
            raise PhotoError(
                self.name,
                f"{wide} x {high} pixels take about {cost / 1e6:,.0f} MB to decode as "
                f"{image.format}, more than is allowed; save it smaller, or allow "
                f"more: --max-megapixels {-(-pixels // 1_000_000)}",
            )
        if progressive and image.format in _JPEG:
            photo_kinds.refuse_scans(image, self.name)

    def upright(self, image: Image.Image) -> Image.Image:
        """The photo as RGB, reduced, in sRGB, turned as EXIF says."""
        wide, high = image.size
        if not wide or not high:
            raise PhotoError(self.name, f"expected a photo, got {wide} x {high} pixels")
        turn = _orientation(image)
        least, part = self.least, None
        if least is not None and turn in _SIDEWAYS:
            least = (least[1], least[0])
        whole = least  # what decoding may not go below, for the whole photo
        if self.region is not None:
            from edge import region

            if image.format not in _JPEG:
                image = self._loaded(image, None)  # which turns a TIFF
            wide, high = image.size
            part = region.stored_box(self.region, image.size, turn)
            if least is not None:
                sides = (part[2] - part[0], part[3] - part[1])
                whole = (
                    math.ceil(least[0] * wide / sides[0]),
                    math.ceil(least[1] * high / sides[1]),
                )
        image = self._loaded(image, whole)
        missing = image.info.get("missing")
        if part is not None and image.size != (wide, high):  # reduced by the decoder
            part = region.scaled(part, image.width / wide, image.height / high)
        rgb = self._rgb(image, least, part)
        if self.to_srgb and image.info.get("icc_profile"):
            from edge import photo_kinds

            rgb = photo_kinds.in_srgb(rgb, image)
        rgb = rgb.transpose(_TURNS[turn]) if turn in _TURNS else rgb
        rgb.info = {} if missing is None else {"missing": missing}
        return rgb

    def _loaded(self, image: Image.Image, least: tuple[int, int] | None) -> Image.Image:
        if image.format not in _JPEG:
            if image.format in _MAY_BE_DEEP and ";16" in str(
                getattr(image, "tile", "")
            ):
                from edge import photo_kinds

                if photo_kinds.has_deep_colour(image):
                    return photo_kinds.deep_colour(image, self.white)
            image.load()
            if image.format == "TIFF":
                from edge import photo_kinds

                return photo_kinds.unsigned(image)
            return image
        if least is not None:
            image.draft(None, least)
        try:
            image.load()
            return image
        except OSError as error:
            if "truncated" not in str(error):
                raise
        from edge import photo_kinds

        return photo_kinds.cut_off(image, self.name, least)

    def _rgb(
        self,
        image: Image.Image,
        least: tuple[int, int] | None,
        part: tuple[int, int, int, int] | None,
    ) -> Image.Image:
        """RGB on white of a `part`, by a power of two not under `least`, in bands."""
        plain = image.mode in ("RGB", "L") and "transparency" not in image.info
        if not plain:
            from edge import photo_kinds

            convert = photo_kinds.converter(image, self.white)  # by its range
        if part is not None:
            image = image.crop(part)
        factor = 1
        if least is not None:
            spare = min(image.width // least[0], image.height // least[1])
            factor = 1 << max(spare.bit_length() - 1, 0)
        if plain:
            image = image.reduce(factor) if factor > 1 else image
            return image if image.mode == "RGB" else image.convert("RGB")
        if factor == 1:
            return convert(image)
        wide, high = image.size
        out = Image.new("RGB", (-(-wide // factor), -(-high // factor)))
        rows = max(BAND // wide // factor, 1) * factor
        for top in range(0, high, rows):
            band = image.crop((0, top, wide, min(top + rows, high)))
            out.paste(convert(band).reduce(factor), (0, top // factor))
        return out


def _megapixels() -> int:
    """Pixels that $EDGEGRAFT_MAX_MEGAPIXELS allows; 0 where it is not set."""
    try:
        return int(float(os.environ.get(MEGAPIXELS, "")) * 1_000_000)
    except (ValueError, OverflowError):
        return 0


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


def _why(source: Source) -> str:
    from edge import photo_kinds

    return photo_kinds.why_unreadable(source)


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
