"""A photo file as an RGB image: what is opened, how much, and what its numbers mean.

Only known formats are opened. What decoding would cost is estimated from the header
and refused above `MEMORY` bytes, or above $EDGEGRAFT_MAX_MEGAPIXELS where it is set;
many-scan JPEGs, which take minutes, are refused, too. Large photos are reduced while
they are converted, band by band, so that the peak stays near what the decoder itself
needs.

A photo that is cut off at its end is used while at most `MOST_MISSING` of it is
missing, as browsers do. Deep greys keep their range. Photos in a wide colour space
(Display P3, Adobe RGB, ProPhoto) are converted to sRGB by their profile; any other
profile is taken as sRGB.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from edge.errors import PhotoError

Source = str | os.PathLike[str] | bytes | BinaryIO | Image.Image

MAX_PIXELS = 128_000_000  # a 108-megapixel phone passes; a bomb does not
MEMORY = 360_000_000  # bytes that decoding one photo may take; with Python 400 MB
SMALL = 64_000_000  # bytes that need no look at the free memory
MEGAPIXELS = "EDGEGRAFT_MAX_MEGAPIXELS"  # the environment variable that raises both
MOST_SCANS = 100  # of a JPEG; cameras write 1, progressive files about 10
MOST_MISSING = 0.1  # of a photo's rows, cut off at its end
FULL = 65535  # the white of 16 bits
WHITES = (1023, 4095, 16383, FULL)  # of 10, 12, 14 and 16 bits
REFINED = 4.0  # levels; by less a late scan of a progressive JPEG changes its rows
BAND = 1 << 21  # pixels that are converted at a time
PHOTO_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".gif"),
        *(".tif", ".tiff", ".ppm", ".pgm", ".avif", ".heic", ".heif"),
    )
)
_KINDS = "JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, PGM, MPO, AVIF, HEIC or HEIF"
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


# Bytes a pixel that Pillow and the codec take at their peak (measured, rounded up).
_COST = {"WEBP": 15.8, "HEIF": 7.35, "AVIF": 9.2, "GIF": 5.0, "TIFF": 6.0}
_MODE_COST = {"1": 1.1, "L": 1.1, "P": 1.1, "I;16": 2.1}
_USUAL_COST = 4.2  # RGB takes four bytes in Pillow
_WIDE_RED = 0.46  # X of a profile's red; sRGB has 0.436, Display P3 0.515
_FILLER = b"\x55" * 4096  # stands for lost data: rows that change with it are lost


def begins_like_a_photo(head: bytes) -> bool:
    """Whether a file's first `HEAD_BYTES` are those of a photo, whatever its name."""
    if head.startswith(_MAGIC):
        return True
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[:2] == b"BM":  # two letters are too few: the length of its header, too
        return int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)
    return head[4:8] == b"ftyp" and head[8:12] in (*_HEIF_BRANDS, *_AVIF_BRANDS)


def open_photo(
    source: Source,
    *,
    least: tuple[int, int] | None = None,
    white: int = FULL,
    to_srgb: bool = True,
) -> Image.Image:
    """A photo, decoded, upright, as an RGB image.

    With `least` (width and height) the image may come out smaller by a power of two,
    but not under these. Transparent parts become white; of a GIF or a multi-picture
    file the first picture is taken. `white`: the level of 16-bit greys that is white.
    `to_srgb`: wide colour spaces are converted. Where its end is cut off,
    `info["missing"]` is the share of rows that is lost.

    PhotoError for anything that is not a whole photo, or too large.
    """
    name = _name_of(source)
    reading = _Reading(name, least, white, to_srgb)
    try:
        if isinstance(source, Image.Image):
            return reading.upright(source.copy())
        if isinstance(source, bytes):
            source = io.BytesIO(source)
        _quiet_pillow()
        with _opened(source) as image:
            reading.refuse_costly(image)
            return reading.upright(image)
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


