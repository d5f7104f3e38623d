"""The region of a photo or frame that a model uses: ``X,Y,WIDTH,HEIGHT``.

In fractions of the photo's sides ("shares") or in pixels. `edge.preprocess` crops it,
in training and on the device. A model's card has fractions, for frames of any size.
"""

from __future__ import annotations

import math
from typing import Any

from edge.errors import EdgegraftError

Region = tuple[float, float, float, float]  # x, y, width, height: shares or pixels

SIDEWAYS = 5  # EXIF turns from here on swap width and height
_ROUNDING = 1e-6  # of shares that add up to 1
_DIGITS = 6  # after the point of a share
_TOLERANCE = 0.02  # of a side: by less, two regions count as of one size


def check_region(region: Any) -> None:
    """EdgegraftError for what is no `Region`, or shares that leave the photo."""
    valid = isinstance(region, tuple) and len(region) == 4
    valid = valid and all(
        isinstance(value, (int, float)) and 0 <= value < math.inf for value in region
    )
    if valid:
        x, y, width, height = region
        valid = min(width, height) > 0
        if max(region) <= 1:
            valid = valid and max(x + width, y + height) <= 1 + _ROUNDING
    if not valid:
        raise EdgegraftError(
            "region: expected x, y, width and height of a part of the photo, in shares "
            f"from 0 to 1 or in pixels, got {region!r:.80}"
        )


def region_box(region: Region, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom in pixels, for a photo of this width and height.

    EdgegraftError where the region leaves it.
    """
    max_x, max_y = size
    x, y, width, height = region
    if max(region) <= 1:
        x, width, y, height = x * max_x, width * max_x, y * max_y, height * max_y
    left, top = min(round(x), max_x - 1), min(round(y), max_y - 1)
    right, bottom = round(x + width), round(y + height)
    if right > max_x or bottom > max_y or x >= max_x or y >= max_y:
        raise EdgegraftError(
            f"region {','.join(f'{value:g}' for value in region)}: expected a part of "
            f"the photo of {max_x} x {max_y} pixels; give another --region"
        )
    return left, top, max(right, left + 1), max(bottom, top + 1)


def parse_region(text: str, where: str = "") -> Region:
    """EdgegraftError, which begins with `where`, for what is no region."""
    try:
        region = tuple(float(part) for part in text.split(","))
        check_region(region)
    except (ValueError, EdgegraftError):
        raise EdgegraftError(
            f"{where}expected X,Y,WIDTH,HEIGHT within the photo, in shares from 0 to 1 "
            f"or in pixels, got {text!r:.80}"
        ) from None
    return region  # type: ignore[return-value]  # four, as checked


def region_text(region: Region) -> str:
    """As `parse_region` reads it."""
    return ",".join(f"{value:.{_DIGITS}g}" for value in region)


def as_fractions(region: Region, size: tuple[int, int]) -> Region:
    """Shares of a photo of this width and height. EdgegraftError as `region_box`."""
    if max(region) <= 1:
        return region
    width, height = size
    left, top, right, bottom = region_box(region, size)
    # rounded down: the sum of two shares is not above 1
    return (
        _down(left / width),
        _down(top / height),
        _down((right - left) / width),
        _down((bottom - top) / height),
    )


def _down(value: float) -> float:
    scale = float(10**_DIGITS)
    return math.floor(value * scale + 1e-6) / scale


def override(region: Region, trained: Region | None) -> str:
    """The note where a device uses another region than the model was trained with."""
    text = f"--region {region_text(region)}"
    if trained is None:
        return f"{text}: the model was trained on whole photos, measured on them too"
    text += f" in place of the model's {region_text(trained)}"
    if max(region) <= 1 and any(
        abs(region[side] - trained[side]) > _TOLERANCE for side in (2, 3)
    ):
        text += ", of another size: what was measured may not hold"
    return text


def stored_box(
    region: Region, stored: tuple[int, int], orientation: int
) -> tuple[int, int, int, int]:
    """The box of a region in the pixels as they are stored, before they are turned."""
    width, height = stored
    size = (height, width) if orientation >= SIDEWAYS else (width, height)
    left, top, right, bottom = region_box(region, size)
    if orientation in (2, 3, 6, 7):  # the upright left is the stored right, or bottom
        left, right = size[0] - right, size[0] - left
    if orientation in (3, 4, 7, 8):
        top, bottom = size[1] - bottom, size[1] - top
    if orientation >= SIDEWAYS:
        left, top, right, bottom = top, left, bottom, right
    return left, top, right, bottom


def scaled(
    box: tuple[int, int, int, int], across: float, down: float
) -> tuple[int, int, int, int]:
    """A box in pixels of a photo that is reduced by these factors."""
    left, top, right, bottom = (
        round(side * scale)
        for side, scale in zip(box, (across, down, across, down), strict=True)
    )
    return left, top, max(right, left + 1), max(bottom, top + 1)
