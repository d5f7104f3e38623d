"""Photo to uint8 RGB pixels: the one preprocessing of the whole project.

Training, calibration, scoring and the device call `load_pixels`; nothing else decodes
or resizes. So whatever is decided here and in `edge.decode` (how a photo is turned,
what lies behind a transparent pixel, which filter shrinks it) is decided once.

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

Scaling to floats is inside the model's graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge.decode import FULL, WHITES, Source, open_photo
from edge.errors import EdgegraftError

Pixels = npt.NDArray[np.uint8]

MAX_SIDE = 4096  # of a model's input
MARGIN = 1  # of new recipes; measured, see above
OLD_MARGIN = 2  # of cards that name none: they were written when it was fixed
MOST_MARGIN = 8
RESIZES = ("stretch", "crop", "pad")
PLAIN = "bilinear-plain"  # without antialiasing: TensorFlow's resize_bilinear
FILTERS = ("bilinear", "bicubic", "lanczos", "box", "nearest", PLAIN)


@dataclass(frozen=True)
class InputRecipe:
    """How a photo becomes a model's input.

    `resize` is ``stretch`` (both sides to the asked size, whatever the shape of
    the photo; what MediaPipe and ML Kit do), ``crop`` (the middle, in the asked
    shape) or ``pad`` (the whole photo with black beside it). `filter` is a
    Pillow filter's name in lower case. `margin` is how many source pixels, in width
    and in height, reduced decoding leaves for each target pixel. `central_fraction` is
    the middle share of both sides that is used (tf.image.central_crop). `white` is the
    level of 16-bit greys that is white (4095 for photos of a 12-bit camera). `to_srgb`:
    wide colour spaces are converted.
    """

    width: int
    height: int
    resize: str = "stretch"
    filter: str = "bilinear"
    margin: int = MARGIN
    central_fraction: float = 1.0
    white: int = FULL
    to_srgb: bool = True

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
            "to_srgb": self.to_srgb,
        }
        if self.white != FULL:
            record["white"] = self.white
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
            record.get("white", FULL),
            record.get("to_srgb", False),  # cards that do not name it: never converted
        )


def load_pixels(source: Source, recipe: InputRecipe) -> Pixels:
    """A photo as the model wants it: uint8 RGB [height, width, 3].

    PhotoError when the photo is missing, damaged, too large or no photo at all.
    """
    return fit(open_for(source, recipe), recipe)


def open_for(source: Source, recipe: InputRecipe) -> Image.Image:
    """A photo as RGB image, at least as large as the recipe wants; `fit` it next."""
    return open_photo(
        source, least=recipe.least, white=recipe.white, to_srgb=recipe.to_srgb
    )


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
