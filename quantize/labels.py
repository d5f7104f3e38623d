"""Where names go beside their bubbles, so that none lies on another.

Right, left, over or under the bubble, where there is room; else further down. Places
are in pixels, y downwards. It does not know: what is drawn, or with what.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_GAP = 6.0  # between a bubble and its name
_STEPS = 20  # how many lines down a name may be pushed


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
    """A bubble and the size of the name that belongs to it."""

    x: float
    y: float
    radius: float
    width: float
    height: float


class Label(NamedTuple):
    """Middle height of a name, and the end of it that lies at x; `far`: it needs a
    line to its bubble."""

    x: float
    y: float
    anchor: str  # start, middle or end
    far: bool


def place(bubbles: Sequence[Bubble], room: Box) -> list[Label]:
    """A label for each bubble, in their order; `room` is where names may lie."""
    taken = [
        Box(b.x - b.radius, b.y - b.radius, b.x + b.radius, b.y + b.radius)
        for b in bubbles
    ]
    found: dict[int, Label] = {}
    for number in sorted(
        range(len(bubbles)), key=lambda n: (bubbles[n].y, bubbles[n].x)
    ):
        bubble = bubbles[number]
        gap, half = bubble.radius + _GAP, bubble.height / 2
        places = [
            (bubble.x + gap, bubble.y, "start"),
            (bubble.x - gap, bubble.y, "end"),
            (bubble.x, bubble.y - gap - half, "middle"),
            (bubble.x, bubble.y + gap + half, "middle"),
        ]
        places += [
            (bubble.x + way * gap, bubble.y + n * bubble.height, anchor)
            for n in range(1, _STEPS)
            for way, anchor in ((1, "start"), (-1, "end"))
        ]
        for x, y, anchor in places:
            share = {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor]
            left = x - share * bubble.width
            box = Box(left, y - half, left + bubble.width, y + half)
            if box.inside(room) and not any(box.over(other) for other in taken):
                break
        taken.append(box)
        far = abs(y - bubble.y) > gap + bubble.height
        found[number] = Label(x, y, anchor, far)
    return [found[number] for number in range(len(bubbles))]
