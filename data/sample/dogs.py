"""Heads of dogs, from the front (turned a little) and from the side.

Units as in `heads`. `yaw` from -1 to 1 turns a front view towards x; side views look
towards +x.
"""

from __future__ import annotations

import numpy as np

from data.sample.coats import Coat
from data.sample.heads import (
    DARK,
    PINK,
    TONGUE,
    WHITE,
    Look,
    darker,
    face_marks,
    muzzle_colour,
)
from data.sample.outlines import blob, both, curve, furry, limb, oval, wedge
from data.sample.sketch import Colour, Sketch

DOG_EYES: tuple[Colour, ...] = ((66, 40, 26), (92, 58, 32), (48, 32, 28), (120, 80, 40))


def dog_look(rng: np.random.Generator, coat: Coat) -> Look:
    ears = ("floppy", "floppy", "long", "folded", "up")
    return Look(
        coat,
        DOG_EYES[rng.integers(len(DOG_EYES))],
        (30, 26, 28),
        ears[rng.integers(len(ears))],
        float(rng.uniform(0.9, 1.15)),
        0.0,
        bool(rng.random() < 0.55),
        bool(rng.random() < 0.07),
        float(rng.uniform(0.9, 1.15)),
    )


def _dog_eye(sk: Sketch, look: Look, x: float, y: float, r: float) -> None:
    if look.sleepy:
        sk.line(curve([(x - r, y), (x, y + 0.1), (x + r, y)]), DARK, 0.06)
        return
    sk.fill(oval(x, y, r * 1.28, r * 1.18), DARK)
    sk.fill(oval(x, y, r * 0.95, r * 0.95), look.eye)
    sk.fill(oval(x, y, r * 0.6, r * 0.6), (14, 10, 12))
    sk.fill(oval(x - 0.05, y - 0.06, 0.055, 0.055), WHITE)


def _dog_ear(
    sk: Sketch, look: Look, rng: np.random.Generator, side: int, yaw: float
) -> None:
    coat, size = look.coat, look.ear_size
    narrow = 1 - 0.25 * max(0.0, side * yaw)
    shift = -0.06 * yaw

    def at(points: list[tuple[float, float]]) -> np.ndarray:
        return np.array([(shift + side * x * narrow, y) for x, y in points])

    colour = coat.mark if coat.pattern != "plain" else darker(coat.ground)
    if look.ear == "up":
        ear = wedge(*at([(0.2, -0.66), (0.66, -0.7 - 0.85 * size), (0.88, -0.28)]))
        sk.part(furry(ear, rng, coat.fluff * 0.4), colour, hair=coat.hair)
        middle = ear.mean(0)
        sk.part(middle + (ear - middle) * 0.55, PINK, hair=0.2, shadow=0.0)
        return
    if look.ear == "folded":
        base = wedge(*at([(0.3, -0.62), (0.82, -1.12 * size), (0.92, -0.3)]))
        sk.part(base, coat.ground, hair=coat.hair)
        flap = at([(0.44, -0.98), (0.84, -1.1), (1.08, -0.8), (1.16, -0.3)])
        outline = blob([*flap, *at([(0.94, -0.34)])])
    else:
        drop = {"floppy": 0.5, "long": 1.05}[look.ear] * size
        half = [(0.5, -0.78), (0.86, -0.72), (1.14, -0.3), (1.22, drop * 0.55)]
        half += [(1.02, drop), (0.78, drop * 0.6), (0.74, -0.1)]
        outline = blob(at(half))
    sk.part(furry(outline, rng, coat.fluff), colour, hair=coat.hair)


