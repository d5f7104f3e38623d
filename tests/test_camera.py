"""`edge camera` as a person and as a program use it, on frames without a camera."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.camera import frames, mqtt, sources
from edge.camera.output import CsvWriter, FrameResult, JsonLinesWriter
from edge.classifier import Prediction
from edge.cli import main
from tests.camera_room import COLOURS, Fake, picture, until
from tests.edge_models import network, save, with_card


@pytest.fixture
def model(tmp_path: Path) -> str:
    return save(tmp_path / "m.tflite", with_card(network()))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fake]:
    """Make `camera` find a fake source, whatever it is asked for."""

    def give(*script: str, pause: float = 0.005) -> Fake:
        source = Fake(list(script), pause)
        monkeypatch.setattr(frames, "find", lambda word, size, live: source)
        return source

    return give


def test_json_lines_of_a_camera(
    model: str, fake: Callable[..., Fake], capsys: pytest.CaptureFixture[str]
) -> None:
    source = fake("red")
    argv = ["camera", model, "0", "--json", "--max-frames", "4", "--top-k", "2"]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["label"] for row in rows] == ["red"] * 4
    assert [row["changed"] for row in rows] == [True, False, False, False]
    assert [len(row["ranking"]) for row in rows] == [2] * 4
    assert rows[0]["time"].endswith("Z") and rows[0]["inference_ms"] > 0
    numbers = [row["frame"] for row in rows]
    assert numbers == sorted(set(numbers))
    assert err.startswith("edgegraft: 4 frames in ") and "1 change" in err
    assert source.closed == 1


def test_events_only_when_the_label_changes(
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


def test_all_reports_of_a_change_agree() -> None:
    """The average has only just turned: what a subscriber keeps is the frame's own."""
    averaged = Prediction("blue", 0.4, (("blue", 0.4), ("red", 0.3)), 0.6, True)
    own = Prediction("blue", 0.9, (("blue", 0.9), ("red", 0.1)), 0.8, True)
    other = Prediction("red", 0.9, (("red", 0.9), ("blue", 0.1)), 0.8, True)

    def reports(changed: bool, own: Prediction, events: bool = True) -> list[float]:
        result = FrameResult(1, 0.0, "blue", changed, averaged, own, 1.0, 1.0)
        probabilities = [json.loads(mqtt.state(result))["probability"]]
        for kind in (JsonLinesWriter, CsvWriter):
            out = io.StringIO()
            kind(out, events).write(result)
            text = out.getvalue()
            found = next(csv.DictReader(io.StringIO(text)), None)
            found = json.loads(text) if kind is JsonLinesWriter else found
            probabilities.append(float(found["probability"]))
        return probabilities

    assert reports(True, own) == [0.9, 0.9, 0.9]
    assert reports(True, other) == [0.4, 0.4, 0.4]
    assert reports(False, own, events=False) == [0.4, 0.4, 0.4]
    assert reports(True, own, events=False) == [0.9, 0.4, 0.4]


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
    source = fake("red", pause=0.004)
    assert main(["camera", model, "--json", "--fps", "10", "--max-frames", "6"]) == 0
    times = [
        json.loads(line)["seconds"] for line in capsys.readouterr().out.splitlines()
    ]
    assert len(times) == 6
    # the sixth after half a second, or later where the machine is busy; the frames
    # between are not decoded
    assert times[-1] >= 0.49
    assert source.retrieved < 12


