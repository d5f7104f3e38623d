"""The recipe's parts: balance, rates, averages, mixing, erasing, logs, the sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones import network, registry
from backbones.keras import tensorflow
from data.augment import GREY, Augmentation, augment, mix, preset
from edge.errors import EdgegraftError
from finetune.loop import examples, step
from finetune.loop.examples import Examples
from finetune.loop.history import Epoch, Logs
from finetune.loop.step import MovingAverage, average_decay

pytestmark = pytest.mark.slow  # networks are trained or converted

# -- balance ---------------------------------------------------------------------------

RARE = np.array([0] * 100 + [1])  # one photo to a hundred


def test_weights_make_every_class_count_alike() -> None:
    truth = np.array([0, 0, 0, 1, 2, 2])
    weights = examples.class_weights(truth, 4)[truth]  # class 3 has no photo
    sums = [weights[truth == number].sum() for number in range(3)]
    np.testing.assert_allclose(sums, 2.0, rtol=1e-6)
    assert weights.mean() == pytest.approx(1)
    assert examples.unbalance(RARE, 2) == 100


def test_sampling_draws_every_class_equally_often() -> None:
    drawn = examples.order(RARE, 2, "sampling", np.random.default_rng(0))
    assert len(drawn) == len(RARE)
    assert abs(int((RARE[drawn] == 0).sum()) - int((RARE[drawn] == 1).sum())) <= 1
    common = drawn[RARE[drawn] == 0]
    assert len(set(common)) == len(common)  # none of the many comes twice
    plain = examples.order(RARE, 2, "none", np.random.default_rng(0))
    assert sorted(plain) == list(range(len(RARE)))


def test_targets_are_smoothed_and_a_teachers_are_taken_as_they_are() -> None:
    array, rows = np.zeros((2, 4, 4, 3), np.uint8), np.arange(2)
    hard = Examples(array, rows, np.array([0, 2]))
    np.testing.assert_allclose(
        hard.targets(rows, 4, 0.2), [[0.85, 0.05, 0.05, 0.05], [0.05, 0.05, 0.85, 0.05]]
    )
    soft = np.array([[0.3, 0.7], [1, 0]], np.float32)
    taught = Examples(array, rows, np.array([1, 0]), soft=soft)
    np.testing.assert_array_equal(taught.targets(rows[::-1], 2, 0.2), soft[::-1])


# -- rates and averages ----------------------------------------------------------------


def test_the_rate_rises_then_falls_to_a_hundredth() -> None:
    rates = [step.rate_at(at, 100, 0.5) for at in range(101)]
    assert rates[9] == max(rates) == 0.5 and rates[0] == 0.05
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0.005)


def test_lower_layers_may_learn_more_slowly() -> None:
    record = registry.get("mobilenet_v2_0.35")
    model = network.assemble(record, 32, 2)
    count = step.set_trainable(model, record, "auto")
    assert 0 < count < model.count_params()
    whole = step.rate_groups(model, 1.0)
    assert len(whole) == 1 and len(whole[0].variables) == len(model.trainable_variables)
    groups = step.rate_groups(model, 0.1)
    multipliers = [group.multiplier for group in groups]
    assert multipliers[0] == 1 and min(multipliers) == pytest.approx(0.1)
    assert [v.name for v in groups[0].variables] == ["logits/kernel:0", "logits/bias:0"]
    together = [v.name for group in groups for v in group.variables]
    assert sorted(together) == sorted(v.name for v in model.trainable_variables)
    with pytest.raises(EdgegraftError, match=r"--unfreeze to be at most \d+.*got 9999"):
        step.set_trainable(model, record, "9999")
    head = step.set_trainable(model, record, "none")
    assert head == 1280 * 2 + 2
    assert step.set_trainable(model, record, "3") > head


def test_the_average_follows_and_swaps() -> None:
    weight = tensorflow().Variable([0.0, 8.0])
    still = tensorflow().Variable([1 / 3])
    average = MovingAverage([weight, still])
    average.decay.assign(0.5)
    weight.assign([4.0, 8.0])
    for _ in range(60):  # its start forgets fast, its end has a memory of two steps
        average.update()
    np.testing.assert_allclose(average.values[0], [4.0, 8.0], rtol=1e-6)
    weight.assign([8.0, 8.0])
    average.update()
    np.testing.assert_allclose(average.values[0], [6.0, 8.0], rtol=1e-6)
    average.swap()
    np.testing.assert_allclose(weight, [6.0, 8.0], rtol=1e-6)
    average.swap()
    np.testing.assert_array_equal(weight, [8.0, 8.0])
    assert still.numpy()[0] == np.float32(1 / 3)
    assert average_decay(2, 50) == pytest.approx(np.exp(-0.01))


# -- augmentation that goes beyond one photo -------------------------------------------


def batch() -> tuple[np.ndarray, np.ndarray]:
    photos = np.stack([np.full((24, 24, 3), 10.0 * n, np.float32) for n in range(4)])
    return photos, np.eye(4, dtype=np.float32)


def mixed(how: Augmentation, seed: int) -> tuple[np.ndarray, np.ndarray]:
    tf = tensorflow()
    photos, targets = batch()
    found = tf.function(lambda s: mix(photos, targets, how, s))(tf.constant([3, seed]))
    return found[0].numpy(), found[1].numpy()


@pytest.mark.parametrize(
    "how", [Augmentation(mixup=0.4), Augmentation(cutmix=1.0)], ids=["mixup", "cutmix"]
)
def test_answers_are_mixed_as_the_pixels_are(how: Augmentation) -> None:
    photos, _ = batch()
    kinds = set()
    for seed in range(12):
        pixels, targets = mixed(how, seed)
        np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
        # each photo is one shade, so a photo's mean tells how much of which is in it
        shares = targets @ np.arange(4) * 10
        np.testing.assert_allclose(pixels.mean(axis=(1, 2, 3)), shares, atol=1e-3)
        kinds.add(bool(np.array_equal(pixels, photos)))
        if how.cutmix:
            assert set(np.unique(pixels)) <= {0.0, 10.0, 20.0, 30.0}
    assert kinds == {True, False}  # some batches are left alone


def test_mixing_repeats_and_none_mixes_nothing() -> None:
    first, again = mixed(preset("strong"), 5), mixed(preset("strong"), 5)
    np.testing.assert_array_equal(first[0], again[0])
    plain, targets = mixed(preset("standard"), 5)
    np.testing.assert_array_equal(plain, batch()[0])
    np.testing.assert_array_equal(targets, np.eye(4))


def test_erasing_puts_one_grey_rectangle_on_some() -> None:
    tf = tensorflow()
    photos = tf.zeros((64, 40, 40, 3))
    found = augment(photos, Augmentation(erase=0.5), tf.constant([0, 1])).numpy()
    grey = (found == GREY).all(axis=3)
    area = grey.mean(axis=(1, 2))
    assert 0.3 < (area > 0).mean() < 0.7
    assert area.max() <= 0.3
    for photo in grey[area > 0]:
        rows, columns = np.flatnonzero(photo.any(1)), np.flatnonzero(photo.any(0))
        assert photo[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


# -- what a person sees ----------------------------------------------------------------


def test_colour_is_contrast_then_brightness_then_saturation() -> None:
    """One matrix a photo does what the three say one after the other."""
    tf, how = tensorflow(), Augmentation(brightness=0.2, contrast=0.4, saturation=0.5)
    photos = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype(np.float32)
    drawn = tf.random.stateless_uniform([3, 6, 1, 1, 1], [3, 4 + (1 << 20)], -1.0, 1.0)
    brightness, contrast, saturation = drawn.numpy()
    mean = photos.mean((1, 2, 3), keepdims=True)
    expected = (photos - mean) * (1 + contrast * 0.4) + mean + brightness * 0.2 * 255
    grey = expected.mean(3, keepdims=True)
    expected = (expected - grey) * (1 + saturation * 0.5) + grey
    assert expected.min() < 0 and expected.max() > 255  # which is cut off
    found = augment(tf.constant(photos), how, tf.constant([3, 4])).numpy()
    np.testing.assert_allclose(found, expected.clip(0, 255), atol=1e-3)


def test_the_sheet_shows_photos_of_all_labels(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    array = random.integers(0, 255, (10, 24, 24, 3)).astype(np.uint8)
    part = Examples(array, np.arange(10), np.arange(10) // 5)
    chosen = examples._of_all_classes(part, 2)
    assert list(part.truth[chosen]) == [0, 1, 0, 1]
    examples.draw_augmented(tmp_path / "a.png", part, ["cat", "dog"], "strong", 0)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 800 and picture.height > 400
    (same, targets), *_ = examples.augmented_variants(part, chosen, 2, "none", 0)
    np.testing.assert_array_equal(same, part.pixels(chosen))
    np.testing.assert_array_equal(targets.argmax(1), part.truth[chosen])


def test_tensorboard_can_read_the_log(tmp_path: Path) -> None:
    tf = tensorflow()
    from tensorflow.core.util.event_pb2 import Event

    logs = Logs(tmp_path)
    logs.add(Epoch(0, None, None, 0.7, 0.5, 0.0, 1.0))
    logs.add(Epoch(1, 0.6, 0.8, 0.4, 0.9, 1e-3, 2.0))
    (file,) = tmp_path.iterdir()
    seen = {}
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        event = Event.FromString(record)
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "scalars"
            seen[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    assert seen["accuracy/validation", 1] == pytest.approx(0.9)
    assert seen["loss/train", 1] == pytest.approx(0.6)
    assert ("loss/train", 0) not in seen and ("loss/validation", 0) in seen
