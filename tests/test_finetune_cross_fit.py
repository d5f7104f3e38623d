"""Few photos: the head that learns from validation photos too, and what it says."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backbones import custom_cnn, network, registry
from edge.errors import EdgegraftError
from edge.model_file import ModelFile
from finetune import cli
from finetune import trained as trained_network
from finetune.distill import open_teacher, refuse_leaks
from finetune.head import cross_fit, probe
from finetune.loop import fit
from finetune.loop.examples import Examples
from finetune.model import compute_outputs, load
from finetune.run import Run
from finetune.settings import Settings, without_effect
from quantize.export import export
from quantize.reporting import model_card
from tests.finetune_helpers import Heard, finetune

pytestmark = pytest.mark.slow  # networks are trained or converted

SIZE = 32


def clouds(count: int, apart: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features [count, 60] of two labels that are so far apart, and their truth."""
    random = np.random.default_rng(seed)
    truth = np.arange(count) % 2
    found = random.normal(0, 1, (count, 60)) + 3
    found[:, 0] += apart * (2 * truth - 1)
    return found.astype(np.float32), truth


def accuracy(logits: np.ndarray, truth: np.ndarray) -> float:
    return float((logits.argmax(axis=1) == truth).mean())


def test_a_photo_is_answered_by_heads_that_did_not_see_it() -> None:
    x, _ = clouds(40, 0)
    truth = np.random.default_rng(1).permutation(np.arange(40) % 2)  # nothing to learn
    found = cross_fit.fit(x, truth, 2, groups=range(40))
    assert found is not None
    assert accuracy(x @ found.kernel + found.bias, truth) > 0.9  # learnt by heart
    assert accuracy(found.logits, truth) < 0.75
    sure = probe.softmax(found.logits / np.float32(found.temperature)).max(axis=1)
    assert sure.mean() < 0.75  # and says so


def test_what_belongs_together_shares_a_fold() -> None:
    x, _ = clouds(24, 0)
    truth = np.random.default_rng(2).permutation(np.arange(24) % 2)
    twice, labels = np.repeat(x, 2, axis=0), np.repeat(truth, 2)
    apart = cross_fit.fit(twice, labels, 2, groups=range(48))
    together = cross_fit.fit(twice, labels, 2, groups=np.arange(48) // 2)
    assert apart is not None and together is not None
    assert accuracy(apart.logits, labels) > 0.8  # its twin told
    assert accuracy(together.logits, labels) < 0.7


def test_what_can_be_learnt_is_and_with_the_right_certainty() -> None:
    x, truth = clouds(60, 1.5)
    found = cross_fit.fit(x, truth, 2, groups=range(60))
    assert found is not None
    fresh, answers = clouds(4000, 1.5, seed=9)
    logits = (fresh @ found.kernel + found.bias) / np.float32(found.temperature)
    right = accuracy(logits, answers)
    assert right > 0.75
    assert abs(probe.softmax(logits).max(axis=1).mean() - right) < 0.08


@pytest.mark.parametrize("counts", [(30, 3), (30, 0)])
def test_a_label_too_rare_for_every_fold(counts: tuple[int, int]) -> None:
    truth = np.repeat([0, 1], counts)
    x, _ = clouds(len(truth), 1)
    assert cross_fit.fit(x, truth, 2, groups=range(len(truth))) is None


def test_many_labels_of_few_photos_raise_no_warning() -> None:
    x, _ = clouds(30, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernel, _ = probe.head(x, np.arange(30) % 20, 20, 0.01)
    assert kernel.shape == (60, 20)


def test_a_weight_of_two_is_a_photo_twice() -> None:
    x, truth = clouds(40, 1)
    twice = np.concatenate([np.arange(40), np.flatnonzero(truth == 1)])
    weights = np.where(truth == 1, 2.0, 1.0).astype(np.float32)
    # features of one mean and scale, which is what the penalty is measured in
    kernel, bias = probe.head(x, truth, 2, 0.01, weights=weights)
    plain, _ = probe.head(x[twice], truth[twice], 2, 0.01)
    assert bias.shape == (2,)
    assert np.corrcoef(kernel[:, 1], plain[:, 1])[0, 1] > 0.99


@pytest.fixture(scope="module")
def heard() -> Heard:
    return Heard()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, heard: Heard) -> Run:
    """A probe on 2 x 24 photos of reddish and bluish noise, backbone at random."""
    folder = tmp_path_factory.mktemp("cross-fit")
    random = np.random.default_rng(0)
    for number in range(48):
        photo = random.integers(0, 200, (SIZE, SIZE, 3))
        photo[:, :, 2 * (number % 2)] += 3
        path = folder / "photos" / ("red", "violet")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo.astype(np.uint8)).save(path)
    shape = {"filters": [32], "head": "average", "dropout": 0.0}
    options = custom_cnn.from_mapping(shape, "test")
    backbone = registry.get("custom_cnn").build(SIZE, options)
    backbone.set_weights(
        [
            random.normal(0, (2 / w[..., 0].size) ** 0.5, w.shape) if w.ndim == 4 else w
            for w in backbone.get_weights()
        ]
    )
    backbone.save_weights(str(folder / "weights.h5"))
    settings = Settings.for_network(
        backbone="custom_cnn",
        size=SIZE,
        weights=str(folder / "weights.h5"),
        cnn=shape,
        unfreeze="none",
        epochs=3,
        balance="sampling",
    )
    found, prepared, model = finetune(
        folder / "photos", settings, folder / "run", heard
    )
    with prepared.pixels as pixels:
        given = {"model": model, "pixels": pixels, "console": heard}
        export(found, ("int8",), repair=False, **given)
    return found


