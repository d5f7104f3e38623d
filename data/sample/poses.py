"""A pose: how to draw an animal in it, and how much room that takes.

This module does not know any animal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from data.sample.sketch import Sketch

Drawn = TypeVar("Drawn")


@dataclass(frozen=True)
class Pose(Generic[Drawn]):
    """How to draw it; (left, right, height) in head radii; how often it is taken.

    plain: shows the whole animal clearly, for easy pictures. face: the lower end goes
    on below the picture.
    """

    draw: Callable[[Sketch, Drawn], None]
    extent: tuple[float, float, float]
    weight: float
    plain: bool = False
    face: bool = False
