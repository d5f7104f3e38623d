"""Heads of bears, from the front (turned a little) and from the side.

Units as in `heads`. `yaw` from -1 to 1 turns a front view towards x; side views look
towards +x.

This module does not know bodies, places or photos.
"""

from __future__ import annotations

import numpy as np

from data.sample.coats import Coat
from data.sample.heads import DARK, WHITE, Look, darker, ear_colour, face_marks
from data.sample.outlines import blob, both, curve, furry, limb, oval
from data.sample.sketch import Sketch


def bear_look(rng: np.random.Generator, coat: Coat) -> Look:
    return Look(
        coat,
        (44, 28, 22),
        (28, 24, 26),
        "round",
        float(rng.uniform(0.85, 1.15)),
        0.0,
        False,
        bool(rng.random() < 0.07),
        float(rng.uniform(0.9, 1.15)),
    )


def _ear(sk: Sketch, look: Look, rng: np.random.Generator, x: float, y: float) -> None:
    coat, r = look.coat, 0.36 * look.ear_size
    shape = furry(oval(x, y, r, r), rng, coat.fluff)
    sk.part(shape, ear_colour(coat), hair=coat.hair)
    sk.part(
        oval(x, y + 0.05, r * 0.56, r * 0.56), darker(coat.mark), hair=0.3, shadow=0
    )


def _eye(sk: Sketch, look: Look, x: float, y: float) -> None:
    if look.sleepy:
        sk.line(curve([(x - 0.12, y), (x, y + 0.08), (x + 0.12, y)]), DARK, 0.06)
        return
    sk.fill(oval(x, y, 0.115, 0.125), (16, 12, 12))
    sk.fill(oval(x, y, 0.085, 0.095), look.eye)
    sk.fill(oval(x - 0.03, y - 0.04, 0.04, 0.04), WHITE)


def bear_face(sk: Sketch, look: Look, rng: np.random.Generator, yaw: float) -> None:
    """A bear from the front: small round ears and eyes, a broad head and muzzle."""
    coat, size = look.coat, look.muzzle
    for side in (-1, 1):
        narrow = 1 - 0.2 * max(0.0, side * yaw)
        _ear(sk, look, rng, side * 0.8 * narrow - 0.08 * yaw, -0.68)
    skull = both(
        [
            (0, -0.88),
            (0.5, -0.84),
            (0.96, -0.4),
            (1.12, 0.16),
            (0.96, 0.62),
            (0.5, 0.92),
            (0, 0.98),
        ]
    )
    marks = face_marks(coat, rng, 0.4)
    sk.part(furry(skull, rng, coat.fluff), coat.ground, marks, hair=coat.hair)
    m = 0.3 * yaw
    muzzle = oval(m, 0.4, 0.52 * size, 0.42 * size)
    sk.part(muzzle, coat.pale, hair=0.35, depth=0.9, shadow=0.18)
    for side in (-1, 1):
        _eye(sk, look, 0.18 * yaw + side * 0.38, -0.16)
    nose = both([(0, 0.08), (0.2, 0.1), (0.22, 0.22), (0.08, 0.34), (0, 0.36)])
    sk.part(np.add(nose, (m, 0.0)), look.nose, hair=0.0, depth=0.8, shadow=0.2)
    sk.fill(oval(m - 0.06, 0.14, 0.07, 0.03), (150, 146, 150))
    sk.line([(m, 0.36), (m, 0.54)], DARK, 0.035)
    for side in (-1, 1):
        lip = [(m, 0.54), (m + side * 0.14, 0.62), (m + side * 0.28, 0.55)]
        sk.line(curve(lip), DARK, 0.035)


def bear_profile(sk: Sketch, look: Look, rng: np.random.Generator) -> None:
    """A bear's head from the side: a straight, deep snout, one round ear."""
    coat = look.coat
    far = 1.0 + 0.22 * look.muzzle
    _ear(sk, look, rng, 0.0, -0.82)
    head = blob(
        [
            (-0.3, -0.86),
            (0.3, -0.8),
            (0.62, -0.38),
            (far, -0.16),
            (far + 0.1, 0.1),
            (far, 0.42),
            (0.7, 0.58),
            (0.3, 0.86),
            (-0.4, 0.94),
            (-1.0, 0.4),
            (-0.98, -0.3),
        ]
    )
    marks = [(np.add(m, (0.4, 0)), c) for m, c in face_marks(coat, rng, 0.3)]
    sk.part(furry(head, rng, coat.fluff), coat.ground, marks, hair=coat.hair)
    snout = limb([(0.7, 0.16), (far - 0.08, 0.16)], [0.34, 0.27])
    sk.part(snout, coat.pale, hair=0.35, depth=0.6, shadow=0.0)
    sk.part(oval(far + 0.06, -0.04, 0.14, 0.13), look.nose, hair=0.0, depth=0.8)
    sk.line(curve([(far, 0.34), (0.9, 0.42), (0.62, 0.38)]), DARK, 0.04)
    _eye(sk, look, 0.42, -0.2)
    _ear(sk, look, rng, -0.36, -0.72)
