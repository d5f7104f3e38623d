"""Whole turtles in their poses; units and the ground as in `animals`.

This module does not know where in a picture a turtle goes, nor the light.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.sample.coats import PALETTE, Coat, draw_coat
from data.sample.heads import DARK, WHITE, darker
from data.sample.outlines import blob, both, curve, limb, oval
from data.sample.sketch import Colour, Sketch


@dataclass(frozen=True)
class Turtle:
    """What stays the same about one turtle, and the generator that draws it."""

    shell: Coat
    skin: Colour
    high: float  # of the shell
    rng: np.random.Generator


def draw_turtle(rng: np.random.Generator) -> Turtle:
    """Shell and skin have the colours of the other animals' coats."""
    shell = draw_coat(rng)
    skin = PALETTE[rng.integers(len(PALETTE))][0]
    return Turtle(shell, skin, float(rng.uniform(0.9, 1.15)), rng)


def _foot(sk: Sketch, t: Turtle, x: float, step: float) -> None:
    spine = [(x, -0.75), (x + step * 0.5, -0.35), (x + step, -0.1)]
    sk.part(limb(spine, [0.34, 0.3, 0.3]), t.skin, hair=0.2, shadow=0.25)
    for k in (-0.18, 0.0, 0.18):
        sk.fill(oval(x + step + k, -0.02, 0.07, 0.08), (236, 226, 204))


def _scutes(sk: Sketch, t: Turtle, plates: list[tuple[float, float, float]]) -> None:
    """Six-sided plates (x, y, radius), each with a paler rim and a darker middle."""
    for x, y, r in plates:
        angle = np.linspace(0, 2 * np.pi, 6, endpoint=False)
        ring = np.stack([x + r * np.cos(angle), y + 0.85 * r * np.sin(angle)], 1)
        sk.part(ring, t.shell.pale, hair=0.1, shadow=0.05, depth=0.3)
        middle = (ring - (x, y)) * 0.86 + (x, y)
        sk.part(middle, t.shell.ground, hair=0.15, shadow=0.0, depth=0.8)
        sk.part((ring - (x, y)) * 0.4 + (x, y), t.shell.mark, hair=0.15, shadow=0.0)


def _eye(sk: Sketch, x: float, y: float) -> None:
    sk.fill(oval(x, y, 0.15, 0.15), (222, 190, 92))
    sk.fill(oval(x, y, 0.09, 0.12), (12, 10, 10))
    sk.fill(oval(x - 0.03, y - 0.05, 0.035, 0.035), WHITE)


def _head(sk: Sketch, t: Turtle, x: float, y: float) -> None:
    """From the side, towards +x: a blunt beak, a wide mouth, spots."""
    place = sk.at(x, y, 1.0, float(t.rng.normal(0, 8)))
    shape = blob(
        [
            (-0.5, -0.42),
            (0.1, -0.52),
            (0.6, -0.28),
            (0.76, 0.02),
            (0.62, 0.26),
            (0.1, 0.38),
            (-0.5, 0.36),
        ]
    )
    spots = [
        (oval(float(u), float(v), 0.07, 0.07), darker(t.skin))
        for u, v in t.rng.uniform((-0.5, -0.4), (0.3, -0.1), (6, 2))
    ]
    place.part(shape, t.skin, spots, hair=0.2)
    place.line(curve([(0.72, 0.1), (0.4, 0.18), (0.0, 0.1)]), DARK, 0.04)
    place.fill(oval(0.68, -0.08, 0.03, 0.025), DARK)
    _eye(place, 0.3, -0.16)


