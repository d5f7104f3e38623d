"""Distillation: targets by hand, who may teach, and a student that follows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backbones import network
from data import batches
from data.augment import preset
from data.source import scan
from data.split import make_split
from edge.errors import EdgegraftError
from edge.preprocess import InputRecipe
from finetune import distill
from finetune.distill import (
    MAX_COMPONENTS,
    HintComponents,
    Teacher,
    open_teacher,
    refuse_leaks,
)
from finetune.loop.examples import Examples
from finetune.model import compute_outputs, load
from finetune.settings import Settings
from tests import finetune_helpers as tiny
from tests import quantize_room as room

pytestmark = pytest.mark.slow  # networks are trained or converted

RECIPE = InputRecipe(room.SIZE, room.SIZE)
SETTINGS = Settings(backbone="custom_cnn", size=room.SIZE, weights="none", teacher="x")


class Quiet:
    """A console that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    stage = say

    def bar(self, _: str) -> Any:
        import contextlib

        return contextlib.nullcontext(lambda done, total: None)


def redness(pixels: Any) -> Any:
    """A teacher's answer, [blue, red]: how red the photo is on the whole."""
    means = pixels.astype(np.float64).mean(axis=(1, 2))
    red = 1 / (1 + np.exp((means[:, 2] - means[:, 0]) / 10))
    return np.stack([1 - red, red], axis=1).astype(np.float32)


TEACHER = Teacher("redness", room.LABELS, RECIPE, redness)


def test_softened_answers_are_those_of_softened_logits() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (20, 4))

    def softmax(z: Any) -> Any:
        return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)

    answers = softmax(logits).astype(np.float32)
    for degrees in (1.0, 2.0, 5.0):
        got = distill.soften(answers, degrees)
        np.testing.assert_allclose(got, softmax(logits / degrees), atol=1e-5)
    sure = distill.soften(np.array([[1.0, 0.0]], np.float32), 2.0)
    assert np.isfinite(sure).all() and sure[0, 0] > 0.999  # int8 files answer 0


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = room.write_photos(tmp_path_factory.mktemp("distill") / "photos")
    found = scan(folder)
    pixels = batches.load(found.photos, RECIPE)
    split = make_split(found.photos, pixels.digests, val=0.25, test=0.25)
    part = split.part("train")
    truth = np.array([room.LABELS.index(photo.label) for photo in part])
    rows = np.array([pixels.rows[photo.path] for photo in part])
    return found, pixels, split, Examples(pixels.array, rows, truth)


def test_targets_mix_the_label_and_the_answer(photos: Any) -> None:
    _, pixels, split, train = photos
    settings = replace(SETTINGS, teacher_share=0.6, teacher_temperature=3.0)
    lesson = distill.Lesson(TEACHER)
    learnt, record = lesson.teach(train, split, pixels, settings, Quiet())
    answers = redness(train.pixels(np.arange(len(train))))
    wanted = 0.6 * distill.soften(answers, 3.0) + 0.4 * np.eye(2)[train.truth]
    got = learnt.targets(np.arange(len(train)), 2, smoothing=0.3)
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert (
        record["agrees_with_labels"] == (answers.argmax(axis=1) == train.truth).mean()
    )
    assert record["labelled"] == len(train) and record["unlabelled"] == 0


def test_a_teacher_with_its_labels_in_another_order(photos: Any) -> None:
    _, pixels, split, train = photos
    turned = Teacher("turned", room.LABELS[::-1], RECIPE, lambda p: redness(p)[:, ::-1])
    one, _ = distill.Lesson(TEACHER).teach(train, split, pixels, SETTINGS, Quiet())
    other, _ = distill.Lesson(turned).teach(train, split, pixels, SETTINGS, Quiet())
    np.testing.assert_array_equal(one.soft, other.soft)


def test_unlabelled_photos_are_the_teachers_and_never_those_judged(
    photos: Any, tmp_path: Path
) -> None:
    found, _, split, train = photos
    more = tmp_path / "more"
    more.mkdir()
    fresh = room.pixels(6, seed=99)
    for number, photo in enumerate(fresh):
        Image.fromarray(photo).save(more / f"{number}.png")
    (more / "twice.png").write_bytes((more / "0.png").read_bytes())
    for part in ("val", "test", "train"):
        taken = split.part(part)[0].path
        (more / f"of-{part}.png").write_bytes(taken.read_bytes())
    unlabelled = distill.unlabelled_photos(more)
    assert len(unlabelled) == 10
    pixels = batches.load([*found.photos, *unlabelled], RECIPE)
    lesson, console = distill.Lesson(TEACHER, unlabelled), Quiet()
    rows = np.array([pixels.rows[photo.path] for photo in split.part("train")])
    train = replace(train, array=pixels.array, rows=rows)
    learnt, record = lesson.teach(train, split, pixels, SETTINGS, console)
    assert record["unlabelled"] == 6 and len(learnt) == len(train) + 6
    behind = np.arange(len(train), len(learnt))
    np.testing.assert_array_equal(learnt.pixels(behind), fresh)
    answers = redness(fresh)
    np.testing.assert_array_equal(learnt.truth[behind], answers.argmax(axis=1))
    assert learnt.soft is not None
    np.testing.assert_allclose(learnt.soft[behind], distill.soften(answers, 2.0))
    told = " ".join(console.lines)
    assert "2 unlabelled photos left out: copies of validation or test photos" in told
    assert "2 unlabelled photos left out: copies of others" in told


