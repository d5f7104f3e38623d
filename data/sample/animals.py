"""Cats and dogs in their poses: a head on a body.

Units: one head radius; x right, y down. A pose stands on the ground at (0, 0) and
reaches up, so that every pose can be put on a floor by its feet. All poses look towards
+x; the picture mirrors them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from data.sample.heads import (
    Coat,
    Look,
    cat_face,
    cat_look,
    cat_profile,
    dog_face,
    dog_look,
    dog_profile,
    draw_coat,
)
from data.sample.sketch import (
    Colour,
    Outline,
    Points,
    Sketch,
    blob,
    furry,
    limb,
    oval,
)

COLLARS: tuple[Colour, ...] = (
    (196, 44, 52),
    (38, 96, 176),
    (46, 140, 82),
    (230, 176, 42),
    (132, 66, 160),
)


@dataclass(frozen=True)
class Species:
    """Its head, from the front and from the side, and its legs relative to a cat's."""

    look: Callable[[np.random.Generator, Coat], Look]
    face: Callable[[Sketch, Look, np.random.Generator, float], None]
    profile: Callable[[Sketch, Look, np.random.Generator], None]
    leg: float


SPECIES = {
    "cat": Species(cat_look, cat_face, cat_profile, 1.0),
    "dog": Species(dog_look, dog_face, dog_profile, 1.12),
}


@dataclass(frozen=True)
class Pose:
    """How to draw it; (left, right, height) in head radii; its relative frequency.

    plain: shows the whole animal clearly, for easy pictures. face: the body continues
    below the picture.
    """

    draw: Callable[[Sketch, Animal], None]
    extent: tuple[float, float, float]
    weight: float
    plain: bool = False
    face: bool = False


@dataclass(frozen=True)
class Animal:
    """One cat or dog: its look, and the generator that draws it."""

    species: str
    look: Look
    rng: np.random.Generator
    collar: Colour | None
    leg: float  # half width of a leg
    trunk: float  # how deep the trunk is

    @property
    def coat(self) -> Coat:
        return self.look.coat

    @property
    def is_dog(self) -> bool:
        return self.species == "dog"

    def head(self, sk: Sketch, x: float, y: float, *, side: bool = False) -> None:
        turn = float(self.rng.normal(0, 7))
        head = sk.at(x, y, 1.0, turn)
        species = SPECIES[self.species]
        if side:
            species.profile(head, self.look, self.rng)
            return
        yaw = float(np.clip(self.rng.normal(0.25, 0.45), -1, 1))
        species.face(head, self.look, self.rng, yaw)

    def body(self, sk: Sketch, outline: Outline) -> None:
        marks = self.coat.body_marks(outline, self.rng)
        shape = furry(outline, self.rng, self.coat.fluff)
        sk.part(shape, self.coat.ground, marks, hair=self.coat.hair)

    def leg_part(self, sk: Sketch, spine: list[tuple[float, float]]) -> None:
        w = self.leg
        marks = self.coat.limb_marks(spine, w)
        shape = limb(spine, [w * 1.25] + [w] * (len(spine) - 1))
        sk.part(shape, self.coat.ground, marks, hair=self.coat.hair, shadow=0.25)
        x, y = spine[-1]
        pale = self.coat.pattern in ("bicolour", "saddle")
        dark = self.coat.pattern == "points"
        paw = self.coat.pale if pale else self.coat.mark if dark else self.coat.ground
        shape = oval(x + w * 0.35, y - w * 0.1, w * 1.35, w * 0.85)
        sk.part(shape, paw, hair=0.3, shadow=0.2)
        for toe in (0.1, 0.75):
            line = [(x + w * toe, y - w * 0.1), (x + w * (toe + 0.1), y + w * 0.5)]
            sk.line(line, (64, 50, 48), 0.03)

    def tail(self, sk: Sketch, spine: list[tuple[float, float]]) -> None:
        """A cat's tail keeps its width and ends round; a dog's is a bushy sabre."""
        if self.is_dog:
            widths = [0.16, 0.26, 0.24, 0.07]
        else:
            widths = [0.17, 0.16, 0.15, 0.13]
        marks = self.coat.limb_marks(spine, 0.18)
        rough = self.coat.fluff * (1.5 if self.is_dog else 0.6)
        shape = furry(limb(spine, widths), self.rng, rough)
        sk.part(shape, self.coat.ground, marks, hair=self.coat.hair, shadow=0.2)

    def chest(self, sk: Sketch, outline: Outline) -> None:
        if self.coat.pattern in ("bicolour", "patches", "saddle"):
            shape = furry(outline, self.rng, self.coat.fluff)
            sk.part(shape, self.coat.pale, hair=self.coat.hair, shadow=0, depth=0.5)

    def neckband(self, sk: Sketch, points: Points) -> None:
        if self.collar is not None:
            sk.part(limb(points, [0.1, 0.1, 0.1]), self.collar, hair=0, shadow=0.2)
            x, y = np.asarray(points, float)[1]
            sk.part(oval(x, y + 0.2, 0.12, 0.12), (226, 190, 70), hair=0, shadow=0.2)


