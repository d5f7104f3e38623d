"""Where names go beside their bubbles, so that none lies on another or on a bar.

Right, left, over or under the bubble, where there is room; else further away, up or
down. Places are in pixels, y downwards. It does not know: what is drawn, or with what.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

_GAP = 6.0  # between a bubble and its name
_STEPS = 20  # how many lines up or down a name may be pushed
_SHIFTS = (0.0, 0.5, 1.0)  # and how many of its widths aside
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

    Where all places are taken, a name lies on as few things as can be.
    """
    taken = [box for bubble in bubbles for box in bubble.parts]
    found: dict[int, Label] = {}
    for number in sorted(
        range(len(bubbles)), key=lambda n: (bubbles[n].y, bubbles[n].x)
    ):
        bubble = bubbles[number]
        best: tuple[int, Label, Box] | None = None
        for x, y, anchor in _places(bubble):
            share = {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor]
            left, half = x - share * bubble.width, bubble.height / 2
            right = left + bubble.width
            box = Box(left - _AIR, y - half, right + _AIR, y + half)
            covers = sum(box.over(other) for other in taken)
            if not box.inside(room) or (best and covers >= best[0]):
                continue
            best = covers, Label(x, y, anchor, _far(bubble, x, y)), box
            if not covers:
                break
        if best is None:  # the room is smaller than the name
            x, y, anchor = next(_places(bubble))
            best = 0, Label(x, y, anchor, far=False), Box(x, y, x, y)
        _, found[number], box = best
        taken.append(box)
    return [found[number] for number in range(len(bubbles))]


def _places(bubble: Bubble) -> Iterator[tuple[float, float, str]]:
    """Where a name may go, the best first: x, middle height, the end that lies at x."""
    gap, half = bubble.radius + _GAP, bubble.height / 2
    over, under = max(gap, bubble.up + 2), max(gap, bubble.down + 2)
    yield bubble.x + gap, bubble.y, "start"
    yield bubble.x - gap, bubble.y, "end"
    yield bubble.x, bubble.y - over - half, "middle"
    yield bubble.x, bubble.y + under + half, "middle"
    for step in range(1, _STEPS):
        for shift in _SHIFTS:
            aside = gap + shift * bubble.width
            for way in (1, -1):  # down, up
                y = bubble.y + way * step * bubble.height
                yield bubble.x + aside, y, "start"
                yield bubble.x - aside, y, "end"


def _far(bubble: Bubble, x: float, y: float) -> bool:
    """Is a name so far from its bubble that a line has to lead to it?"""
    aside = abs(x - bubble.x) > 2 * (bubble.radius + _GAP)
    level = abs(y - bubble.y)
    if x == bubble.x:  # over or under, at the end of the bar
        return level > max(bubble.up, bubble.down, bubble.radius) + bubble.height
    return aside or level > bubble.radius + bubble.height
