"""Whole birds in their poses; units and the ground as in `animals`.

This module does not know where in a picture a bird goes, nor the light.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.sample.coats import Coat, draw_coat
from data.sample.heads import DARK, WHITE, darker
from data.sample.outlines import almond, blob, both, curve, furry, limb, oval, wedge
from data.sample.sketch import Colour, Sketch

BEAKS: tuple[Colour, ...] = (
    (236, 158, 44),
    (222, 112, 52),
    (86, 80, 84),
    (240, 200, 80),
)


@dataclass(frozen=True)
class Bird:
    """What stays the same about one bird, and the generator that draws it."""

    coat: Coat
    beak: Colour
    long_beak: float
    crest: bool
    plump: float  # how round the body is
    rng: np.random.Generator


def draw_bird(rng: np.random.Generator) -> Bird:
    """A bird whose plumage has the colours of the other animals' coats."""
    coat = draw_coat(rng)
    return Bird(
        coat,
        BEAKS[rng.integers(len(BEAKS))],
        float(rng.uniform(0.8, 1.5)),
        bool(rng.random() < 0.35),
        float(rng.uniform(0.92, 1.12)),
        rng,
    )


def _eye(sk: Sketch, x: float, y: float) -> None:
    sk.fill(oval(x, y, 0.17, 0.17), (226, 196, 120))
    sk.fill(oval(x, y, 0.125, 0.125), (14, 10, 12))
    sk.fill(oval(x - 0.04, y - 0.05, 0.045, 0.045), WHITE)


def _crest(sk: Sketch, b: Bird, x: float, y: float, lean: float) -> None:
    if b.crest:
        for k in (-1, 0, 1):
            tip = (x + 0.22 * k - lean * 0.5, y - 0.62 + 0.08 * abs(k))
            sk.part(
                limb([(x, y + 0.1), (x + 0.1 * k, y - 0.3), tip], [0.08, 0.1, 0.03]),
                b.coat.mark,
                hair=0.4,
                shadow=0.1,
            )


def _legs(sk: Sketch, b: Bird, places: tuple[float, ...], top: float) -> None:
    for x in places:
        sk.line([(x, top), (x + 0.05, -0.06)], darker(b.beak), 0.09)
        for toe in (-0.24, 0.02, 0.3):
            sk.line([(x + 0.05, -0.08), (x + 0.05 + toe, 0.02)], darker(b.beak), 0.07)


def _plumage(sk: Sketch, b: Bird, outline: np.ndarray) -> None:
    marks = b.coat.body_marks(outline, b.rng)
    shape = furry(outline, b.rng, b.coat.fluff * 0.6)
    sk.part(shape, b.coat.ground, marks, hair=b.coat.hair * 0.7)


def _wing(sk: Sketch, b: Bird, x: float, y: float, turn: float) -> None:
    colour = b.coat.mark if b.coat.pattern != "plain" else darker(b.coat.ground)
    place = sk.at(x, y, 1.0, turn)
    for k, (long, drop) in enumerate(((1.25, 0.3), (1.08, 0.14), (0.86, 0.0))):
        shape = almond(-0.25 - 0.1 * k, drop * 0.6, long, 0.42 - 0.06 * k, -8)
        place.part(shape, colour, hair=0.5, shadow=0.2, depth=0.8)


def _head(sk: Sketch, b: Bird, x: float, y: float) -> None:
    """From the side, towards +x."""
    place = sk.at(x, y, 1.0, float(b.rng.normal(0, 9)))
    far = 0.62 + 0.5 * b.long_beak
    _crest(place, b, -0.15, -0.62, 0.6)
    place.part(wedge((0.5, -0.16), (far, 0.1), (0.5, 0.12)), b.beak, hair=0.0)
    lower = wedge((0.5, 0.06), (far - 0.1, 0.14), (0.44, 0.26))
    place.part(lower, darker(b.beak), hair=0.0, shadow=0.1)
    shape = furry(oval(0, 0, 0.72, 0.68), b.rng, b.coat.fluff * 0.5)
    marks = [(oval(0.1, -0.55, 0.7, 0.3), b.coat.mark)]
    has = b.coat.pattern in ("points", "saddle", "patches")
    place.part(shape, b.coat.ground, marks if has else [], hair=b.coat.hair * 0.6)
    if b.coat.pattern in ("bicolour", "tabby"):
        place.part(oval(0.16, 0.26, 0.4, 0.3), b.coat.pale, hair=0.3, shadow=0)
    _eye(place, 0.26, -0.14)


