"""Train: photos by label, and trainings in processes of their own."""

from __future__ import annotations

import csv
import fcntl
import io
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("streamlit", reason="the page needs streamlit")

from edge.errors import EdgegraftError, PhotoError
from streamlit_app import training
from streamlit_app.training import Job, Uploads
from tests.page_helpers import page, photo, shown, unescaped, zipped

TRAIN = "views/train.py"


def wait_for(condition: Callable[[], bool], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def begin(folder: Path, name: str = "cups", *options: str) -> Job:
    queue = folder / "queue"
    return training.start(folder, queue, str(folder / "none"), options, name)


def test_photos_are_kept_by_label_once_and_privately(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads")
    red = photo("red", kind="JPEG")
    assert uploads.add("cup", red) and not uploads.add("cup", red)
    for label in ("../x", ".hidden", "a/b", " "):
        with pytest.raises(EdgegraftError, match="can name a folder"):
            uploads.add(label, red)
    with pytest.raises(PhotoError):
        uploads.add("cup", b"no photo")
    uploads.add("<b>", photo("blue"))
    assert {k: len(v) for k, v in uploads.labels().items()} == {"<b>": 1, "cup": 1}
    assert "at least 8 photos per label" in str(uploads.obstacle())
    (path,) = uploads.labels()["cup"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    uploads.delete("cup")
    assert list(uploads.labels()) == ["<b>"]
    assert "at least 2 labels" in str(uploads.obstacle())
    uploads.delete()
    assert not uploads.folder.exists()


def test_a_training_that_fails_says_why_and_leaves_no_run(tmp_path: Path) -> None:
    job = begin(tmp_path)
    wait_for(lambda: job.state() in training.ENDED)
    assert job.state() == training.FAILED
    assert "none" in job.reason() and job.reason().startswith("edgegraft: error: ")
    assert not job.run.exists()
    assert job.shown_command.startswith(f"edgegraft build {tmp_path / 'none'} ")
    assert training.jobs(tmp_path) == [job]


@pytest.mark.parametrize("end", [training.CANCELLED, training.STOPPED])
def test_a_training_waits_for_its_turn_and_can_end_before(
    tmp_path: Path, end: str
) -> None:
    with open(tmp_path / "queue", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        job = begin(tmp_path)
        wait_for(lambda: training._is_locked(job.folder / "lock"))
        time.sleep(0.3)
        assert job.state() == training.WAITING
        if end == training.CANCELLED:
            job.cancel()
            wait_for(lambda: job.state() in training.ENDED)
            assert job.state() == training.CANCELLED
        else:
            os.kill(int((job.folder / "pid").read_text()), signal.SIGKILL)
            wait_for(lambda: not training._is_locked(job.folder / "lock"))
            os.utime(job.folder, (1, 1))  # it is not just starting
            assert job.state() == training.STOPPED
    job.delete()
    assert training.jobs(tmp_path) == []


def test_photos_come_in_a_zip_and_are_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    app = page(monkeypatch, "--shared", "--artifacts", tmp_path, at=TRAIN)
    assert not app.exception and "Two labels or more" in shown(app)
    files = {f"cup/{n}__png": photo((n * 9, 60, 90)) for n in range(8)}
    files |= {f"pen/{n}__png": photo((200, n * 9, 9)) for n in range(7)}
    files |= {"pen/bad__png": b"no photo", "../x/out__png": photo("red")}
    archive = ("many.zip", zipped(**files), "application/zip")
    app.file_uploader(key="train 0").set_value([archive]).run()
    assert not app.exception
    text = shown(app)
    assert "**cup** 8 photos" in text and "**pen** 7 photos" in text
    errors = [unescaped(error.value) for error in app.error]
    assert any("bad.png" in error for error in errors)
    assert any("leads outside the ZIP" in error for error in errors)
    assert "at least 8 photos per label are needed, pen has 7" in text
    assert button(app, "Train").disabled
    button(app, "Check").click().run()
    assert not app.exception
    found = Uploads(tmp_path / "uploads").findings()
    assert len(found) == 15
    excluded = Uploads(tmp_path / "uploads").exclude([found[0]["path"]])
    assert excluded is not None
    with open(excluded) as file:
        assert [row["exclude"] for row in csv.DictReader(file)] == ["yes"]


@pytest.mark.slow
def test_from_photos_to_a_model_that_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uploads = Uploads(tmp_path / "uploads")
    random = np.random.default_rng(0)
    for _ in range(24):
        for channel, label in ((0, "red"), (2, "blue")):
            pixels = random.integers(0, 160, (96, 96, 3), np.uint8)
            pixels[..., channel] += 95
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            uploads.add(label, file.getvalue())
    options = ("--backbone", "custom_cnn", "--size", "32", "--epochs", "2")
    options += ("--set", "filters=[8]", "--familiarity", "none", "--threads", "1")
    photos = str(uploads.photos)
    job = training.start(tmp_path, tmp_path / "queue", photos, options, "two")
    wait_for(lambda: job.state() in training.ENDED, 600)
    assert job.state() == training.DONE, job.reason()
    events = job.events()
    assert any("epoch" in event for event in events)
    assert any("stage" in event for event in events)
    app = page(monkeypatch, "--artifacts", tmp_path / "runs", at=TRAIN)
    assert not app.exception
    assert "edgegraft build" not in shown(app)  # this visitor trained nothing
    monkeypatch.setattr(
        "streamlit_app.session.AppConfig.own_folder", lambda _: tmp_path
    )
    app = page(monkeypatch, "--artifacts", tmp_path, at=TRAIN)
    assert not app.exception
    text = shown(app)
    assert "is ready" in text and "Weakest label" in text
    assert job.shown_command in [code.value for code in app.code]


def button(app: Any, label: str) -> Any:
    return next(button for button in app.button if button.label == label)