def test_the_head_of_a_run_is_the_one_that_learnt_from_all(run: Run) -> None:
    """And its validation figures are those of heads that had not seen the photos."""
    assert run.cross_fitted
    parts = {part: run.part(part) for part in ("train", "val")}
    photos = [photo for part in parts.values() for photo in part]
    truth = np.array([run.labels.index(photo.label) for photo in photos])
    pixels = np.stack([np.asarray(Image.open(photo.path)) for photo in photos])
    model = load(run)
    x = compute_outputs(network.feature_model(model), pixels, range(len(pixels)))
    found = cross_fit.fit(x, truth, 2, groups=range(len(truth)))
    assert found is not None
    kernel, _ = network.get_head(model)
    want = found.kernel / np.float32(found.temperature)
    np.testing.assert_allclose(kernel, want, rtol=0.05, atol=0.02 * abs(want).max())
    metrics = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
    count = len(parts["train"])
    out_of_fold = accuracy(found.logits[count:], truth[count:])
    assert metrics["validation"]["accuracy"] == pytest.approx(out_of_fold)
    assert "out of fold" in metrics["validation_answered_by"]
    told = run.config["calibration"]
    assert told["photos"] == len(truth)
    right = int((found.logits.argmax(axis=1) == truth).sum())
    assert told["cross_fit"]["right"] == right
    rows = told["cross_fit"]["by_label"]
    assert [row["label"] for row in rows] == list(run.labels)
    assert [row["photos"] for row in rows] == np.bincount(truth).tolist()
    assert sum(row["right"] for row in rows) == right
    crossed = metrics["cross_validated"]
    assert (crossed["photos"], crossed["right"]) == (len(truth), right)
    assert crossed["by_label"] == rows
    low, high = crossed["interval"]
    assert low < crossed["accuracy"] == right / len(truth) < high


