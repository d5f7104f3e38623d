"""A few photos, fine-tuned: cross-validated, then trained on all of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backbones import custom_cnn, registry
from edge.errors import EdgegraftError
from finetune.head import cross_fit
from finetune.loop import folds
from finetune.loop import trainer as loop
from finetune.loop.examples import Examples
from finetune.loop.history import Epoch
from finetune.loop.trainer import Trainer
from finetune.model import load
from finetune.run import Run
from finetune.settings import Settings
from quantize.export import export
from quantize.gate import export_figures, read_exports
from tests.finetune_helpers import Heard, finetune

pytestmark = pytest.mark.slow  # networks are trained

SIZE, PHOTOS = 24, 60
SHAPE = {"filters": [8], "head": "average", "dropout": 0.0}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of noise, whose labels nothing in them tells, and a backbone at random."""
    folder = tmp_path_factory.mktemp("folds")
    random = np.random.default_rng(0)
    for number in range(PHOTOS):
        path = folder / "photos" / ("heads", "tails")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo = random.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
        Image.fromarray(photo).save(path)
    options = custom_cnn.from_mapping(SHAPE, "test")
    backbone = registry.get("custom_cnn").build(SIZE, options)
    backbone.save_weights(str(folder / "weights.h5"))
    return folder


def settings(place: Path, **more: Any) -> Settings:
    given = {"unfreeze": "all", "epochs": 2, "augment": "none", "rate": 1e-3, **more}
    weights = str(place / "weights.h5")
    return Settings.for_network(
        backbone="custom_cnn", size=SIZE, weights=weights, cnn=SHAPE, **given
    )


@pytest.fixture(scope="module")
def heard() -> Heard:
    return Heard()


@pytest.fixture(scope="module")
def run(place: Path, heard: Heard) -> Iterator[Run]:
    with pytest.MonkeyPatch.context() as patch:
        # so that the fine-tuned weights are kept, though noise teaches nothing
        patch.setattr(loop, "within_one_standard_error", lambda *_: True)
        found, prepared, _ = finetune(
            place / "photos", settings(place), place / "run", heard
        )
        prepared.pixels.close()
    yield found


def test_all_photos_are_trained_on_and_all_judge(run: Run, heard: Heard) -> None:
    train, val = len(run.part("train")), len(run.part("val"))
    assert run.cross_fitted and run.judged_on == "photos it learned from"
    best = run.config["best"]
    assert (best["epoch"], best["alpha"]) == (2, loop.USUAL)
    assert [point["alpha"] for point in best["wise_ft"]] == list(loop.ALPHAS)
    judged = run.metrics["cross_validated"]
    assert judged["photos"] == train + val
    assert judged["accuracy"] < 0.75  # noise: networks that saw the photos know them
    assert best["val_accuracy"] == judged["accuracy"]
    line = next(line for line in heard.lines if "fine-tuned on all" in line)
    assert f"all {train + val} training and validation photos: cross-validated" in line
    assert any("probe (WiSE-FT): cross-validated" in line for line in heard.lines)
    history = (run.folder / "history.csv").read_text().splitlines()
    assert len(history) == 1 + 3  # the probes, and two epochs
    assert (run.folder / "training.png").is_file()
    assert not (run.folder / "checkpoint").exists()