def draw_animal(species: str, rng: np.random.Generator) -> Animal:
    """A cat or a dog, with a coat out of the palette that both share."""
    coat = draw_coat(rng)
    look = SPECIES[species].look(rng, coat)
    collar = COLLARS[rng.integers(len(COLLARS))] if rng.random() < 0.3 else None
    leg = float(rng.uniform(0.2, 0.27)) * SPECIES[species].leg
    trunk = float(rng.uniform(0.9, 1.12))
    return Animal(species, look, rng, collar, leg, trunk)


def sit_front(sk: Sketch, a: Animal) -> None:
    t = a.trunk
    if a.is_dog:
        a.tail(sk, [(0.8, -0.35), (1.5, -0.5), (1.9, -1.0), (2.0, -1.5)])
    else:
        a.tail(sk, [(0.7, -0.2), (1.6, -0.2), (1.95, -0.8), (1.6, -1.35)])
    trunk = blob([
        (-0.55 * t, -2.55), (0.55 * t, -2.55), (0.82 * t, -1.6), (1.08 * t, -0.5),
        (0.8, -0.02), (-0.8, -0.02), (-1.08 * t, -0.5), (-0.82 * t, -1.6),
    ])  # fmt: skip
    a.body(sk, trunk)
    for side in (-1, 1):
        a.body(sk, oval(side * 0.82 * t, -0.48, 0.42, 0.52, side * -12))
    for side in (-1, 1):
        foot = oval(side * 0.86 * t + 0.05, -0.1, 0.36, 0.17)
        sk.part(foot, a.coat.ground, hair=0.3, shadow=0.2)
    a.chest(
        sk, blob([(-0.4, -2.2), (0.4, -2.2), (0.34, -1.3), (0, -0.9), (-0.34, -1.3)])
    )
    for side in (-1, 1):
        a.leg_part(sk, [(side * 0.36, -1.7), (side * 0.34, -0.9), (side * 0.33, -0.1)])
    a.neckband(sk, [(-0.6, -2.35), (0, -2.12), (0.6, -2.35)])
    a.head(sk, 0, -3.05)


def sit_side(sk: Sketch, a: Animal, side: bool = False) -> None:
    t = a.trunk
    if a.is_dog:
        a.tail(sk, [(-1.5, -0.3), (-2.1, -0.4), (-2.5, -0.8), (-2.6, -1.3)])
    else:
        a.tail(sk, [(-1.4, -0.2), (-2.3, -0.15), (-2.8, -0.6), (-2.5, -1.3)])
    a.leg_part(sk, [(0.5, -1.6), (0.56, -0.8), (0.56, -0.1)])
    trunk = blob([
        (0.2, -2.75), (0.62, -2.2), (0.72, -1.3), (0.3, -0.5), (-0.6, -0.02),
        (-1.45, -0.05), (-1.72 * t, -0.6), (-1.3 * t, -1.5), (-0.5, -2.5),
    ])  # fmt: skip
    a.body(sk, trunk)
    a.chest(sk, blob([(0.2, -2.3), (0.6, -2.1), (0.66, -1.4), (0.3, -1.2)]))
    a.body(sk, oval(-0.92, -0.62, 0.7, 0.6, -20))
    foot = limb([(-0.95, -0.16), (-0.3, -0.16)], [0.17, 0.17])
    sk.part(foot, a.coat.ground, hair=0.3, shadow=0.2)
    a.leg_part(sk, [(0.22, -1.7), (0.24, -0.85), (0.24, -0.06)])
    a.neckband(sk, [(-0.5, -2.45), (0.15, -2.2), (0.66, -2.4)])
    a.head(sk, 0.25, -3.05, side=side)


