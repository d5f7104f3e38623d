"""The pen of the drawn sample set: outlines, a canvas, and soft shading.

Outlines are float arrays [N, 2] in the drawer's own units (x right, y down). A
`Sketch` maps them through a 2x3 matrix to the pixels of an RGB image and fills them,
flat or as a rounded, lit and furry part. Nothing here is random but what is drawn
with the generator that the caller hands in, so one seed gives the same picture.

This module does not know what an animal, a room or a photo file is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Outline = np.ndarray  # float [N, 2]
Points = Sequence[tuple[float, float]] | np.ndarray

SHADE_STEP = 8  # shading is worked out on a grid this many times coarser
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
    return shape @ spin + (cx, cy)


def curve(points: Points, steps: int = 6, closed: bool = False) -> Outline:
    """A Catmull-Rom spline through the points, `steps` samples for each piece."""
    p = np.asarray(points, float)
    if closed:
        p0, p1, p2, p3 = np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0)
    else:
        q = np.concatenate([p[:1] * 2 - p[1:2], p, p[-1:] * 2 - p[-2:-1]])
        p0, p1, p2, p3 = q[:-3], q[1:-2], q[2:-1], q[3:]
    t = np.linspace(0.0, 1.0, steps, endpoint=False)[None, :, None]
    a, b, c, d = (v[:, None, :] for v in (p0, p1, p2, p3))
    line = 0.5 * (
        2 * b
        + (c - a) * t
        + (2 * a - 5 * b + 4 * c - d) * t * t
        + (3 * b - a - 3 * c + d) * t**3
    )
    line = line.reshape(-1, 2)
    return line if closed else np.concatenate([line, p[-1:]])


def blob(points: Points, steps: int = 6) -> Outline:
    """A smooth closed outline through the points."""
    return curve(points, steps, closed=True)


def both(points: Points) -> Outline:
    """A smooth outline from its right half (top to bottom), mirrored at x = 0."""
    p = np.asarray(points, float)
    inner = p[np.abs(p[:, 0]) > 1e-6]
    return blob(np.concatenate([p, inner[::-1] * (-1, 1)]))


def limb(spine: Points, widths: Sequence[float], steps: int = 6) -> Outline:
    """A tube around a smooth spine, round at both ends; `widths` are half widths."""
    line = curve(spine, steps)
    at = np.linspace(0, len(widths) - 1, len(line))
    half = np.interp(at, np.arange(len(widths)), widths)[:, None]
    along = np.gradient(line, axis=0)
    along /= np.maximum(np.hypot(along[:, :1], along[:, 1:]), 1e-9)
    side = along[:, ::-1] * (-1, 1)
    t = np.linspace(-1.0, 1.0, 7)[1:-1, None] * np.pi / 2
    end = line[-1] + half[-1] * (-np.sin(t) * side[-1] + np.cos(t) * along[-1])
    start = line[0] + half[0] * (np.sin(t) * side[0] - np.cos(t) * along[0])
    return np.concatenate([line + side * half, end, (line - side * half)[::-1], start])


def wedge(a: Points, tip: Points, b: Points, bulge: float = 0.08) -> Outline:
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
    return even + normal * tuft[:, None]


@lru_cache(maxsize=1)
def _hair() -> Image.Image:
    """A grey tile [512, 512] of fine upright hairs around MID, always the same."""
    rng = np.random.default_rng(7)
    fine = rng.normal(0.0, 26.0, (128, 512))
    coarse = rng.normal(0.0, 14.0, (32, 64))
    tile = np.zeros((512, 512), np.float32)
    for grid in (fine, coarse):
        grey = Image.fromarray(grid.astype(np.float32)).resize((512, 512), 3)
        tile += np.asarray(grey)
    return Image.fromarray(np.clip(tile + MID, 0, 255).astype(np.uint8))


@lru_cache(maxsize=256)
def _table(middle: int, gain: float) -> tuple[int, ...]:
    """For `Image.point`: grey levels scaled about `middle`."""
    return tuple(int(middle + (v - middle) * gain) for v in range(256))


class Sketch:
    """A canvas with a place on it: `at` gives the same canvas with another place.

    `image` is RGB uint8 and is drawn on; `light` is the direction (x, y) in pixels
    that the light comes from.
    """

    def __init__(
        self,
        image: Image.Image,
        light: tuple[float, float] = (-0.6, -0.8),
        matrix: np.ndarray | None = None,
    ) -> None:
        self.image = image
        self.light = light
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
        a = np.radians(turn)
        c, s = np.cos(a) * scale, np.sin(a) * scale
        flip = -1.0 if mirror else 1.0
        step = np.array([[c * flip, -s, x], [s * flip, c, y], [0, 0, 1]])
        return Sketch(self.image, self.light, self.matrix @ step)

    def to_pixels(self, points: Points) -> Outline:
        p = np.asarray(points, float)
        return p @ self.matrix[:2, :2].T + self.matrix[:2, 2]

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
        found = self._mask(self.to_pixels(outline), pad=int(soft * self.unit * 2) + 2)
        if found is not None:
            mask, (x, y) = found
            grey = _coarse(mask, soft * self.unit).point(_table(0, strength))
            self.image.paste((18, 14, 16), (x, y), grey.resize(mask.size, 2))

    def part(
        self,
        outline: Points,
        colour: Colour,
        marks: Iterable[tuple[Points, Colour]] = (),
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
        found = self._mask(points, pad=0)
        if found is None:
            return
        mask, (x, y) = found
        patch = Image.new("RGB", mask.size, colour)
        painted = False
        pen = ImageDraw.Draw(patch)
        for shape, other in marks:
            pen.polygon((self.to_pixels(shape) - (x, y)).ravel().tolist(), fill=other)
            painted = True
        if painted:
            patch = patch.filter(ImageFilter.BoxBlur(max(1.0, 0.02 * self.unit)))
        grey = self._rounding(mask, depth)
        if hair > 0:
            ox, oy = (int(v) % 200 for v in points[0])
            tile = _hair().crop((ox, oy, ox + 300, oy + 300))
            tile = (
                tile.resize(mask.size, 2)
                if max(mask.size) > 300
                else tile.crop((0, 0, *mask.size))
            )
            tile = tile.point(_table(MID, hair))
            grey = ImageChops.add(grey, tile, 1, -MID)
        if shadow > 0:
            self.shade(outline, shadow, 0.14)
        lit = ImageChops.hard_light(patch, Image.merge("RGB", (grey, grey, grey)))
        self.image.paste(lit, (x, y), mask)

    def _rounding(self, mask: Image.Image, depth: float) -> Image.Image:
        """Grey [mask size]: bright towards the light, dark at the far rim."""
        soft = 0.22 * min(mask.size)
        small = np.asarray(_coarse(mask, soft), np.float32) / 255
        gy, gx = np.gradient(small) if min(small.shape) > 1 else (small, small)
        peak = max(float(np.abs(gx).max()), float(np.abs(gy).max()), 1e-6)
        facing = -(gx * self.light[0] + gy * self.light[1]) / peak
        grey = MID + depth * (34 * (small - 0.72) + 30 * facing)
        clipped = np.clip(grey, 0, 255).astype(np.uint8)
        return Image.fromarray(clipped).resize(mask.size, 2)

    def _mask(
        self, points: Outline, pad: int
    ) -> tuple[Image.Image, tuple[int, int]] | None:
        """The filled outline as a grey mask and its upper left corner on the image."""
        w, h = self.image.size
        x0, y0 = np.maximum(np.floor(points.min(0)).astype(int) - pad, 0).tolist()
        x1, y1 = np.ceil(points.max(0)).astype(int) + pad + 1
        x1, y1 = min(int(x1), w), min(int(y1), h)
        if x1 - x0 < 2 or y1 - y0 < 2:
            return None
        mask = Image.new("L", (x1 - x0, y1 - y0))
        ImageDraw.Draw(mask).polygon((points - (x0, y0)).ravel().tolist(), fill=255)
        return mask, (x0, y0)


def _coarse(mask: Image.Image, soft: float) -> Image.Image:
    """The mask, SHADE_STEP times smaller and blurred by `soft` pixels of its own."""
    w, h = mask.size
    small = mask.resize((max(2, w // SHADE_STEP), max(2, h // SHADE_STEP)), 4)
    return small.filter(ImageFilter.GaussianBlur(soft / SHADE_STEP))