def test_photos_that_were_trained_on_do_not_show_that_int8_is_good(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repairs are tried, and no target is said to be reached."""
    # answers about noise flip easily: a file that is rejected is not the matter here
    monkeypatch.setattr("quantize.gate._falls", lambda *_: False)
    results = export(run, "float32,int8", overwrite=True, max_drop=1.0)
    int8 = results["int8"]
    assert results["float32"].reached and not int8.reached
    assert [rung.name for rung in int8.rungs] == ["plain", "corrected"]
    assert "of photos it was trained on (the target of 99%" in int8.fidelity_line
    records = read_exports(run)
    verdicts = {name: export_figures(row)["verdict"] for name, row in records.items()}
    assert verdicts == {"float32": "reached", "int8": "in-sample"}


def test_an_interrupted_one_ends_as_an_undisturbed_one(
    run: Run, place: Path, tmp_path: Path
) -> None:
    """Stopped in the second fold, and again while all photos are trained on."""
    begun: list[int] = []
    train = Trainer.run

    def stopped(it: Trainer, advance: Any) -> None:
        def stop(epoch: int, step: int, result: Any) -> None:
            advance(epoch, step, result)
            if result is not None and len(begun) in (2, 6):
                raise KeyboardInterrupt

        begun.append(len(it.train))
        train(it, stop)

    again: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "within_one_standard_error", lambda *_: True)
        patch.setattr(Trainer, "run", stopped)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                finetune(
                    None if again else place / "photos",
                    settings(place),
                    tmp_path / "run",
                    Heard(),
                    **again,
                )
            again = {"resume": True}
        found, prepared, model = finetune(
            None, settings(place), tmp_path / "run", Heard(), resume=True
        )
        prepared.pixels.close()
    whole = len(run.part("train")) + len(run.part("val"))
    # the second fold and the training with all photos go on where they were stopped
    assert len(begun) == 7 and begun[1] == begun[2] < whole
    assert begun[5] == begun[6] == whole
    wanted = load(run).get_weights()
    for mine, theirs in zip(model.get_weights(), wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)
    mine, theirs = (one.metrics["cross_validated"] for one in (found, run))
    assert mine["photos"] == theirs["photos"]
    assert abs(mine["right"] - theirs["right"]) <= 1  # sums on several threads differ


def test_the_probe_is_one_of_the_candidates(place: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "USUAL", 0.0)
        patch.setattr(loop, "within_one_standard_error", lambda *_: True)
        found, prepared, _ = finetune(
            place / "photos", settings(place), tmp_path / "run", Heard()
        )
        prepared.pixels.close()
    assert found.config["best"]["epoch"] == 0
    assert "strength" in found.config["calibration"]["cross_fit"]
    assert found.metrics["cross_validated"]["photos"] == len(found.part("train")) + len(
        found.part("val")
    )


@pytest.mark.parametrize(
    ("photos", "more", "job"),
    [
        ("photos", {"unfreeze": "none"}, {}),
        ("photos", {}, {"time_limit": 1e-3}),
        ("parts", {}, {}),  # a validation part that somebody chose
    ],
)
def test_where_it_takes_no_folds(
    place: Path, tmp_path: Path, photos: str, more: dict[str, Any], job: dict[str, Any]
) -> None:
    paths = sorted((place / "photos").rglob("*.png"))
    for number, path in enumerate(paths):
        part = ("train", "val", "test")[number % 3]
        target = tmp_path / "parts" / part / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    heard = Heard()
    source = place / "photos" if photos == "photos" else tmp_path / "parts"
    found, prepared, _ = finetune(
        source, settings(place, **more), tmp_path / "run", heard, **job
    )
    prepared.pixels.close()
    assert not any("fine-tuned on all" in line for line in heard.lines)
    assert not found.in_sample and not (tmp_path / "run" / "checkpoint").exists()


def test_added_photos_are_in_the_folds_too(place: Path, tmp_path: Path) -> None:
    added = tmp_path / "more" / "heads" / "new.png"
    added.parent.mkdir(parents=True)
    photo, heard = next((place / "photos").rglob("*.png")), Heard()
    Image.open(photo).transpose(Image.Transpose.TRANSVERSE).save(added)
    found, prepared, _ = finetune(
        place / "photos",
        settings(place),
        tmp_path / "run",
        heard,
        add=tmp_path / "more",
    )
    prepared.pixels.close()
    learned = len(found.part("train")) + len(found.part("val"))
    assert added in [photo.path for photo in found.part("train")]
    assert found.metrics["cross_validated"]["photos"] == learned
    assert any(f"then on all {learned}" in line for line in heard.lines)


@pytest.mark.parametrize(("seconds", "in_folds"), [(600, True), (540, False)])
def test_a_time_limit_leaves_time_for_folds_or_not(
    place: Path, tmp_path: Path, seconds: float, in_folds: bool
) -> None:
    """After two epochs of 60 and 30 s, of the four of the first fold: the other epochs,
    folds, and all photos take another 9.7 minutes."""
    heard = Heard()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finetune.job.countdown", lambda _: lambda: seconds)
        one_epoch = Trainer._one_epoch

        def timed(it: Trainer, epoch: int, advance: Any) -> Epoch:
            took = 60.0 if epoch == 1 else 30.0
            return replace(one_epoch(it, epoch, advance), seconds=took)

        patch.setattr(Trainer, "_one_epoch", timed)
        patch.setattr(loop, "within_one_standard_error", lambda *_: True)
        found, prepared, _ = finetune(
            place / "photos",
            settings(place, epochs=4),
            tmp_path / "run",
            heard,
            time_limit=1.0,
        )
        prepared.pixels.close()
    assert found.in_sample == in_folds
    refused = [line for line in heard.lines if "no folds" in line]
    wanted = "no folds: they would take 9.7 minutes more, --time-limit leaves 9.0"
    assert (refused == []) if in_folds else (wanted in refused[0])


@pytest.mark.parametrize("in_folds", [True, False])
def test_a_resumed_run_goes_on_as_it_was_begun(
    place: Path, tmp_path: Path, in_folds: bool
) -> None:
    """With a time limit or without: else photos that it learned from would judge."""
    limits: list[dict[str, Any]] = [{}, {"time_limit": 1e-3}]
    first, second = limits if in_folds else reversed(limits)
    trained, train = [0], Trainer.run

    def stopped(it: Trainer, advance: Any) -> None:
        def stop(epoch: int, step: int, result: Any) -> None:
            advance(epoch, step, result)
            if result is not None and trained[0] == (5 if in_folds else 2):
                raise KeyboardInterrupt

        trained[0] += 1
        train(it, stop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "run", stopped)
        patch.setattr(loop, "within_one_standard_error", lambda *_: True)
        with pytest.raises(KeyboardInterrupt):
            finetune(
                place / "photos", settings(place), tmp_path / "run", Heard(), **first
            )
        found, prepared, _ = finetune(
            None, settings(place), tmp_path / "run", Heard(), resume=True, **second
        )
        prepared.pixels.close()
    assert trained[0] == (6 if in_folds else 3)  # a fold that was begun, two
    assert found.cross_fitted == in_folds


def test_how_many_photos_are_few() -> None:
    assert folds.applies(340, 60)
    assert not folds.applies(341, 60)
    assert not folds.applies(200, cross_fit.FEW)


def test_weights_and_parts_are_joined() -> None:
    pixels = np.zeros((6, 4, 4, 3), np.uint8)
    weights = np.ones(4, np.float32)
    train = Examples(pixels, np.arange(4), np.array([0, 0, 0, 1]), weights=weights)
    val = Examples(pixels, np.array([4, 5]), np.array([0, 1]))
    both = folds.joined(train, val, 2)
    assert both.rows.tolist() == [0, 1, 2, 3, 4, 5]
    assert both.weights is not None
    assert both.weights.tolist() == [0.75, 0.75, 0.75, 1.5, 0.75, 1.5]


def test_a_damaged_fold_is_one_line(tmp_path: Path) -> None:
    photos = Examples(np.zeros((2, 4, 4, 3), np.uint8), np.arange(2), np.arange(2))
    for content in (b"no archive", b""):
        (tmp_path / "fold-0.npz").write_bytes(content)
        with pytest.raises(EdgegraftError, match=r"fold-0.npz.*--overwrite"):
            folds.read(tmp_path, photos)
    row = {"epoch": 0, "train_loss": None, "train_accuracy": None, "val_loss": 1.0}
    np.savez(
        tmp_path / "fold-0.npz",
        held_out=np.arange(1),
        logits=np.zeros((5, 1, 2)),
        history=json.dumps([row]),
    )
    with pytest.raises(EdgegraftError, match=r"fold-0\.npz"):
        folds.read(tmp_path, photos)
