"""Photo to uint8 RGB pixels: the one preprocessing of the whole project.

Training, calibration, scoring and the device call `load_pixels`; nothing else decodes
or resizes. Orientation, transparency and filters are decided here and in
`edge.photo_kinds`, once.

A large photo is first reduced by a power of two: a JPEG by up to 8 inside the decoder
(libjpeg's DCT scaling, several times faster than decoding in full), anything else by
averaging blocks. Then one filtered resize, antialiased for every filter but
``nearest``, makes the final size. The recipe's `margin` limits the first step: it is
the number of source pixels left for each target pixel.

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

from edge.errors import EdgegraftError, PhotoError, one_line

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
MAX_MARGIN = 8
RESIZES = ("stretch", "crop", "pad")
PLAIN = "bilinear-plain"  # without antialiasing: TensorFlow's resize_bilinear
FILTERS = ("bilinear", "bicubic", "lanczos", "box", "nearest", PLAIN)
# Only these are opened: Pillow's list also holds formats that start programs (EPS).
# The first group is loaded by Pillow on every start, the second only when needed.
_COMMON = ("JPEG", "PNG", "BMP", "GIF", "PPM")  # multi-picture MPO opens as JPEG
_RARER = {"WEBP": "WebP", "TIFF": "Tiff", "AVIF": "Avif"}
_EXIF_ORIENTATION = 0x0112
_TRANSPOSES = {
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
            _expect(
                type(side) is int and 1 <= side <= MAX_SIDE,
                f"width and height from 1 to {MAX_SIDE}",
                f"{self.width!r} x {self.height!r}",
            )
        _expect(
            type(self.margin) is int and 1 <= self.margin <= MAX_MARGIN,
            f"margin to be 1 to {MAX_MARGIN}",
            repr(self.margin),
        )
        fraction = self.central_fraction
        _expect(
            isinstance(fraction, (int, float)) and 0 < fraction <= 1,
            "central_fraction above 0, at most 1",
            repr(fraction),
        )
        white, to_srgb = f"{self.white!r:.40}", f"{self.to_srgb!r:.40}"
        _expect(self.white in WHITES, f"white to be one of {WHITES}", white)
        _expect(type(self.to_srgb) is bool, "to_srgb to be true or false", to_srgb)
        if self.region is not None:
            from edge.region import check_region

            check_region(self.region)
        for name, value, choices in (
            ("resize", self.resize, RESIZES),
            ("filter", self.filter, FILTERS),
        ):
            expected = f"{name} to be one of {', '.join(choices)}"
            _expect(value in choices, expected, repr(value))

    @property
    def min_size(self) -> tuple[int, int]:
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


def _expect(condition: bool, expected: str, got: str) -> None:
    if not condition:
        raise EdgegraftError(f"input recipe: expected {expected}, got {got}")


def load_pixels(source: Source, recipe: InputRecipe) -> Pixels:
    """A photo as the model wants it: uint8 RGB [height, width, 3].

    PhotoError when the photo is missing, damaged, too large or no photo at all.
    """
    return fit(open_for(source, recipe), recipe)


def open_for(source: Source, recipe: InputRecipe) -> Image.Image:
    """A photo as RGB image, at least as large as the recipe wants; `fit` it next."""
    return open_photo(
        source,
        min_size=recipe.min_size,
        white=recipe.white,
        to_srgb=recipe.to_srgb,
        region=recipe.region,
    )


def open_photo(
    source: Source,
    *,
    min_size: tuple[int, int] | None = None,
    white: int = FULL,
    to_srgb: bool = True,
    region: Region | None = None,
) -> Image.Image:
    """A photo, decoded, upright, as an RGB image; of a `region`, that part alone.

    With `min_size` (width and height) the image may come out smaller by a power of two,
    but not under these. Transparent parts become white; of a GIF or a multi-picture
    file the first picture is taken. `white`: the level of 16-bit channels that is
    white.
    `to_srgb`: wide colour spaces are converted. Where its end is cut off,
    `info["missing"]` is the share of rows that is lost.

    PhotoError for anything that is not a whole photo, or too large.
    """
    name = _name_of(source)
    decoder = _Decoder(name, min_size, white, to_srgb, region)
    in_memory = isinstance(source, (bytes, Image.Image))
    is_path = isinstance(source, (str, os.PathLike))
    if not (in_memory or is_path or hasattr(source, "read")):
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
            return decoder.decode(source.copy())
        if isinstance(source, bytes):
            source = io.BytesIO(source)
        _quiet_pillow()
        if isinstance(source, (str, os.PathLike)):
            refuse_special(source)
        with _opened(source) as image:
            decoder.refuse_costly(image)
            return decoder.decode(image)
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
        from edge import photo_kinds

        raise PhotoError(name, photo_kinds.why_unreadable(source)) from None
    except Image.DecompressionBombError:
        raise PhotoError(name, f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # Pillow's plugins raise whatever they trip over
        if getattr(error, "errno", None) == errno.ELOOP:
            raise PhotoError(name, "a link that leads to itself") from None
        raise PhotoError(name, f"damaged photo: {one_line(error):.120}") from error


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
            _Decoder("", None, FULL, False).refuse_costly(image)
            maximum = photo_kinds.maximum(image)
            if maximum is not None:
                return next((level for level in WHITES if maximum <= level), FULL)
    return 0


def fit(image: Image.Image, recipe: InputRecipe) -> Pixels:
    """Resize an RGB image by the recipe: uint8 [height, width, 3]."""
    size = (recipe.width, recipe.height)
    if recipe.central_fraction != 1.0 or recipe.filter == PLAIN:
        resized = _resize_center(image, recipe)
    else:
        resampling = Image.Resampling[recipe.filter.upper()]
        if recipe.resize == "stretch":
            resized = image.resize(size, resampling)
        elif recipe.resize == "crop":
            box = _center_box(image.size, size)
            resized = image.resize(size, resampling, box=box)
        else:
            resized = image.resize(_size_within(image.size, size), resampling)
    if resized.size != size:
        padded = Image.new("RGB", size)
        left, top = (size[0] - resized.width) // 2, (size[1] - resized.height) // 2
        padded.paste(resized, (left, top))
        resized = padded
    return np.array(resized, dtype=np.uint8)


def _resize_center(image: Image.Image, recipe: InputRecipe) -> Image.Image:
    """The middle of the photo, resized, also without antialiasing."""
    size = (recipe.width, recipe.height)
    left, top, right, bottom = _center_box(
        image.size, size if recipe.resize == "crop" else image.size
    )
    width = (right - left) * recipe.central_fraction
    height = (bottom - top) * recipe.central_fraction
    left, top = (image.width - width) / 2, (image.height - height) / 2
    box = (max(left, 0.0), max(top, 0.0), left + width, top + height)
    if recipe.resize == "pad":
        size = _size_within((round(width) or 1, round(height) or 1), size)
    if recipe.filter == PLAIN:
        extent, bilinear = Image.Transform.EXTENT, Image.Resampling.BILINEAR
        return image.transform(size, extent, box, bilinear)
    box = (*box[:2], min(box[2], image.width), min(box[3], image.height))
    return image.resize(size, Image.Resampling[recipe.filter.upper()], box=box)


def _center_box(
    size: tuple[int, int], shape: tuple[int, int]
) -> tuple[float, float, float, float]:
    """The largest box with the aspect ratio of `shape` in the middle of `size`."""
    scale = min(size[0] / shape[0], size[1] / shape[1])
    width, height = shape[0] * scale, shape[1] * scale
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    right, bottom = min(left + width, size[0]), min(top + height, size[1])
    return (max(left, 0.0), max(top, 0.0), right, bottom)


def _size_within(size: tuple[int, int], limit: tuple[int, int]) -> tuple[int, int]:
    """The largest size with the aspect ratio of `size` that fits into `limit`."""
    scale = min(limit[0] / size[0], limit[1] / size[1])
    return (
        min(max(round(size[0] * scale), 1), limit[0]),
        min(max(round(size[1] * scale), 1), limit[1]),
    )


@dataclass(frozen=True)
class _Decoder:
    """Decodes one photo; the fields are the parameters of `open_photo`."""

    name: str
    min_size: tuple[int, int] | None
    white: int
    to_srgb: bool
    region: Region | None = None

    def refuse_costly(self, image: Image.Image) -> None:
        """PhotoError for what would take too much memory or time."""
        width, height = image.size
        pixels, allowed = width * height, _allowed_pixels()
        if pixels > (allowed or MAX_PIXELS):
            raise PhotoError(
                self.name,
                f"expected at most {allowed or MAX_PIXELS:,} pixels, got {width} x "
                f"{height} (--max-megapixels allows more)",
            )
        progressive = "progressive" in image.info
        plain = image.format in _JPEG and self.min_size is not None and not progressive
        if plain or (pixels < ORDINARY and not progressive):
            return
        from edge import photo_kinds

        cost = pixels * photo_kinds.cost(
            image, reduced=self.min_size is not None, white=self.white
        )
        free = photo_kinds.free_memory() if cost > SMALL else MEMORY * 2
        if not allowed and cost > min(MEMORY, free // 2):
            raise PhotoError(
                self.name,
                f"{width} x {height} pixels take about {cost / 1e6:,.0f} MB to decode "
                f"as {image.format}, more than is allowed; save it smaller, or allow "
                f"more: --max-megapixels {-(-pixels // 1_000_000)}",
            )
        if progressive and image.format in _JPEG:
            photo_kinds.refuse_scans(image, self.name)

    def decode(self, image: Image.Image) -> Image.Image:
        """The photo as RGB, reduced, in sRGB, turned as EXIF says."""
        width, height = image.size
        if not width or not height:
            raise PhotoError(
                self.name, f"expected a photo, got {width} x {height} pixels"
            )
        orientation = _orientation(image)
        min_size, box = self.min_size, None
        if min_size is not None and orientation in _SIDEWAYS:
            min_size = (min_size[1], min_size[0])
        min_photo_size = min_size  # the minimum of the whole photo, not of the region
        if self.region is not None:
            from edge import region

            if image.format not in _JPEG:
                image = self._load(image, None)  # which turns a TIFF
            width, height = image.size
            box = region.stored_box(self.region, image.size, orientation)
            if min_size is not None:
                min_photo_size = (
                    math.ceil(min_size[0] * width / (box[2] - box[0])),
                    math.ceil(min_size[1] * height / (box[3] - box[1])),
                )
        image = self._load(image, min_photo_size)
        missing = image.info.get("missing")
        if box is not None and image.size != (width, height):  # the decoder reduced it
            box = region.scaled(box, image.width / width, image.height / height)
        rgb = self._to_rgb(image, min_size, box)
        if self.to_srgb and image.info.get("icc_profile"):
            from edge import photo_kinds

            rgb = photo_kinds.in_srgb(rgb, image)
        if orientation in _TRANSPOSES:
            rgb = rgb.transpose(_TRANSPOSES[orientation])
        rgb.info = {} if missing is None else {"missing": missing}
        return rgb

    def _load(
        self, image: Image.Image, min_size: tuple[int, int] | None
    ) -> Image.Image:
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
        if min_size is not None:
            image.draft(None, min_size)
        try:
            image.load()
            return image
        except OSError as error:
            if "truncated" not in str(error):
                raise
        from edge import photo_kinds

        return photo_kinds.cut_off(image, self.name, min_size)

    def _to_rgb(
        self,
        image: Image.Image,
        min_size: tuple[int, int] | None,
        box: tuple[int, int, int, int] | None,
    ) -> Image.Image:
        """Crop to `box`, convert to RGB on white, reduce by a power of two but not
        below `min_size`; in bands."""
        plain = image.mode in ("RGB", "L") and "transparency" not in image.info
        if not plain:
            from edge import photo_kinds

            convert = photo_kinds.converter(image, self.white)  # by its range
        if box is not None:
            image = image.crop(box)
        factor = 1
        if min_size is not None:
            ratio = min(image.width // min_size[0], image.height // min_size[1])
            factor = 1 << max(ratio.bit_length() - 1, 0)
        if plain:
            image = image.reduce(factor) if factor > 1 else image
            return image if image.mode == "RGB" else image.convert("RGB")
        if factor == 1:
            return convert(image)
        width, height = image.size
        reduced = Image.new("RGB", (-(-width // factor), -(-height // factor)))
        rows = max(BAND // width // factor, 1) * factor
        for top in range(0, height, rows):
            band = image.crop((0, top, width, min(top + rows, height)))
            reduced.paste(convert(band).reduce(factor), (0, top // factor))
        return reduced


def _allowed_pixels() -> int:
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
    pattern = re.compile(r"PIL\.")
    if not any(entry[3] == pattern for entry in warnings.filters):
        warnings.filterwarnings("ignore", module=pattern.pattern)


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


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 when there is none (or none that can be read)."""
    if image.format == "TIFF":
        return 1  # Pillow turns these while it loads them
    if image.format in ("JPEG", "PNG", "WEBP") and "exif" not in image.info:
        return 1  # the usual case, without loading Pillow's EXIF code
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF must not cost us a whole photo
        return 1
    return orientation if isinstance(orientation, int) else 1
