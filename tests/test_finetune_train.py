"""The training loop and the run it leaves, on a tiny CNN and noise in two colours."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backbones import custom_cnn, network, registry
from backbones.keras import seed_everything
from edge.errors import EdgegraftError
from finetune import interpolate, job
from finetune.console import Console
from finetune.epochs import Epoch
from finetune.examples import Examples
from finetune.features import compute
from finetune.job import finetune
from finetune.run import Run
from finetune.schedule import set_trainable
from finetune.settings import Settings
from finetune.train import Trainer

SIZE = 16
TINY = {"filters": [4, 8], "dropout": 0.0}
BASE = Settings(
    backbone="custom_cnn",
    size=SIZE,
    weights="none",
    cnn=TINY,
    augment="light",
    epochs=4,
    batch=8,
    rate=5e-3,
    label_smoothing=0.0,
    patience=10,
)


def examples(count: int = 40, seed: int = 0) -> Examples:
    random = np.random.default_rng(seed)
    photos = random.integers(0, 170, (count, SIZE, SIZE, 3))
    truth = np.arange(count) % 2
    photos[truth == 0, :, :, 0] += 40
    photos[truth == 1, :, :, 2] += 40
    return Examples(photos.astype(np.uint8), np.arange(count), truth)


def trainer(folder: Path, settings: Settings = BASE) -> Trainer:
    seed_everything(settings.seed)
    record = registry.get("custom_cnn")
    config = custom_cnn.from_mapping(settings.cnn or {}, "test")
    model = network.assemble(record, SIZE, 2, config, frozen=False)
    set_trainable(model, record, "all")
    return Trainer(
        model,
        settings,
        examples(),
        examples(20, seed=1),
        from_probe=False,
        checkpoint=folder,
    )


def quiet(*_: Any) -> None:
    return None


def weights_of(model: Any) -> list[np.ndarray]:
    return [np.array(weight) for weight in model.get_weights()]


def test_it_learns_and_loads_its_best_epoch(tmp_path: Path) -> None:
    it = trainer(tmp_path / "c")
    it.start()
    it.run(quiet)
    assert [epoch.epoch for epoch in it.history] == [0, 1, 2, 3, 4]
    assert it.best is not None and it.best.val_accuracy >= 0.9
    assert it.best.rank == max(epoch.rank for epoch in it.history)
    loss, accuracy = it.evaluate()
    assert accuracy == it.best.val_accuracy
    assert loss == pytest.approx(it.best.val_loss, abs=1e-5)


def test_a_run_stopped_after_an_epoch_ends_as_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    whole = trainer(tmp_path / "whole")
    whole.start()
    whole.run(quiet)

    class Stop(KeyboardInterrupt):
        pass

    def stop(epoch: int, step: int, done: Epoch | None) -> None:
        if epoch == 3 and step == 2:  # in the middle of an epoch
            raise Stop

    first = trainer(tmp_path / "stopped")
    first.start()
    with pytest.raises(Stop):
        first.run(stop)
    second = trainer(tmp_path / "stopped")
    second.model.set_weights([w * 0 + 9 for w in weights_of(second.model)])
    assert second.resume() and len(second.history) == 3
    second.run(quiet)
    assert [e.val_loss for e in second.history] == pytest.approx(
        [e.val_loss for e in whole.history], rel=1e-5
    )
    for mine, theirs in zip(
        weights_of(second.model), weights_of(whole.model), strict=True
    ):
        # the same sums on several threads may differ in the last bits
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_worse_epochs_do_not_replace_the_start(tmp_path: Path) -> None:
    good = trainer(tmp_path / "good")
    good.start()
    good.run(quiet)
    ruin = trainer(
        tmp_path / "ruin", Settings.from_dict({**BASE.to_dict(), "rate": 1.0})
    )
    ruin.model.set_weights(good.model.get_weights())
    ruin.start()
    start = ruin.history[0]
    ruin.run(quiet)
    assert ruin.best is not None and ruin.best.rank >= start.rank
    assert ruin.evaluate()[1] >= start.val_accuracy


def test_what_is_kept_lies_between_probe_and_end(tmp_path: Path) -> None:
    it = trainer(tmp_path / "c")
    it._from_probe = True
    it.start()
    start = weights_of(it.model)
    it.run(quiet)
    assert [point.share for point in it.way] == list(interpolate.SHARES)
    lowest = min(it.way, key=lambda point: point.val_loss)
    assert it.share == lowest.share > 0  # an untrained start is far behind
    assert it.best is not None and it.best.epoch == 4
    assert it.evaluate() == pytest.approx((it.best.val_loss, it.best.val_accuracy))
    ruin = Settings.from_dict({**BASE.to_dict(), "rate": 1.0, "epochs": 1})
    worse = trainer(tmp_path / "d", ruin)
    worse._from_probe = True
    worse.model.set_weights(it.model.get_weights())
    worse.start()
    start = weights_of(worse.model)
    worse.run(quiet)
    assert worse.share < 1
    if worse.share == 0:
        assert worse.best is not None and worse.best.epoch == 0
        for mine, theirs in zip(weights_of(worse.model), start, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_between_two_networks() -> None:
    start, end = [np.float32([0, 2])], [np.float32([1, 4])]
    assert interpolate.between(start, end, 0.0)[0] is start[0]
    assert interpolate.between(start, end, 1.0)[0] is end[0]
    np.testing.assert_allclose(interpolate.between(start, end, 0.25)[0], [0.25, 2.5])
    truth = np.arange(40) % 2
    signs = np.where(truth[:, None] == np.arange(2), 1.0, -1.0).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 1, (40, 2)).astype(np.float32)
    best = interpolate.choose(lambda share: signs - noise * abs(share - 0.75), truth)
    assert best[0].share == 0.75 and best[0].val_accuracy == 1.0
    alike = interpolate.choose(lambda share: signs, truth)
    assert alike[0].share == 0.0  # nothing gained: the probe stays


def test_patience_ends_a_hopeless_run(tmp_path: Path) -> None:
    settings = Settings.from_dict({**BASE.to_dict(), "patience": 1, "rate": 1e-12})
    it = trainer(tmp_path / "c", settings)
    it.start()
    it.run(quiet)
    assert len(it.history) < 1 + settings.epochs


def test_time_that_runs_out_ends_training_with_what_it_has(tmp_path: Path) -> None:
    it = trainer(tmp_path / "c")
    left = iter([1e6] * 7 + [0.0] * 99)
    it._time_left = lambda: next(left)
    it.start()
    it.run(quiet)  # five steps an epoch, and a look at the plan after it
    assert [epoch.epoch for epoch in it.history] == [0, 1, 2]
    assert it.best is not None and it.best.epoch > 0
    planned = trainer(tmp_path / "d")
    seconds = iter([9.0] * 5 + [2.5] * 99)
    planned._time_left = lambda: next(seconds)
    planned.start()
    planned._plan(1, 1.0)  # the first look: nine more epochs fit
    assert planned.planned == BASE.epochs
    for _ in range(4):
        next(seconds)
    planned._plan(1, 1.0)
    assert planned.planned == 3  # two more fit, so the rate falls by then
    none = trainer(tmp_path / "e")
    none._from_probe, none._time_left = True, lambda: -1.0
    none.start()
    none.planned = 0
    start = weights_of(none.model)
    none.run(quiet)
    for mine, theirs in zip(weights_of(none.model), start, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_nan_stops_with_the_step_and_keeps_the_last_good_weights(
    tmp_path: Path,
) -> None:
    it = trainer(tmp_path / "c")
    it.start()
    kernel, bias = network.get_head(it.model)
    network.set_head(it.model, kernel, bias * np.nan)
    with pytest.raises(EdgegraftError, match=r"got nan in epoch 1, step 1; .*--rate"):
        it.run(quiet)
    assert (tmp_path / "c" / "kept-0.npz").is_file()


@pytest.mark.parametrize("damage", ["state.json", "epoch-0.index"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: str) -> None:
    it = trainer(tmp_path / "c")
    it.start()
    path = tmp_path / "c" / damage
    assert path.is_file()
    path.write_bytes(b"\x00{")
    with pytest.raises(EdgegraftError, match="--overwrite") as caught:
        trainer(tmp_path / "c").resume()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("unfreeze", ["none", "top", "all"])
def test_unfreezing_trains_that_part_and_never_batch_norm_statistics(
    unfreeze: str, tmp_path: Path
) -> None:
    record = registry.get("mobilenet_v2_0.35")
    model = network.assemble(record, 32, 2)
    settings = Settings.from_dict(
        {**BASE.to_dict(), "size": 32, "epochs": 1, "batch": 8}
    )
    random = np.random.default_rng(0)
    photos = random.integers(0, 255, (8, 32, 32, 3)).astype(np.uint8)
    part = Examples(photos, np.arange(8), (np.arange(8) % 3 == 0).astype(np.int64))
    set_trainable(model, record, unfreeze)
    # the head starts at zero, and a zero head passes no gradient on
    network.set_head(model, random.normal(0, 1, (1280, 2)), np.zeros(2))
    before = {v.name: np.array(v) for v in model.variables}
    it = Trainer(
        model, settings, part, part, from_probe=True, checkpoint=tmp_path / "c"
    )
    it.start()
    it.steps = 1
    it._one_epoch(1, quiet)
    moved = {v.name for v in model.variables if not np.array_equal(before[v.name], v)}
    assert any(name.startswith("logits") for name in moved)
    assert not any("moving_" in name for name in moved)
    backbone = {name for name in moved if not name.startswith("logits")}
    early = {name for name in backbone if name.startswith(("Conv1", "block_3"))}
    assert bool(backbone) == (unfreeze != "none")
    assert bool(early) == (unfreeze == "all")


# -- the whole job ---------------------------------------------------------------------


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
    run, prepared, _ = finetune(photos, BASE, folder, Console())
    prepared.pixels.close()
    return run


def test_a_run_leaves_everything_the_readme_says(trained: Run) -> None:
    files = {path.name for path in trained.folder.iterdir()}
    # so few photos leave the network in doubt of some
    assert files - {"doubts.csv", "doubts.png"} == {
        "run.json",
        "split.csv",
        "history.csv",
        "training.png",
        "metrics.json",
        "confusion.png",
        "mistakes.png",
        "augmentation.png",
        "logs",
        "unsure.png",
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
    model = trained.model()
    with job.batches.load(trained.part("test"), trained.recipe) as pixels:
        answers = compute(model, pixels.array, range(len(pixels.array)))
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
    settings = Settings.from_dict(
        {**BASE.to_dict(), "precision": "bfloat16", "epochs": 1}
    )
    run, prepared, model = finetune(few, settings, tmp_path / "run", Console())
    prepared.pixels.close()
    assert "unbalanced: " in capsys.readouterr().out
    assert {layer.dtype_policy.name for layer in model._flatten_layers()} == {"float32"}
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert run.trained


def test_a_finished_run_resumes_to_itself(trained: Run) -> None:
    run, prepared, model = finetune(None, BASE, trained.folder, Console(), resume=True)
    prepared.pixels.close()
    assert run.trained
    for mine, theirs in zip(
        model.get_weights(), trained.model().get_weights(), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_the_probe_is_the_floor_of_a_pretrained_run(
    photos: Path, tmp_path: Path
) -> None:
    """Weights from a file: probe, then one ruinous epoch; the probe is kept."""
    record = registry.get("mobilenet_v1_0.25")
    file = tmp_path / "weights.h5"
    seed_everything(0)
    record.build(32, None).save_weights(str(file))
    settings = Settings(
        backbone=record.name,
        size=32,
        weights=str(file),
        unfreeze="top",
        epochs=1,
        rate=1.0,
        batch=8,
    )
    run, prepared, _ = finetune(photos, settings, tmp_path / "run", Console())
    prepared.pixels.close()
    best, way = run.config["best"], run.config["best"]["way"]
    assert best["share"] == min(way, key=lambda point: point["val_loss"])["share"]
    assert way[0]["share"] == 0
    assert min(point["val_loss"] for point in way) <= way[0]["val_loss"]
    assert run.config["weights"]["source"] == "a file of the user's"