def perch(sk: Sketch, b: Bird) -> None:
    """From the side, upright on two legs."""
    t = b.plump
    tail = blob([(-1.2, -1.5), (-1.0, -1.0), (-2.6, -0.55), (-2.9, -0.8)])
    sk.part(tail, darker(b.coat.ground), hair=0.5)
    _legs(sk, b, (-0.15, 0.25), -0.8)
    body = blob(
        [
            (0.55, -2.5),
            (1.0, -1.8),
            (0.85 * t, -1.0),
            (0.2, -0.55),
            (-0.7, -0.75),
            (-1.5, -1.2),
            (-0.95, -1.9 * t),
            (-0.1, -2.5),
        ]
    )
    _plumage(sk, b, body)
    if b.coat.pattern != "plain":
        chest = blob(
            [(0.5, -2.2), (0.9, -1.7), (0.74, -1.05), (0.2, -0.8), (0.2, -1.7)]
        )
        sk.part(chest, b.coat.pale, hair=0.4, shadow=0, depth=0.6)
    _wing(sk, b, -0.2, -1.6, 14)
    _head(sk, b, 0.5, -2.75)


def fly(sk: Sketch, b: Bird) -> None:
    """From the side with raised wings, over the ground."""
    y = -1.4
    wing = b.coat.mark if b.coat.pattern != "plain" else darker(b.coat.ground)
    up = float(b.rng.uniform(1.5, 1.9))
    behind = blob(
        [(-0.5, y - 0.3), (0.3, y - 0.3), (0.5, y - up), (-0.1, y - up * 0.9)]
    )
    sk.part(behind, darker(wing), hair=0.5)
    tail = blob([(-1.1, y - 0.1), (-1.1, y + 0.25), (-2.3, y + 0.35), (-2.4, y - 0.1)])
    sk.part(tail, darker(b.coat.ground), hair=0.5)
    _plumage(sk, b, oval(-0.1, y, 1.25, 0.6 * b.plump, -6))
    front = blob(
        [
            (-0.9, y - 0.1),
            (0.35, y - 0.2),
            (-0.2, y - up * 0.6),
            (-1.2, y - up * 1.05),
            (-1.7, y - up * 0.95),
            (-1.3, y - up * 0.4),
        ]
    )
    sk.part(front, wing, hair=0.6)
    for k in (0.35, 0.65):
        line = [(-0.5 - 0.3 * k, y - 0.3), (-0.5 - 1.1 * k, y - up * (0.7 + 0.3 * k))]
        sk.line(line, darker(wing), 0.04)
    _head(sk, b, 1.05, y - 0.35)


def front(sk: Sketch, b: Bird) -> None:
    """From the front: an egg on two legs, the beak a diamond."""
    t = b.plump
    _legs(sk, b, (-0.4, 0.35), -0.6)
    half = [(0, -3.0), (0.62, -2.8), (0.82, -2.2), (1.08 * t, -1.4), (0.8, -0.6)]
    body = both([*half, (0, -0.4)])
    _plumage(sk, b, body)
    if b.coat.pattern != "plain":
        sk.part(oval(0, -1.25, 0.62, 0.72), b.coat.pale, hair=0.4, shadow=0, depth=0.6)
    wing = b.coat.mark if b.coat.pattern != "plain" else darker(b.coat.ground)
    for side in (-1, 1):
        sk.part(almond(side * 1.02 * t, -1.35, 0.8, 0.3, side * 80), wing, hair=0.5)
    yaw = float(np.clip(b.rng.normal(0, 0.4), -0.8, 0.8))
    m = 0.24 * yaw
    _crest(sk, b, m * 0.5, -2.9, 0.0)
    for side in (-1, 1):
        _eye(sk, 0.16 * yaw + side * 0.36, -2.46)
    wide, long = 0.22, 0.26 + 0.12 * b.long_beak
    sk.part(
        np.array([(m - wide, -2.24), (m, -2.4), (m + wide, -2.24), (m, -2.24 + long)]),
        b.beak,
        hair=0.0,
        depth=0.8,
        shadow=0.25,
    )
    sk.line(curve([(m - wide, -2.24), (m, -2.18), (m + wide, -2.24)]), DARK, 0.03)


def close_up(sk: Sketch, b: Bird) -> None:
    """The head from the side over its shoulders, which go on below the ground."""
    shoulders = blob([(-0.3, -1.5), (0.5, -0.9), (1.0, 0.2), (1.0, 1.4), (-1.6, 1.4)])
    _plumage(sk, b, np.concatenate([shoulders, [(-1.0, 0.0)]]))
    _head(sk.at(0, -1.4, 1.35), b, 0, 0)