def stand(sk: Sketch, a: Animal, side: bool = False) -> None:
    long, t = 2.9, 0.62 * a.trunk
    top = -1.75 if a.is_dog else -1.5
    if a.is_dog:
        a.tail(sk, [
            (-long, top - 0.2), (-long - 0.6, top - 0.5), (-long - 0.8, top - 1.1),
            (-long - 0.6, top - 1.6),
        ])  # fmt: skip
    else:
        a.tail(sk, [
            (-long, top - 0.2), (-long - 0.7, top - 0.3), (-long - 0.8, top - 1.2),
            (-long - 0.45, top - 1.9),
        ])  # fmt: skip
    step = float(a.rng.uniform(-0.3, 0.3))
    for x, sway in ((-0.15, -step), (-2.55, step)):
        a.leg_part(sk, [(x, top + 0.2), (x + sway * 0.4, top / 2), (x + sway, -0.2)])
    tuck = 0.22 if a.is_dog else 0.08
    trunk = blob([
        (0.35, top - t * 1.15), (0.6, top), (0.3, top + t), (-1.4, top + t - tuck),
        (-2.6, top + t - 0.1), (-3.1, top + 0.05), (-2.9, top - t * 0.9),
        (-1.4, top - t * 0.86),
    ])  # fmt: skip
    a.body(sk, trunk)
    a.chest(
        sk, blob([(0.2, top - 0.4), (0.56, top), (0.2, top + t * 0.8), (-0.2, top)])
    )
    for x, sway in ((0.15, step), (-2.75, -step)):
        a.leg_part(sk, [(x, top + 0.1), (x + sway * 0.4, top / 2), (x + sway, -0.06)])
    neck = limb([(-0.2, top - 0.1), (0.5, top - 0.9)], [0.62, 0.52])
    a.body(sk, neck)
    a.neckband(sk, [(0.0, top - 0.75), (0.4, top - 0.5), (0.85, top - 0.55)])
    a.head(sk, 0.75, top - 1.25, side=side)


def lie(sk: Sketch, a: Animal, side: bool = False) -> None:
    t = a.trunk
    if a.is_dog:
        a.tail(sk, [(-2.5, -0.35), (-3.1, -0.25), (-3.6, -0.3), (-4.0, -0.6)])
    else:
        a.tail(sk, [(-2.5, -0.3), (-3.3, -0.15), (-3.5, -0.6), (-3.0, -0.75)])
    trunk = blob([
        (0.4, -1.3), (0.7, -0.7), (0.5, -0.05), (-1.2, -0.02), (-2.6, -0.02),
        (-3.0, -0.55), (-2.5, -1.15 * t), (-1.2, -1.22 * t),
    ])  # fmt: skip
    a.body(sk, trunk)
    a.body(sk, oval(-2.2, -0.55, 0.72, 0.55, -10))
    foot = limb([(-2.1, -0.15), (-1.3, -0.14)], [0.17, 0.17])
    sk.part(foot, a.coat.ground, hair=0.3, shadow=0.2)
    a.chest(sk, blob([(0.1, -1.1), (0.6, -0.8), (0.5, -0.2), (0.1, -0.3)]))
    for x, y in ((1.35, -0.3), (1.1, -0.12)):
        a.leg_part(sk, [(-0.1, y - 0.1), (0.6, y), (x, y)])
    a.neckband(sk, [(-0.2, -1.1), (0.35, -0.85), (0.85, -1.1)])
    a.head(sk, 0.45, -1.62, side=side)


def close_up(sk: Sketch, a: Animal, side: bool = False) -> None:
    """The head over its shoulders, which go on below the ground line."""
    shoulders = blob(
        [(-0.6, -0.9), (0.6, -0.9), (1.25, 0.0), (1.5, 1.6), (-1.5, 1.6), (-1.25, 0.0)]
    )
    a.body(sk, shoulders)
    a.chest(sk, blob([(-0.45, -0.5), (0.45, -0.5), (0.5, 0.8), (-0.5, 0.8)]))
    a.neckband(sk, [(-0.75, -0.5), (0, -0.2), (0.75, -0.5)])
    a.head(sk, 0, -1.15, side=side)


POSES = {
    "sit_front": Pose(sit_front, (1.3, 1.9, 4.3), 3, plain=True),
    "sit_side": Pose(sit_side, (2.6, 1.4, 4.3), 2),
    "sit_profile": Pose(partial(sit_side, side=True), (2.6, 1.8, 4.3), 1),
    "stand": Pose(stand, (3.8, 1.9, 4.4), 2),
    "stand_profile": Pose(partial(stand, side=True), (3.8, 2.3, 4.4), 2),
    "lie": Pose(lie, (3.6, 1.7, 3.0), 2),
    "lie_profile": Pose(partial(lie, side=True), (3.6, 2.0, 3.0), 1),
    "face": Pose(close_up, (1.3, 1.3, 2.7), 4, plain=True, face=True),
    "face_profile": Pose(partial(close_up, side=True), (1.2, 1.7, 2.6), 1, face=True),
}
