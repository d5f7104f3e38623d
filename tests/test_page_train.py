"""Train: photos by label, and trainings in processes of their own."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("streamlit", reason="the page needs streamlit")

from edge.card import digest
from edge.classifier import Prediction
from edge.errors import EdgegraftError, PhotoError
from edgegraft import main
from streamlit_app import training
from streamlit_app.feedback import Feedback
from streamlit_app.training import Job, Uploads
from streamlit_app.views.train import seconds_left
from tests.page_helpers import page, photo, shown, unescaped, write_run, zipped

TRAIN = "views/train.py"


def wait_for(condition: Callable[[], bool], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def begin(
    folder: Path, name: str = "cups", *options: str, before: str | None = None
) -> Job:
    queue, photos = folder / "queue", str(folder / "none")
    return training.start(folder, queue, photos, options, name, before)


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
    assert "at least 8 photos, <b> has 1, cup has 1" in str(uploads.obstacle())
    with pytest.raises(EdgegraftError, match="at most 200 bytes, got 300"):
        uploads.add("x" * 300, red)
    (path,) = uploads.labels()["cup"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    uploads.delete("cup")
    assert list(uploads.labels()) == ["<b>"]
    assert "at least 2 labels are needed, all are of <b>" in str(uploads.obstacle())
    uploads.delete()
    assert not uploads.folder.exists()


def test_a_full_disk_leaves_nothing_half_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("streamlit_app.feedback.os.fdopen", full)
    uploads = Uploads(tmp_path / "uploads")
    reasons = set()
    for colour in ("red", "blue"):
        with pytest.raises(EdgegraftError, match="No space left on device") as refusal:
            uploads.add("cup", photo(colour))
        reasons.add(str(refusal.value))
    assert len(reasons) == 1  # which the page shows once
    assert not list(uploads.photos.iterdir())
    prediction = Prediction("red", 0.5, (("red", 0.5),), None, True)
    with pytest.raises(EdgegraftError, match="No space left on device"):
        Feedback(tmp_path / "feedback").add(photo("red"), "a", "wrong", "m", prediction)
    assert not list((tmp_path / "feedback" / ".queue").iterdir())
    with pytest.raises(EdgegraftError, match="No space left on device"):
        begin(tmp_path)
    assert not list((tmp_path / "jobs").iterdir())


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> list[Job]:
    """Two trainings that fail, one after the other; a run took the name of the second
    while it waited."""
    folder = tmp_path_factory.mktemp("failed")
    with training._new_ticket(folder / "queue" / "0-other"):
        queue = [begin(folder, name) for name in ("one", "two")]
        write_run(queue[1].run.parent, queue[1].run.name)
    wait_for(lambda: all(job.state() in training.ENDED for job in queue))
    return queue


def test_a_training_that_fails_says_why_and_leaves_no_run(failed: list[Job]) -> None:
    job, own = failed[0], failed[0].folder.parents[1]
    assert job.state() == training.FAILED
    assert "none" in job.reason() and job.reason().startswith("edgegraft: error: ")
    assert not job.run.exists()
    assert job.shown_commands.startswith(f"edgegraft build {own / 'none'} ")
    assert training.jobs(own) == failed[::-1]


def test_trainings_begin_in_the_order_they_were_started(failed: list[Job]) -> None:
    first, second = ((job.folder / "state").stat().st_mtime_ns for job in failed)
    assert first < second
    assert not list(failed[0].ticket.parent.iterdir())


def test_a_training_whose_name_another_run_took_meanwhile_leaves_that_run(
    failed: list[Job], tmp_path: Path
) -> None:
    job = failed[1]
    assert job.state() == training.FAILED
    folder = shutil.copytree(job.folder, tmp_path / "job")
    replace(job, folder=folder).delete()
    assert not folder.exists()
    assert (job.run / "exports" / "int8.tflite").is_file()


@pytest.mark.parametrize("end", [training.CANCELLED, training.STOPPED])
def test_a_training_waits_for_its_turn_and_can_end_before(
    tmp_path: Path, end: str
) -> None:
    with training._new_ticket(tmp_path / "queue" / "0-other"):
        job = begin(tmp_path)
        with pytest.raises(EdgegraftError, match="named cups is going on"):
            begin(tmp_path)  # from another tab
        later = begin(tmp_path, "later")
        time.sleep(0.3)
        assert job.state() == later.state() == training.WAITING
        assert (job.ahead(), later.ahead()) == (1, 2)
        if end == training.CANCELLED:
            job.cancel()
        else:
            os.kill(int((job.folder / "pid").read_text()), signal.SIGKILL)
        wait_for(lambda: job.state() in training.ENDED)
        assert job.state() == end
        assert later.ahead() == 1  # who has gone is not waited for
        later.cancel()
        wait_for(lambda: later.state() in training.ENDED)
    job.delete()
    later.delete()
    assert training.jobs(tmp_path) == []


@pytest.mark.slow
def test_a_killed_training_is_resumed_where_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with training._new_ticket(tmp_path / "queue" / "0-other"):
        job = begin(tmp_path, "cups", "--time-limit", "7")
        os.kill(int((job.folder / "pid").read_text()), signal.SIGKILL)
        wait_for(lambda: job.state() == training.STOPPED)
    assert job.resumed() == list(job.command)  # nothing to go on with
    job.run.mkdir()
    (job.run / "run.json").write_text("{}")
    where = ["--artifacts", str(job.run.parent), "--run", "cups"]
    assert job.resumed() == ["build", *where, "--resume", "--time-limit", "7"]
    monkeypatch.setattr(
        "streamlit_app.session.AppConfig.own_folder", lambda _: tmp_path
    )
    app = page(monkeypatch, "--artifacts", tmp_path, at=TRAIN)
    assert "Training stopped" in shown(app)
    command = tuple(job.resumed())  # the new process may end, and delete the run
    button(app, "Resume").click().run()
    assert not app.exception
    (new,) = training.jobs(tmp_path)
    assert new.folder != job.folder and new.command == command
    wait_for(lambda: new.state() in training.ENDED)
    new.delete()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that the page asked for and waited for: run in this process."""
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[:3] == [sys.executable, "-m", "edgegraft"]
        asked.append(command[3:])
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(command[3:])
        return subprocess.CompletedProcess(
            command, code, out.getvalue(), err.getvalue()
        )

    monkeypatch.setattr(
        training, "subprocess", SimpleNamespace(**{**vars(subprocess), "run": run})
    )
    return asked


