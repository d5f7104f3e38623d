"""Names beside bubbles: none on another, wherever the bubbles lie."""

from __future__ import annotations

import numpy as np
import pytest

from quantize.reporting.plot_labels import Box, Bubble, place

ROOM = Box(0, 0, 1000, 440)


def box_of(bubble, label):
    left = label.x - bubble.width * {"start": 0, "middle": 0.5, "end": 1}[label.anchor]
    half = bubble.height / 2
    return Box(left, label.y - half, left + bubble.width, label.y + half)


@pytest.mark.parametrize("seed", range(20))
def test_no_name_lies_on_another_or_on_a_bubble(seed):
    random = np.random.default_rng(seed)
    bubbles = [
        Bubble(
            *random.uniform((60, 40), (800, 200)),
            *(5 + 20 * random.random(), 70, 17),
            *random.uniform(20, 90, 2),
        )
        for _ in range(8)
    ]
    boxes = [box_of(*pair) for pair in zip(bubbles, place(bubbles, ROOM), strict=True)]
    for number, box in enumerate(boxes):
        assert box.inside(ROOM)
        assert not any(box.over(other) for other in boxes[:number])
        for bubble in bubbles:
            x, y, r = bubble[:3]
            assert not box.over(Box(x - r, y - r, x + r, y + r))
            # nor on the bar of any
            assert not box.over(Box(x, y - bubble.up, x, y + bubble.down))


def test_a_bubble_alone_has_its_name_on_the_right_and_at_the_edge_on_the_left():
    (label,) = place([Bubble(100, 100, 20, 60, 17)], ROOM)
    assert (label.anchor, label.y, label.far) == ("start", 100, False)
    (label,) = place([Bubble(970, 100, 20, 60, 17)], ROOM)
    assert label.anchor == "end"


def test_names_of_bubbles_on_each_other_are_led_back_to_them():
    labels = place([Bubble(500, 100, 20, 60, 17)] * 30, ROOM)
    assert len({(label.x, label.y) for label in labels}) == 30
    assert any(label.far for label in labels)
