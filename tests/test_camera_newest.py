"""A live source is read in a thread: the newest frame, and what is lost or stuck."""

from __future__ import annotations

import threading
import time

import pytest

from edge.camera.latest_frame import Newest
from edge.camera.sources import Picture, SourceError
from edge.errors import EdgegraftError
from tests.camera_room import HANG, Fake, taken, until


def test_a_slow_reader_gets_the_newest_frame() -> None:
    source = Fake(["red"] * 20 + ["green"] * 20 + ["blue"], pause=0.002)
    newest = Newest(lambda: source, print)
    try:
        shots = taken(newest)
        first, _ = next(shots)
        until(lambda: len(source.script) == 1)
        time.sleep(0.05)
        number, frame = next(shots)
        assert first < 20 and number > 40
        assert frame[0, 0].tolist() == [0, 0, 200]
    finally:
        newest.close()
    assert source.closed == 1


def test_a_lost_source_is_taken_up_again_and_again() -> None:
    notes: list[str] = []
    source = Fake(["red"])
    newest = Newest(lambda: source, notes.append, retry=(0.01, 0.02))
    try:
        shots = taken(newest)
        for times in range(1, 6):
            next(shots)
            source.present = False
            until(lambda times=times: len(notes) == 2 * times - 1)  # type: ignore[misc]
            newest.next(0.01)
            assert newest.next(0.03) is None
            source.present = True
            next(shots)
        until(lambda: len(notes) == 10)
        assert notes[0] == "fake: lost; waiting for it"
        assert notes[1].startswith("fake: back after ")
        assert source.opened == 6
        assert sum(t.name == "newest frame" for t in threading.enumerate()) == 1
    finally:
        newest.close()


def test_a_source_that_raises_is_lost_not_fatal() -> None:
    source = Fake(["red"])
    read, broken = source.read, threading.Event()

    def fails() -> Picture | None:
        if broken.is_set():
            raise RuntimeError("select timeout")
        return read()

    source.read = fails  # type: ignore[method-assign]
    notes: list[str] = []
    newest = Newest(lambda: source, notes.append, retry=(0.01, 0.02))
    try:
        next(taken(newest))
        broken.set()
        until(lambda: notes)
        broken.clear()
        until(lambda: len(notes) == 2)
        assert "back after" in notes[1]
    finally:
        newest.close()


def test_a_stuck_source_is_opened_anew_then_given_up() -> None:
    made: list[Fake] = []

    def make() -> Fake:
        made.append(Fake(["red", HANG] if len(made) < 1 else ["green", HANG]))
        return made[-1]

    notes: list[str] = []
    newest = Newest(make, notes.append, stuck=0.15)
    try:
        shots = taken(newest)
        assert next(shots)[1][0, 0].tolist() == [200, 0, 0]
        assert next(shots)[1][0, 0].tolist() == [0, 200, 0]
        assert "no frame for 0 s, opening it again" in notes[0]
        assert len(made) == 2
        for source in made:
            source.script = [HANG]

        def make_stuck() -> Fake:
            made.append(Fake([HANG]))
            return made[-1]

        newest._make = make_stuck
        with pytest.raises(EdgegraftError, match="stuck 3 times in a row"):
            next(shots)
    finally:
        for source in made:
            source.released.set()
        newest.close()
    until(lambda: all(source.closed for source in made))


def test_a_source_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    source = Fake(["red"])
    source.present = False
    with pytest.raises(SourceError, match="no such camera"):
        Newest(lambda: source, print)
    notes: list[str] = []
    newest = Newest(lambda: source, notes.append, retry=(0.01, 0.02), wait=True)
    try:
        assert newest.next(0.05) is None
        source.present = True
        next(taken(newest))
        assert notes[0] == "fake: no such camera; waiting for it"
        assert notes[1].startswith("fake: back after") and len(notes) == 2
    finally:
        newest.close()