def test_photos_on_this_machine_stay_where_they_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, here: list[list[str]]
) -> None:
    lines = ["path,label"]
    for label, channel in (("cup", 1), ("pen", 2)):
        (tmp_path / "mine" / label).mkdir(parents=True)
        for n in range(8):
            colour = [9 * n, 0, 0]
            colour[channel] = 200
            path = tmp_path / "mine" / label / f"{n}.png"
            path.write_bytes(photo(tuple(colour)))
            lines.append(f"{label}/{n}.png,{label}")
    (tmp_path / "mine" / "list.csv").write_text("\n".join(lines))
    monkeypatch.setattr("streamlit_app.session.is_local", lambda: True)
    app = page(monkeypatch, "--shared", "--artifacts", tmp_path / "a", at=TRAIN)
    for named in ("mine", "mine/list.csv"):
        app.text_input(key="train folder").set_value(str(tmp_path / named)).run()
        assert not app.exception
        text = shown(app)
        assert "**cup** 8 photos" in text and "**pen** 8 photos" in text, named
        assert text.count("<img") >= 16
        assert not button(app, "Train").disabled
    assert not (tmp_path / "a" / "uploads").exists()
    app.text_input(key="train folder").set_value(str(tmp_path / "none")).run()
    assert not app.exception and str(tmp_path / "none") in shown(app)
    app.text_input(key="train folder").set_value("").run()
    assert "Two labels or more" in shown(app)
    audits = [command for command in here if command[:2] == ["data", "audit"]]
    places = ("mine", "mine/list.csv", "none")
    assert [words[2] for words in audits] == [str(tmp_path / name) for name in places]


