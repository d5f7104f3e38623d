"""What a run tells of its network: reliability, learning curve, hardest photos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge.evaluate import calibration_error, score
from finetune import evaluate, figures, paired
from finetune.head import learning_curve, probe
from finetune.loop.history import Epoch, draw_history


def test_bins_hold_every_photo_and_add_up_to_the_error_with_its_chance():
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (400, 3)).astype(np.float32)
    found = probe.softmax(logits)
    truth = np.array([random.choice(3, p=row / row.sum()) for row in found])
    rows = evaluate.confidence_bins(found, truth)
    assert sum(one.photos for one in rows) == 400
    assert all(one.low <= one.confidence <= one.high for one in rows)
    assert all(one.interval[0] <= one.accuracy <= one.interval[1] for one in rows)
    error = sum(one.photos * abs(one.accuracy - one.confidence) for one in rows) / 400
    want = calibration_error(found, truth, bins=evaluate.BINS)
    assert want < error < want + 0.05
    told = evaluate.calibration_record(probe.softmax(logits * 3), found, truth)
    assert told["error_before"] > told["error_after"] + 0.05


def line(count: int, seed: int, dimensions: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Features whose label is the sign of a sum over all of them."""
    x = np.random.default_rng(seed).normal(0, 1, (count, dimensions))
    return x.astype(np.float32), (x.sum(axis=1) > 0).astype(np.int64)


def test_the_learning_curve_rises_where_photos_are_missing_and_is_flat_where_not():
    val, val_truth = line(400, 9)
    rising = learning_curve.curve(*line(60, 1), val, val_truth, 2, 1.0)
    counts = [point["photos"] for point in rising["points"]]
    assert counts == [6, 15, 30, 60]
    accuracies = [point["accuracy"] for point in rising["points"]]
    assert accuracies[-1] > accuracies[0] + 0.1
    assert rising["verdict"].startswith(
        "more photos would help: from 15 to 30 photos a label accuracy rose by "
    )
    flat = learning_curve.curve(*line(4000, 1, 3), *line(400, 2, 3), 2, 1.0)
    assert flat["verdict"] == "more photos of the same kind would hardly help"
    few = learning_curve.curve(*line(60, 1), val[:5], val_truth[:5], 2, 1.0)
    assert few["verdict"].startswith("5 validation photos cannot tell")
    assert few["photos_needed"] > 400


def test_a_learning_curve_of_few_photos_has_a_point_for_each_number_of_them():
    x, truth = line(60, 1)
    few = [*np.flatnonzero(truth)[:4], *np.flatnonzero(truth == 0)[:5]]
    found = learning_curve.curve(x[few], truth[few], *line(22, 2), 2, 1.0)
    counts = [point["photos"] for point in found["points"]]
    assert counts == [2, 4, 9]  # a tenth and a quarter are both one photo a label
    intervals = {point["accuracy"]: point["interval"] for point in found["points"]}
    # means of three draws, which need not be a whole number of photos
    assert any((22 * accuracy) % 1 for accuracy in intervals)
    assert len(set(intervals.values())) == len(intervals)


