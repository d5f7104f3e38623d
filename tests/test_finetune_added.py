"""`finetune --add`: more photos to train on, the same photos to measure by."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgegraft
from finetune import job
from finetune.console import Console
from finetune.run import Run
from finetune.settings import Settings
from quantize.candidates import candidates

TINY = Settings(
    backbone="custom_cnn",
    size=16,
    weights="none",
    cnn={"filters": [4], "dropout": 0.0},
    augment="none",
    epochs=1,
    batch=8,
)


def draw(path: Path, seed: int, label: str) -> Path:
    """A noisy photo, red or blue."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 160, (10, 10, 3)).astype(np.uint8)
    pixels = np.asarray(Image.fromarray(small).resize((60, 60), 0)).astype(int)
    pixels[:, :, 0 if label == "red" else 2] += 90
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("added") / "photos"
    for number in range(24):
        label = ("blue", "red")[number % 2]
        draw(folder / label / f"{number:02}.png", number, label)
    return folder


def train(source: Path | None, folder: Path, **options: Any) -> Run:
    run, prepared, _ = job.finetune(source, TINY, folder, Console(json=True), **options)
    prepared.pixels.close()
    return run


def test_added_photos_are_trained_on_and_leave_the_measured_parts_alone(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    before = train(Path(photos.name), tmp_path / "before")  # typed as people type it
    parts = {row.sha256: row.part for row in before.split().rows}
    tested = next(row.photo.path for row in before.split().rows if row.part == "test")

    feedback = tmp_path / "feedback"
    new = draw(feedback / "red" / "new.png", 100, "red")
    shutil.copy(tested, feedback / "red" / "copy.png")  # of a test photo
    near = feedback / "red" / "near.jpg"  # and one that only looks like it
    Image.open(tested).convert("RGB").save(near, quality=92)
    (feedback / "red" / "torn.png").write_bytes(new.read_bytes()[:90])
    (feedback / ".queue").mkdir()
    shutil.copy(new, feedback / ".queue" / "waits.png")

    after = train(Path(photos.name), tmp_path / "after", add=feedback)
    rows = after.split().rows
    assert {r.sha256: r.part for r in rows if r.sha256 in parts} == parts
    extra = [row for row in rows if row.sha256 not in parts]
    assert [(row.photo.path, row.part) for row in extra] == [(new, "train")]
    record = after.config["data"]["added"]
    assert record["photos"] == 1 and record["from"] == str(feedback.resolve())
    left = {Path(path).name: why for path, why in record["left_out"]}
    assert set(left) == {"copy.png", "near.jpg", "torn.png"}
    assert "in the set already, as test photo" in left["copy.png"]
    assert "which measures" in left["near.jpg"]

    for run in (before, after):  # what was added does not hinder the comparison
        run.exports.mkdir()
        (run.exports / "int8.tflite").write_bytes(b"")
    titles = [entry.title for entry in candidates(before, [after])]
    assert titles == ["before/int8", "after/int8"]

    after.update(status="training")  # as an interrupt before the end leaves it
    again = train(None, after.folder, resume=True)
    assert again.split().fingerprint == after.split().fingerprint


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: None, "expected a folder with one folder of photos per label"),
        (lambda folder: folder.mkdir(), "expected photos to add in"),
        (
            lambda folder: draw(folder / "green" / "a.png", 1, "red"),
            "among blue, red, got 'green'",
        ),
    ],
)
def test_a_folder_that_cannot_be_added_is_told_in_one_line(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make: Any,
    told: str,
) -> None:
    make(tmp_path / "more")
    arguments = ["finetune", str(photos), "--add", str(tmp_path / "more")]
    arguments += ["--backbone", "custom_cnn", "--artifacts", str(tmp_path / "runs")]
    assert edgegraft.main(arguments) == 2
    error = capsys.readouterr().err
    assert told in error and error.strip().count("\n") == 0
    assert not (tmp_path / "runs").exists()
