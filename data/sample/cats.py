"""Heads of cats, from the front (turned a little) and from the side.

Units as in `heads`. `yaw` from -1 to 1 turns a front view towards x; side views look
towards +x.
"""

from __future__ import annotations

import numpy as np

from data.sample.coats import Coat
from data.sample.heads import (
    DARK,
    PINK,
    WHITE,
    Look,
    ear_colour,
    face_marks,
    muzzle_colour,
)
from data.sample.outlines import almond, blob, both, curve, furry, oval, wedge
from data.sample.sketch import Colour, Sketch

CAT_EYES: tuple[Colour, ...] = (
    (122, 182, 72),
    (216, 184, 56),
    (224, 146, 48),
    (110, 176, 214),
    (160, 200, 120),
)


def cat_look(rng: np.random.Generator, coat: Coat) -> Look:
    nose = PINK if rng.random() < 0.7 else (92, 62, 60)
    return Look(
        coat,
        CAT_EYES[rng.integers(len(CAT_EYES))],
        nose,
        "up",
        float(rng.uniform(0.9, 1.2)),
        float(rng.uniform(0.14, 0.34)),
        False,
        bool(rng.random() < 0.07),
        1.0,
    )


def _cat_eye(
    sk: Sketch, look: Look, x: float, y: float, rx: float, turn: float
) -> None:
    ry = 0.86 * 0.26
    if look.sleepy:
        lid = [(x - rx, y), (x, y + 0.12), (x + rx, y)]
        sk.line(curve(lid), DARK, 0.06)
        return
    sk.fill(almond(x, y, rx * 1.22, ry * 1.26, turn), DARK)
    sk.fill(almond(x, y, rx, ry, turn), look.eye)
    slit = look.pupil * rx
    sk.fill(almond(x, y, ry * 0.96, slit, 90), DARK)
    sk.fill(oval(x - 0.08, y - 0.09, 0.05, 0.05), WHITE)


def cat_face(sk: Sketch, look: Look, rng: np.random.Generator, yaw: float) -> None:
    """A cat from the front: pointed ears, almond eyes with slits, whiskers."""
    coat = look.coat
    for side in (-1, 1):
        narrow = 1 - 0.3 * max(0.0, side * yaw)
        shift = -0.08 * yaw
        a = (shift + side * 0.22 * narrow, -0.66)
        tip = (shift + side * 0.86 * narrow, -0.55 - 0.98 * look.ear_size)
        b = (shift + side * 1.02 * narrow, -0.12)
        ear = wedge(a, tip, b)
        sk.part(furry(ear, rng, coat.fluff * 0.4), ear_colour(coat), hair=coat.hair)
        middle = np.mean([a, tip, b], axis=0)
        inner = middle + (ear - middle) * 0.6 + (0, 0.05)
        sk.part(inner, PINK, hair=0.2, shadow=0.0)
    skull = both([
        (0, -0.84), (0.5, -0.8), (0.94, -0.4), (1.08, 0.12), (0.86, 0.6), (0.4, 0.86),
        (0, 0.92),
    ])  # fmt: skip
    marks = face_marks(coat, rng, 0.3)
    sk.part(furry(skull, rng, coat.fluff), coat.ground, marks, hair=coat.hair)
    m = 0.26 * yaw
    pale = muzzle_colour(coat)
    sk.part(oval(m, 0.62, 0.26, 0.2), pale, hair=0.2, depth=0.7, shadow=0.1)
    for side in (-1, 1):
        puff = oval(m + side * 0.21, 0.4, 0.27, 0.21, side * 12)
        sk.part(puff, pale, hair=0.25, depth=0.7, shadow=0.12)
    for side in (-1, 1):
        x = 0.18 * yaw + side * 0.44
        rx = 0.28 * (1 - 0.25 * max(0.0, side * yaw))
        _cat_eye(sk, look, x, -0.08, rx, side * -14)
    sk.fill(wedge((m - 0.15, 0.17), (m, 0.34), (m + 0.15, 0.17)), look.nose)
    for side in (-1, 1):
        lip = [(m, 0.34), (m, 0.44), (m + side * 0.12, 0.53), (m + side * 0.26, 0.47)]
        sk.line(curve(lip), (70, 44, 44), 0.035)
    _whiskers(sk, coat, m)


def _whiskers(sk: Sketch, coat: Coat, x: float) -> None:
    colour = WHITE if sum(coat.ground) < 540 else (96, 90, 88)
    for side in (-1, 1):
        for k, rise in enumerate((-0.16, 0.0, 0.16)):
            start = (x + side * 0.26, 0.4 + 0.05 * (k - 1))
            end = (x + side * 1.32, 0.4 + rise * 1.6 + 0.06)
            bend = (x + side * 0.8, 0.4 + rise * 0.9 - 0.06)
            sk.line(curve([start, bend, end]), colour, 0.02)


def cat_profile(sk: Sketch, look: Look, rng: np.random.Generator) -> None:
    """A cat's head from the side: round, a short muzzle, pricked ears."""
    coat = look.coat
    ears = (
        ((0.05, -0.6), (0.36, -1.42), (0.6, -0.5)),
        ((-0.6, -0.45), (-0.3, -0.5 - 1.0 * look.ear_size), (0.28, -0.66)),
    )
    for ear in ears:
        shape = wedge(*ear)
        sk.part(furry(shape, rng, coat.fluff * 0.4), ear_colour(coat), hair=coat.hair)
    middle = np.mean(ears[1], axis=0)
    sk.part(middle + (wedge(*ears[1]) - middle) * 0.5, PINK, hair=0.2, shadow=0.0)
    head = blob([
        (-0.1, -0.8), (0.42, -0.68), (0.72, -0.34), (0.9, 0.04), (1.06, 0.2),
        (1.02, 0.4), (0.84, 0.58), (0.4, 0.78), (-0.3, 0.82), (-0.92, 0.4),
        (-0.9, -0.3),
    ])  # fmt: skip
    marks = [(np.add(m, (0.3, 0)), c) for m, c in face_marks(coat, rng, 0.3)]
    sk.part(furry(head, rng, coat.fluff * 0.7), coat.ground, marks, hair=coat.hair)
    puff = oval(0.8, 0.4, 0.28, 0.2, -12)
    sk.part(puff, muzzle_colour(coat), hair=0.2, depth=0.7, shadow=0.1)
    _cat_eye(sk, look, 0.5, -0.08, 0.2, 14)
    sk.fill(wedge((0.9, 0.1), (1.1, 0.16), (1.02, 0.3)), look.nose)
    mouth = [(1.02, 0.32), (0.96, 0.45), (0.7, 0.5)]
    sk.line(curve(mouth), (70, 44, 44), 0.035)
    _whiskers(sk, coat, 0.78)
