"""`data.capture`: sharp frames are kept, with their session's group."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from data import capture
from data.cli import main
from data.source import scan
from edge.errors import EdgegraftError


def frame(seed: int, blur: float = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 6, 3), np.uint8)
    image = Image.fromarray(small).resize((160, 120), Image.Resampling.NEAREST)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(blur)) if blur else image)


class Film:
    """A camera that shows these frames."""

    name, live, closed = "film", True, False

    def __init__(self, pictures: list[np.ndarray]) -> None:
        self.pictures = iter(pictures)

    def open(self) -> None:
        self.closed = False

    def read(self) -> np.ndarray | None:
        return next(self.pictures, None)

    def close(self) -> None:
        self.closed = True


def test_blurred_frames_are_refused_and_a_still_scene_is_kept(tmp_path: Path) -> None:
    seen: list[str] = []
    frames = [frame(0), frame(0), frame(1, blur=8), frame(2), frame(0)[:, ::-1]]
    session = capture.collect(
        frames,
        tmp_path,
        "cat",
        session="s1",
        report=lambda session, outcome: seen.append(outcome),
    )
    assert seen == ["kept", "kept", "blurred", "kept", "kept"]
    assert (session.kept, session.blurred) == (4, 1)
    names = sorted(p.name for p in (tmp_path / "cat").iterdir())
    assert names == [f"s1-000{number}.jpg" for number in range(1, 5)]


def test_a_list_with_the_sessions_as_groups(tmp_path: Path) -> None:
    for number, label in enumerate(("cat", "dog", "cat")):
        frames = [frame(10 * number + k) for k in range(5)]
        capture.collect(frames, tmp_path, label, max_photos=3, session=f"s{number}")
    found = scan(tmp_path / capture.LIST)
    assert {(p.label, p.group) for p in found.photos} == {
        ("cat", "s0"),
        ("dog", "s1"),
        ("cat", "s2"),
    }
    assert capture.counts(tmp_path) == {"cat": 6, "dog": 3}
    assert len(scan(tmp_path).photos) == 9


def test_what_comes_next_can_be_done(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for number in range(6):
        label = ("cat", "dog")[number % 2]
        frames = [frame(10 * number + k) for k in range(5)]
        capture.collect(frames, folder, label, session=f"{label}{number}")
        told = capture.what_next(folder)
        if number < 5:
            assert told.startswith("next: two labels or more, each in 3 sessions")
            assert f"so far cat {number // 2 + 1}" in told
    assert told == f"next: edgegraft build {folder / 'captured.csv'}"
    split = tmp_path / "split.csv"
    assert main(["split", str(folder / "captured.csv"), "-o", str(split)]) == 0


@pytest.mark.parametrize("label", ["..", "a/b", "", "a\nb"])
def test_labels_that_are_no_folders(tmp_path: Path, label: str) -> None:
    with pytest.raises(EdgegraftError, match="--label"):
        capture.collect([frame(0)], tmp_path, label)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgegraftError, match="cannot be written: Not a directory"):
        capture.collect([frame(0)], tmp_path / "file", "cat")


def test_every_makes_sense() -> None:
    with pytest.raises(EdgegraftError, match="seconds above 0, got 0"):
        next(capture.frames(Film([]), 0))


def test_a_video_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    path = tmp_path / "video.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (160, 120))
    for k in range(40):
        video.write(np.ascontiguousarray(frame(k // 10)[:, :, ::-1]))
    video.release()
    out = tmp_path / "photos"
    options = ["--label", "cat", "--source", str(path), "--every", "0.5"]
    assert main(["capture", str(out), *options]) == 0
    told = capsys.readouterr().out
    assert "kept 8, refused 0 blurred" in told
    assert "cat: 8 photos" in told
    assert main(["capture", str(out), "--label", "x", "--source", "nowhere.avi"]) == 2
    assert "nowhere.avi" in capsys.readouterr().err


def test_a_key_takes_a_photo_and_q_ends(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"  q ")
    film = Film([frame(k) for k in range(9)])
    taken = capture.collect(capture.frames_on_key(film, reading), tmp_path, "cat")
    assert taken.kept == 2 and film.closed
    os.close(writing)
    film = Film([frame(k) for k in range(9)])
    assert len(list(capture.frames_on_key(film, reading))) == 1  # what was left: " "
    os.close(reading)


def test_ctrl_c_ends_a_session_with_what_was_kept(tmp_path: Path) -> None:
    def interrupted() -> Iterator[np.ndarray]:
        yield frame(1)
        yield frame(2)
        raise KeyboardInterrupt

    assert capture.collect(interrupted(), tmp_path, "cat").kept == 2
    assert len(scan_all(tmp_path)) == 2


def test_no_photo_is_replaced(tmp_path: Path) -> None:
    for seed in (1, 2):
        capture.collect([frame(seed)], tmp_path, "cat", session="same")
    assert len(scan_all(tmp_path)) == 2
    listed = (tmp_path / capture.LIST).read_text().splitlines()
    assert listed[1:] == [
        "cat/same-0001.jpg,cat,same",
        "cat/same-0002.jpg,cat,same",
    ]


def test_the_pi_camera_is_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge.camera import sources as frames

    film = Film([frame(k) for k in range(3)])
    asked: list[object] = []

    def find(*words: object, live: bool) -> Film:
        asked.append((*words, live))
        return film

    monkeypatch.setattr(frames, "find", find)
    options = ["--label", "cat", "--source", "picamera", "--every", "0.000001"]
    assert main(["capture", str(tmp_path), *options, "--most", "2"]) == 0
    assert asked == [("picamera", None, False)] and film.closed
    assert len(scan_all(tmp_path)) == 2


def scan_all(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.jpg"))
