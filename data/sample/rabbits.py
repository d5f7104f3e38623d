"""Heads of rabbits, from the front (turned a little) and from the side.

Units as in `heads`. `yaw` from -1 to 1 turns a front view towards x; side views look
towards +x. Ears reach two units above the middle.

This module does not know bodies, places or photos.
"""

from __future__ import annotations

import numpy as np

from data.sample.coats import Coat
from data.sample.heads import DARK, PINK, WHITE, Look, ear_colour, face_marks
from data.sample.outlines import blob, both, curve, furry, limb, oval
from data.sample.sketch import Colour, Sketch

RABBIT_EYES: tuple[Colour, ...] = ((58, 36, 28), (84, 52, 34), (40, 34, 40))
LOPS = 0.25  # share of rabbits whose ears hang


def rabbit_look(rng: np.random.Generator, coat: Coat) -> Look:
    return Look(
        coat,
        RABBIT_EYES[rng.integers(len(RABBIT_EYES))],
        PINK if rng.random() < 0.7 else (118, 78, 74),
        "long" if rng.random() < LOPS else "up",
        float(rng.uniform(0.85, 1.1)),
        0.0,
        False,
        bool(rng.random() < 0.07),
        1.0,
    )


def _ear(sk: Sketch, look: Look, spine: list[tuple[float, float]]) -> None:
    shape = limb(spine, [0.2, 0.3, 0.27, 0.1])
    sk.part(shape, ear_colour(look.coat), hair=look.coat.hair)
    inner = limb([spine[0], *spine[1:-1], spine[-1]], [0.07, 0.15, 0.13, 0.02])
    sk.part(inner, PINK, hair=0.2, shadow=0.0, depth=0.6)


def _eye(sk: Sketch, look: Look, x: float, y: float, r: float) -> None:
    if look.sleepy:
        sk.line(curve([(x - r, y), (x, y + 0.12), (x + r, y)]), DARK, 0.06)
        return
    sk.fill(oval(x, y, r * 0.98, r * 1.16), DARK)
    sk.fill(oval(x, y, r * 0.76, r * 0.94), look.eye)
    sk.fill(oval(x, y, r * 0.52, r * 0.68), (12, 8, 10))
    sk.fill(oval(x - 0.07, y - 0.1, 0.07, 0.07), WHITE)


def _mouth(sk: Sketch, look: Look, m: float) -> None:
    sk.fill(
        np.array([(m - 0.1, 0.66), (m + 0.1, 0.66), (m + 0.09, 0.9), (m - 0.09, 0.9)]),
        WHITE,
    )
    sk.line([(m, 0.66), (m, 0.88)], (190, 184, 178), 0.02)
    for side in (-1, 1):
        puff = oval(m + side * 0.24, 0.5, 0.3, 0.22, side * 10)
        sk.part(puff, look.coat.pale, hair=0.25, depth=0.7, shadow=0.12)
    nose = both([(0, 0.22), (0.13, 0.22), (0.1, 0.34), (0, 0.42)])
    sk.fill(np.add(nose, (m, 0.0)), look.nose)
    sk.line([(m, 0.42), (m, 0.58)], (96, 60, 60), 0.035)
    colour = WHITE if sum(look.coat.ground) < 540 else (96, 90, 88)
    for side in (-1, 1):
        for rise in (-0.1, 0.08):
            sk.line(
                curve(
                    [
                        (m + side * 0.3, 0.5),
                        (m + side * 0.7, 0.46 + rise),
                        (m + side * 1.05, 0.52 + rise * 2),
                    ]
                ),
                colour,
                0.018,
            )


def rabbit_face(sk: Sketch, look: Look, rng: np.random.Generator, yaw: float) -> None:
    """A rabbit from the front: long ears, round eyes far apart, two teeth."""
    coat, size = look.coat, look.ear_size
    spread = float(rng.uniform(0.1, 0.4))
    skull = both(
        [
            (0, -0.9),
            (0.44, -0.84),
            (0.76, -0.42),
            (0.9, 0.1),
            (0.84, 0.56),
            (0.46, 0.84),
            (0, 0.9),
        ]
    )
    if look.ear == "up":
        for side in (-1, 1):
            x = side * 0.3 - 0.06 * yaw
            tip = x + side * spread
            spine = [(x, -0.6), (x + side * 0.08, -1.2 * size)]
            spine += [(tip, -1.75 * size), (tip, -2.2 * size)]
            _ear(sk, look, spine)
    marks = face_marks(coat, rng, 0.35)
    sk.part(furry(skull, rng, coat.fluff), coat.ground, marks, hair=coat.hair)
    if look.ear == "long":
        for side in (-1, 1):
            x = side * 0.42 - 0.06 * yaw
            spine = [(x, -0.72), (x + side * 0.62, -0.6)]
            spine += [(x + side * 0.86, 0.2), (x + side * 0.74, 0.95 * size)]
            _ear(sk, look, spine)
    m = 0.24 * yaw
    for side in (-1, 1):
        narrow = 1 - 0.25 * max(0.0, side * yaw)
        _eye(sk, look, 0.12 * yaw + side * 0.52 * narrow, -0.14, 0.23)
    _mouth(sk, look, m)


def rabbit_profile(sk: Sketch, look: Look, rng: np.random.Generator) -> None:
    """A rabbit's head from the side: round, ears laid back a little."""
    coat, size = look.coat, look.ear_size
    if look.ear == "up":
        for x, back in ((0.05, 0.25), (-0.3, 0.6)):
            spine = [(x, -0.55), (x - back * 0.4, -1.15 * size)]
            spine += [(x - back * 0.9, -1.7 * size), (x - back * 1.2, -2.15 * size)]
            _ear(sk, look, spine)
    head = blob(
        [
            (-0.1, -0.82),
            (0.4, -0.66),
            (0.82, -0.22),
            (1.02, 0.14),
            (1.0, 0.42),
            (0.76, 0.64),
            (0.2, 0.8),
            (-0.5, 0.7),
            (-0.9, 0.2),
            (-0.72, -0.5),
        ]
    )
    marks = [(np.add(m, (0.3, 0)), c) for m, c in face_marks(coat, rng, 0.3)]
    sk.part(furry(head, rng, coat.fluff * 0.7), coat.ground, marks, hair=coat.hair)
    if look.ear == "long":
        _ear(sk, look, [(-0.2, -0.68), (-0.36, -0.2), (-0.4, 0.5), (-0.3, 1.05 * size)])
    sk.part(oval(0.78, 0.42, 0.28, 0.2, -12), coat.pale, hair=0.25, depth=0.7)
    _eye(sk, look, 0.34, -0.12, 0.24)
    sk.fill(oval(1.0, 0.2, 0.09, 0.08), look.nose)
    sk.line(curve([(1.0, 0.28), (0.92, 0.46), (0.7, 0.48)]), (96, 60, 60), 0.035)
