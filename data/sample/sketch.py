"""The pen of the drawn sample set: outlines, and a canvas that fills them.

An outline is a ring of points, a float array [N, 2] in the drawer's own units (x right,
y down): an oval, a spline, a limb, an ear, with tufts of fur. A `Sketch` maps outlines
through a 3x3 matrix to the pixels of an RGB image and fills them, flat or as a rounded,
lit and furry part. Nothing here is random but what comes from the generator that the
caller hands in, so one seed gives the same picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Outline = np.ndarray  # float64 [N, 2]
Point = Sequence[float] | np.ndarray
Points = Sequence[tuple[float, float]] | np.ndarray
Colour = tuple[int, int, int]  # RGB, 0..255

PIECE_STEPS = 6  # samples of a spline for each of its pieces
BILINEAR = Image.Resampling.BILINEAR
GRID = 8  # shading is worked out on a grid this many times coarser
SHADOW_REACH = 0.14  # how softly a part's shadow ends, in units
HAIR = 768  # pixels of the square tile that fur is cut from
MID = 128  # the grey that leaves a colour as it is under hard light


def oval(
    cx: float, cy: float, rx: float, ry: float, turn: float = 0.0, n: int = 32
) -> Outline:
    """An ellipse with half axes rx, ry, turned by `turn` degrees."""
    t = np.linspace(0.0, 2 * np.pi, n, endpoint=False)
    x, y = rx * np.cos(t), ry * np.sin(t)
    a = np.radians(turn)
    return np.stack(
        [cx + x * np.cos(a) - y * np.sin(a), cy + x * np.sin(a) + y * np.cos(a)], 1
    )


def almond(cx: float, cy: float, rx: float, ry: float, turn: float = 0.0) -> Outline:
    """Two parabolas with corners left and right: an eye, a leaf, a slit pupil."""
    x = np.linspace(-1.0, 1.0, 12)
    upper = np.stack([x, x * x - 1.0], 1)
    shape = np.concatenate([upper, -upper[1:-1]]) * (rx, ry)
    a = np.radians(turn)
    spin = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    placed: Outline = shape @ spin + (cx, cy)
    return placed


def curve(points: Points, closed: bool = False) -> Outline:
    """A Catmull-Rom spline through the points, PIECE_STEPS samples for each piece."""
    p = np.asarray(points, float)
    if closed:
        p0, p1, p2, p3 = np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0)
    else:
        q = np.concatenate([p[:1] * 2 - p[1:2], p, p[-1:] * 2 - p[-2:-1]])
        p0, p1, p2, p3 = q[:-3], q[1:-2], q[2:-1], q[3:]
    t = np.linspace(0.0, 1.0, PIECE_STEPS, endpoint=False)[None, :, None]
    a, b, c, d = (v[:, None, :] for v in (p0, p1, p2, p3))
    line = 0.5 * (
        2 * b
        + (c - a) * t
        + (2 * a - 5 * b + 4 * c - d) * t * t
        + (3 * b - a - 3 * c + d) * t**3
    )
    line = line.reshape(-1, 2)
    return line if closed else np.concatenate([line, p[-1:]])


def blob(points: Points) -> Outline:
    """A smooth closed outline through the points."""
    return curve(points, closed=True)


def both(points: Points) -> Outline:
    """A smooth outline from its right half (top to bottom), mirrored at x = 0."""
    p = np.asarray(points, float)
    inner = p[np.abs(p[:, 0]) > 1e-6]
    return blob(np.concatenate([p, inner[::-1] * (-1, 1)]))


def limb(spine: Points, widths: Sequence[float]) -> Outline:
    """A tube around a smooth spine, round at both ends; `widths` are half widths."""
    line = curve(spine)
    at = np.linspace(0, len(widths) - 1, len(line))
    half = np.interp(at, np.arange(len(widths)), widths)[:, None]
    along = np.gradient(line, axis=0)
    along /= np.maximum(np.hypot(along[:, :1], along[:, 1:]), 1e-9)
    side = along[:, ::-1] * (-1, 1)
    t = np.linspace(-1.0, 1.0, 7)[1:-1, None] * np.pi / 2
    end = line[-1] + half[-1] * (-np.sin(t) * side[-1] + np.cos(t) * along[-1])
    start = line[0] + half[0] * (np.sin(t) * side[0] - np.cos(t) * along[0])
    return np.concatenate([line + side * half, end, (line - side * half)[::-1], start])


def wedge(a: Point, tip: Point, b: Point, bulge: float = 0.08) -> Outline:
    """A triangle a-tip-b whose two sides at the tip swell outwards by `bulge`."""
    p, q, r = (np.asarray(v, float) for v in (a, tip, b))
    middle = (p + q + r) / 3
    t = np.linspace(0.0, 1.0, 7)[:, None]
    sides = []
    for start, end in ((p, q), (q, r)):
        half = (start + end) / 2
        out = (half - middle) * bulge * 4
        sides.append(start + (end - start) * t + out * (4 * t * (1 - t)))
    return np.concatenate([sides[0], sides[1][1:]])


def furry(outline: Outline, rng: np.random.Generator, depth: float) -> Outline:
    """The outline with tufts that stand out by up to `depth` (same units)."""
    if depth <= 0:
        return outline
    ring = np.concatenate([outline, outline[:1]])
    length = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(ring, axis=0).T))])
    n = int(np.clip(length[-1] / (depth * 0.9), 24, 160)) // 2 * 2
    at = (np.arange(n) + rng.uniform(-0.3, 0.3, n)) * length[-1] / n
    even = np.stack([np.interp(at % length[-1], length, ring[:, k]) for k in (0, 1)], 1)
    along = np.roll(even, -1, 0) - np.roll(even, 1, 0)
    normal = along[:, ::-1] * (1, -1)
    normal /= np.maximum(np.hypot(normal[:, :1], normal[:, 1:]), 1e-9)
    x, y = even.T
    if np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) < 0:
        normal = -normal
    tuft = rng.uniform(0.3, 1.0, n) * np.where(np.arange(n) % 2, depth, 0.0)
    grown: Outline = even + normal * tuft[:, None]
    return grown


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
            self._darken(mask.reduce(GRID), mask.size, corner, strength, soft)

    def _darken(
        self,
        coarse: Image.Image,
        size: tuple[int, int],
        corner: tuple[int, int],
        strength: float,
        soft: float,
    ) -> None:
        grey = coarse.filter(ImageFilter.BoxBlur(soft / GRID))
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
        coarse = mask.reduce(GRID)
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
        x0, y0, x1, y1 = (v / GRID for v in tight)
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
        blurred = coarse.filter(ImageFilter.BoxBlur(1.4 * soft / GRID))
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
