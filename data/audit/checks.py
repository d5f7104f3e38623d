"""The checks of single photos in an audit: from facts to findings.

Thresholds were set on two sets, the drawn one and 2,600 real photos of cats and dogs,
so that sharp and well lit photos pass.

It does not know how facts are measured, which photos are copies of others (that is
`data.audit.copies`), nor what is done about a finding.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data.audit.fact_store import Looks
from data.audit.facts import Look
from data.audit.findings import Finding
from data.photos import Photo

BLURRED = 0.56  # blur: real photos reach 0.47, the same after a blur of 1 % start here
BLANK = 5.0  # grey levels of standard deviation
BLACK = 1.0  # the same in the dark and in glaring light, where little may still show
DARK = 45  # the 95th percentile of grey
BRIGHT = 215  # the 5th percentile of grey
LONG = 3.0  # long side over short side
SMALL_SIDE = 24  # pixels of the shorter side
SMALL_SHARE = 0.05  # of the pixels of the photo in the middle of the set
ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
}


def by_themselves(photos: Sequence[Photo], looks: Looks) -> Iterator[Finding]:
    """Blank, dark, bright, blurred, small, oddly shaped and misnamed photos."""
    middle = float(np.median(looks.areas())) if looks else 0.0
    for path in dict.fromkeys(photo.path for photo in photos):
        if path in looks:
            for kind, reason in _judged(path, looks[path], middle):
                yield Finding(kind, path, reason)


def _judged(path: Path, look: Look, middle: float) -> Iterator[tuple[str, str]]:
    lit = look.high >= DARK and look.low <= BRIGHT
    if look.deviation < (BLANK if lit else BLACK):
        yield "blank", f"all of one grey, within {look.deviation:.1f} of 255 levels"
    elif look.high < DARK:
        yield "dark", f"95 % of it is darker than {look.high} of 255"
    elif look.low > BRIGHT:
        yield "bright", f"95 % of it is brighter than {look.low} of 255"
    elif look.blur > BLURRED:
        yield "blurred", f"blur {look.blur:.2f} on a scale from 0 to 1"
    size = f"{look.width} x {look.height} pixels"
    short, long = sorted((look.width, look.height))
    if short < SMALL_SIDE or short * long < SMALL_SHARE * middle:
        yield "small", size
    if long > LONG * short:
        yield "odd-shape", size
    if path.suffix.lower() not in ENDINGS.get(look.format, (path.suffix.lower(),)):
        yield "wrong-ending", f"is {look.format}"
