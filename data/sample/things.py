"""Things that are no animals: the `unknown` group, and the clutter of a scene.

Units: a thing is about two units wide or tall and stands on the ground at (0, 0).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data.sample.outlines import almond, blob, limb, oval, wedge
from data.sample.sketch import Colour, Sketch

GLASS: Colour = (176, 208, 224)
TYRE: Colour = (40, 40, 44)
STEEL: Colour = (186, 190, 196)
LEAF: Colour = (74, 130, 58)
BARK: Colour = (104, 76, 54)


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float)


def bright(rng: np.random.Generator) -> Colour:
    """A saturated colour of any hue."""
    hue, high = rng.uniform(0, 6), rng.uniform(150, 245)
    low = high * rng.uniform(0.1, 0.5)
    k = (np.array([5.0, 3.0, 1.0]) + hue) % 6
    r, g, b = (high - (high - low) * np.clip(np.minimum(k, 4 - k), 0, 1)).astype(int)
    return int(r), int(g), int(b)


def car(sk: Sketch, rng: np.random.Generator) -> None:
    paint = bright(rng)
    cabin = blob([(-0.8, -0.7), (-0.5, -1.2), (0.3, -1.22), (0.75, -0.7)])
    sk.part(cabin, paint, hair=0)
    for window in (
        [(-0.62, -0.72), (-0.44, -1.08), (-0.1, -1.1), (-0.1, -0.72)],
        [(0.02, -0.72), (0.02, -1.1), (0.28, -1.08), (0.56, -0.72)],
    ):
        sk.part(window, GLASS, hair=0, shadow=0)
    hull = [(-1.4, -0.65), (-0.8, -0.8), (0.8, -0.78), (1.35, -0.62), (1.45, -0.3)]
    sk.part(blob([*hull, (1.3, -0.16), (-1.35, -0.16), (-1.48, -0.35)]), paint, hair=0)
    for x in (-0.85, 0.85):
        sk.part(oval(x, -0.2, 0.3, 0.3), TYRE, hair=0)
        sk.part(oval(x, -0.2, 0.14, 0.14), STEEL, hair=0, shadow=0)
    sk.fill(oval(1.36, -0.5, 0.09, 0.08), (252, 240, 180))


def house(sk: Sketch, rng: np.random.Generator) -> None:
    wall = bright(rng)
    sk.part(box(-1.0, -1.3, 1.0, 0), wall, hair=0.3, depth=0.4)
    sk.part(box(0.5, -2.1, 0.75, -1.4), (150, 80, 64), hair=0.2)
    roof = np.array([(-1.25, -1.25), (0, -2.2), (1.25, -1.25)])
    sk.part(roof, (156, 62, 50), hair=0.4, depth=0.6)
    sk.part(box(-0.2, -0.75, 0.25, 0), BARK, hair=0.3, depth=0.4)
    for x in (-0.75, 0.45):
        sk.part(box(x, -1.0, x + 0.36, -0.6), GLASS, hair=0, depth=0.3)
        sk.line([(x + 0.18, -1.0), (x + 0.18, -0.6)], (240, 240, 236), 0.05)


def tree(sk: Sketch, rng: np.random.Generator) -> None:
    sk.part(limb([(0, 0), (0.05, -0.7), (0, -1.2)], [0.2, 0.14, 0.1]), BARK)
    leaf = LEAF if rng.random() < 0.7 else (196, 122, 46)
    for _ in range(5):
        x, y = rng.uniform(-0.55, 0.55), rng.uniform(-2.0, -1.1)
        r = rng.uniform(0.42, 0.6)
        sk.part(oval(x, y, r, r * 0.9), leaf, hair=1.0, shadow=0.2)


def fruit(sk: Sketch, rng: np.random.Generator) -> None:
    kind = rng.integers(3)
    if kind == 0:
        half = [(0, -1.35), (0.4, -1.5), (0.85, -1.1), (0.75, -0.4), (0.35, -0.02)]
        skin = (206, 52, 44) if rng.random() < 0.6 else (140, 184, 60)
        ring = np.array([*half, (0, -0.06), *[(-x, y) for x, y in half[:0:-1]]])
        sk.part(blob(ring), skin, hair=0.15, depth=1.4)
        sk.part(limb([(0, -1.3), (0.06, -1.7)], [0.05, 0.06]), BARK, hair=0)
        sk.part(almond(0.35, -1.66, 0.3, 0.12, -20), LEAF, hair=0)
    elif kind == 1:
        for k in range(3):
            spine = [
                (-1.0, -1.0 + 0.1 * k),
                (-0.2, -0.2 - 0.3 * k),
                (0.9, -0.5 * k - 0.4),
            ]
            sk.part(limb(spine, [0.1, 0.25, 0.07]), (236, 206, 70), hair=0.1)
    else:
        for row, count in enumerate((4, 3, 2, 1)):
            for k in range(count):
                x, y = (k - count / 2 + 0.5) * 0.42, -1.5 + 0.38 * row
                sk.part(oval(x, y, 0.25, 0.25), (112, 58, 134), hair=0, depth=1.3)
        sk.part(almond(0, -1.85, 0.45, 0.18), LEAF, hair=0)


def fish(sk: Sketch, rng: np.random.Generator) -> None:
    scales, y = bright(rng), -0.8
    tail = wedge((-0.75, y), (-1.5, y - 0.55), (-1.3, y))
    sk.part(tail, scales, hair=0.2)
    sk.part(tail * (1, -1) + (0, 2 * y), scales, hair=0.2)
    sk.part(wedge((-0.3, y - 0.4), (-0.2, y - 0.95), (0.5, y - 0.4)), scales, hair=0.2)
    bands = [
        (limb([(x, y - 0.7), (x + 0.1, y), (x, y + 0.7)], [0.09] * 3), bright(rng))
        for x in (-0.4, 0.0, 0.4)
    ]
    sk.part(almond(0, y, 1.15, 0.6), scales, bands, hair=0.25)
    sk.fill(oval(0.75, y - 0.1, 0.13, 0.13), (250, 250, 246))
    sk.fill(oval(0.78, y - 0.1, 0.07, 0.07), (20, 20, 24))


def bike(sk: Sketch, rng: np.random.Generator) -> None:
    paint = bright(rng)
    for x in (-0.8, 0.8):
        ring = oval(x, -0.5, 0.5, 0.5)
        sk.line(np.concatenate([ring, ring[:2]]), TYRE, 0.09)
        for t in np.arange(0, np.pi, np.pi / 5):
            dx, dy = 0.45 * np.cos(t), 0.45 * np.sin(t)
            sk.line([(x - dx, -0.5 - dy), (x + dx, -0.5 + dy)], STEEL, 0.015)
    hub, seat, head = (-0.1, -0.5), (-0.3, -1.2), (0.6, -1.2)
    frame = ((-0.8, -0.5), hub, head, seat, (-0.8, -0.5)), (seat, hub)
    for part in (*frame, (head, (0.8, -0.5)), (head, (0.55, -1.45), (0.8, -1.5))):
        sk.line(part, paint, 0.08)
    sk.part(oval(-0.34, -1.28, 0.24, 0.08), TYRE, hair=0)


def mug(sk: Sketch, rng: np.random.Generator) -> None:
    paint = bright(rng)
    ring = oval(0.65, -0.65, 0.34, 0.36)
    sk.line(np.concatenate([ring, ring[:2]]), paint, 0.14)
    band = [(box(-0.7, -0.75, 0.7, -0.5), bright(rng))]
    sk.part(box(-0.62, -1.3, 0.62, 0), paint, band, hair=0, depth=1.2)
    sk.part(oval(0, -1.3, 0.62, 0.16), (64, 40, 28), hair=0, depth=0.3)


def ball(sk: Sketch, rng: np.random.Generator) -> None:
    first, second = bright(rng), bright(rng)
    band = limb([(-0.8, -0.5), (0, -0.8), (0.8, -0.5)], [0.2, 0.24, 0.2])
    sk.part(oval(0, -0.7, 0.7, 0.7), first, [(band, second)], hair=0.1, depth=1.5)


def flower(sk: Sketch, rng: np.random.Generator) -> None:
    paint, petals = bright(rng), int(rng.integers(5, 9))
    sk.part(limb([(0, 0), (0.1, -0.6), (0, -1.3)], [0.06] * 3), LEAF, hair=0)
    sk.part(almond(0.36, -0.5, 0.36, 0.14, -30), LEAF, hair=0.2)
    for t in np.arange(petals) * 360.0 / petals:
        dx, dy = 0.42 * np.cos(np.radians(t)), 0.42 * np.sin(np.radians(t))
        sk.part(oval(dx, -1.5 + dy, 0.34, 0.2, t), paint, hair=0.2, shadow=0.15)
    sk.part(oval(0, -1.5, 0.24, 0.24), (240, 196, 60), hair=0.4)


def boat(sk: Sketch, rng: np.random.Generator) -> None:
    sk.line([(0.05, -0.4), (0.05, -2.2)], BARK, 0.08)
    sail = np.array([(0.12, -2.15), (1.0, -0.6), (0.12, -0.6)])
    sk.part(sail, (244, 240, 230), hair=0.1)
    sk.part(
        np.array([(-0.02, -2.0), (-0.7, -0.6), (-0.02, -0.6)]), bright(rng), hair=0.1
    )
    hull = np.array([(-1.2, -0.45), (1.3, -0.45), (0.85, 0), (-0.8, 0)])
    sk.part(hull, bright(rng), hair=0.2)


def lamp(sk: Sketch, rng: np.random.Generator) -> None:
    sk.part(oval(0, -0.08, 0.5, 0.12), TYRE, hair=0)
    sk.line([(0, -0.1), (0, -1.4)], STEEL, 0.1)
    shade = np.array([(-0.4, -2.0), (0.4, -2.0), (0.75, -1.2), (-0.75, -1.2)])
    sk.part(shade, bright(rng), hair=0.2)


def books(sk: Sketch, rng: np.random.Generator) -> None:
    y = 0.0
    for _ in range(int(rng.integers(3, 6))):
        h, dx = float(rng.uniform(0.2, 0.36)), float(rng.uniform(-0.15, 0.15))
        sk.part(box(-0.9 + dx, y - h, 0.8 + dx, y), bright(rng), hair=0.1, depth=0.5)
        sk.line([(-0.7 + dx, y - h), (-0.7 + dx, y)], (240, 232, 210), 0.05)
        y -= h


def umbrella(sk: Sketch, rng: np.random.Generator) -> None:
    first, second = bright(rng), (244, 240, 232)
    sk.line([(0, -1.8), (0, -0.2), (0.2, 0), (0.35, -0.2)], BARK, 0.08)
    dome = [(np.cos(t), np.sin(t)) for t in np.linspace(np.pi, 2 * np.pi, 20)]
    marks = [
        (wedge((x - 0.2, -1.1), (x * 0.4, -2.3), (x + 0.2, -1.1)), second)
        for x in (-0.7, 0.0, 0.7)
    ]
    sk.part(np.array(dome) * (1.25, 1.0) + (0, -1.15), first, marks, hair=0.1)


def shapes(sk: Sketch, rng: np.random.Generator) -> None:
    """Nothing that has a name: overlapping coloured areas."""
    for _ in range(int(rng.integers(4, 9))):
        x, y, r = rng.uniform(-1, 1), rng.uniform(-2, 0), rng.uniform(0.2, 0.8)
        corners = int(rng.integers(3, 8))
        t = np.sort(rng.uniform(0, 2 * np.pi, corners))
        ring = np.stack([x + r * np.cos(t), y + r * np.sin(t)], 1)
        outline = blob(ring) if rng.random() < 0.5 else ring
        sk.part(outline, bright(rng), hair=float(rng.uniform(0, 1)))


Draw = Callable[[Sketch, np.random.Generator], None]
THINGS: tuple[Draw, ...] = (
    car, house, tree, fruit, fish, bike, mug, ball, flower, boat, lamp, books,
    umbrella, shapes,
)  # fmt: skip
CLUTTER: tuple[Draw, ...] = (ball, mug, books, flower, fruit, car, lamp, tree, boat)