def test_only_the_region_is_seen(
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = Fake(["red"])
    half = picture("red")
    half[:, 20:] = COLOURS["blue"]  # right, as the camera sees it: nothing mirrored
    monkeypatch.setattr(source, "retrieve", lambda: half)
    monkeypatch.setattr(frames, "find", lambda word, size, live: source)
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
    assert "region 30,0,20,30: expected a part of the photo of 40 x 30 pixels" in err
    assert "the model was trained on whole photos" in err


def test_frames_that_become_too_small_for_the_region_are_waited_out(
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A camera that falls back to another mode: a line each time, and it goes on."""
    large, small = (40, 30), (20, 15)
    twice = [large, small, small, large, small]
    sizes = itertools.chain(twice, itertools.repeat(large))
    source = Fake(["red"])
    monkeypatch.setattr(source, "retrieve", lambda: picture("red", next(sizes)))
    monkeypatch.setattr(frames, "find", lambda word, size, live: source)
    region = ["--region", "10,10,30,20", "--fps", "100"]  # each look takes a frame
    assert main(["camera", model, "--json", "--max-frames", "3", *region]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["label"] for line in out.splitlines()] == ["red"] * 3
    assert [line for line in err.splitlines() if "waiting" in line] == [
        "edgegraft: region 10,10,30,20: expected a part of the photo of 20 x 15 "
        "pixels; give another --region; waiting for larger frames"
    ] * 2


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

    def send() -> None:
        until(lambda: source.opened and signal.getsignal(number) is not before)
        time.sleep(0.3)  # some frames
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    assert main(["camera", model, "--json"]) == 0
    sender.join()
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["label"] == "red"  # whole lines
    assert " frames in " in err
    assert source.closed == 1 and signal.getsignal(number) is before


def test_systemd_is_notified(
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
        rows = [receiver.recv(100).decode() for _ in range(2)]
        assert rows == ["READY=1", "WATCHDOG=1"]
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
        assert main(["camera", model, "--max-frames", "2"]) == 0


def test_saving_in_the_command(
    tmp_path: Path,
    model: str,
    fake: Callable[..., Fake],
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake("red")
    folder = tmp_path / "new" / "uncertain"
    argv = ["camera", model, "--max-frames", "3", "--save-uncertain", str(folder)]
    assert main([*argv, "--uncertain-below", "1"]) == 0
    assert len(list(folder.glob("uncertain-*-red-*.jpg"))) == 1
    assert "1 saved" in capsys.readouterr().err
    (tmp_path / "file").write_text("x")
    argv[-1] = str(tmp_path / "file")
    assert main(argv) == 2
    assert "expected a folder, got a file" in capsys.readouterr().err


@pytest.mark.slow
def test_a_change_of_the_picture_is_no_uncertain_frame(
    tmp_path: Path,
    model: str,
    fake: Callable[..., Fake],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """While the average turns from one label to the next, each frame is certain: none
    is kept, and what is printed at the change is the frame's own probability."""
    script = ["red"] * 3 + ["blue"]
    argv = ["camera", model, "--fps", "50", "--seconds", "2", "--smooth", "0.3"]
    argv += ["--save-uncertain", str(tmp_path / "kept"), "--uncertain-below", "0.9"]
    fake(*script, pause=0.02)
    assert main([*argv, "--json"]) == 0
    out, err = capsys.readouterr()
    averaged = [json.loads(line)["probability"] for line in out.splitlines()]
    assert min(averaged) < 0.9 < max(averaged)
    assert "0 saved" in err and not list((tmp_path / "kept").iterdir())
    fake(*script, pause=0.02)
    assert main(argv) == 0
    lines = capsys.readouterr().out.split("\n")
    assert [line.split()[1] for line in lines if line] == ["red", "blue"]
    assert all(float(line.split()[2].rstrip("%")) > 90 for line in lines if line)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["MODEL"], "no camera found: expected a webcam"),
        ([], "expected a MODEL (or --list)"),
        (["none.tflite", "0"], "none.tflite: no such model file"),
        (["MODEL", "picamera:x"], "expected picamera or picamera:NUMBER"),
        (["MODEL", "picamera"], "sudo apt install python3-picamera2"),
        (["MODEL", "0", "--fps", "0"], "expected more than 0, got '0'"),
        (["MODEL", "0", "--max-frames", "0"], "expected 1 or more, got '0'"),
        (["MODEL", "0", "--top-k", "x"], "expected 1 or more, got 'x'"),
        (["MODEL", "0", "--region", "1,2,3"], "expected X,Y,WIDTH,HEIGHT"),
        (["MODEL", "0", "--region", "0,0,0,1"], "expected X,Y,WIDTH,HEIGHT"),
        (["MODEL", "0", "--size", "640"], "expected WIDTHxHEIGHT"),
        (["MODEL", "0", "--uncertain-below", "2"], "expected from 0 to 1"),
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
    monkeypatch.setattr(sources, "_DEVICES", str(tmp_path / "none"))
    monkeypatch.setitem(sys.modules, "picamera2", None)
    argv = [model if word == "MODEL" else word for word in argv]
    monkeypatch.setattr(sources, "_has_picamera", lambda: False)
    assert main(["camera", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err
    assert err.startswith("edgegraft: error: ")


@pytest.mark.parametrize("source", ["0", "rtsp://127.0.0.1:1/x", "x.mp4"])
def test_a_missing_opencv_names_the_package(
    source: str,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert main(["camera", model, source]) == 2
    err = capsys.readouterr().err
    assert "pip install opencv-python-headless (a packed" in err
    assert err.count("\n") == 1
