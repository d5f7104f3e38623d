"""Which source a word names: webcams, the Pi camera, streams, files."""

from __future__ import annotations

import json
import queue
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from edge.camera import sources
from edge.camera.sources import Picture, SourceError
from edge.cli import main
from tests.camera_room import picture


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
    monkeypatch.setattr(sources, "_DEVICES", str(tmp_path / "v4l"))


def test_cameras_are_listed_and_named(
    nodes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["camera", "--list"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == ["/dev/video0   HD Webcam C270", "/dev/video10  USB Microscope"]
    assert main(["camera", "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[1]["path"] == "/dev/video10"
    assert sources.find("micro", None, False).name == "/dev/video10"
    assert sources.find("3", None, False).name == "/dev/video3"
    assert sources.find(None, None, False).name == "/dev/video0"
    assert sources.find("picamera:1", None, False).name == "picamera:1"
    assert isinstance(sources.find("rtsp://x/y", None, False), sources.Capture)
    assert isinstance(sources.find("a.mp4", None, False), sources.Video)
    with pytest.raises(SourceError, match="'thermal'; there are /dev/video0"):
        sources.find("thermal", None, False)


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
    source = sources.find("picamera", (320, 240), False)
    source.open()
    frame = source.read()
    assert frame is not None and frame[0, 0].tolist() == [0, 0, 200]
    source.close()
    source.close()
    assert calls.get() == {"size": (320, 240), "format": "BGR888"}
    assert (calls.get(), calls.get()) == ("start", "close") and calls.empty()
    with pytest.raises(SourceError, match="picamera:1: list index out of range"):
        sources.find("picamera:1", None, False).open()


def test_a_password_is_not_shown() -> None:
    shown = sources._without_password("rtsp://me:secret@10.0.0.2:554/live")
    assert shown == "rtsp://10.0.0.2:554/live"
