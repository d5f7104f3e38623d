"""The kinds of findings of an audit, and the checks of single photos that give them.

Thresholds were set on two sets, the drawn one and 2,600 real photos of cats and dogs,
so that sharp and well lit photos pass.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.audit.facts import FactStore, PhotoFacts
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


@dataclass(frozen=True)
class Kind:
    """A kind of finding; `singular`, `plural`: its sentence for one photo, for several.

    leaves_out: such photos are never trained on.
    """

    name: str
    singular: str
    plural: str
    leaves_out: bool = False

    def sentence(self, count: int) -> str:
        """The sentence for `count` photos, to follow their number."""
        return self.singular if count == 1 else self.plural


# The gravest first. "two-labels" is about both photos, the others about one.
KINDS = (
    Kind(
        "unreadable",
        "cannot be read; left out",
        "cannot be read; left out",
        leaves_out=True,
    ),
    Kind(
        "leak",
        "is in train and in val or test: the score is too good",
        "are in train and in val or test: the score is too good",
    ),
    Kind(
        "near-leak",
        "shows the same as a photo in another part: the score is too good",
        "show the same as a photo in another part: the score is too good",
    ),
    Kind(
        "two-labels",
        "is the same file under two labels: one label is wrong",
        "are the same file under two labels: one label is wrong",
    ),
    Kind(
        "near-two-labels",
        "is a near copy of a photo with another label: one label is likely wrong",
        "are near copies of photos with another label: one label is likely wrong",
    ),
    Kind("blank", "shows next to nothing", "show next to nothing"),
    Kind(
        "duplicate",
        "is a copy of another photo; kept on one side of the split",
        "are copies of another photo; kept on one side of the split",
    ),
    Kind(
        "near-duplicate",
        "is a near copy of another photo; kept on one side of the split",
        "are near copies of another photo; kept on one side of the split",
    ),
    Kind(
        "burst",
        "shows the same moment as another photo; kept on one side of the split",
        "show the same moment as another photo; kept on one side of the split",
    ),
    Kind(
        "same-thing",
        "shows the same thing as another photo; kept on one side of the split",
        "show the same thing as another photo; kept on one side of the split",
    ),
    Kind("blurred", "is blurred", "are blurred"),
    Kind("dark", "is very dark", "are very dark"),
    Kind("bright", "is very bright", "are very bright"),
    Kind(
        "small",
        "is much smaller than the others",
        "are much smaller than the others",
    ),
    Kind(
        "odd-shape",
        "is very long and narrow",
        "are very long and narrow",
    ),
    Kind(
        "cut-off",
        "is cut off at its end, and used",
        "are cut off at their end, and used",
    ),
    Kind(
        "wrong-ending",
        "has an ending that is not its format's",
        "have an ending that is not their format's",
    ),
)
BOTH_WRONG = ("two-labels", "near-two-labels")


@dataclass(frozen=True)
class Finding:
    """One photo with a problem. `kind` is the name of one of `KINDS`.

    The names of the `others` follow the `reason`. exclude: audit.csv proposes to leave
    the photo out, since another one that is kept shows the same.
    """

    kind: str
    path: Path
    reason: str
    others: tuple[Path, ...] = ()
    exclude: bool = False


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
