"""A whole training run and what it leaves, on a tiny CNN and noise in two colours."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones import custom_cnn, registry
from backbones.keras import seed_everything
from data import batches
from edge.errors import EdgegraftError
from finetune import job
from finetune.console import Console
from finetune.model import compute_outputs, load
from finetune.run import Run
from tests.finetune_helpers import BASE, SIZE, TINY, examples, finetune

pytestmark = pytest.mark.slow  # networks are trained or converted


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos") / "colours"
    part = examples(60, seed=5)
    for number, label in enumerate(part.truth):
        folder = root / ("blue" if label else "red")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(part.array[number]).save(folder / f"{number}.png")
    (root / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a photo")
    return root


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("artifacts") / "run"
    return job.finetune(photos, BASE, folder, console=Console())  # diagrams and all


def test_a_run_leaves_everything_the_readme_says(trained: Run) -> None:
    files = {path.name for path in trained.folder.iterdir()}
    # so few photos have possible label issues
    assert files - {"label_issues.csv", "label_issues.png"} == {
        "run.json",
        "split.csv",
        "history.csv",
        "training.png",
        "metrics.json",
        "confusion.png",
        "mistakes.png",
        "augmentation.png",
        "logs",
        "uncertain.png",
        "calibration.png",
        "unreadable.csv",
        "model",
    }
    opened = Run.open(trained.folder)
    assert opened.trained and opened.labels == ("blue", "red")
    assert opened.settings == BASE
    assert opened.config["data"]["fingerprint"] == opened.split().fingerprint
    for name in ("training.png", "confusion.png", "mistakes.png"):
        with Image.open(trained.folder / name) as picture:
            picture.verify()
            assert picture.width > 400
    assert "broken.jpg" in (trained.folder / "unreadable.csv").read_text()


def test_metrics_and_history_agree_with_the_saved_network(trained: Run) -> None:
    metrics = json.loads((trained.folder / "metrics.json").read_text())
    model = load(trained)
    with batches.load(trained.part("test"), trained.recipe) as pixels:
        answers = compute_outputs(model, pixels.array, range(len(pixels.array)))
    truth = [trained.labels.index(p.label) for p in trained.part("test")]
    accuracy = float((answers.argmax(1) == truth).mean())
    assert metrics["test"]["accuracy"] == pytest.approx(accuracy)
    np.testing.assert_allclose(answers.sum(1), 1, atol=1e-5)
    rows = list(csv.DictReader((trained.folder / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3", "4"]
    best = max(float(row["val_accuracy"]) for row in rows)
    assert metrics["validation"]["accuracy"] == pytest.approx(best)
    assert sum(row["photos"] for row in metrics["test"]["per_class"]) == len(truth)


def test_changed_photos_are_noticed_on_resume(
    trained: Run, photos: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "colours"
    shutil.copytree(photos, moved)
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    run = Run.open(folder)
    run.update(photos=str(moved), source=str(moved), status="training")
    first = sorted((moved / "red").glob("*.png"))[0]
    Image.new("RGB", (SIZE, SIZE), "red").save(first)
    with pytest.raises(EdgegraftError, match="changed set"):
        finetune(None, BASE, folder, Console(), resume=True)


def test_mixed_precision_leaves_a_float32_network(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked for on a CPU, and with photos that are 1:8, which is said."""
    few = tmp_path / "few"
    shutil.copytree(photos, few)
    for path in sorted((few / "blue").glob("*.png"))[4:]:
        path.unlink()
    settings = replace(BASE, precision="bfloat16", augment="none", epochs=1)
    run, prepared, model = finetune(few, settings, tmp_path / "run", Console())
    prepared.pixels.close()
    printed = capsys.readouterr().out
    assert "unbalanced: " in printed
    assert ", trained in bfloat16\n" in printed
    assert "; trained in bfloat16, kept in float32\n" in printed
    assert run.config["trained_in"] == "mixed_bfloat16"
    assert {layer.dtype_policy.name for layer in model._flatten_layers()} == {"float32"}
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert run.trained


def test_a_finished_run_resumes_to_itself(trained: Run) -> None:
    run, prepared, model = finetune(None, BASE, trained.folder, Console(), resume=True)
    prepared.pixels.close()
    assert run.trained
    for mine, theirs in zip(
        model.get_weights(), load(trained).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the tiny CNN, as a user may bring them."""
    seed_everything(0)
    shape = custom_cnn.from_mapping(TINY, "test")
    file = tmp_path_factory.mktemp("pretrained") / "weights.h5"
    registry.get("custom_cnn").build(SIZE, shape).save_weights(str(file))
    return file


def test_the_probe_is_the_floor_of_a_pretrained_run(
    photos: Path, pretrained: Path, tmp_path: Path
) -> None:
    """Weights from a file: probe, then one ruinous epoch; the probe is kept."""
    ruinous = replace(BASE, augment="none", epochs=1, rate=1.0)
    settings = replace(ruinous, weights=str(pretrained), unfreeze="all")
    run, prepared, _ = finetune(photos, settings, tmp_path / "run", Console())
    prepared.pixels.close()
    best, tried = run.config["best"], run.config["best"]["wise_ft"]
    assert best["alpha"] == min(tried, key=lambda point: point["val_loss"])["alpha"]
    assert tried[0]["alpha"] == 0
    assert min(point["val_loss"] for point in tried) <= tried[0]["val_loss"]
    assert run.config["unfrozen"] == "all" and "strength" in run.config["probe"]
    assert run.config["weights"]["source"] == "a file of the user's"


def test_weights_of_another_architecture_leave_no_run_behind(
    photos: Path, pretrained: Path, tmp_path: Path
) -> None:
    other = {**TINY, "filters": [4, 8]}
    settings = replace(BASE, weights=str(pretrained), cnn=other)
    with pytest.raises(EdgegraftError, match=r"expected weights of custom_cnn"):
        finetune(photos, settings, tmp_path / "run", Console())
    assert not (tmp_path / "run").exists()
