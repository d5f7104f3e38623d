"""What goes wrong in a training, on the command line: one line, 2, nothing lost.

Weights of another network: test_finetune_job; a worker that never comes up:
test_finetune_workers; a module that is not there: test_backbones_hub.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgegraft
from edge.errors import EdgegraftError
from finetune.loop import fit
from finetune.loop.history import Epoch
from finetune.loop.step import Step
from finetune.run import Run
from tests.edge_models import network, save, with_card
from tests.finetune_helpers import draw, drawn
from tests.quantize_room import white_diagrams

TINY = ("--backbone", "custom_cnn", "--size", "16", "--augment", "none")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn(tmp_path_factory.mktemp("bad") / "photos")


def refused(
    capsys: pytest.CaptureFixture[str], verb: str, *argv: str | Path
) -> tuple[str, str]:
    """What the command says on both streams; 2, one line."""
    capsys.readouterr()
    assert edgegraft.main([verb, *map(str, argv)]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("edgegraft: error: ") and err.count("\n") == 1, err
    return out, err


def files(folder: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@contextmanager
def diverging() -> Iterator[None]:
    """The third step's loss is NaN, whatever the batch; nothing is computed.

    A network that does diverge: test_finetune_train.
    """

    def step(self: Step, batch: Any, *, rate: float, seed: Any) -> tuple[float, float]:
        return (0.7 if seed[1] < 2 else math.nan), 0.5

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Step, "__call__", step)
        yield


@pytest.fixture(scope="module")
def diverged(
    photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The folder of a run that ended in NaN, and what its command raised."""
    folder = tmp_path_factory.mktemp("diverged")
    where = ("--artifacts", str(folder), "--run", "nan", "--debug")
    argv = ["finetune", str(photos), *TINY, "--batch", "4", "--rate", "0.9", *where]
    with diverging(), pytest.raises(EdgegraftError) as caught:
        edgegraft.main(argv)
    return folder / "nan", str(caught.value)


