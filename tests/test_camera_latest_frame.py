"""A live source is read in a thread: the latest frame, and what is lost or stuck."""

from __future__ import annotations

import threading
import time

import pytest

from edge.camera.frames import LatestFrameReader
from edge.camera.sources import SourceError
from edge.errors import EdgegraftError
from tests.camera_room import HANG, LOST, Fake, taken, until


def test_a_slow_reader_gets_the_latest_frame() -> None:
    source = Fake(["red"] * 20 + ["green"] * 20 + ["blue"], pause=0.002)
    reader = LatestFrameReader(lambda: source, print)
    try:
        shots = taken(reader)
        first, _ = next(shots)
        until(lambda: len(source.script) == 1)
        time.sleep(0.05)
        number, frame = next(shots)
        assert first < 20 and number > 40
        assert frame[0, 0].tolist() == [0, 0, 200]
    finally:
        reader.close()
    assert source.closed == 1


def test_a_lost_source_is_taken_up_again_and_again() -> None:
    notes: list[str] = []
    source = Fake(["red"])
    reader = LatestFrameReader(lambda: source, notes.append, retry=(0.01, 0.02))
    try:
        shots = taken(reader)
        for times in range(1, 6):
            next(shots)
            source.present = False
            until(lambda times=times: len(notes) == 2 * times - 1)  # type: ignore[misc]
            reader.next(0.01)
            assert reader.next(0.03) is None
            source.present = True
            next(shots)
        until(lambda: len(notes) == 10)
        assert notes[0] == "fake: lost; waiting for it"
        assert notes[1].startswith("fake: back after ")
        assert source.opened == 6
        assert sum(t.name == "latest frame" for t in threading.enumerate()) == 1
    finally:
        reader.close()


def test_a_source_that_raises_is_lost_not_fatal() -> None:
    source = Fake(["red"])
    grab, broken = source.grab, threading.Event()

    def fails() -> bool:
        if broken.is_set():
            raise RuntimeError("select timeout")
        return grab()

    source.grab = fails  # type: ignore[method-assign]
    notes: list[str] = []
    reader = LatestFrameReader(lambda: source, notes.append, retry=(0.01, 0.02))
    try:
        next(taken(reader))
        broken.set()
        until(lambda: notes)
        broken.clear()
        until(lambda: len(notes) == 2)
        assert "back after" in notes[1]
    finally:
        reader.close()


def test_a_stuck_source_is_opened_anew_then_given_up() -> None:
    made: list[Fake] = []

    def make() -> Fake:
        made.append(Fake(["red", HANG] if len(made) < 1 else ["green", HANG]))
        return made[-1]

    notes: list[str] = []
    reader = LatestFrameReader(make, notes.append, stuck=0.15)
    try:
        shots = taken(reader)
        assert next(shots)[1][0, 0].tolist() == [200, 0, 0]
        assert next(shots)[1][0, 0].tolist() == [0, 200, 0]
        assert "no frame for 0 s, opening it again" in notes[0]
        assert len(made) == 2
        for source in made:
            source.script = [HANG]

        def make_stuck() -> Fake:
            made.append(Fake([HANG]))
            return made[-1]

        reader._make = make_stuck
        with pytest.raises(EdgegraftError, match="stuck 3 times in a row"):
            next(shots)
    finally:
        for source in made:
            source.released.set()
        reader.close()
    until(lambda: all(source.closed for source in made))


def test_a_source_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    source = Fake(["red"])
    source.present = False
    with pytest.raises(SourceError, match="no such camera"):
        LatestFrameReader(lambda: source, print)
    notes: list[str] = []
    reader = LatestFrameReader(
        lambda: source, notes.append, retry=(0.01, 0.02), wait=True
    )
    try:
        assert reader.next(0.05) is None
        source.present = True
        next(taken(reader))
        assert notes[0] == "fake: no such camera; waiting for it"
        assert notes[1].startswith("fake: back after") and len(notes) == 2
    finally:
        reader.close()


def test_a_damaged_frame_does_not_lose_the_source() -> None:
    notes: list[str] = []
    source = Fake(["red", LOST, LOST, "green", LOST, "blue"])
    reader = LatestFrameReader(lambda: source, notes.append, retry=(0.01, 0.02))
    try:
        until(lambda: len(source.script) == 1)
        next(taken(reader))
        assert notes == [] and source.opened == 1
    finally:
        reader.close()


def test_on_demand_converts_only_the_frames_that_are_taken() -> None:
    source = Fake(["red"], pause=0.002)
    reader = LatestFrameReader(lambda: source, print, on_demand=True)
    try:
        shots = taken(reader)
        numbers = []
        for _ in range(3):
            numbers.append(next(shots)[0])
            time.sleep(0.05)
        assert source.retrieved == 3 and numbers[-1] > 10
    finally:
        reader.close()