def test_views_come_behind_and_keep_their_answers(photos: Any) -> None:
    _, pixels, split, train = photos
    settings = replace(SETTINGS, teacher_views=3, teacher_share=1.0, augment="standard")
    learnt, _ = distill.Lesson(TEACHER).teach(train, split, pixels, settings, Quiet())
    count = len(train)
    assert len(learnt) == 3 * count and learnt.soft is not None
    everything = np.arange(len(learnt))
    shown = learnt.pixels(everything)
    np.testing.assert_array_equal(shown[:count], train.pixels(np.arange(count)))
    wanted = distill.soften(redness(shown), settings.teacher_temperature)
    np.testing.assert_allclose(learnt.soft, wanted, atol=1e-6)
    np.testing.assert_array_equal(learnt.truth[count : 2 * count], train.truth)
    differ = [np.abs(shown[i].astype(int) - shown[i + count]).mean() for i in range(9)]
    assert min(differ) > 1, "a view that is the photo itself"


def test_a_view_is_the_same_at_any_size() -> None:
    smooth = np.random.default_rng(0).uniform(0, 255, (3, 6, 6, 3))
    small = np.stack([_resized(photo, 48) for photo in smooth])
    large = np.stack([_resized(photo, 96) for photo in smooth])
    rows, how = np.arange(3), preset("strong")
    one = np.concatenate(list(distill.view_batches(small, rows, how, 5, 2)))
    other = np.concatenate(list(distill.view_batches(large, rows, how, 5, 2)))
    halved = other.reshape(3, 48, 2, 48, 2, 3).mean(axis=(2, 4))
    # the same crop, turn, light and hole: what is left is resampling at the edges
    assert np.abs(halved - one).mean() < 4
    third = np.concatenate(list(distill.view_batches(small, rows, how, 5, 3)))
    assert np.abs(third.astype(float) - one).mean() > 15


def _resized(photo: Any, size: int) -> Any:
    image = Image.fromarray(photo.astype(np.uint8))
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


# -- hints -----------------------------------------------------------------------


def test_hints_are_the_widest_directions_at_length_one() -> None:
    random = np.random.default_rng(0)
    wide = random.normal(0, 3, (50, 2))
    features = np.hstack([wide, random.normal(0, 1e-3, (50, 5))]) + 100.0
    directions = HintComponents(features.astype(np.float32), seed=0)
    hints = directions.hints(features.astype(np.float32))
    assert hints.shape == (50, 7) and hints.dtype == np.float32
    np.testing.assert_allclose((hints**2).sum(axis=1), 1, atol=1e-5)
    many = random.normal(0, 1, (200, 90)).astype(np.float32)
    assert HintComponents(many, seed=0).hints(many[:3]).shape == (3, MAX_COMPONENTS)
    few = HintComponents(many[:5], seed=0)
    assert few.hints(many[:2]).shape == (2, 4), "5 photos span 4 directions"


def test_a_teacher_that_is_a_run_gives_hints_for_every_view(photos: Any) -> None:
    _, pixels, split, train = photos

    def see(some: Any) -> Any:
        return redness(some), some.astype(np.float32).mean(axis=(1, 2))

    settings = replace(SETTINGS, teacher_views=2, teacher_hints=2.0)
    settings = replace(settings, augment="standard")
    seeing = replace(TEACHER, with_features=see)
    learnt, record = distill.Lesson(seeing).teach(
        train, split, pixels, settings, Quiet()
    )
    assert learnt.hints is not None and len(learnt.hints) == 2 * len(train)
    assert record["hints"] == settings.teacher_hints > 0
    own = HintComponents(see(train.pixels(np.arange(len(train))))[1], settings.seed)
    shown = learnt.pixels(np.arange(len(learnt)))
    np.testing.assert_allclose(learnt.hints, own.hints(see(shown)[1]), atol=1e-4)
    batch = learnt.batch(np.array([3, 1]), 2, 0.0)
    np.testing.assert_array_equal(batch.hints, learnt.hints[[3, 1]])
    off = replace(settings, teacher_hints=0.0)
    learnt, record = distill.Lesson(seeing).teach(train, split, pixels, off, Quiet())
    assert learnt.hints is None and record["hints"] == 0
    console = Quiet()
    _, record = distill.Lesson(TEACHER).teach(train, split, pixels, settings, console)
    assert record["hints"] == 0
    assert any("no features to match" in line for line in console.lines)