def test_a_loss_that_is_nan_keeps_the_last_good_weights(
    diverged: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, told = diverged
    assert "expected a finite loss, got nan in epoch 1, step 3; " in told
    kept = folder / "checkpoint" / "kept-0.npz"
    assert f"the weights of epoch 0 are kept in {kept}" in told
    assert "try a smaller --rate than 0.9, with --overwrite" in told
    with np.load(kept) as weights:
        assert all(np.isfinite(weights[name]).all() for name in weights.files)
    assert Run.open(folder).config["status"] == "training"
    again = ("--artifacts", folder.parent, "--run", "nan", "--resume")
    with diverging():  # and so it can be resumed
        assert told in refused(capsys, "finetune", *again)[1]


@pytest.mark.parametrize("damaged", ["state.json", "epoch-0.index", "kept-0.npz"])
def test_a_damaged_checkpoint_is_refused_before_training(
    damaged: str,
    diverged: tuple[Path, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The weights kept are needed at the end only, hours later."""
    folder = shutil.copytree(diverged[0], tmp_path / "nan")
    path = folder / "checkpoint" / damaged
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = files(folder)
    again = ("--artifacts", tmp_path, "--run", "nan", "--resume")
    out, err = refused(capsys, "finetune", *again)
    assert f"expected a checkpoint of this run in {folder / 'checkpoint'}" in err
    assert "start again with --overwrite" in err and "training" not in out
    assert files(folder) == before


def uneven(root: Path, blue: int, red: int) -> Path:
    for label, count in (("blue", blue), ("red", red)):
        for number in range(count):
            seed = number + 1000 * (label == "red")
            draw(root / label / f"{number:03}.png", seed, label)
    return root


@pytest.mark.parametrize(
    ("blue", "red", "told"),
    [
        (20, 1, "expected at least 2 photos of 'red', got 1; add some"),
        (20, 2, "label 'red': expected at least 3 that can be read and differ"),
    ],
)
def test_too_few_of_a_label_to_split(
    blue: int, red: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = uneven(tmp_path / "photos", blue, red)
    where = ("--artifacts", tmp_path / "runs")
    assert told in refused(capsys, "build", root, *TINY, *where)[1]
    assert not (tmp_path / "runs").exists()
    assert len(list(root.rglob("*.png"))) == blue + red


@pytest.mark.slow
def test_one_rare_label_is_trained_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """3 photos of 60, one in each part: what it reaches is what a guess would."""
    root = uneven(tmp_path / "photos", 57, 3)
    argv = ["build", str(root), *TINY, "--epochs", "1", "--set", "filters=[4]"]
    argv += ["--artifacts", str(tmp_path / "runs"), "--run", "uneven"]
    argv += ["--variants", "float32", "--familiarity", "none", "--threads", "1"]
    with white_diagrams():
        assert edgegraft.main(argv) == 0
    out = capsys.readouterr().out
    assert "unbalanced: 39 training photos of blue, 1 of red; rare labels" in out
    sentence = (
        r"\d+ test photos do not show that it is better than guessing \(50% balanced "
        r"accuracy\)"
    )
    assert re.search(sentence, " ".join(out.split()))
    card = (tmp_path / "runs" / "uneven" / "README.md").read_text(encoding="utf-8")
    assert re.search(sentence, card)


def test_a_teacher_with_other_labels(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = save(tmp_path / "rgb.tflite", with_card(network()))
    where = ("--artifacts", tmp_path / "runs", "--teacher", teacher)
    err = refused(capsys, "build", photos, *TINY, *where)[1]
    assert "expected a teacher with the labels blue, red, got" in err
    assert "with blue, green, red" in err
    assert not (tmp_path / "runs").exists()


def test_a_teacher_that_is_not_there_is_told_before_weights_are_looked_for(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    where = ("--artifacts", tmp_path / "runs", "--teacher", gone)
    student = ("--backbone", "mobilenet_v2_0.35", "--weights", tmp_path / "none.h5")
    err = refused(capsys, "build", photos, *student, *where)[1]
    assert f"to be a run's folder or a .tflite file, got {gone}" in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_label_missing_from_one_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, part in enumerate(("train", "val", "test")):
        for label in ("blue", "red"):
            for number in range(3):
                where = tmp_path / "photos" / part / label / f"{number}.png"
                draw(where, 10 * seed + number + 100 * (label == "red"), label)
    for path in (tmp_path / "photos" / "test" / "red").iterdir():
        path.unlink()  # the folder stays
    argv = ["build", str(tmp_path / "photos"), *TINY, "--run", "part"]
    argv += ["--artifacts", str(tmp_path / "runs"), "--variants", "float32"]
    argv += ["--epochs", "1", "--set", "filters=[4]", "--familiarity", "none"]
    assert edgegraft.main([*argv, "--threads", "1"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "test has no photos of red: it is not measured there" in out
    assert "of 3 test photos" in out
    alone = "the test photos show blue alone: a file that always answers it would"
    assert alone in out
    run = tmp_path / "runs" / "part"
    card = (run / "README.md").read_text(encoding="utf-8")
    assert "| red | 0 | - | - | - |" in card
    assert "Not measured, no test photos: red." in card
    for name in ("confusion.png", "calibration.png", "comparison.png"):
        Image.open(run / name).verify()


def test_photos_that_are_not_there_are_refused_before_anything_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    for verb in ("build", "finetune"):
        out, err = refused(capsys, verb, gone, "--artifacts", tmp_path / "runs")
        assert out == "" and f"{gone}: expected a folder" in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--calibration", "0", "--calibration to be 1 or more, got 0"),
        ("--max-drop", "200", "--max-drop from 0 to 100 points, got 200"),
        ("--variants", "int9", "got 'int9'"),
        ("--runtime", "tflite-runtime", "tflite-runtime is not installed"),
    ],
)
def test_options_of_the_export_are_refused_before_training(
    option: str,
    value: str,
    message: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = (photos, *TINY, option, value, "--artifacts", tmp_path / "runs")
    assert message in refused(capsys, "build", *argv)[1]
    assert not (tmp_path / "runs").exists()


def test_a_module_that_is_not_there(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--artifacts", tmp_path / "runs", "--backbone", f"hub:{tmp_path}/none")
    err = refused(capsys, "build", photos, *where)[1]
    assert f"at {tmp_path}/none, got no such folder" in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("pretrained", [False, True])
def test_a_training_that_led_nowhere_is_said(pretrained: bool) -> None:
    start = Epoch(0, None, None, 0.7, 0.5, 0.0, 1.0)
    trainer = SimpleNamespace(best=start, alpha=1.0, tried=(), val=object())
    told = fit.verdict(trainer, pretrained=pretrained)
    assert ("training did not improve it" in told) != pretrained  # a probe is fitted