class _Reading:
    """How one photo is opened."""

    def __init__(
        self, name: str, least: tuple[int, int] | None, white: int, to_srgb: bool
    ) -> None:
        self.name = name
        self.least = least
        self.white = white
        self.to_srgb = to_srgb

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
        cost = pixels * _cost(image, reduced=self.least is not None)
        if not allowed and cost > SMALL and cost > min(MEMORY, _free_memory() // 2):
            raise PhotoError(
                self.name,
                f"{wide} x {high} pixels take about {cost / 1e6:,.0f} MB to decode as "
                f"{image.format}, more than is allowed; save it smaller, or allow "
                f"more: --max-megapixels {-(-pixels // 1_000_000)}",
            )
        if image.format in ("JPEG", "MPO") and image.info.get("progressive"):
            scans = sum(part.count(b"\xff\xda") for part in _parts(image))
            if scans > MOST_SCANS:
                raise PhotoError(
                    self.name, f"expected at most {MOST_SCANS} scans, got {scans:,}"
                )

    def upright(self, image: Image.Image) -> Image.Image:
        """The photo as RGB, reduced, in sRGB, turned as EXIF says."""
        wide, high = image.size
        if not wide or not high:
            raise PhotoError(self.name, f"expected a photo, got {wide} x {high} pixels")
        turn = _orientation(image)
        least = self.least
        if least is not None and turn in _SIDEWAYS:
            least = (least[1], least[0])
        image = self._loaded(image, least)
        missing = image.info.get("missing")
        rgb = self._rgb(image, least)
        if self.to_srgb:
            rgb = _srgb(rgb, image)
        rgb = rgb.transpose(_TURNS[turn]) if turn in _TURNS else rgb
        rgb.info = {} if missing is None else {"missing": missing}
        return rgb

    def _loaded(self, image: Image.Image, least: tuple[int, int] | None) -> Image.Image:
        if image.format not in ("JPEG", "MPO"):
            image.load()
            return image
        if least is not None:
            image.draft(None, least)
        try:
            image.load()
            return image
        except OSError as error:
            if "truncated" not in str(error):
                raise
        return self._cut_off(image, least)

    def _cut_off(
        self, image: Image.Image, least: tuple[int, int] | None
    ) -> Image.Image:
        """A JPEG without its end, and how much of it is missing.

        It is decoded twice, with nothing and with filler for what is lost: rows that
        differ are not in the file.
        """
        data = b"".join(_parts(image)).rstrip(b"\xff")

        def decoded(end: bytes) -> Image.Image:
            again = Image.open(io.BytesIO(data + end), formats=("JPEG",))
            if least is not None:
                again.draft(None, least)
            again.load()
            return again

        whole, filled = decoded(b"\xff\xd9"), decoded(_FILLER + b"\xff\xd9")
        apart = np.abs(np.asarray(whole, np.int16) - np.asarray(filled, np.int16))
        change = apart.reshape(whole.height, -1).mean(axis=1)
        least_change = REFINED if image.info.get("progressive") else 0.0
        rows = np.flatnonzero(change > least_change)
        missing = 1 - rows[0] / whole.height if len(rows) else 0.0
        if missing > MOST_MISSING:
            raise PhotoError(
                self.name, f"damaged photo: the last {missing:.0%} is missing"
            )
        whole.info["missing"] = float(missing)
        return whole

    def _rgb(self, image: Image.Image, least: tuple[int, int] | None) -> Image.Image:
        """RGB on white, reduced to a power of two not under `least`, in bands."""
        factor = 1
        if least is not None:
            spare = min(image.width // least[0], image.height // least[1])
            factor = 1 << max(spare.bit_length() - 1, 0)
        convert = _converter(image, self.white)
        if factor == 1:
            return convert(image)
        if image.mode in ("RGB", "L") and "transparency" not in image.info:
            return image.reduce(factor).convert("RGB")
        wide, high = image.size
        out = Image.new("RGB", (-(-wide // factor), -(-high // factor)))
        rows = max(BAND // wide // factor, 1) * factor
        for top in range(0, high, rows):
            band = image.crop((0, top, wide, min(top + rows, high)))
            out.paste(convert(band).reduce(factor), (0, top // factor))
        return out


def _converter(image: Image.Image, white: int) -> Callable[[Image.Image], Image.Image]:
    """What turns the image, or a band of it, into RGB."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        low, high = _range(image, white)

        def from_deep(part: Image.Image) -> Image.Image:
            grey = np.asarray(part)
            if (low, high) == (0, FULL):
                grey = grey.clip(0, FULL).astype(np.uint16) >> 8
            else:
                scale = 255 / (high - low) if high > low else 0.0
                grey = ((grey.astype(np.float32) - low) * scale).clip(0, 255) + 0.5
            return Image.fromarray(grey.astype(np.uint8)).convert("RGB")

        return from_deep
    clear = mode in ("RGBA", "LA", "PA", "RGBa", "La")
    if clear or ("transparency" in image.info and mode != "CMYK"):

        def on_white(part: Image.Image) -> Image.Image:
            part = part.convert("RGBA")
            ground = Image.new("RGB", part.size, (255, 255, 255))
            ground.paste(part, mask=part.getchannel("A"))
            return ground

        return on_white
    return lambda part: part if part.mode == "RGB" else part.convert("RGB")


def _range(image: Image.Image, white: int) -> tuple[float, float]:
    """Black and white of deep greys: as the file says, else `white`, else its own."""
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        low, high = (_number(tags.get(tag)) for tag in (340, 341))  # S(Min|Max)Sample
        if low is not None and high is not None and high > low:
            return low, high
    if image.mode.startswith("I;16"):
        return 0, white
    extrema = image.getextrema()
    least, most = float(extrema[0]), float(extrema[1])  # type: ignore[arg-type]
    if not np.isfinite([least, most]).all():
        raise ValueError("expected numbers, got infinity or not a number")
    if image.mode == "F":
        usual = next((top for top in (1.0, 255.0, FULL) if most <= top), most)
        return min(least, 0.0), usual
    return (0, white) if least >= 0 and most <= FULL else (min(least, 0.0), most)


def _number(value: Any) -> float | None:
    if isinstance(value, tuple):
        value = value[0] if value else None
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def deep_white(source: str | os.PathLike[str]) -> int:
    """The least of `WHITES` that a 16-bit grey PNG or TIFF stays within; 0 for other
    photos, and for those that say their own range or cannot be read."""
    with suppress(Exception):  # what is wrong with it shows when it is decoded
        with open(source, "rb") as file:
            head = file.read(HEAD_BYTES)
        png = head.startswith(_MAGIC[1]) and head[24:26] == b"\x10\0"  # 16 bits, grey
        if not png and not head.startswith(_TIFF):
            return 0
        _quiet_pillow()
        with _opened(source) as image:
            if image.mode.startswith("I") and _range(image, -1)[1] == -1:
                _Reading("", None, FULL, False).refuse_costly(image)
                most = float(image.getextrema()[1])  # type: ignore[arg-type]
                return next((level for level in WHITES if most <= level), FULL)
    return 0


def _srgb(rgb: Image.Image, source: Image.Image) -> Image.Image:
    profile = source.info.get("icc_profile")
    if not profile or source.mode not in ("RGB", "RGBA", "P", "PA"):
        return rgb
    transform = _to_srgb(bytes(profile)) if _is_wide(bytes(profile)) else None
    if transform is None:
        return rgb
    from PIL import ImageCms

    return ImageCms.applyTransform(rgb, transform) or rgb


def _is_wide(profile: bytes) -> bool:
    """Whether the red of an ICC profile lies outside sRGB (ICC.1, tag rXYZ)."""
    count = int.from_bytes(profile[128:132], "big")
    for at in range(132, 132 + 12 * min(count, 100), 12):
        if profile[at : at + 4] == b"rXYZ":
            start = int.from_bytes(profile[at + 4 : at + 8], "big")
            red = int.from_bytes(profile[start + 8 : start + 12], "big", signed=True)
            return red / 65536 > _WIDE_RED
    return False


@lru_cache(maxsize=8)
def _to_srgb(profile: bytes) -> Any:
    """The transform of a profile; None where Pillow has no colour management or the
    profile is damaged."""
    try:
        from PIL import ImageCms

        return ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            "RGB",
            "RGB",
        )
    except Exception:  # a missing library, or whatever a damaged profile trips over
        return None


def _cost(image: Image.Image, *, reduced: bool) -> float:
    """Bytes a pixel at the peak of decoding, as the header says."""
    if image.format not in ("JPEG", "MPO"):
        usual = _MODE_COST.get(image.mode, _USUAL_COST)
        return _COST.get(str(image.format), usual)
    decoded = 0.1 if reduced else _MODE_COST.get(image.mode, _USUAL_COST)
    if not image.info.get("progressive"):
        return decoded
    # all coefficients are kept until the last scan, 2 bytes each
    layers: list[tuple[int, ...]] = getattr(image, "layer", [])
    sampling = [(layer[1], layer[2]) for layer in layers] or [(1, 1)] * 3
    most = max(h for h, _ in sampling) * max(v for _, v in sampling)
    return decoded + 2 * sum(h * v for h, v in sampling) / most


def _megapixels() -> int:
    """Pixels that $EDGEGRAFT_MAX_MEGAPIXELS allows; 0 where it is not set."""
    try:
        return int(float(os.environ.get(MEGAPIXELS, "")) * 1_000_000)
    except (ValueError, OverflowError):
        return 0


def _free_memory() -> int:
    """Bytes that can be had without swapping; plenty where the system does not say."""
    with (
        suppress(OSError, ValueError, IndexError),
        open("/proc/meminfo", encoding="ascii") as file,
    ):
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 1 << 40


def _parts(image: Image.Image) -> Iterator[bytes]:
    """The file behind an image, from its start, in parts that overlap by none; a
    marker is never cut in two."""
    file: Any = getattr(image, "fp", None)
    if file is None:
        return
    place = file.tell()
    file.seek(0)
    rest = b""
    while part := file.read(1 << 20):
        part = rest + part
        rest = part[-1:] if part.endswith(b"\xff") else b""
        yield part[: len(part) - len(rest)]
    if rest:
        yield rest
    file.seek(place)


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
        return "HEIC needs a package that is not installed: pip install pillow-heif"
    if brand in _AVIF_BRANDS and "AVIF" not in Image.OPEN:
        return "AVIF needs a newer package: pip install 'pillow>=11.3'"
    return f"expected a photo ({_KINDS}), got something else or a damaged header"


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
