"""`finetune --add`: more photos to train on, the same photos to measure by."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import edgegraft
from data.source import choose
from finetune.console import Console
from finetune.head.cross_fit import learned_groups
from finetune.prepared import prepare
from quantize.comparison.inputs import candidates
from tests.edge_models import network
from tests.finetune_helpers import draw, drawn, run_on

pytestmark = pytest.mark.slow  # networks are trained or converted


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn(tmp_path_factory.mktemp("added") / "photos")


def test_added_photos_are_trained_on_and_leave_the_measured_parts_alone(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(photos.parent)
    before = run_on(Path(photos.name), tmp_path / "before")  # typed as people type it
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

    after = run_on(Path(photos.name), tmp_path / "after", add=feedback)
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
    said = capsys.readouterr().err
    assert "24 photos of blue, red, 4 to add" in said
    assert "1 of the 4 photos in" in said and "added to train" in said

    for run in (before, after):  # what was added does not hinder the comparison
        run.exports.mkdir()
        (run.exports / "int8.tflite").write_bytes(network())
    titles = [entry.title for entry in candidates([before, after])]
    assert titles == ["before/int8", "after/int8"]

    after.update(status="training")  # as an interrupt before the end leaves it
    again = run_on(None, after.folder, resume=True)
    assert again.split().fingerprint == after.split().fingerprint


def test_a_near_copy_of_a_training_photo_shares_its_fold(
    photos: Path, tmp_path: Path
) -> None:
    before = run_on(photos, tmp_path / "before")
    trained = next(row.photo.path for row in before.split().rows if row.part == "train")
    copy = tmp_path / "more" / trained.parent.name / "copy.jpg"
    copy.parent.mkdir(parents=True)
    Image.open(trained).convert("RGB").save(copy, quality=92)
    prepared = prepare(
        choose(photos), before.settings, Console(quiet=True), add=tmp_path / "more"
    )
    with prepared.pixels:
        parts = [*prepared.split.part("train"), *prepared.split.part("val")]
        groups = learned_groups(prepared.split, prepared.near_duplicates)
    group = {p.path: number for p, number in zip(parts, groups, strict=True)}
    assert group[copy] == group[trained] and len(set(groups)) > 1


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
