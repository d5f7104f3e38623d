"""Coats: one palette and one set of patterns for every drawn animal.

A cat and a dog take their coat from the same `draw_coat`, so that neither colour nor
pattern shows which of the two a picture shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.sample.outlines import Outline, limb, oval
from data.sample.sketch import Colour

Marks = list[tuple[Outline, Colour]]

# (ground colour, darker mark, paler mark)
PALETTE: tuple[tuple[Colour, Colour, Colour], ...] = (
    ((52, 48, 50), (28, 26, 28), (232, 226, 218)),  # black
    ((98, 98, 106), (58, 58, 66), (226, 224, 222)),  # slate
    ((158, 156, 158), (92, 90, 94), (240, 238, 234)),  # silver
    ((234, 228, 218), (150, 112, 80), (250, 246, 240)),  # white
    ((226, 200, 162), (164, 118, 74), (248, 238, 222)),  # cream
    ((212, 138, 70), (158, 86, 36), (246, 226, 198)),  # ginger
    ((138, 98, 66), (78, 50, 32), (226, 206, 182)),  # brown
    ((92, 64, 50), (52, 36, 30), (208, 182, 156)),  # chocolate
    ((214, 170, 104), (150, 104, 52), (248, 232, 200)),  # gold
    ((178, 150, 120), (92, 72, 58), (238, 226, 210)),  # fawn
)
PATTERNS = ("plain", "tabby", "bicolour", "patches", "points", "saddle")


@dataclass(frozen=True)
class Coat:
    """Colours (RGB 0..255), pattern, and fur: tuft length in head radii."""

    ground: Colour
    mark: Colour
    pale: Colour
    pattern: str
    fluff: float
    hair: float

    def limb_marks(
        self, spine: np.ndarray | list[tuple[float, float]], width: float
    ) -> Marks:
        """What is drawn on a leg or tail whose last spine point is its tip."""
        line = np.asarray(spine, float)
        tip = line[-1]
        sock = oval(tip[0], tip[1], width * 2.0, width * 2.0)
        if self.pattern == "points":
            return [(sock, self.mark)]
        if self.pattern in ("bicolour", "saddle"):
            return [(sock, self.pale)]
        if self.pattern != "tabby":
            return []
        bands: Marks = []
        for t in np.linspace(0.15, 0.9, 5) * (len(line) - 1):
            i = min(int(t), len(line) - 2)
            along = line[i + 1] - line[i]
            at = line[i] + along * (t - i)
            side = along[::-1] * (-1, 1) / max(float(np.hypot(*along)), 1e-9)
            ends = [tuple(at - side * width * 1.3), tuple(at + side * width * 1.3)]
            bands.append((limb(ends, [width * 0.22] * 2), self.mark))
        return bands

    def body_marks(self, outline: Outline, rng: np.random.Generator) -> Marks:
        """What is drawn on the trunk, from its bounding box."""
        (x0, y0), (x1, y1) = outline.min(0), outline.max(0)
        w, h = x1 - x0, y1 - y0
        if self.pattern == "tabby":
            bands: Marks = []
            for x in np.linspace(x0 + 0.12 * w, x1 - 0.1 * w, max(4, int(w * 2.6))):
                lean = rng.uniform(-0.1, 0.25)
                spine = [(x, y0), (x + lean * 0.6, y0 + 0.3 * h), (x + lean, y1)]
                end = rng.uniform(0.02, 0.08)
                bands.append((limb(spine, [0.12, 0.08, end]), self.mark))
            return bands
        if self.pattern == "patches":
            return [
                (
                    oval(
                        x0 + w * rng.uniform(0.05, 0.95),
                        y0 + h * rng.uniform(0.05, 0.8),
                        rng.uniform(0.15, 0.3) * w,
                        rng.uniform(0.12, 0.3) * h,
                        rng.uniform(0, 180),
                    ),
                    self.mark if i % 2 else self.pale,
                )
                for i in range(5)
            ]
        if self.pattern == "saddle":
            return [(oval((x0 + x1) / 2, y0 + 0.1 * h, 0.62 * w, 0.5 * h), self.mark)]
        return []


def draw_coat(rng: np.random.Generator) -> Coat:
    ground, mark, pale = PALETTE[rng.integers(len(PALETTE))]
    shift = rng.normal(0, 3, 3) + rng.normal(0, 7)

    def tint(colour: Colour) -> Colour:
        r, g, b = np.clip(np.add(colour, shift), 6, 252).astype(int).tolist()
        return r, g, b

    return Coat(
        tint(ground),
        tint(mark),
        tint(pale),
        PATTERNS[rng.integers(len(PATTERNS))],
        fluff=float(rng.uniform(0.02, 0.11)),
        hair=float(rng.uniform(0.35, 0.9)),
    )
