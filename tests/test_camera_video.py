"""Video files and streams through OpenCV itself; skipped where it is not installed."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.cli import main
from tests.edge_models import network, save, with_card

cv2 = pytest.importorskip("cv2", reason="needs opencv-python-headless (camera extra)")

ROOT = Path(__file__).resolve().parents[1]
BGR = {"red": (20, 20, 220), "green": (20, 220, 20), "blue": (220, 20, 20)}
FPS = 20


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two seconds at 20 fps: red, then blue."""
    path = tmp_path_factory.mktemp("video") / "two.avi"
    coder = cv2.VideoWriter_fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), coder, FPS, (64, 48))
    assert writer.isOpened()
    for number in range(2 * FPS):
        frame = np.full((48, 64, 3), BGR["red" if number < FPS else "blue"], np.uint8)
        writer.write(frame)
    writer.release()
    return str(path)


@pytest.fixture
def model(tmp_path: Path) -> str:
    return save(tmp_path / "m.tflite", with_card(network()))


def results(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_frame_of_a_file_in_its_colours(
    video: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["camera", model, video, "--json", "--smooth", "0"]) == 0
    rows = results(capsys)
    assert [row["frame"] for row in rows] == list(range(1, 2 * FPS + 1))
    assert [row["label"] for row in rows] == ["red"] * FPS + ["blue"] * FPS
    assert rows[-1]["seconds"] == pytest.approx(1.95, abs=1e-3)
    assert sum(row["changed"] for row in rows) == 2


def test_fps_and_seconds_go_by_the_videos_clock(
    video: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["camera", model, video, "--json", "--fps", "5", "--seconds", "1.5"]
    assert main(argv) == 0
    seconds = [row["seconds"] for row in results(capsys)]
    assert seconds == pytest.approx([0.2 * step for step in range(8)], abs=1e-3)


def test_a_hold_delays_the_change(
    video: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["camera", model, video, "--json", "--events", "--smooth", "0"]
    assert main([*argv, "--hold", "0.5"]) == 0
    first, second = results(capsys)
    assert (first["label"], second["label"]) == ("red", "blue")
    assert second["seconds"] == pytest.approx(1.5, abs=1e-3)


def test_a_file_that_is_cut_off_is_said(
    video: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = Path(video).read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(content[: len(content) // 2])
    code = main(["camera", model, str(cut), "--json"])
    out, err = capsys.readouterr()
    if code == 0:  # the container still says how many frames there were
        assert 0 < len(out.splitlines()) < 2 * FPS
        assert "cut off, ended after frame" in err
    else:
        assert err.count("\n") == 1


def test_a_damaged_frame_costs_that_frame_only(
    video: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bytes of one frame are zeroed, as after a bad sector."""
    content = bytearray(Path(video).read_bytes())
    starts = [i for i in range(len(content) - 4) if content[i : i + 4] == b"00dc"]
    begin = starts[5] + 8
    size = int.from_bytes(content[starts[5] + 4 : begin], "little")
    content[begin : begin + size] = bytes(size)
    damaged = tmp_path / "damaged.avi"
    damaged.write_bytes(content)
    assert main(["camera", model, str(damaged), "--json", "--smooth", "0"]) == 0
    out, err = capsys.readouterr()
    labels = [json.loads(line)["label"] for line in out.splitlines()]
    assert labels == ["red"] * (FPS - 1) + ["blue"] * FPS
    assert "damaged.avi: 1 frame is damaged and left out\n" in err


def test_time_is_that_of_the_frames_not_of_a_rate(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A phone's video: 9 frames in two seconds, then 60 in the next two."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg to write a video of variable frame rate")
    path = tmp_path / "uneven.mp4"
    blue = "drawbox=0:0:320:240:blue:fill:enable='gte(t,1.99)'"
    uneven = "select='if(lt(n,60),not(mod(n,7)),1)'"
    command = ["ffmpeg", "-y", "-loglevel", "error", "-f", "lavfi"]
    command += ["-i", "color=red:s=320x240:r=30:d=4", "-vf", f"{blue},{uneven}"]
    command += ["-vsync", "vfr", "-pix_fmt", "yuv420p", "-preset", "ultrafast"]
    subprocess.run([*command, str(path)], check=True)
    argv = ["camera", model, str(path), "--json", "--smooth", "0"]
    assert main(argv) == 0
    rows = results(capsys)
    changes = [row["seconds"] for row in rows if row["changed"]]
    assert changes == pytest.approx([0.0, 2.0], abs=0.05)
    assert main([*argv, "--seconds", "2"]) == 0
    assert len(results(capsys)) == 9
    assert main([*argv, "--fps", "2"]) == 0
    assert len(results(capsys)) == 8
    assert main([*argv, "--every", "1"]) == 0
    assert len(results(capsys)) == 4


BAD_SOURCES = {
    "none.mp4": "No such file or directory",
    "folder.mp4": "expected a video, got a folder",
    "text.mp4": "expected a video, got something else or a damaged file",
    "empty.mp4": "expected a video, got something else or a damaged file",
    "/dev/video77": "no such camera; there are ",
    "http://127.0.0.1:9/x.avi": "the stream cannot be opened",
}
ASK_EACH = """
import sys
from edge.cli import main
for source in sys.argv[2:]:
    code = main(["camera", sys.argv[1], source])
    sys.stderr.write(f"exit {code}\\n")
    sys.stderr.flush()
"""


def test_bad_sources_cost_one_line(model: str, tmp_path: Path) -> None:
    """In a process of their own: OpenCV's chatter is set up when it is imported."""
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-c", ASK_EACH, model, *BAD_SOURCES],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    lines = iter(done.stderr.splitlines())
    for name, message in BAD_SOURCES.items():
        assert message in next(lines), (name, done.stderr)
        assert next(lines) == "exit 2", (name, done.stderr)  # one line, and no more
    assert not list(lines)


def test_a_stream_over_http(
    video: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(Path(video).parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/two.avi"
        assert main(["camera", model, url, "--json", "--max-frames", "2"]) == 0
        server.shutdown()
    assert {row["label"] for row in results(capsys)} <= {"red", "blue"}


def memory_mb(process: int) -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


@pytest.mark.slow
def test_a_looping_video_taken_away_and_given_back(
    video: str, model: str, tmp_path: Path
) -> None:
    """Three times; memory stays flat; SIGTERM. `make test` does so for a minute."""
    source = tmp_path / "live.avi"
    away = tmp_path / "away.avi"
    source.write_bytes(Path(video).read_bytes())
    argv = ["camera", model, str(source), "--live", "--json", "--events"]
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "edge", *argv, "--smooth", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        notes: list[str] = []

        def listen(stream: Any) -> None:
            notes.extend(line.strip() for line in stream)

        listener = threading.Thread(target=listen, args=(process.stderr,))
        listener.start()
        try:
            labels = [json.loads(process.stdout.readline())["label"] for _ in range(3)]
            assert labels in (["red", "blue", "red"], ["blue", "red", "blue"])
            before = 0.0
            for times in range(1, 4):
                os.replace(source, away)
                wait_for(lambda times=times: len(notes) == 2 * times - 1)  # type: ignore[misc]
                assert notes[-1].endswith("live.avi: lost; waiting for it")
                os.replace(away, source)
                wait_for(lambda times=times: len(notes) == 2 * times)  # type: ignore[misc]
                assert "live.avi: back after" in notes[-1]
                before = before or memory_mb(process.pid)
            assert memory_mb(process.pid) <= before * 1.05 + 2
        finally:
            process.terminate()
            rest = process.stdout.read()
            assert process.wait(20) == 0
            listener.join()
    assert all(json.loads(line)["changed"] for line in rest.splitlines())
    assert " frames in " in notes[-1] and len(notes) == 7


def wait_for(true: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
