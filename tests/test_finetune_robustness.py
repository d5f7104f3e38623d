"""Spoiled photos and repeated seeds: what is measured, written and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge.classifier import Classifier
from edge.preprocess import fit, load_pixels, open_photo
from edgegraft import main
from finetune import robustness
from finetune.console import Console
from finetune.evaluate import summarize_seeds
from finetune.robustness import CORRUPTIONS
from finetune.run import Run
from finetune.settings import Settings
from quantize.export import export
from tests import quantize_room as room

pytestmark = pytest.mark.slow  # networks are trained or converted


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("robust")
    photos = room.write_photos(folder / "photos")
    made = room.write_run(folder / "run", photos, room.colour_network())
    made.write_json("metrics.json", {"test": {"accuracy": 1.0}})
    export(made, ("int8",))
    return made


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda c: c.name)
def test_each_corruption_moves_the_photo_further_the_stronger_it_is(corruption):
    random = np.random.default_rng(0)
    smooth = Image.fromarray(random.integers(0, 255, (9, 12, 3)).astype(np.uint8))
    photo = smooth.resize((400, 300), Image.Resampling.BICUBIC)
    want = np.asarray(photo, np.float32)
    moved = []
    for amount in corruption.amounts:
        corrupted = corruption.apply(photo, amount, 1)
        assert corrupted.mode == "RGB"
        back = corrupted.resize(photo.size, Image.Resampling.BILINEAR)
        moved.append(np.abs(np.asarray(back, np.float32) - want).mean())
    assert 0 < moved[0] < moved[1] < moved[2]


def test_the_verb_measures_the_file_and_leaves_json_picture_and_metrics(run, capsys):
    assert main(["robustness", str(run.folder), "--photos", "6"]) == 0
    printed = capsys.readouterr().out
    assert "int8.tflite on 6 test photos: 100.0% as they are" in printed
    found = json.loads((run.folder / "robustness.json").read_text())
    assert len(found["results"]) == 1 + 3 * len(CORRUPTIONS)
    clean, *rest = found["results"]
    assert clean["accuracy"] == 1 and clean["interval"][0] > 0.5
    dark = [row["accuracy"] for row in rest if row["corruption"] == "dark"]
    assert dark[0] >= dark[-1]
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["robustness"] == found and metrics["test"] == {"accuracy": 1.0}
    with Image.open(run.folder / "robustness.png") as picture:
        assert picture.width > 1000


def test_photos_take_the_way_they_take_on_the_device(run, tmp_path, monkeypatch):
    """Reduced decoding, upright, as `load_pixels` does; corrupted ones turn once."""
    random = np.random.default_rng(0)
    rough = random.integers(0, 255, (40, 60, 3)).astype(np.uint8)
    large = Image.fromarray(rough).resize((400, 300), Image.Resampling.NEAREST)
    exif = large.getexif()
    exif[0x0112] = 6  # taken upright, stored on its side
    photo = tmp_path / "large.jpg"
    large.save(photo, exif=exif, quality=95)
    row = run.split().rows[0]
    row = row._replace(photo=replace(row.photo, path=photo))
    monkeypatch.setattr(robustness, "_choose", lambda *_: [row])
    monkeypatch.setattr(Run, "check_photos", lambda *_: None)
    seen = []
    answers = Classifier.run
    monkeypatch.setattr(
        Classifier,
        "run",
        lambda self, batch: seen.append(batch) or answers(self, batch),
    )
    robustness.measure(run, run.exports / "int8.tflite", Console(quiet=True))
    clean, *corrupted = seen
    wanted = load_pixels(photo, run.recipe)
    assert np.array_equal(clean[0], wanted)
    assert not np.array_equal(clean[0], fit(open_photo(photo), run.recipe))
    mildest = corrupted[0][0].astype(float)  # a little blur
    here, turned = (
        np.abs(mildest - other).mean() for other in (wanted, wanted[:, ::-1])
    )
    assert here < turned / 2


def test_bad_input_of_the_verb_is_one_line(run, capsys):
    folder = str(run.folder)
    assert main(["robustness", folder, "--variant", "int9"]) == 2
    told = capsys.readouterr().err
    assert (
        f"({', '.join(sorted(p.stem for p in run.exports.glob('*.tflite')))})" in told
    )
    assert "edgegraft quantize" in told and "--variants int9" not in told
    assert main(["robustness", folder, "--photos", "0"]) == 2
    assert "--photos to be 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("swapped", [True, False])
def test_a_test_photo_swapped_or_gone_is_refused(run, capsys, swapped: bool):
    photo = run.part("test")[0].path
    kept = photo.read_bytes()
    try:
        if swapped:
            Image.new("RGB", (20, 20), "white").save(photo)
        else:
            photo.unlink()
        assert main(["robustness", str(run.folder), "--photos", "6"]) == 2
    finally:
        photo.write_bytes(kept)
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and str(photo) in told and "split.csv" in told
    assert ("sha256 differs" in told) == swapped


def test_an_unfinished_run_says_how_to_go_on(run, capsys):
    run.update(status="training")
    try:
        assert main(["robustness", str(run.folder)]) == 2
    finally:
        run.update(status="trained")
    where = f"--run {run.name} --artifacts {run.folder.parent} --resume"
    assert where in capsys.readouterr().err


def test_repeats_sum_up_their_runs(tmp_path: Path):
    runs = []
    for seed, accuracy in enumerate((0.9, 0.92, 0.97)):
        settings = Settings(seed=seed).to_dict()
        config = {"labels": ["a", "b"], "settings": settings}
        made = Run.create(tmp_path / f"r{seed}", config, overwrite=True)
        test = {"accuracy": accuracy, "calibration_error": 0.01}
        made.write_json("metrics.json", {"test": test})
        runs.append(made)
    found = summarize_seeds(runs)
    accuracy = found["accuracy"]
    assert accuracy["each"] == [0.9, 0.92, 0.97] and found["seeds"] == [0, 1, 2]
    assert accuracy["mean"] == pytest.approx(0.93)
    # Student, two degrees of freedom: 4.303 deviations over the root of three
    low, high = accuracy["interval"]
    half = 4.3027 * accuracy["deviation"] / 3**0.5
    assert low == pytest.approx(0.93 - half, abs=1e-4)
    assert 0.93 + half > 1 and high == 1.0  # no accuracy is higher
    metrics = json.loads((runs[0].folder / "metrics.json").read_text())
    assert metrics["repeats"] == found and metrics["test"]["accuracy"] == 0.9


def test_repeats_of_nothing_or_of_a_resumed_run_are_refused(tmp_path, capsys):
    photos = str(tmp_path)
    assert main(["finetune", photos, "--repeats", "0"]) == 2
    assert "--repeats to be 1 or more" in capsys.readouterr().err
    again = ["finetune", "--run", "x", "--resume", "--repeats", "2"]
    assert main(again) == 2
    assert "--repeats" in capsys.readouterr().err


def test_a_later_repeat_whose_name_is_taken_is_refused_at_once(tmp_path, capsys):
    taken = tmp_path / "r-seed2"
    taken.mkdir()
    (taken / "run.json").write_text("{}")
    where = ["--artifacts", str(tmp_path), "--run", "r", "--repeats", "3"]
    (tmp_path / "photos").mkdir()
    assert main(["finetune", str(tmp_path / "photos"), *where]) == 2
    assert f"got {taken}, which exists" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