def test_a_list_says_the_labels_of_dropped_photos(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, here: list[list[str]]
) -> None:
    files = {f"all/{n}__png": photo((n * 9, 60, 90)) for n in range(4)}
    rows = "".join(f"all/{n}.png;{'cup' if n % 2 else 'pen'}\n" for n in range(3))
    files["labels__csv"] = f"filename;class\n{rows}".encode()
    app = page(monkeypatch, "--shared", "--artifacts", tmp_path, at=TRAIN)
    app.file_uploader(key="train 0").set_value(
        [("many.zip", zipped(**files), "application/zip")]
    ).run()
    assert not app.exception
    assert [warning.value for warning in app.warning] == ["Enter a label for 1 photo."]
    counts = {k: len(v) for k, v in Uploads(tmp_path / "uploads").labels().items()}
    assert counts == {"cup": 1, "pen": 2}


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
    assert "each label needs at least 8 photos, pen has 7" in text
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
def test_a_model_trained_again_is_compared_with_the_one_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, here: list[list[str]]
) -> None:
    """The files stand in comparison.json; a job that is done shows its sentence."""
    runs = tmp_path / "runs"
    files = {
        name: write_run(runs, name) / "exports" / file
        for name, file in (("old", "float32.tflite"), ("new", "int8.tflite"))
    }
    with training._new_ticket(tmp_path / "queue" / "0-other"):
        job = begin(tmp_path, "later", before=str(files["old"]))
        job.cancel()
        wait_for(lambda: job.state() in training.ENDED)
    record = json.loads((job.folder / "job.json").read_text())
    record["run"] = str(runs / "new")
    (job.folder / "job.json").write_text(json.dumps(record))
    (job.folder / "state").write_text(training.DONE)
    job.comparison.parent.mkdir()
    listed = [
        {
            "title": f"{name}/int8",
            "model_sha256": digest(path.read_bytes()),
            "photos": 50,
        }
        for name, path in files.items()
    ]
    monkeypatch.setattr(
        "streamlit_app.session.AppConfig.own_folder", lambda _: tmp_path
    )
    for p, leader, sentence in (
        (0.01, "new", "The new model is more accurate: use it."),
        (0.01, "old", "The new model is less accurate: keep the one before."),
        (0.3, "new", "That does not show which of the two is better."),
    ):
        other = {"new": "old", "old": "new"}[leader]
        difference = {"value": 0.1, "low": 0, "high": 0.2}
        difference |= {"lost": 9, "gained": 2, "p": p}
        ship = {"file": "x", "why": "", "differences": {f"{other}/int8": difference}}
        job.comparison.write_text(json.dumps({"ship": ship, "files": listed}))
        app = page(monkeypatch, "--artifacts", tmp_path / "a", at=TRAIN)
        assert not app.exception
        text = shown(app)
        counts = (9, 2) if leader == "new" else (2, 9)
        assert (
            f"On the same 50 test photos the new model gets {counts[0]} right" in text
        )
        assert f"and {counts[1]} wrong that it got right" in text and sentence in text
    app.selectbox(key="run").set_value("old").run()
    button(app, "Try it").click().run()
    assert not app.exception and app.selectbox(key="run").value == "new"
    assert "Drop photos" in app.file_uploader(key="photos").label


@pytest.mark.slow
def test_from_photos_to_a_model_that_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uploads = Uploads(tmp_path / "uploads")
    random = np.random.default_rng(0)
    for _ in range(10):
        for channel, label in ((0, "red"), (2, "blue")):
            pixels = random.integers(0, 160, (40, 40, 3), np.uint8)
            pixels[..., channel] += 95
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            uploads.add(label, file.getvalue())
    options = ("--backbone", "custom_cnn", "--size", "32", "--epochs", "2")
    options += ("--set", "filters=[8]", "--familiarity", "none", "--threads", "1")
    options += ("--variants", "int8", "--no-ladder", "--max-drop", "100")
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
    assert "is ready" in text and "Weakest label: " in text
    assert job.shown_commands in [code.value for code in app.code]


def button(app: Any, label: str) -> Any:
    return next(button for button in app.button if button.label == label)


def test_the_time_left_is_that_of_the_bar_that_is_shown() -> None:
    def step(bar: str, done: int, at: float) -> dict[str, Any]:
        return {"bar": bar, "done": done, "total": 10, "time": at}

    features = step("features", 10, 4.0)
    epochs = [step("epoch 1/2", 0, 5.0), step("epoch 2/2", 5, 8.0)]
    assert seconds_left([features, *epochs]) == pytest.approx(3)
    folds = [step(f"fine-tuning, fold {n} of 4", 0, 10.0 * n) for n in (1, 2)]
    assert seconds_left([*folds, {**folds[1], "done": 5, "time": 21}]) == 1