def dog_face(sk: Sketch, look: Look, rng: np.random.Generator, yaw: float) -> None:
    """A dog from the front: hanging or pricked ears, big muzzle and nose, tongue."""
    coat, size = look.coat, look.muzzle
    hanging = look.ear in ("floppy", "long")
    if not hanging:
        for side in (-1, 1):
            _dog_ear(sk, look, rng, side, yaw)
    skull = both([
        (0, -0.88), (0.45, -0.85), (0.8, -0.5), (0.84, 0.0), (0.72, 0.45), (0.5, 0.85),
        (0, 1.0),
    ])  # fmt: skip
    marks = face_marks(coat, rng, 0.45)
    sk.part(furry(skull, rng, coat.fluff), coat.ground, marks, hair=coat.hair)
    if hanging:
        for side in (-1, 1):
            _dog_ear(sk, look, rng, side, yaw)
    for side in (-1, 1):
        x = 0.2 * yaw + side * 0.37
        _dog_eye(sk, look, x, -0.2, 0.16)
        brow = [(x - 0.15, -0.46), (x, -0.53), (x + 0.15, -0.46)]
        sk.line(curve(brow), darker(coat.ground), 0.05)
    m = 0.38 * yaw
    pale = muzzle_colour(coat)
    if look.tongue:
        sk.part(oval(m, 0.86, 0.32, 0.26), (92, 34, 40), hair=0, shadow=0.2)
        tongue = blob([
            (m - 0.2, 0.8), (m + 0.2, 0.8), (m + 0.19, 1.22), (m, 1.36),
            (m - 0.19, 1.22),
        ])  # fmt: skip
        sk.part(tongue, TONGUE, hair=0.0, depth=0.8, shadow=0.15)
        sk.line([(m, 0.85), (m, 1.2)], (186, 76, 90), 0.03)
    bridge = limb([(0.2 * yaw, -0.25), (m, 0.3)], [0.2, 0.34])
    sk.part(bridge, pale, hair=0.3, depth=0.5, shadow=0.0)
    for side in (-1, 1):
        jowl = oval(m + side * 0.24, 0.58, 0.34 * size, 0.33 * size, side * -18)
        sk.part(jowl, pale, hair=0.3, depth=0.8, shadow=0.16)
    sk.line([(m, 0.45), (m, 0.72)], DARK, 0.04)
    for side in (-1, 1):
        lip = [(m, 0.72), (m + side * 0.2, 0.84), (m + side * 0.44, 0.72)]
        sk.line(curve(lip), DARK, 0.04)
    nose = both([(0, 0.16), (0.2, 0.17), (0.26, 0.3), (0.12, 0.44), (0, 0.48)])
    sk.part(np.add(nose, (m, 0.0)), look.nose, hair=0.0, depth=0.8, shadow=0.25)
    sk.fill(oval(m - 0.07, 0.25, 0.08, 0.035), (150, 146, 150))


def dog_profile(sk: Sketch, look: Look, rng: np.random.Generator) -> None:
    """A dog's head from the side: a long muzzle with the nose at its end."""
    coat, far = look.coat, 1.1 + 0.3 * look.muzzle
    ear_colour = coat.mark if coat.pattern != "plain" else darker(coat.ground)
    if look.ear == "up":
        shape = wedge((0.0, -0.6), (0.12, -1.4), (0.45, -0.6))
        sk.part(shape, ear_colour, hair=coat.hair)
    if look.tongue:
        tongue = limb([(0.95, 0.42), (1.15, 0.6), (1.2, 0.95)], [0.12, 0.14, 0.12])
        sk.part(tongue, TONGUE, hair=0.0, depth=0.8, shadow=0.1)
        jaw = limb([(0.3, 0.5), (0.8, 0.62), (1.12, 0.62)], [0.25, 0.16, 0.1])
        sk.part(jaw, muzzle_colour(coat), hair=coat.hair, shadow=0.1)
    head = blob([
        (-0.2, -0.82), (0.3, -0.76), (0.6, -0.4), (0.9, -0.2), (far, -0.18),
        (far + 0.14, 0.06), (far, 0.42), (0.95, 0.52), (0.5, 0.66), (-0.2, 0.84),
        (-0.85, 0.5), (-0.95, -0.2),
    ])  # fmt: skip
    marks = [(np.add(m, (0.4, 0)), c) for m, c in face_marks(coat, rng, 0.3)]
    sk.part(furry(head, rng, coat.fluff * 0.7), coat.ground, marks, hair=coat.hair)
    snout = limb([(0.82, 0.16), (far - 0.14, 0.14)], [0.3, 0.26])
    sk.part(snout, muzzle_colour(coat), hair=0.3, depth=0.6, shadow=0.0)
    sk.part(oval(far + 0.04, -0.06, 0.17, 0.14), look.nose, hair=0.0, depth=0.8)
    sk.line(curve([(far, 0.34), (1.05, 0.42), (0.68, 0.34)]), DARK, 0.04)
    _dog_eye(sk, look, 0.42, -0.26, 0.14)
    if look.ear == "up":
        ear = wedge((-0.55, -0.5), (-0.25, -0.75 - 0.8 * look.ear_size), (0.2, -0.66))
    else:
        drop = {"folded": 0.1, "floppy": 0.6, "long": 1.05}[look.ear] * look.ear_size
        ear = blob([
            (-0.5, -0.68), (-0.05, -0.66), (0.08, -0.2), (0.02, drop * 0.7),
            (-0.3, drop), (-0.62, drop * 0.6), (-0.7, -0.1),
        ])  # fmt: skip
    sk.part(furry(ear, rng, coat.fluff * 0.7), ear_colour, hair=coat.hair)
