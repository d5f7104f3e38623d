"""What the heads of all drawn animals share: a look, and marks on a face.

Units of a head: about one from its middle to each side; x right, y down, the middle
at (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.sample.coats import Coat, Marks
from data.sample.outlines import limb, oval
from data.sample.sketch import Colour

DARK: Colour = (26, 20, 22)
PINK: Colour = (222, 142, 140)
TONGUE: Colour = (226, 108, 118)
WHITE: Colour = (250, 248, 244)


@dataclass(frozen=True)
class Look:
    """What stays the same about one animal, whatever its pose."""

    coat: Coat
    eye: Colour
    nose: Colour
    ear: str  # cat: "up"; dog: "floppy" | "long" | "folded" | "up"
    ear_size: float
    pupil: float  # half width of a cat's slit, in eye widths
    tongue: bool
    sleepy: bool
    muzzle: float  # a dog's muzzle, relative size


def face_marks(coat: Coat, rng: np.random.Generator, nose_y: float) -> Marks:
    """Marks of a face seen from the front: the same for every animal."""
    if coat.pattern == "tabby":
        lines: Marks = []
        for x, lean in ((-0.3, -0.1), (0.0, 0.0), (0.3, 0.1)):
            spine = [(x + lean, -1.0), (x, -0.7), (x * 0.7, -0.4)]
            lines.append((limb(spine, [0.09, 0.07, 0.02]), coat.mark))
        for side in (-1, 1):
            for y in (0.12, 0.34):
                spine = [(side * 1.1, y), (side * 0.78, y - 0.02)]
                lines.append((limb(spine, [0.06, 0.02]), coat.mark))
        return lines
    if coat.pattern == "bicolour":
        spine = [(0, -0.95), (0, -0.3), (0, nose_y), (0, 1.0)]
        return [(limb(spine, [0.08, 0.14, 0.42, 0.75]), coat.pale)]
    if coat.pattern == "patches":
        side = -1 if rng.random() < 0.5 else 1
        return [
            (oval(side * 0.5, -0.25, 0.5, 0.62, side * 20), coat.mark),
            (oval(-side * 0.35, 0.55, 0.5, 0.4), coat.pale),
        ]
    if coat.pattern == "points":
        return [(oval(0, nose_y, 0.62, 0.62), coat.mark)]
    if coat.pattern == "saddle":
        return [(oval(0, -0.85, 1.1, 0.55), coat.mark)]
    return []


def muzzle_colour(coat: Coat) -> Colour:
    if coat.pattern == "points":
        return coat.mark
    return coat.ground if coat.pattern == "plain" else coat.pale


def ear_colour(coat: Coat) -> Colour:
    return coat.mark if coat.pattern in ("points", "saddle", "patches") else coat.ground


def darker(colour: Colour) -> Colour:
    r, g, b = (int(v * 0.72) for v in colour)
    return r, g, b
