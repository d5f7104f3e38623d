"""Where names go beside their bubbles, so that none lies on another or on a bar.

Right, left, over or under the bubble, where there is room; else further away, up or
down. Places are in pixels, y downwards. It does not know: what is drawn, or with what.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

_Place = tuple[float, float, str]  # x, middle height, the end of the name at x
_GAP = 6.0  # between a bubble and its name
_STEPS = 20  # how many lines up or down a name may be pushed
_SHIFTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5)
_AIR = 3.0  # before and after a name
_BAR = 2.0  # half the room of the bar through a bubble


class Box(NamedTuple):
    """A rectangle."""

    left: float
    top: float
    right: float
    bottom: float

    def over(self, other: Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    def inside(self, other: Box) -> bool:
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


class Bubble(NamedTuple):
    """A bubble, the size of the name that belongs to it, and how far the bar through
    the bubble reaches up and down."""

    x: float
    y: float
    radius: float
    width: float
    height: float
    up: float = 0.0
    down: float = 0.0

    @property
    def parts(self) -> tuple[Box, Box]:
        """What no name may lie on: the bubble and its bar."""
        x, y, r = self.x, self.y, self.radius
        bar = Box(x - _BAR, y - self.up, x + _BAR, y + self.down)
        return Box(x - r, y - r, x + r, y + r), bar


class Label(NamedTuple):
    """Middle height of a name, and the end of it that lies at x; `far`: it needs a
    line to its bubble."""

    x: float
    y: float
    anchor: str  # start, middle or end
    far: bool


def place(bubbles: Sequence[Bubble], room: Box) -> list[Label]:
    """A label for each bubble, in their order; `room` is where names may lie.

    Names that have room beside their bubble go there; then each of the others to the
    nearest place that is left, or where it lies on as few things as can be.
    """
    taken = [box for bubble in bubbles for box in bubble.parts]
    found: dict[int, Label] = {}
    order = sorted(range(len(bubbles)), key=lambda n: (bubbles[n].y, bubbles[n].x))
    for places, whatever in ((_beside, False), (_around, True)):
        for number in order:
            if number in found:
                continue
            bubble = bubbles[number]
            best = _best(bubble, places(bubble), room, taken)
            if best is None and whatever:  # the room is smaller than the name
                best = 0, *_at(bubble, *_beside(bubble)[0])
            if best is None or (best[0] and not whatever):
                continue
            _, found[number], box = best
            taken.append(box)
    return [found[number] for number in range(len(bubbles))]


def _best(
    bubble: Bubble, places: Sequence[_Place], room: Box, taken: Sequence[Box]
) -> tuple[int, Label, Box] | None:
    """Of the places inside the room the first that covers the fewest boxes: how many,
    the label there and its own box."""
    best: tuple[int, Label, Box] | None = None
    for one in places:
        label, box = _at(bubble, *one)
        covers = sum(box.over(other) for other in taken)
        if box.inside(room) and (best is None or covers < best[0]):
            best = covers, label, box
            if not covers:
                break
    return best


def _at(bubble: Bubble, x: float, y: float, anchor: str) -> tuple[Label, Box]:
    share = {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor]
    left, half = x - share * bubble.width, bubble.height / 2
    right = left + bubble.width
    box = Box(left - _AIR, y - half, right + _AIR, y + half)
    return Label(x, y, anchor, _far(bubble, x, y)), box


def _beside(bubble: Bubble) -> list[_Place]:
    """Right, left, over and under: over and under the bar, that is."""
    gap, half = bubble.radius + _GAP, bubble.height / 2
    over, under = max(gap, bubble.up + 2), max(gap, bubble.down + 2)
    return [
        (bubble.x + gap, bubble.y, "start"),
        (bubble.x - gap, bubble.y, "end"),
        (bubble.x, bubble.y - over - half, "middle"),
        (bubble.x, bubble.y + under + half, "middle"),
    ]


def _around(bubble: Bubble) -> list[_Place]:
    """Further away, the nearest first."""
    gap = bubble.radius + _GAP
    found = [
        (bubble.x + side * (gap + shift * bubble.width), bubble.y + step, anchor)
        for shift in _SHIFTS
        for number in range(1, _STEPS)
        for step in (number * bubble.height, -number * bubble.height)
        for side, anchor in ((1, "start"), (-1, "end"))
    ]

    def distance(place: _Place) -> float:
        return math.hypot(place[0] - bubble.x, place[1] - bubble.y)

    return [*_beside(bubble), *sorted(found, key=distance)]


def _far(bubble: Bubble, x: float, y: float) -> bool:
    """Is a name so far from its bubble that a line has to lead to it?"""
    aside = abs(x - bubble.x) > 2 * (bubble.radius + _GAP)
    level = abs(y - bubble.y)
    if x == bubble.x:  # over or under, at the end of the bar
        return level > max(bubble.up, bubble.down, bubble.radius) + bubble.height
    return aside or level > bubble.radius + bubble.height