def test_copies_share_a_fold_however_the_folder_is_spelled(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their pairs name photos as the command did: a relative folder once lost them."""
    asked: list[Path] = []
    groups = cross_fit.copy_groups

    def copy_groups(photos: Any, digests: Any, pairs: Any) -> list[int]:
        asked.extend(photo.path for photo in photos)
        return groups(photos, digests, pairs)

    monkeypatch.setattr(cross_fit, "copy_groups", copy_groups)
    monkeypatch.chdir(run.photos_root.parent)
    _, prepared, _ = finetune(Path("photos"), run.settings, Path("again"), Heard())
    with prepared.pixels as pixels:
        assert asked and set(asked) <= set(pixels.digests)
        assert not asked[0].is_absolute()


def test_it_says_which_accuracy_to_believe(
    run: Run,
    heard: Heard,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In training, in what `finetune` prints at the end, and of the files."""
    count = len(run.part("train")) + len(run.part("val"))
    right = run.config["calibration"]["cross_fit"]["right"]
    share = f"{right / count:.1%}"
    at = next(k for k, x in enumerate(heard.lines) if "head fitted to all" in x)
    assert f"cross-validated {share} (95 % interval" in heard.lines[at]
    line = next(x for x in heard.lines if "int8: " in x and " MB, " in x)
    photos = len(run.part("val"))
    assert f"of {photos} photos it learned from: shows what a file loses" in line
    done = SimpleNamespace(run=run, network=object())
    monkeypatch.setattr(cli, "_train", lambda job, console: done)
    photos_folder = str(run.photos_root)
    assert cli.main([photos_folder, "--backbone", "custom_cnn"]) == 0
    judged, test = capsys.readouterr().out.splitlines()[:2]
    assert judged.startswith(f"cross-validated: {share} of {count} photos right (95 %")
    assert test.startswith("test: ")


@pytest.mark.parametrize("unlabelled", [None, "more"])
def test_a_probe_is_cross_fit_unless_a_teacher_labelled_photos(
    run: Run, unlabelled: str | None
) -> None:
    taught = {"teacher": "teacher", "unlabelled": unlabelled}
    settings = {**run.config["settings"], **taught}
    other = Run(run.folder, {**run.config, "settings": settings, "distillation": {}})
    parts = {part: other.part(part) for part in ("train", "val")}
    x, truth = clouds(sum(map(len, parts.values())), 1)
    halves = dict(zip(parts, np.split(x, [len(parts["train"])]), strict=True))
    trained = SimpleNamespace(
        parts=parts, features=halves.__getitem__, learned_truth=truth
    )
    head = trained_network._cross_fit(other, trained, other.split(), [])  # type: ignore[arg-type]
    assert (head is None) == (unlabelled is not None)


def test_options_that_do_nothing_without_fine_tuning_are_named(
    run: Run, heard: Heard
) -> None:
    told = "  without fine-tuning --epochs 3, --balance sampling have no effect"
    assert f"{told} (--unfreeze none)" in heard.lines
    assert (
        without_effect(Settings.for_network(seed=3, size=96, balance="weights")) == []
    )
    large = Settings(backbone="mobilenet_v2_1.0", rate=1e-4)  # its own default
    assert without_effect(large) == []
    varied = Settings.for_network(
        teacher="run", teacher_views=2, augment="light", rate=1e-3
    )
    assert without_effect(varied) == ["--rate 0.001"]
    alone = Settings.for_network(teacher="run", teacher_share=0.5)
    assert without_effect(alone) == ["--teacher-share 0.5", "--teacher"]


def test_patience_is_for_networks_from_scratch() -> None:
    rows = np.arange(fit.AUTO_MIN)
    many = Examples(np.zeros((len(rows), 8, 8, 3), np.uint8), rows, rows % 2)
    plan = fit.Plan.from_settings(Settings(), len(rows), pretrained=True)
    for patience, count in ((Settings.patience, 0), (3, 1)):
        settings = Settings(patience=patience)
        lines = fit.notes(settings, ("a", "b"), many, plan)
        assert len(lines) == count
        assert all("--patience 3 has no effect" in line for line in lines)


def test_what_is_trained_and_nothing_else_is_told(run: Run) -> None:
    auto, least = Settings(), fit.AUTO_MIN
    assert fit.Plan.from_settings(auto, least, pretrained=True).unfreeze == "auto"
    assert fit.Plan.from_settings(auto, least - 1, pretrained=True).unfreeze == "none"
    assert fit.Plan.from_settings(auto, 9, pretrained=False).unfreeze == "all"
    assert run.config["unfrozen"] == "none"
    lines = model_card._training(run)
    assert "- trained: a linear probe, no fine-tuning" in lines
    assert "- augmentation: none" in lines
    assert not (run.folder / "augmentation.png").exists()
    for best, told in (
        (
            {"epoch": 0, "alpha": 1.0},
            "auto, but the linear probe was better and is kept",
        ),
        (
            {"epoch": 3, "alpha": 0.75},
            "auto, 75% of it and 25% probe kept",
        ),
        ({"epoch": 3, "alpha": 1.0}, "auto"),
    ):
        tuned = Run(run.folder, {**run.config, "unfrozen": "auto", "best": best})
        assert f"- trained: {told}" in model_card._training(tuned)


def test_the_file_does_not_call_what_it_learnt_from_validation(run: Run) -> None:
    (file,) = run.exports.glob("int8*.tflite")  # noise: it may be rejected
    card = ModelFile.read(file).card
    assert card is not None
    folds = run.metrics["cross_validated"]
    assert card.measured == {
        "cross-validated before export": {
            name: folds[name] for name in ("accuracy", "interval", "photos")
        }
    }
    exports = json.loads((run.exports / "exports.json").read_text(encoding="utf-8"))
    assert exports["int8"]["judged_on"] == "photos it learned from"


def test_as_a_teacher_it_may_not_see_a_test_part_it_learnt_from(run: Run) -> None:
    teacher, split = open_teacher(run.folder, run.labels), run.split()
    refuse_leaks(teacher, split)  # the same split: its test part is unseen
    moved = [
        row._replace(part={"val": "test", "test": "val"}.get(row.part, row.part))
        for row in split.rows
    ]
    with pytest.raises(EdgegraftError, match="never saw the test part"):
        refuse_leaks(teacher, SimpleNamespace(rows=moved))  # type: ignore[arg-type]
