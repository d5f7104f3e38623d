"""Frames without a camera: a source made of arrays, which can be taken away."""

from __future__ import annotations

import csv
import io
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge import camera, frames, unsure
from edge.classifier import FAMILIARITY, PROBABILITIES, Prediction
from edge.cli import main
from edge.errors import EdgegraftError
from edge.frames import Picture, SourceError
from edge.newest import Newest
from edge.steady import Steady
from tests.edge_models import network, save, with_card

COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}
LOST, HANG = "lost", "hang"


def picture(label: str, size: tuple[int, int] = (40, 30)) -> Picture:
    made = np.zeros((size[1], size[0], 3), np.uint8)
    made[:] = COLOURS[label]
    return made


class Fake:
    """A live source that does what a list says: a label, LOST or HANG."""

    live = True
    name = "fake"

    def __init__(self, script: list[str], pause: float = 0.005) -> None:
        self.script, self.pause = list(script), pause
        self.present = True
        self.opened = self.closed = 0
        self.released = threading.Event()

    def open(self) -> None:
        if not self.present:
            raise SourceError("fake: no such camera")
        self.opened += 1

    def read(self) -> Picture | None:
        time.sleep(self.pause)
        if not self.present:
            return None
        word = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if word == HANG:
            self.released.wait(20)
            return None
        return None if word == LOST else picture(word)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def model(tmp_path: Path) -> str:
    return save(tmp_path / "m.tflite", with_card(network()))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fake]:
    """Make `camera` find a fake source, whatever it is asked for."""

    def give(*script: str, pause: float = 0.005) -> Fake:
        source = Fake(list(script), pause)
        monkeypatch.setattr(camera, "find", lambda word, size, live: source)
        return source

    return give


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def taken(newest: Newest) -> Iterator[tuple[int, Picture]]:
    while True:
        if (shot := newest.next(0.05)) is not None:
            yield shot


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


def test_json_lines_of_a_camera(
    model: str, fake: Callable[..., Fake], capsys: pytest.CaptureFixture[str]
) -> None:
    source = fake("red")
    argv = ["camera", model, "0", "--json", "--max-frames", "4", "--top-k", "2"]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    told = [json.loads(line) for line in out.splitlines()]
    assert [row["label"] for row in told] == ["red"] * 4
    assert [row["changed"] for row in told] == [True, False, False, False]
    assert [len(row["ranking"]) for row in told] == [2] * 4
    assert told[0]["time"].endswith("Z") and told[0]["inference_ms"] > 0
    numbers = [row["frame"] for row in told]
    assert numbers == sorted(set(numbers))
    assert err.startswith("edgegraft: 4 frames in ") and "1 changes" in err
    assert source.closed == 1


def test_events_only_when_the_answer_changes(
    model: str, fake: Callable[..., Fake], capsys: pytest.CaptureFixture[str]
) -> None:
    fake(*["red"] * 4, *["blue"] * 4, "green", pause=0.05)
    argv = ["camera", model, "--csv", "--events", "--smooth", "0", "--seconds", "1.5"]
    assert main(argv) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["label"] for row in rows] == ["red", "blue", "green"]
    assert all(row["changed"] == "true" for row in rows)
    fake("red")
    assert main(["camera", model, "--max-frames", "3"]) == 0
    assert capsys.readouterr().out.count("red") == 1  # no terminal: changes only


