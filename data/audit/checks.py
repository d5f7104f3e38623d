"""The checks of single photos in an audit: from facts to findings.

Thresholds were set on two sets, the drawn one and 2,600 real photos of cats and dogs,
so that sharp and well lit photos pass.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data.audit.fact_store import FactStore
from data.audit.facts import PhotoFacts
from data.audit.findings import Finding
from data.photos import Photo

BLURRED = 0.56  # blur: real photos reach 0.47, the same after a blur of 1 % start here
BLANK = 5.0  # grey levels of standard deviation
FLAT = 1.0  # the same in the dark and in glaring light, where contrast is low
DARK = 45  # the 95th percentile of grey
BRIGHT = 215  # the 5th percentile of grey
LONG = 3.0  # long side over short side
SMALL_SIDE = 24  # pixels of the shorter side
SMALL_AREA = 0.05  # fraction of the median pixels of the set's photos
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


def check_photos(photos: Sequence[Photo], fact_store: FactStore) -> Iterator[Finding]:
    """Blank, dark, bright, blurred, small, oddly shaped and misnamed photos."""
    median = float(np.median(fact_store.areas())) if fact_store else 0.0
    for path in dict.fromkeys(photo.path for photo in photos):
        if path in fact_store:
            for kind, reason in _problems(path, fact_store[path], median):
                yield Finding(kind, path, reason)


def _problems(
    path: Path, facts: PhotoFacts, median: float
) -> Iterator[tuple[str, str]]:
    """Kind and reason of each finding; `median`: pixels of the set's photos."""
    lit = facts.high >= DARK and facts.low <= BRIGHT
    if facts.deviation < (BLANK if lit else FLAT):
        yield "blank", f"all of one grey, within {facts.deviation:.1f} of 255 levels"
    elif facts.high < DARK:
        yield "dark", f"95 % of it is darker than {facts.high} of 255"
    elif facts.low > BRIGHT:
        yield "bright", f"95 % of it is brighter than {facts.low} of 255"
    elif facts.blur > BLURRED:
        yield "blurred", f"blur {facts.blur:.2f} on a scale from 0 to 1"
    size = f"{facts.width} x {facts.height} pixels"
    short, long = sorted((facts.width, facts.height))
    if short < SMALL_SIDE or short * long < SMALL_AREA * median:
        yield "small", size
    if long > LONG * short:
        yield "odd-shape", size
    if path.suffix.lower() not in ENDINGS.get(facts.format, (path.suffix.lower(),)):
        yield "wrong-ending", f"is {facts.format}"
