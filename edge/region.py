"""The part of a photo or frame that a model looks at, as people write it.

``X,Y,WIDTH,HEIGHT``, in shares of the photo's sides or in pixels. `edge.preprocess`
cuts it out, in training and on the device. A model's card has shares, so that it fits
frames of any size.
"""

from __future__ import annotations

import math

from edge.errors import EdgegraftError
from edge.preprocess import Region, check_region, region_box

_DIGITS = 6  # after the point of a share
_ALIKE = 0.02  # of a side: two regions of one size, up to the rounding of pixels


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


def in_shares(region: Region, size: tuple[int, int]) -> Region:
    """Shares of a photo of this width and height. EdgegraftError as `region_box`."""
    if max(region) <= 1:
        return region
    wide, high = size
    left, top, right, bottom = region_box(region, size)
    # rounded down: the sum of two shares is not above 1
    return (
        _down(left / wide),
        _down(top / high),
        _down((right - left) / wide),
        _down((bottom - top) / high),
    )


def _down(share: float) -> float:
    scale = float(10**_DIGITS)
    return math.floor(share * scale + 1e-6) / scale


def override(
    given: Region, trained: Region | None, size: tuple[int, int] | None = None
) -> str:
    """What to say where a device uses another region than the model was trained with.

    `size`: width and height of the photos, where they are known.
    """
    text = f"--region {region_text(given)}"
    if trained is None:
        return f"{text}: the model was trained on whole photos, measured on them too"
    if size is not None:
        given = in_shares(given, size)
    text += f" in place of the model's {region_text(trained)}"
    if max(given) <= 1 and any(
        abs(given[side] - trained[side]) > _ALIKE for side in (2, 3)
    ):
        text += ", of another size: what was measured may not hold"
    return text
