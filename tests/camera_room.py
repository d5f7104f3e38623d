"""What the camera's tests share: a source made of arrays, which can be taken away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np

from edge.camera.latest_frame import LatestFrameReader
from edge.camera.sources import Picture, Source, SourceError

COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}
LOST, HANG = "lost", "hang"


def picture(label: str, size: tuple[int, int] = (40, 30)) -> Picture:
    made = np.zeros((size[1], size[0], 3), np.uint8)
    made[:] = COLOURS[label]
    return made


class Fake(Source):
    """A live source that does what a list says: a label, LOST or HANG."""

    live = True
    name = "fake"

    def __init__(self, script: list[str], pause: float = 0.005) -> None:
        self.script, self.pause = list(script), pause
        self.present = True
        self.opened = self.closed = self.retrieved = 0
        self.released = threading.Event()

    def open(self) -> None:
        if not self.present:
            raise SourceError("fake: no such camera")
        self.opened += 1

    def grab(self) -> bool:
        time.sleep(self.pause)
        if not self.present:
            return False
        self.word = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if self.word == HANG:
            self.released.wait(20)
        return self.word not in (HANG, LOST)

    def retrieve(self) -> Picture | None:
        self.retrieved += 1
        return picture(self.word)

    def close(self) -> None:
        self.closed += 1


def until(true: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def taken(reader: LatestFrameReader) -> Iterator[tuple[int, Picture]]:
    while True:
        if (shot := reader.next(0.05)) is not None:
            yield shot
