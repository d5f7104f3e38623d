"""Unusual photo files, beside the ordinary JPEG or PNG.

Loaded only for such a file: 16-bit greys keep their range, transparent parts become
white, wide colour spaces (Display P3, Adobe RGB, ProPhoto) become sRGB by their profile
(any other profile is taken as sRGB), and a JPEG that is cut off at its end is used
while at most `MAX_MISSING` of it is missing, as browsers do.
"""

from __future__ import annotations

import io
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from edge.errors import PhotoError

PHOTO_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".gif"),
        *(".tif", ".tiff", ".ppm", ".pgm", ".avif", ".heic", ".heif"),
    )
)
_KINDS = "JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, PGM, MPO, AVIF, HEIC or HEIF"
HEAD_BYTES = 32  # that identify a file's kind
_AVIF_BRANDS = (b"avif", b"avis")  # Pillow reads it since 11.3
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # and BigTIFF
_PNG = b"\x89PNG\r\n\x1a\n"
_MAGIC = (b"\xff\xd8\xff", _PNG, b"GIF87a", b"GIF89a", *_TIFF)
_PNM = (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")  # PBM, PGM and PPM
_PNM_BEGINS = tuple(b"#123456789"[i : i + 1] for i in range(10))
_DEEP = 16  # bits of a channel, at `_PNG_DEPTH` of a PNG's header
_PNG_DEPTH = 24
_GREY_ALPHA = "LA;16B"
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
FULL = 65535  # the white of 16 bits
_BAND = 1 << 21  # pixels that are converted at a time
MAX_SCANS = 100  # of a JPEG; cameras write 1, progressive files about 10
MAX_MISSING = 0.1  # of a photo's rows, cut off at its end
REFINED = 4.0  # levels; by less a late scan of a progressive JPEG changes its rows
# Bytes a pixel that Pillow and the codec take at their peak (measured, rounded up).
_COST = {"WEBP": 15.8, "HEIF": 7.35, "AVIF": 9.2, "GIF": 5.0, "TIFF": 6.0}
_MODE_COST = {"1": 1.1, "L": 1.1, "P": 1.1, "I;16": 2.1}
_DEEP_COST = 20.0  # 16-bit colours, decoded twice out of a copy of the file
_USUAL_COST = 4.2  # RGB takes four bytes in Pillow
_WIDE_RED = 0.46  # X of a profile's red; sRGB has 0.436, Display P3 0.515
_NO_NUMBERS = "expected numbers, got infinity or not a number"
_FILLER = b"\x55" * 4096  # stands for lost data: rows that change with it are lost


def begins_like_a_photo(head: bytes) -> bool:
    """Whether a file's first `HEAD_BYTES` are those of a photo, whatever its name."""
    if head.startswith(_MAGIC):
        return True
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[:2] == b"BM":  # two letters are too few: the length of its header, too
        return int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)
    if head[:2] in _PNM:  # then space, and a width or a comment
        return head[2:3].isspace() and head[2:].lstrip()[:1] in _PNM_BEGINS
    return head[4:8] == b"ftyp" and head[8:12] in (*_HEIF_BRANDS, *_AVIF_BRANDS)


def begins_well(path: str | os.PathLike[str]) -> bool:
    """The same of a regular file; False for one that cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            return begins_like_a_photo(file.read(HEAD_BYTES))
    except OSError:
        return False


def may_be_deep(head: bytes) -> bool:
    """Whether a file that begins so may hold 16-bit channels that do not say their
    range."""
    return head.startswith(_TIFF) or (
        head.startswith(_PNG) and head[_PNG_DEPTH : _PNG_DEPTH + 1] == bytes([_DEEP])
    )


def maximum(image: Image.Image) -> int | None:
    """The highest level of 16-bit channels whose white the file does not say; None for
    other images. Of colours it is rounded up to a multiple of 256, less 1."""
    colour = has_deep_colour(image)
    deep = colour or image.mode.startswith("I") or image.mode == "F"
    if not deep or _range(image, -1)[1] != -1:
        return None
    extrema: Any = image.getextrema()
    if colour:
        return int(max(high for _, high in extrema[:3])) << 8 | 255
    level: float = extrema[1]
    return math.ceil(level)


def has_deep_colour(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet has 16 bits a channel, of which Pillow
    keeps the upper 8."""
    tiles = getattr(image, "tile", []) if image.format in ("PNG", "TIFF") else []
    return image.mode in ("RGB", "RGBA") and bool(tiles) and ";16" in _raw(tiles[0])


def _raw(tile: Any) -> str:
    """Pillow's name for how the file holds its channels, such as RGB;16B."""
    return str(tile[3] if isinstance(tile[3], str) else tile[3][0])


