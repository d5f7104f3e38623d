"""Cameras behind an address: pictures, passwords, a codec that is missing."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from edge.camera import sources
from edge.camera.frames import Frames
from edge.camera.sources import WebCamera
from edge.cli import main
from tests.edge_models import network, save, with_card

cv2 = pytest.importorskip("cv2", reason="needs opencv-python-headless (camera extra)")
RIGHT = "Basic " + base64.b64encode(b"me:p4ss").decode()


class Camera(BaseHTTPRequestHandler):
    """A picture in changing colours; /secret.jpg wants me:p4ss, /plain does not say
    what it is."""

    asked: list[float] = []  # noqa: RUF012  # of all connections

    def do_GET(self) -> None:
        if "secret" in self.path and self.headers.get("Authorization") != RIGHT:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.asked.append(time.monotonic())
        colour = [(200, 0, 0), (0, 0, 200)][len(self.asked) // 4 % 2]
        out = io.BytesIO()
        Image.new("RGB", (64, 48), colour).save(out, "JPEG")
        self.send_response(200)
        if "plain" not in self.path:
            self.send_header("Content-Type", "image/jpeg")
        self.send_header("Content-Length", str(len(out.getvalue())))
        self.end_headers()
        self.wfile.write(out.getvalue())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    return save(folder / "m.tflite", with_card(network()))


@pytest.mark.parametrize(
    "where", ["{}/snapshot.jpg", "{}/plain", "me:p4ss@{}/secret.jpg"]
)
def test_a_snapshot_is_polled_without_being_lost(
    where: str, address: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "http://" + where.format(address)
    argv = ["camera", model, url, "--json", "--smooth", "0", "--fps", "20"]
    assert main([*argv, "--max-frames", "12"]) == 0
    out, err = capsys.readouterr()
    labels = [json.loads(line)["label"] for line in out.splitlines()]
    assert len(labels) == 12 and set(labels) == {"red", "blue"}
    assert "lost" not in err and "back" not in err and "p4ss" not in err
    assert err.count("\n") == 1


def test_the_pace_is_that_of_the_looks() -> None:
    def pause(fps: float | None) -> float:
        frames = Frames("http://x/y", fps, None, None, None, False, False, 20.0)
        source = frames.find()
        assert isinstance(source, WebCamera)
        return source.pause

    assert pause(2.0) == 0.5 and pause(0.01) == 10.0
    assert pause(None) == sources.SNAPSHOT_PAUSE


def test_a_refused_password_is_named(
    address: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["camera", model, f"http://{address}/secret.jpg"]) == 2
    err = capsys.readouterr().err
    assert "it needs a user and a password: http://USER:PASSWORD@127.0.0.1/" in err
    assert main(["camera", model, f"http://me:wr0ng@{address}/secret.jpg"]) == 2
    err = capsys.readouterr().err
    assert "user or password is wrong" in err and "wr0ng" not in err


def test_an_rtsp_camera_that_wants_a_password(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(2000)
                    connection.sendall(b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\n\r\n")

        threading.Thread(target=refuse, daemon=True).start()
        url = f"rtsp://127.0.0.1:{server.getsockname()[1]}/stream"
        assert main(["camera", model, url]) == 2
        server.shutdown(socket.SHUT_RDWR)
    assert "it needs a user and a password: rtsp://USER:" in capsys.readouterr().err


def test_av1_without_a_decoder_is_named(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A stand-in for an OpenCV that opens such a file and decodes nothing."""

    class Blind:
        def isOpened(self) -> bool:
            return True

        def get(self, what: int) -> float:
            code = float(int.from_bytes(b"av01", "little"))
            return code if what == cv2.CAP_PROP_FOURCC else 0.0

        def set(self, what: int, value: float) -> bool:
            return True

        def grab(self) -> bool:
            return False

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Blind())
    path = tmp_path / "a.mp4"
    path.write_bytes(b"any")
    for source in (str(path), "rtsp://127.0.0.1:1/x"):
        assert main(["camera", model, source]) == 2
        err = capsys.readouterr().err
        assert "AV1 video, and this OpenCV has no decoder for it" in err
        assert "H.264" in err and err.count("\n") == 1
