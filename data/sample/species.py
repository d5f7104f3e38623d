"""Every animal that can be drawn: how one is made up, and its poses.

This module does not know where in a picture an animal goes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from data.sample import birds, turtles
from data.sample.animals import POSES, draw_animal
from data.sample.poses import Pose

EARS = 1.15  # head radii that a rabbit's ears reach above a cat's


class Species(NamedTuple):
    """`make(rng)` gives an animal, a frozen dataclass with a field `rng`."""

    make: Callable[[np.random.Generator], Any]
    poses: dict[str, Pose[Any]]


def _taller(names: str) -> dict[str, Pose[Any]]:
    found = {}
    for name in names.split():
        left, right, high = POSES[name].extent
        found[name] = replace(POSES[name], extent=(left, right, high + EARS))
    return found


SPECIES: dict[str, Species] = {
    "cat": Species(partial(draw_animal, "cat"), POSES),
    "dog": Species(partial(draw_animal, "dog"), POSES),
    "rabbit": Species(
        partial(draw_animal, "rabbit"),
        _taller("sit_front sit_side sit_profile lie lie_profile face face_profile"),
    ),
    "bear": Species(partial(draw_animal, "bear"), POSES),
    "bird": Species(
        birds.draw_bird,
        {
            "perch": Pose(birds.perch, (3.0, 2.0, 3.6), 4, plain=True),
            "fly": Pose(birds.fly, (2.5, 2.4, 3.4), 2),
            "front": Pose(birds.front, (1.3, 1.3, 3.5), 3, plain=True),
            "face": Pose(birds.close_up, (1.3, 1.8, 2.6), 2, face=True),
        },
    ),
    "turtle": Species(
        turtles.draw_turtle,
        {
            "walk": Pose(turtles.walk, (2.8, 3.3, 2.5), 4, plain=True),
            "above": Pose(turtles.above, (2.4, 2.5, 3.9), 3),
            "front": Pose(turtles.front, (1.9, 1.9, 2.9), 3, plain=True),
        },
    ),
}