def extents(figure: Any) -> list[Any]:
    """The boxes of a picture's texts, all inside the picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_text().strip()]
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    width, height = canvas.get_width_height()
    for text, box in zip(texts, boxes, strict=True):
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert inside, text.get_text()
    return boxes


@pytest.mark.parametrize(
    "labels",
    [
        ("labrador_retriever", "golden_retriever"),
        ("american_pit_bull_terrier", "wheaten terrier, soft-coated", "cat"),
        tuple(f"house_{number:02d}" for number in range(28)),
        tuple(f"breed {number}" for number in range(120)),
    ],
)
def test_no_text_is_cut_or_lies_on_another(
    labels: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn: list[Any] = []
    for module in (evaluate, figures):
        monkeypatch.setattr(module, "save", lambda figure, path: drawn.append(figure))
    truth = np.arange(len(labels)).repeat(2)
    found = score(np.eye(len(labels))[(truth + 1) % len(labels)], truth, labels)
    evaluate.draw_confusion(tmp_path / "x.png", found, "test part, int8.tflite")
    rows = evaluate.mistakes(found)
    paths = [Path(f"IMG_20240817_{number}_augmented_0_99.jpg") for number in truth]
    pixels = [np.zeros((8, 8, 3), np.uint8)] * len(rows)
    evaluate.draw_photos(tmp_path / "x.png", rows, found, paths, pixels, "Mistakes")
    extents(drawn[0])
    boxes = extents(drawn[1])
    assert len(boxes) == len(rows) + 2
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])
    ticks = drawn[0].axes[0].get_yticklabels()
    rows_of_text = sorted(tick.get_window_extent().y0 for tick in ticks)
    tall = max(tick.get_window_extent().height for tick in ticks)
    assert np.diff(rows_of_text).min() > tall


def test_the_verdict_of_a_learning_curve_fits_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn: list[Any] = []
    monkeypatch.setattr(
        learning_curve, "save", lambda figure, path: drawn.append(figure)
    )
    result = learning_curve.curve(*line(60, 1), *line(400, 9), 2, 1.0)
    assert len(result["verdict"]) > 70
    learning_curve.draw(tmp_path / "x.png", result)
    extents(drawn[0])


def test_as_many_labels_as_photos_are_no_reason_to_warn(
    recwarn: pytest.WarningsRecorder,
):
    x, _ = line(26, 1)
    probe.head(x, np.arange(26) % 21, 21, 1.0)
    assert not recwarn.list


def test_what_was_kept_between_probe_and_end_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn: list[Any] = []
    monkeypatch.setattr(
        "finetune.loop.history.save", lambda figure, path: drawn.append(figure)
    )
    history = [
        Epoch(0, None, None, 0.4, 0.9, 0, 1),
        Epoch(1, 0.3, 0.9, 0.3, 0.92, 1, 1),
    ]
    probe_record = {"strength": 1.0, "tried": []}
    for alpha in (0.25, 1.0, None):
        kept = replace(history[1], val_accuracy=0.95)
        draw_history(tmp_path / "x.png", history, kept, probe_record, alpha=alpha)
    legends = [
        [text.get_text() for text in figure.legends[0].get_texts()] for figure in drawn
    ]
    row = {"strength": 1e-3, "train_loss": 1, "train_accuracy": 1}
    row |= {"val_loss": 1, "val_accuracy": 1}
    only_probe = {"strength": 1e-3, "tried": [row]}
    for epochs, best, in_folds, last in (
        (
            history[:1],
            history[0],
            False,
            "kept: C = 0.001, fitted again\nto both parts",
        ),
        (
            history,
            history[0],
            False,
            "kept: the linear probe,\nfitted again to both parts",
        ),
        (history, kept, True, "kept,\ntrained again on both parts"),
    ):
        draw_history(
            tmp_path / "x.png",
            epochs,
            best,
            only_probe,
            cross_fit=row,
            in_folds=in_folds,
        )
        texts = [text.get_text() for text in drawn[-1].legends[0].get_texts()]
        assert texts[-1] == last
        assert texts[1] == ("out of fold" if in_folds else "validation")
    between = "kept: 25% epoch 1,\n75% linear probe"
    assert [texts[-1] for texts in legends] == [between] + ["kept"] * 2


@pytest.mark.parametrize("photos", [18, 43, 100])
def test_photos_all_answered_alike_do_not_say_that_more_would_not_help(photos: int):
    """Halves and whole get all of them right; the next photo may be wrong all the same.

    The interval holds what three in `photos` (the rule of three) would be.
    """
    x, truth = line(400, 1, 1)
    val = np.where(np.arange(photos) % 2, 3.0, -3.0)[:, None].astype(np.float32)
    found = learning_curve.curve(x, truth, val, np.arange(photos) % 2, 2, 1.0)
    assert found["gain_of_second_half"] == 0
    low, high = found["interval"]
    assert low < -1.5 / photos and 1.5 / photos < high
    verdict = f"{photos} validation photos cannot tell whether more photos would help"
    assert found["verdict"] == verdict and not found["more_photos_help"]
    assert photos < found["photos_needed"] <= 2000


def test_the_interval_of_a_gain_holds_it_as_often_as_it_says():
    """2,000 draws of 60 photos, of which the whole gains 6 % and loses 2 %."""
    random = np.random.default_rng(0)
    draws = random.choice([1, -1, 0], p=[0.06, 0.02, 0.92], size=(2000, 60))
    held = [low <= 0.04 <= high for low, high in map(paired.interval, draws)]
    assert 0.93 < np.mean(held) <= 1


def test_a_head_at_one_penalty_is_the_one_fit_finds():
    x, truth = line(80, 3)
    val, val_truth = line(80, 4)
    found = probe.fit(x, truth, val, val_truth, 2)
    kernel, bias = probe.head(x, truth, 2, found.strength)
    ours, theirs = val @ kernel + bias, val @ found.kernel + found.bias
    np.testing.assert_allclose(ours, theirs, atol=0.05)


def test_hardest_photos_are_ordered_listed_and_drawn(tmp_path: Path):
    table = np.array([[0.6, 0.4], [0.1, 0.9], [0.52, 0.48], [0.2, 0.8], [1.0, 0.0]])
    found = score(table, [0, 0, 0, 1, 1], ("cat", "dog"))
    assert evaluate.mistakes(found).tolist() == [4, 1]
    assert evaluate.least_certain(found).tolist()[:2] == [2, 0]
    paths = [tmp_path / "cat" / f"{number}.jpg" for number in range(5)]
    rows = evaluate.mistakes(found)
    assert evaluate.photo_records(rows, found, paths, tmp_path)[0] == {
        "photo": "cat/4.jpg",
        "truth": "dog",
        "answer": "cat",
        "probability": 1.0,
    }
    sheet = tmp_path / "mistakes.png"
    photos = [np.zeros((8, 8, 3), np.uint8)] * len(rows)
    evaluate.draw_photos(sheet, rows, found, paths, photos, "Surest mistakes")
    with Image.open(sheet) as picture:
        assert picture.width > 500
    evaluate.draw_photos(sheet, rows[:0], found, paths, [], "Surest mistakes")
    with Image.open(sheet) as picture:
        assert 60 < picture.height < 150  # nothing to show takes no room
