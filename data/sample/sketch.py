"""The pen of the drawn sample set: a canvas with places on it, and soft shading.

A `Sketch` maps outlines in the drawer's units through a 3x3 matrix to the pixels of an
RGB image and fills them, flat or as a rounded, lit and furry part. Nothing here is
random, so one seed gives the same picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from data.sample.outlines import Outline, Points

Colour = tuple[int, int, int]

BILINEAR = Image.Resampling.BILINEAR
STEP = 8  # shading is worked out on a grid this many times coarser
SHADOW_REACH = 0.14  # how softly a part's shadow ends, in units
HAIR = 768  # pixels of the square tile that fur is cut from
MID = 128  # the grey that leaves a colour as it is under hard light


@lru_cache(maxsize=1)
def _strands() -> np.ndarray:
    """Fine upright hairs around 0, float32 [HAIR, HAIR], always the same."""
    rng = np.random.default_rng(7)
    tile = np.zeros((HAIR, HAIR), np.float32)
    for spread, across, down in ((26.0, 1, 4), (14.0, 8, 16)):
        grid = rng.normal(0.0, spread, (HAIR // down, HAIR // across))
        grey = Image.fromarray(grid.astype(np.float32))
        tile += np.asarray(grey.resize((HAIR, HAIR), Image.Resampling.BICUBIC))
    return tile


@lru_cache(maxsize=24)
def _hair(level: int) -> Image.Image:
    """A grey tile of hairs around MID; `level` twentieths of their full strength."""
    tile = np.clip(_strands() * np.float32(level / 20) + MID, 0, 255)
    return Image.fromarray(tile.astype(np.uint8))


@lru_cache(maxsize=128)
def _scaled(percent: int) -> tuple[int, ...]:
    """A table for `Image.point`: grey levels times percent / 100."""
    return tuple(v * percent // 100 for v in range(256))


class Sketch:
    """A canvas with a place on it: `at` gives the same canvas with another place.

    `image` is RGB uint8 and is drawn on; `light` is the direction (x, y) in pixels
    that the light comes from; without `shadows` its parts cast none (it is faster).
    """

    def __init__(
        self,
        image: Image.Image,
        light: tuple[float, float] = (-0.6, -0.8),
        *,
        shadows: bool = True,
        matrix: np.ndarray | None = None,
    ) -> None:
        self.image = image
        self.light = light
        self.shadows = shadows
        self.matrix = np.eye(3) if matrix is None else matrix
        self.pen = ImageDraw.Draw(image)

    @property
    def unit(self) -> float:
        """Pixels in one unit of this place."""
        return float(np.hypot(self.matrix[0, 0], self.matrix[1, 0]))

    def at(
        self,
        x: float,
        y: float,
        scale: float = 1.0,
        turn: float = 0.0,
        mirror: bool = False,
    ) -> Sketch:
        """The place (x, y), `scale` times as large, turned (degrees), mirrored."""
        angle = np.radians(turn)
        c, s = np.cos(angle) * scale, np.sin(angle) * scale
        flip = -1.0 if mirror else 1.0
        step = np.array([[c * flip, -s, x], [s * flip, c, y], [0, 0, 1]])
        matrix = self.matrix @ step
        return Sketch(self.image, self.light, shadows=self.shadows, matrix=matrix)

    def to_pixels(self, points: Points) -> Outline:
        p = np.asarray(points, float)
        placed: Outline = p @ self.matrix[:2, :2].T + self.matrix[:2, 2]
        return placed

    def fill(self, outline: Points, colour: Colour) -> None:
        """A flat, hard-edged area."""
        self.pen.polygon(self.to_pixels(outline).ravel().tolist(), fill=colour)

    def line(self, points: Points, colour: Colour, width: float) -> None:
        """A stroke of constant width (units; never thinner than one pixel)."""
        at = self.to_pixels(points).ravel().tolist()
        thick = max(1, round(width * self.unit))
        self.pen.line(at, fill=colour, width=thick, joint="curve")

    def shade(self, outline: Points, strength: float, soft: float) -> None:
        """Darken softly inside the outline: a cast shadow. `soft` in units."""
        soft *= self.unit
        masked = self._mask(self.to_pixels(outline), int(soft * 2) + 2)
        if masked is not None:
            mask, corner = masked
            self._darken(mask.reduce(STEP), mask.size, corner, strength, soft)

    def _darken(
        self,
        coarse: Image.Image,
        size: tuple[int, int],
        corner: tuple[int, int],
        strength: float,
        soft: float,
    ) -> None:
        grey = coarse.filter(ImageFilter.BoxBlur(soft / STEP))
        grey = grey.point(_scaled(round(strength * 100)))
        self.image.paste((18, 14, 16), corner, grey.resize(size, BILINEAR))

    def part(
        self,
        outline: Points,
        colour: Colour,
        marks: Sequence[tuple[Points, Colour]] = (),
        *,
        hair: float = 0.5,
        depth: float = 1.0,
        shadow: float = 0.35,
    ) -> None:
        """A rounded, lit area with `marks` (outline, colour) drawn inside it.

        hair: 0 smooth .. 1 shaggy; depth: how round it looks; shadow: how much it
        darkens what lies behind its edge.
        """
        points = self.to_pixels(outline)
        soft = SHADOW_REACH * self.unit
        masked = self._mask(points, int(soft * 2) + 2)
        if masked is None:
            return
        mask, (x, y) = masked
        coarse = mask.reduce(STEP)
        if shadow > 0 and self.shadows:
            self._darken(coarse, mask.size, (x, y), shadow, soft)
        tight = mask.getbbox()
        if tight is None:
            return
        mask = mask.crop(tight)
        x, y = x + tight[0], y + tight[1]
        patch = Image.new("RGB", mask.size, colour)
        pen = ImageDraw.Draw(patch)
        for shape, other in marks:
            pen.polygon((self.to_pixels(shape) - (x, y)).ravel().tolist(), fill=other)
        if marks:
            patch = patch.filter(ImageFilter.BoxBlur(max(1.0, 0.02 * self.unit)))
        small = self._rounding(coarse, 0.22 * min(mask.size), depth)
        x0, y0, x1, y1 = (v / STEP for v in tight)
        grey = small.resize(mask.size, BILINEAR, box=(x0, y0, x1, y1))
        if hair > 0:
            tile = _hair(round(hair * 20))
            ox, oy = (int(v) % (HAIR // 4) for v in points[0])
            if ox + mask.width <= HAIR and oy + mask.height <= HAIR:
                tile = tile.crop((ox, oy, ox + mask.width, oy + mask.height))
            else:
                tile = tile.resize(mask.size, BILINEAR)
            grey = ImageChops.add(grey, tile, 1, -MID)
        lit = ImageChops.hard_light(patch, Image.merge("RGB", (grey, grey, grey)))
        self.image.paste(lit, (x, y), mask)

    def _rounding(self, coarse: Image.Image, soft: float, depth: float) -> Image.Image:
        """Grey, as large as `coarse`: bright towards the light, dark at the far rim."""
        blurred = coarse.filter(ImageFilter.BoxBlur(1.4 * soft / STEP))
        small = np.asarray(blurred, np.float32) / 255
        ring = np.pad(small, 1, mode="edge")
        gx = ring[1:-1, :-2] - ring[1:-1, 2:]
        gy = ring[:-2, 1:-1] - ring[2:, 1:-1]
        facing = gx * np.float32(self.light[0]) + gy * np.float32(self.light[1])
        facing /= max(float(gx.max()), float(gy.max()), 1e-6)
        grey = MID + depth * (34 * (small - 0.72) + 30 * facing)
        return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))

    def _mask(
        self, points: Outline, pad: int
    ) -> tuple[Image.Image, tuple[int, int]] | None:
        """The filled outline and `pad` pixels around it; its corner on the image."""
        w, h = self.image.size
        x0, y0 = np.maximum(np.floor(points.min(0)).astype(int) - pad, 0).tolist()
        x1, y1 = np.ceil(points.max(0)).astype(int) + pad + 1
        x1, y1 = min(int(x1), w), min(int(y1), h)
        if x1 - x0 < 2 or y1 - y0 < 2:
            return None
        mask = Image.new("L", (x1 - x0, y1 - y0))
        ImageDraw.Draw(mask).polygon((points - (x0, y0)).ravel().tolist(), fill=255)
        return mask, (x0, y0)