def test_a_student_comes_to_see_what_its_teacher_sees(tmp_path: Path) -> None:
    """The hint tells bright photos from dark ones, which no answer asks for."""
    settings = replace(tiny.BASE, augment="none", epochs=20, patience=20, rate=3e-2)
    settings = replace(settings, average=0.0, teacher_hints=2.0)
    train = tiny.examples(hints=2)
    assert train.hints is not None
    brightness = train.array.mean(axis=(1, 2, 3))
    train.hints[:] = np.where(brightness > np.median(brightness), 1, -1)[:, None]
    it = tiny.trainer(tmp_path / "c", settings, train=train)

    def far() -> float:
        features = compute_outputs(
            network.feature_model(it.model), train.array, train.rows
        )
        assert it.hint_regressor is not None
        return float(np.mean(it.hint_regressor.losses(features, train.hints))) / 2.0

    before = far()
    it.start()
    it.run(tiny.quiet)
    assert before > 0.6 and far() < 0.3


# -- who may teach ----------------------------------------------------------------


def test_a_teacher_that_saw_the_test_part_is_refused(photos: Any) -> None:
    _, _, split, _ = photos
    for part in ("test", "val"):
        digests = frozenset(row.sha256 for row in split.rows if row.part == part)
        with pytest.raises(EdgegraftError, match=f"never saw the {part} part"):
            refuse_leaks(replace(TEACHER, trained_on=digests), split)
    own = frozenset(row.sha256 for row in split.rows if row.part == "train")
    refuse_leaks(replace(TEACHER, trained_on=own), split)
    copied = next(row for row in split.rows if row.part == "train")
    rows = (*split.rows, copied._replace(part="test"))  # the same photo in two folders
    refuse_leaks(replace(TEACHER, trained_on=own), replace(split, rows=rows))


def test_teachers_that_do_not_fit(tmp_path: Path) -> None:
    run = room.write_run(
        tmp_path / "run", room.write_photos(tmp_path / "p"), room.colour_network()
    )
    teacher = open_teacher(run.folder, room.LABELS)
    assert teacher.trained_on and len(teacher.trained_on) > 5
    pixels = room.pixels(4)
    assert teacher.predict(pixels).argmax(axis=1).tolist() == [0, 1, 0, 1]
    seeing = open_teacher(run.folder, room.LABELS, features=True)
    assert seeing.with_features is not None
    answers, features = seeing.with_features(pixels)
    np.testing.assert_allclose(answers, teacher.predict(pixels), atol=1e-5)
    np.testing.assert_allclose(
        features,
        compute_outputs(network.feature_model(load(run)), pixels, np.arange(4)),
        atol=1e-5,
    )
    for labels, path, says in [
        (("red", "green"), run.folder, "with the labels green, red"),
        (room.LABELS, tmp_path / "nothing.tflite", "nothing.tflite"),
        (room.LABELS, tmp_path, "expected a run folder"),
    ]:
        with pytest.raises(EdgegraftError) as caught:
            open_teacher(path, labels)
        assert says in str(caught.value) and "\n" not in str(caught.value)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(EdgegraftError, match="--teacher with --unlabelled"):
        Settings(unlabelled="more")
    with pytest.raises(EdgegraftError, match="--teacher-share"):
        Settings(teacher="x", teacher_share=0.0)
    with pytest.raises(EdgegraftError, match="folder of photos"):
        distill.unlabelled_photos(Path("nowhere"))


def test_folders_are_found_from_any_folder_later() -> None:
    import argparse

    from finetune import cli
    from finetune.console import Console

    parser = argparse.ArgumentParser()
    cli.add_parser(parser)
    given = "p --teacher t --unlabelled u --negatives n --backbone custom_cnn"
    settings = cli._settings(parser.parse_args(given.split()), Console(quiet=True))
    for folder, name in (
        (settings.teacher, "t"),
        (settings.unlabelled, "u"),
        (settings.negatives, "n"),
    ):
        assert folder == str(Path.cwd() / name)


def test_a_student_follows_its_teacher_rather_than_the_labels(tmp_path: Path) -> None:
    """Every training photo lies in the wrong folder; at share 1 that is no matter."""
    from finetune.console import Console

    others = room.write_photos(tmp_path / "others")
    teacher = room.write_run(tmp_path / "teacher", others, room.colour_network())
    root = tmp_path / "photos"
    for number, photo in enumerate(room.pixels(80, seed=31)):
        part = ("train", "train", "val", "test")[number // 2 % 4]
        right = number % 2
        label = room.LABELS[1 - right if part == "train" else right]
        path = root / part / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(path)
    settings = Settings(
        backbone="custom_cnn",
        size=room.SIZE,
        weights="none",
        cnn={"filters": [8], "head": "average", "dropout": 0.0},
        augment="none",
        epochs=20,
        batch=8,
        rate=3e-2,
        patience=20,
        teacher=str(teacher.folder),
        teacher_share=1.0,
    )
    run, _, _ = tiny.finetune(root, settings, tmp_path / "student", Console(quiet=True))
    assert run.config["distillation"]["agrees_with_labels"] == 0.0
    assert run.config["distillation"]["temperature"] == settings.teacher_temperature
    network = load(run)
    pixels = room.pixels(20, seed=5)
    answers = network.predict(pixels.astype("float32"), verbose=0).argmax(axis=1)
    assert (answers == np.arange(20) % 2).mean() >= 0.9