def test_a_terminal_sees_one_line(
    model: str, fake: Callable[..., Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    fake("red")
    assert main(["camera", model, "--max-frames", "3"]) == 0
    text = terminal.getvalue()
    assert text.count("\n") == 1 and text.count("\r\033[Kred  ") == 3


def test_frames_come_at_the_asked_pace(
    model: str, fake: Callable[..., Fake], capsys: pytest.CaptureFixture[str]
) -> None:
    fake("red", pause=0.004)
    assert main(["camera", model, "--json", "--fps", "10", "--seconds", "1.05"]) == 0
    count = len(capsys.readouterr().out.splitlines())
    assert 8 <= count <= 11


def test_only_the_region_is_seen(
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = Fake(["red"])
    half = picture("red")
    half[:, 20:] = COLOURS["blue"]  # right, as the camera sees it: nothing mirrored
    monkeypatch.setattr(source, "read", lambda: half)
    monkeypatch.setattr(camera, "find", lambda word, size, live: source)
    for region, label in (
        ("0.5,0,0.5,1", "blue"),
        ("0,0,0.5,1", "red"),
        ("20,5,20,20", "blue"),
        ("0,0,20,30", "red"),
    ):
        argv = ["camera", model, "--json", "--max-frames", "1", "--region", region]
        assert main(argv) == 0
        assert json.loads(capsys.readouterr().out)["label"] == label
    assert main(["camera", model, "--region", "30,0,20,30"]) == 2
    err = capsys.readouterr().err
    assert "expected a part of the frame of 40 x 30 pixels, got 30,0,20,30" in err


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_cleanly(
    name: str,
    model: str,
    fake: Callable[..., Fake],
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = fake("red")
    number = getattr(signal, name)
    before = signal.getsignal(number)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), number))
    timer.start()
    assert main(["camera", model, "--json"]) == 0
    timer.join()
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["label"] == "red"  # whole lines
    assert " frames in 0." in err or " frames in 1." in err
    assert source.closed == 1 and signal.getsignal(number) is before


def test_systemd_is_told(
    model: str,
    fake: Callable[..., Fake],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        fake("red")
        assert main(["camera", model, "--max-frames", "2"]) == 0
        told = [receiver.recv(100).decode() for _ in range(2)]
        assert told == ["READY=1", "WATCHDOG=1"]
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
        assert main(["camera", model, "--max-frames", "2"]) == 0


def answer(chances: Any, familiarity: float | None) -> Prediction:
    label = "ab"[int(np.argmax(chances))]
    known = familiarity is None or familiarity > 0.5
    value = float(np.max(chances))
    shown = label if known else "unknown"
    return Prediction(shown, value, ((label, value),), familiarity, known)


def out_of(a: float, familiarity: float | None = None) -> dict[str, Any]:
    out = {PROBABILITIES: np.array([[a, 1 - a]], np.float32)}
    if familiarity is not None:
        out[FAMILIARITY] = np.array([familiarity], np.float32)
    return out


def test_the_average_follows_time_not_frames() -> None:
    """After one time constant 1 - 1/e of a step is there, at any frame rate."""
    for fps in (5, 50):
        steady = Steady(answer, seconds=1.0)
        steady.update(out_of(1.0), 0.0)
        for frame in range(1, fps + 1):
            told, _, _ = steady.update(out_of(0.0), frame / fps)
        assert told.label == "b"
        assert told.probability == pytest.approx(1 - np.exp(-1), abs=1e-4)


def test_flicker_does_not_change_the_answer() -> None:
    steady = Steady(answer, hold=0.5)
    labels = []
    for step, a in enumerate([1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1]):
        _, label, changed = steady.update(out_of(a), step / 10)
        labels.append(label + "!" * changed)
    assert labels == ["a!", *"aaaaaaaaa", "b!", "b", "b"]


def test_familiarity_is_averaged_too() -> None:
    steady = Steady(answer, seconds=1.0)
    assert steady.update(out_of(1.0, 0.9), 0.0)[1] == "a"
    told, label, _ = steady.update(out_of(1.0, 0.0), 0.2)
    assert told.known and label == "a"
    told, label, changed = steady.update(out_of(1.0, 0.0), 3.0)
    assert not told.known and (label, changed) == ("unknown", True)


def test_unsure_frames_fill_a_bounded_folder(tmp_path: Path) -> None:
    folder = tmp_path / "unsure"
    folder.mkdir()
    (folder / "mine.jpg").write_bytes(b"x" * 50_000)
    (folder / "unsure-notes.txt").write_text("mine")
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    keep = unsure.Unsure(str(folder), 0.6, 30_000, print)
    low = Prediction("cat/dog", 0.4, (("cat/dog", 0.4),), None, True)
    sure = Prediction("cat", 0.9, (("cat", 0.9),), None, True)
    unknown = Prediction("unknown", 0.99, (("cat", 0.99),), 0.1, False)
    keep.offer(noise, sure, 0.0)
    assert keep.saved == 0
    keep.offer(noise, low, 1.0)
    keep.offer(noise, low, 1.5)  # too soon after the other
    keep.offer(noise, unknown, 2.5)
    assert keep.saved == 2
    for second in range(4, 14):
        keep.offer(noise, low, second)
        time.sleep(0.002)
    ours = sorted(folder.glob("unsure-*.jpg"))
    assert keep.saved == 12 and 1 < len(ours) < 12
    assert sum(path.stat().st_size for path in ours) <= 30_000
    assert "-cat_dog-0.40" in ours[-1].name
    assert (folder / "mine.jpg").exists() and (folder / "unsure-notes.txt").exists()
    # the next process counts what is there
    smaller = unsure.Unsure(str(folder), 0.6, 10_000, print)
    left = list(folder.glob("unsure-*.jpg"))
    assert sum(path.stat().st_size for path in left) <= 10_000
    assert smaller.saved == 0


def test_a_full_disk_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    keep = unsure.Unsure(str(tmp_path), 0.6, 10_000, notes.append)
    low = Prediction("cat", 0.4, (("cat", 0.4),), None, True)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(unsure.os, "replace", full)
        keep.offer(picture("red"), low, 0.0)
        keep.offer(picture("red"), low, 5.0)  # not tried again so soon
    assert notes == [f"{tmp_path}: No space left on device; frame not saved"]
    assert list(tmp_path.iterdir()) == []
    keep.offer(picture("red"), low, 100.0)
    assert keep.saved == 1


def test_saving_in_the_command(
    tmp_path: Path,
    model: str,
    fake: Callable[..., Fake],
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake("red")
    folder = tmp_path / "new" / "unsure"
    argv = ["camera", model, "--max-frames", "3", "--save-unsure", str(folder)]
    assert main([*argv, "--unsure-below", "1"]) == 0
    assert len(list(folder.glob("unsure-*-red-*.jpg"))) == 1
    assert "1 saved" in capsys.readouterr().err
    (tmp_path / "file").write_text("x")
    argv[-1] = str(tmp_path / "file")
    assert main(argv) == 2
    assert "File exists" in capsys.readouterr().err


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two webcams, one of them with a metadata node."""
    for node, name, index in (
        ("video0", "HD Webcam C270", "0"),
        ("video1", "HD Webcam C270", "1"),
        ("video10", "USB Microscope", "0"),
    ):
        (tmp_path / "v4l" / node).mkdir(parents=True)
        (tmp_path / "v4l" / node / "name").write_text(name + "\n")
        (tmp_path / "v4l" / node / "index").write_text(index + "\n")
    monkeypatch.setattr(frames, "_DEVICES", str(tmp_path / "v4l"))


def test_cameras_are_listed_and_named(
    nodes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["camera", "--list"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == ["/dev/video0   HD Webcam C270", "/dev/video10  USB Microscope"]
    assert main(["camera", "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[1]["path"] == "/dev/video10"
    assert frames.find("micro", None, False).name == "/dev/video10"
    assert frames.find("3", None, False).name == "/dev/video3"
    assert frames.find(None, None, False).name == "/dev/video0"
    assert frames.find("picamera:1", None, False).name == "picamera:1"
    assert isinstance(frames.find("rtsp://x/y", None, False), frames.Capture)
    assert isinstance(frames.find("a.mp4", None, False), frames.Video)
    with pytest.raises(SourceError, match="'thermal'; there are: /dev/video0"):
        frames.find("thermal", None, False)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["MODEL"], "no camera found: expected a webcam"),
        ([], "expected a MODEL (or --list)"),
        (["none.tflite", "0"], "none.tflite: no such model file"),
        (["MODEL", "picamera:x"], "expected picamera or picamera:NUMBER"),
        (["MODEL", "picamera"], "sudo apt install python3-picamera2"),
        (["MODEL", "0", "--fps", "0"], "expected more than 0, got '0'"),
        (["MODEL", "0", "--region", "1,2,3"], "expected X,Y,WIDTH,HEIGHT"),
        (["MODEL", "0", "--region", "0,0,0,1"], "expected X,Y,WIDTH,HEIGHT"),
        (["MODEL", "0", "--size", "640"], "expected WIDTHxHEIGHT"),
        (["MODEL", "0", "--unsure-below", "2"], "expected from 0 to 1"),
        (["MODEL", "0", "--json", "--csv"], "not allowed with"),
    ],
)
def test_bad_commands_cost_one_line(
    argv: list[str],
    message: str,
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(frames, "_DEVICES", str(tmp_path / "none"))
    monkeypatch.setitem(sys.modules, "picamera2", None)
    argv = [model if word == "MODEL" else word for word in argv]
    monkeypatch.setattr(frames, "_has_picamera", lambda: False)
    assert main(["camera", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err
    assert err.startswith("edgegraft: error: ")


@pytest.mark.parametrize("source", ["0", "rtsp://127.0.0.1:1/x", "x.mp4"])
def test_a_missing_opencv_names_the_extra(
    source: str,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert main(["camera", model, source]) == 2
    err = capsys.readouterr().err
    assert "pip install opencv-python-headless (the extra edgegraft[camera])" in err
    assert err.count("\n") == 1


def test_the_pi_camera_through_picamera2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in with picamera2's calls: no Pi camera was at hand."""
    calls: queue.SimpleQueue[Any] = queue.SimpleQueue()

    class Picamera2:
        def __init__(self, number: int) -> None:
            if number > 0:
                raise IndexError("list index out of range")

        def create_video_configuration(self, main: dict[str, Any]) -> dict[str, Any]:
            return main

        def configure(self, configuration: dict[str, Any]) -> None:
            calls.put(configuration)

        def start(self) -> None:
            calls.put("start")

        def capture_array(self, name: str) -> Picture:
            assert name == "main"
            return picture("blue")

        def close(self) -> None:
            calls.put("close")

    module = types.ModuleType("picamera2")
    module.Picamera2 = Picamera2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    source = frames.find("picamera", (320, 240), False)
    source.open()
    frame = source.read()
    assert frame is not None and frame[0, 0].tolist() == [0, 0, 200]
    source.close()
    source.close()
    assert calls.get() == {"size": (320, 240), "format": "BGR888"}
    assert (calls.get(), calls.get()) == ("start", "close") and calls.empty()
    with pytest.raises(SourceError, match="picamera:1: list index out of range"):
        frames.find("picamera:1", None, False).open()


def test_a_password_is_not_told() -> None:
    told = frames._without_password("rtsp://me:secret@10.0.0.2:554/live")
    assert told == "rtsp://10.0.0.2:554/live"