def walk(sk: Sketch, t: Turtle) -> None:
    """From the side: a dome on four feet, the head stretched out."""
    step = float(t.rng.uniform(-0.25, 0.25))
    h = 2.1 * t.high
    sk.part(limb([(-1.9, -0.6), (-2.4, -0.4), (-2.7, -0.3)], [0.2, 0.12, 0.04]), t.skin)
    for x, sway in ((0.9, -step), (-1.4, step)):
        _foot(sk, t, x, sway)
    rise = float(t.rng.uniform(-1.5, -0.95))
    neck = limb([(1.2, -0.9), (1.7, -1.0), (2.2, rise)], [0.34, 0.28, 0.28])
    sk.part(neck, t.skin, hair=0.2)
    _head(sk, t, 2.45, rise - 0.1)
    dome = [(-2.1, -0.65), (-1.8, -1.3), (-1.0, -h * 0.92), (0, -h)]
    shell = blob([*dome, (1.0, -h * 0.9), (1.65, -1.3), (1.9, -0.65), (0, -0.5)])
    sk.part(shell, t.shell.ground, hair=0.15)
    row = [(-1.1, -1.22, 0.5), (-0.1, -1.28, 0.54), (0.9, -1.22, 0.48)]
    top = [(-0.62, -h * 0.8, 0.36), (0.42, -h * 0.8, 0.36)]
    _scutes(sk, t, row + top)
    rim = limb([(-2.15, -0.66), (0, -0.52), (1.95, -0.66)], [0.12, 0.16, 0.12])
    sk.part(rim, t.shell.mark, hair=0.1, shadow=0.3)
    for x, sway in ((1.15, step), (-1.15, -step)):
        _foot(sk, t, x, sway)


def above(sk: Sketch, t: Turtle) -> None:
    """From above: an oval of plates, four flippers, head and tail."""
    y = -1.9
    turn = float(t.rng.normal(0, 12))
    place = sk.at(0, y, 1.0, turn)
    for side in (-1, 1):
        reach = float(t.rng.uniform(0.85, 1.2))
        for x, out in ((1.05, 0.75), (-1.05, -0.6)):
            spine = [(x, side * 0.8), (x + out * 0.6, side * 1.25 * reach)]
            spine.append((x + out, side * 1.6 * reach))
            place.part(limb(spine, [0.34, 0.32, 0.16]), t.skin, hair=0.25)
    place.part(limb([(-1.6, 0), (-2.2, 0.05)], [0.16, 0.04]), t.skin, hair=0.2)
    place.part(limb([(1.4, 0), (2.05, 0.0)], [0.32, 0.36]), t.skin, hair=0.2)
    for side in (-1, 1):
        _eye(place, 2.14, side * 0.22)
    place.part(oval(0, 0, 1.85, 1.4), t.shell.mark, hair=0.1)
    place.part(oval(0, 0, 1.66, 1.22), t.shell.ground, hair=0.15, shadow=0.1)
    plates = [(x, 0.0, 0.44) for x in (-1.0, 0.0, 1.0)]
    plates += [(x, side * 0.72, 0.38) for x in (-0.52, 0.52) for side in (-1, 1)]
    _scutes(place, t, plates)


def front(sk: Sketch, t: Turtle) -> None:
    """From the front: the head before the dome of the shell."""
    h = 2.5 * t.high
    shell = both([(0, -h), (1.1, -h * 0.86), (1.75, -1.3), (1.7, -0.6), (0, -0.45)])
    sk.part(shell, t.shell.ground, hair=0.15)
    plates = [(0, -h * 0.8, 0.46), (-0.95, -1.5, 0.44), (0.95, -1.5, 0.44)]
    _scutes(sk, t, plates)
    rim = limb([(-1.75, -0.75), (0, -0.95), (1.75, -0.75)], [0.14, 0.2, 0.14])
    sk.part(rim, t.shell.mark, hair=0.1, shadow=0.3)
    for side in (-1, 1):
        _foot(sk, t, side * 1.15, side * 0.3)
    yaw = float(np.clip(t.rng.normal(0, 0.4), -0.8, 0.8))
    x, y = 0.3 * yaw, -0.95
    sk.part(limb([(0, -0.7), (x, y)], [0.42, 0.5]), t.skin, hair=0.2)
    half = [(0, -0.56), (0.42, -0.44), (0.6, -0.05), (0.42, 0.36), (0, 0.48)]
    spots = [
        (oval(float(u), float(v), 0.07, 0.07), darker(t.skin))
        for u, v in t.rng.uniform((x - 0.4, y - 0.5), (x + 0.4, y - 0.25), (6, 2))
    ]
    sk.part(np.add(both(half), (x, y)), t.skin, spots, hair=0.2, shadow=0.4)
    for side in (-1, 1):
        _eye(sk, x + 0.1 * yaw + side * 0.32, y - 0.08)
        sk.fill(oval(x + side * 0.07 + 0.1 * yaw, y + 0.1, 0.03, 0.025), DARK)
    mouth = [(x - 0.36, y + 0.2), (x + 0.08 * yaw, y + 0.3), (x + 0.36, y + 0.2)]
    sk.line(curve(mouth), DARK, 0.045)
