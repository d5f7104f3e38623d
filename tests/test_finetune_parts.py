"""The parts of a training run, each against what can be worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backbones.keras import keras, tensorflow
from data.augment import PRESETS, Augmentation, augment, preset
from edge.errors import EdgegraftError
from edge.evaluate import calibration_error
from finetune.head import probe
from finetune.model import load
from finetune.run import Run
from finetune.settings import Settings

# -- augmentation -----------------------------------------------------------------


def varied(how: Augmentation, seed: int = 0) -> np.ndarray:
    photos = np.random.default_rng(0).uniform(0, 255, (6, 20, 20, 3)).astype("float32")
    tf = tensorflow()
    return augment(tf.constant(photos), how, tf.constant([0, seed], tf.int32)).numpy()


def test_no_augmentation_changes_nothing() -> None:
    photos = np.random.default_rng(0).uniform(0, 255, (6, 20, 20, 3)).astype("float32")
    np.testing.assert_array_equal(varied(PRESETS["none"]), photos)


def test_mirroring_only_mirrors() -> None:
    plain, mirrored = varied(PRESETS["none"]), varied(Augmentation(mirror=True))
    turned = 0
    for before, after in zip(plain, mirrored, strict=True):
        same = np.allclose(before, after, atol=0.05)
        flipped = np.allclose(before[:, ::-1], after, atol=0.05)
        assert same != flipped
        turned += flipped
    assert 0 < turned < len(plain)


@pytest.mark.parametrize("name", PRESETS)
def test_a_seed_makes_the_same_pictures_and_they_stay_in_range(name: str) -> None:
    first, again, other = (varied(preset(name), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (name == "none") == np.array_equal(first, other)
    assert first.min() >= 0 and first.max() <= 255 and first.shape == (6, 20, 20, 3)


def test_unknown_preset_lists_the_known() -> None:
    with pytest.raises(EdgegraftError, match="none, light, standard"):
        preset("heavy")


# -- probe and calibration ------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_finds_the_optimum_and_chooses_on_validation(classes: int) -> None:
    random = np.random.default_rng(0)
    centres = random.normal(0, 1.2, (classes, 12))
    truth = np.arange(600) % classes
    features = (centres[truth] + random.normal(0, 1, (600, 12))).astype("float32") + 5
    fitted = probe.fit(
        features[:400], truth[:400], features[400:], truth[400:], classes
    )
    losses = {row["strength"]: row["val_loss"] for row in fitted.tried}
    assert fitted.strength == min(losses, key=losses.__getitem__)
    logits = features[400:] @ fitted.kernel + fitted.bias
    # the head that is returned is the head that was judged
    assert probe.log_loss(logits, truth[400:]) == pytest.approx(
        losses[fitted.strength], abs=1e-4
    )
    nearest = ((features[400:, None] - 5 - centres) ** 2).sum(2).argmin(1)
    best = (nearest == truth[400:]).mean()  # the best there is, for these clouds
    assert (logits.argmax(1) == truth[400:]).mean() > best - 0.05


def test_temperature_mends_overconfidence_and_keeps_answers() -> None:
    random = np.random.default_rng(0)
    sure = random.normal(0, 2, (4000, 3)).astype("float32")
    chances = np.exp(sure) / np.exp(sure).sum(1, keepdims=True)
    truth = np.array([random.choice(3, p=p / p.sum()) for p in chances.astype(float)])
    found = probe.fit_temperature(sure * 4, truth)  # four times too sure
    assert found == pytest.approx(4, rel=0.1)
    before = calibration_error(_softmax(sure * 4), truth)
    after = calibration_error(_softmax(sure * 4 / found), truth)
    assert before > 0.15 and after < 0.03


def test_no_mistake_on_few_photos_does_not_make_endlessly_sure() -> None:
    truth = np.arange(20) % 2
    logits = np.where(truth[:, None] == np.arange(2), 3.0, -3.0).astype("float32")
    assert 0.8 < probe.fit_temperature(logits, truth) < 1


@pytest.mark.parametrize("count", [4, 20, 200])
def test_a_temperature_never_raises_the_loss(count: int) -> None:
    random = np.random.default_rng(count)
    truth = random.integers(0, 3, count)
    logits = random.normal(0, 3, (count, 3)).astype("float32")
    logits[np.arange(count), truth] += 2
    found = probe.temperature_effect(
        logits, truth, probe.fit_temperature(logits, truth)
    )
    assert found["val_loss_after"] < found["val_loss_before"]


def _softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_folding_divides_the_logits() -> None:
    from backbones import network, registry

    model = network.assemble(registry.get("custom_cnn"), 32, 2, frozen=False)
    kernel = np.random.default_rng(0).normal(0, 1, (128, 2)).astype("float32")
    network.set_head(model, kernel, np.array([1.0, -1.0], np.float32))
    photo = np.random.default_rng(1).uniform(0, 255, (3, 32, 32, 3)).astype("float32")
    before = network.logit_model(model).predict(photo, verbose=0)
    probe.fold_temperature(model, 2.5)
    after = network.logit_model(model).predict(photo, verbose=0)
    np.testing.assert_allclose(after, before / 2.5, rtol=1e-4, atol=1e-5)


# -- settings and run folder -----------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"size": 4},
        {"epochs": 0},
        {"batch": 0},
        {"rate": 0.0},
        {"rate": float("nan")},
        {"val": 0.6},
        {"test": 0.0},
        {"unfreeze": "some"},
        {"resize": "squash"},
        {"patience": 0},
        {"seed": -1},
        {"label_smoothing": 1.0},
        {"augment": "heavy"},
        {"unfreeze": "0"},
        {"unfreeze": "-3"},
        {"balance": "yes"},
        {"precision": "int8"},
        {"average": -1.0},
        {"rate_decay": 0.0},
    ],
    ids=str,
)
def test_settings_refuse_nonsense(values: dict[str, object]) -> None:
    with pytest.raises(EdgegraftError, match="expected"):
        Settings(**values)  # type: ignore[arg-type]


def test_settings_survive_run_json() -> None:
    settings = Settings(backbone="custom_cnn", cnn={"filters": [8]}, size=64, seed=7)
    assert Settings.from_dict({**settings.to_dict(), "later": 1}) == settings


def config() -> dict[str, object]:
    return {"labels": ["a", "b"], "settings": Settings().to_dict(), "photos": "."}


def test_a_run_is_not_overwritten_unasked_and_foreign_files_stay(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    Run.create(folder, config(), overwrite=False)
    (folder / "notes.txt").write_text("mine")
    (folder / "exports").mkdir()
    (folder / "exports" / "int8.tflite").write_bytes(b"old")
    with pytest.raises(EdgegraftError, match="--overwrite"):
        Run.create(folder, config(), overwrite=False)
    Run.create(folder, config(), overwrite=True)
    assert sorted(p.name for p in folder.iterdir()) == ["notes.txt", "run.json"]


def test_a_folder_of_something_else_is_never_used(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(EdgegraftError, match="something else"):
        Run.create(tmp_path, config(), overwrite=True)
    assert (tmp_path / "photo.jpg").read_bytes() == b"x"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"labels": 3, "settings": {}}'])
def test_a_damaged_run_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(EdgegraftError, match="damaged") as caught:
        Run.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_run_and_an_unfinished_run(tmp_path: Path) -> None:
    with pytest.raises(EdgegraftError, match="edgegraft build PHOTOS"):
        Run.open(tmp_path)
    run = Run.create(tmp_path / "r", config(), overwrite=False)
    with pytest.raises(EdgegraftError, match="--resume"):
        load(run)


def test_seeding_repeats_initial_weights() -> None:
    from backbones.keras import seed_everything

    def kernel() -> np.ndarray:
        seed_everything(5)
        return keras().layers.Dense(3)(np.ones((1, 4), np.float32)).numpy()

    np.testing.assert_array_equal(kernel(), kernel())