def deep_colour(image: Image.Image, white: int) -> Image.Image:
    """16 bits a channel, scaled so that `white`, or what the file says, is 255. Alpha
    that never passes `white` has as many bits as the colours."""
    low, high = _range(image, white)
    if (low, high) == (0, FULL):
        image.load()
        return image
    lower = _lower_bytes(image)
    image.load()
    scaled = image.copy()
    opaque = FULL
    if image.mode == "RGBA":
        extrema: Any = image.getextrema()
        opaque = white if int(extrema[3][1]) << 8 <= white else FULL
    rows = max(_BAND // image.width, 1)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        levels = np.asarray(image.crop(box), np.float32) * 256
        levels += np.asarray(lower.crop(box))
        levels[..., :3] = (levels[..., :3] - low) * (255 / (high - low))
        levels[..., 3:] *= 255 / opaque
        pixels = (levels.clip(0, 255) + 0.5).astype(np.uint8)
        scaled.paste(Image.fromarray(pixels), box)
    return scaled


def unsigned(image: Image.Image) -> Image.Image:
    """A TIFF of signed bytes, which Pillow takes for unsigned ones: -128 is black."""
    formats = getattr(image, "tag_v2", {}).get(339, ())  # SampleFormat; 2: signed
    if image.mode != "L" or 2 not in formats:
        return image
    return image.point([value ^ 128 for value in range(256)])


def _lower_bytes(image: Image.Image) -> Image.Image:
    """The file again, with the lower 8 of its 16 bits."""
    data = io.BytesIO(b"".join(_parts(image)))
    copy: Any = Image.open(data, formats=(str(image.format),))
    grey_alpha = _raw(copy.tile[0]) == _GREY_ALPHA
    tiles = []
    for tile in copy.tile:
        codec, box, offset, args = tile
        raw = _raw(tile)
        if raw == _GREY_ALPHA:  # its four bytes as they are
            raw = "RGBA"
        else:
            raw = raw[:-1] + _OTHER_BYTE.get(raw[-1], raw[-1])
        args = raw if isinstance(args, str) else (raw, *args[1:])
        # libtiff's decoder needs the names that tiles have since Pillow 11
        named = hasattr(tile, "_replace")
        tiles.append(tile._replace(args=args) if named else (codec, box, offset, args))
    copy.tile = tiles
    copy.load()
    lower: Image.Image = copy
    if grey_alpha:
        _, grey, _, alpha = lower.split()
        lower = Image.merge("RGBA", (grey, grey, grey, alpha))
    return lower


def why_unreadable(source: Any) -> str:
    """Why Pillow cannot open it: an empty file, a missing package, no photo."""
    try:
        if isinstance(source, (str, os.PathLike)):
            with open(source, "rb") as file:
                head = file.read(HEAD_BYTES)
        elif isinstance(source, Image.Image):
            head = b"\0"
        else:
            source.seek(0)
            head = source.read(HEAD_BYTES)
    except (OSError, ValueError):
        head = b"\0"
    if not head:
        return f"expected a photo ({_KINDS}), got an empty file"
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if brand in _HEIF_BRANDS and "HEIF" not in Image.OPEN:
        return "HEIC needs a package that is not installed: pip install pillow-heif"
    if brand in _AVIF_BRANDS and "AVIF" not in Image.OPEN:
        return "AVIF needs a newer package: pip install 'pillow>=11.3'"
    if head.startswith(_TIFF):
        return (
            "a TIFF whose pixels cannot be read (64-bit or coloured floats, a raw "
            "photo, or a damaged header); save it with 8 or 16 bits"
        )
    from edge.files import kind_of

    kind = None if begins_like_a_photo(head) else kind_of(head)
    if kind == "a video":
        kind += ", which edge camera takes"
    kind = kind or "something else or a damaged header"
    return f"expected a photo ({_KINDS}), got {kind}"


def refuse_scans(image: Image.Image, name: str) -> None:
    """PhotoError for a progressive JPEG of so many scans that it takes minutes."""
    scans = sum(part.count(b"\xff\xda") for part in _parts(image))
    if scans > MAX_SCANS:
        raise PhotoError(name, f"expected at most {MAX_SCANS} scans, got {scans:,}")


def cut_off(
    image: Image.Image, name: str, min_size: tuple[int, int] | None
) -> Image.Image:
    """A JPEG without its end, and how much of it is missing.

    It is decoded twice, with nothing and with filler for what is lost: rows that
    differ are not in the file.
    """
    data = b"".join(_parts(image)).rstrip(b"\xff")

    def decode(end: bytes) -> Image.Image:
        copy = Image.open(io.BytesIO(data + end), formats=("JPEG",))
        if min_size is not None:
            copy.draft(None, min_size)
        copy.load()
        return copy

    decoded, filled = decode(b"\xff\xd9"), decode(_FILLER + b"\xff\xd9")
    difference = np.abs(np.asarray(decoded, np.int16) - np.asarray(filled, np.int16))
    row_difference = difference.reshape(decoded.height, -1).mean(axis=1)
    tolerance = REFINED if image.info.get("progressive") else 0.0
    rows = np.flatnonzero(row_difference > tolerance)
    missing = 1 - rows[0] / decoded.height if len(rows) else 0.0
    if missing > MAX_MISSING:
        raise PhotoError(name, f"damaged photo: the last {missing:.0%} is missing")
    decoded.info["missing"] = float(missing)
    return decoded


def converter(image: Image.Image, white: int) -> Callable[[Image.Image], Image.Image]:
    """The function that converts the image, or a band of it, to RGB."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        low, high = _range(image, white)

        def scale_grey(part: Image.Image) -> Image.Image:
            grey = np.asarray(part)
            if mode == "F" and not np.isfinite(grey).all():
                raise ValueError(_NO_NUMBERS)
            if (low, high) == (0, FULL):
                grey = grey.clip(0, FULL).astype(np.uint16) >> 8
            else:
                scale = 255 / (high - low) if high > low else 0.0
                grey = ((grey.astype(np.float32) - low) * scale).clip(0, 255) + 0.5
            return Image.fromarray(grey.astype(np.uint8)).convert("RGB")

        return scale_grey
    has_alpha = mode in ("RGBA", "LA", "PA", "RGBa", "La")
    if has_alpha or ("transparency" in image.info and mode != "CMYK"):

        def on_white(part: Image.Image) -> Image.Image:
            part = part.convert("RGBA")
            background = Image.new("RGB", part.size, (255, 255, 255))
            background.paste(part, mask=part.getchannel("A"))
            return background

        return on_white
    return lambda part: part.convert("RGB")


def _range(image: Image.Image, white: int) -> tuple[float, float]:
    """Black and white level of deep channels: of the file's tags, else 0 and `white`,
    else its own extrema."""
    if image.format == "PPM" and image.mode != "F":
        return 0, FULL  # Pillow has scaled it by the file's own maximum
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        low, high = (_number(tags.get(tag)) for tag in (340, 341))  # S(Min|Max)Sample
        if low is not None and high is not None and high > low:
            return low, high
    if image.mode.startswith(("I;16", "RGB")):
        return 0, white
    extrema = image.getextrema()
    low, high = float(extrema[0]), float(extrema[1])  # type: ignore[arg-type]
    if not np.isfinite([low, high]).all():
        raise ValueError(_NO_NUMBERS)
    if image.mode == "F":
        whites = ((1.0, 1.0), (255.0, 255.0), (FULL, white))  # (up to, white)
        return min(low, 0.0), next((top for end, top in whites if high <= end), high)
    return (0, white) if low >= 0 and high <= FULL else (min(low, 0.0), high)


def _number(value: Any) -> float | None:
    if isinstance(value, tuple):
        value = value[0] if value else None
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def in_srgb(rgb: Image.Image, source: Image.Image) -> Image.Image:
    """`rgb` converted by the wide colour profile of `source`, if it has one."""
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


def cost(image: Image.Image, *, reduced: bool, white: int) -> float:
    """Bytes a pixel at the peak of decoding, as the header says."""
    if white != FULL and has_deep_colour(image):
        return _DEEP_COST
    if image.format not in ("JPEG", "MPO"):
        usual = _MODE_COST.get(image.mode, _USUAL_COST)
        return _COST.get(str(image.format), usual)
    decoded = 0.1 if reduced else _MODE_COST.get(image.mode, _USUAL_COST)
    if not image.info.get("progressive"):
        return decoded
    # all coefficients are kept until the last scan, 2 bytes each
    layers: list[tuple[int, ...]] = getattr(image, "layer", [])
    sampling = [(layer[1], layer[2]) for layer in layers] or [(1, 1)] * 3
    block = max(h for h, _ in sampling) * max(v for _, v in sampling)
    return decoded + 2 * sum(h * v for h, v in sampling) / block


def free_memory() -> int:
    """Bytes available without swapping; plenty where the system does not say."""
    from edge.files import read_or_empty

    match = re.search(r"^MemAvailable: *(\d+)", read_or_empty("/proc/meminfo"), re.M)
    return int(match[1]) * 1024 if match else 1 << 40


def _parts(image: Image.Image) -> Iterator[bytes]:
    """The file behind an image, from its start, in consecutive parts; a marker is
    never cut in two."""
    file: Any = getattr(image, "fp", None)
    if file is None:
        return
    position = file.tell()
    file.seek(0)
    carry = b""
    while part := file.read(1 << 20):
        part = carry + part
        carry = part[-1:] if part.endswith(b"\xff") else b""
        yield part[: len(part) - len(carry)]
    if carry:
        yield carry
    file.seek(position)
