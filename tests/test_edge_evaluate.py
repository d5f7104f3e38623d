"""Counting right answers: intervals, tables, and photos that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edge.classifier import Classifier
from edge.errors import EdgegraftError
from edge.evaluate import (
    Evaluation,
    auroc,
    calibration_error,
    can_refuse,
    evaluate,
    refusal,
    score,
    wilson,
)
from tests.edge_models import LABELS, network, photo, with_card

BOTH = {"probabilities": "probabilities", "familiarity": "familiarity"}


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_against_published_values(
    correct: int, total: int, low: float, high: float
) -> None:
    assert wilson(correct, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_at_the_ends() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(10, 10)[1] == 1.0
    assert wilson(0, 10)[0] == 0.0


def test_score_by_hand() -> None:
    probabilities = np.eye(3)[[0, 0, 1, 1, 1, 2]]
    found = score(probabilities, [0, 0, 0, 1, 1, 1], LABELS)
    assert found.confusion == [[2, 1, 0], [0, 2, 1], [0, 0, 0]]
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.interval == wilson(4, 6)
    red, green, blue = found.per_class
    assert red == {
        "label": "red",
        "right": 2,
        "precision": 1.0,
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(0.8),
        "photos": 3,
    }
    assert green["precision"] == pytest.approx(2 / 3)
    assert blue == {
        "label": "blue",
        "right": 0,
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "photos": 0,
    }
    assert found.right.tolist() == [True, True, False, True, True, False]
    assert found.to_dict()["confusion"] == found.confusion
    assert "probabilities" not in found.to_dict()


def test_score_refuses_what_does_not_fit() -> None:
    with pytest.raises(EdgegraftError, match=r"shape \[2, 3\]"):
        score(np.eye(2), [0, 1], LABELS)
    with pytest.raises(EdgegraftError, match="true labels from 0 to 2"):
        score(np.eye(3), [0, 1, 3], LABELS)


def test_evaluate_counts_and_lists_the_unreadable(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_text("no photo")
    pairs = [
        (photo(tmp_path / "r.png", (200, 10, 10)), "red"),
        (photo(tmp_path / "g.png", (10, 200, 10)), "green"),
        (str(broken), "green"),
        (photo(tmp_path / "wrong.png", (10, 10, 200)), "red"),
    ]
    seen: list[int] = []
    classifier = Classifier(network(), labels=LABELS)
    found = evaluate(classifier, pairs, progress=seen.append)
    assert found.photos == 3 and found.accuracy == pytest.approx(2 / 3)
    assert found.confusion == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert found.probabilities.shape == (3, 3)
    assert found.truth.tolist() == [0, 1, 0]
    assert [path for path, _ in found.failures] == [str(broken)]
    assert seen == [1, 2, 3, 4]
    with pytest.raises(EdgegraftError, match="got none that can be read"):
        evaluate(classifier, [pairs[2]])
    with pytest.raises(EdgegraftError, match="label 'pink' is not one"):
        evaluate(classifier, [(pairs[0][0], "pink")])


def uneven(trash_right: int) -> Evaluation:
    """90 of 100 papers, and some of 4 pieces of trash; nothing of the third label."""
    truth = np.array([0] * 100 + [1] * 4)
    guess = np.array([0] * 90 + [1] * 10 + [1] * trash_right + [0] * (4 - trash_right))
    return score(np.eye(3)[guess], truth, ("paper", "trash", "never"))


def test_balanced_accuracy_counts_each_label_the_same() -> None:
    lost, kept = uneven(0), uneven(4)
    assert lost.accuracy == pytest.approx(90 / 104)
    assert lost.balanced_accuracy == pytest.approx(0.45)
    assert (lost.weakest["label"], lost.weakest["right"]) == ("trash", 0)
    assert (kept.weakest["label"], kept.weakest["photos"]) == ("paper", 100)
    assert lost.to_dict()["weakest_label"] == "trash"
    soft = score(np.full((3, 2), [0.75, 0.25]), [0, 0, 1], ("a", "b"))
    assert soft.balanced_probability == pytest.approx((0.75 + 0.25) / 2)
    assert kept.macro_f1 == pytest.approx((2 * 0.9 / 1.9 + 8 / 18) / 2)


def test_balanced_interval_by_hand() -> None:
    low, high = uneven(4).balanced_interval
    (paper_low, paper_high), (trash_low, _) = wilson(90, 100), wilson(4, 4)
    assert low == pytest.approx(
        0.95 - ((0.9 - paper_low) ** 2 + (1 - trash_low) ** 2) ** 0.5 / 2
    )
    assert high == pytest.approx(0.95 + (paper_high - 0.9) / 2)
    # one label: Wilson's own interval
    alone = score(np.eye(2)[[0] * 9 + [1]], np.zeros(10, int), ("a", "b"))
    assert alone.balanced_interval == pytest.approx(wilson(9, 10))


def test_balanced_interval_covers_the_truth() -> None:
    """At least 93 % of 95 % intervals, on a label with many and one with few photos."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        guess = (random.random(48) < np.repeat([0.9, 0.7], [40, 8])).astype(int)
        truth = np.repeat([0, 1], [40, 8])
        labels = np.where(guess == 1, truth, 1 - truth)
        low, high = score(np.eye(2)[labels], truth, ("a", "b")).balanced_interval
        covered += low <= 0.8 <= high
    assert covered / 400 >= 0.93


def test_calibration_error_by_hand() -> None:
    # two photos at 0.8 (none right), two at 0.6 (both right): (0.8 + 0.4) / 2, of
    # which chance has a mean square of (sqrt(2 / pi) * (s + t) / 2)^2 + ... below
    table = np.array([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4], [0.6, 0.4]], np.float32)
    truth = np.array([1, 1, 0, 0])
    s, t = (0.16 / 2) ** 0.5, (0.24 / 2) ** 0.5  # standard errors of the bins
    chance = 2 / np.pi * (s / 2 + t / 2) ** 2 + (1 - 2 / np.pi) * (s * s + t * t) / 4
    want = (0.6**2 - chance) ** 0.5
    assert calibration_error(table, truth) == pytest.approx(want, abs=1e-6)
    assert score(table, truth, ("a", "b")).calibration_error == pytest.approx(want)
    assert calibration_error(np.eye(2, dtype=np.float32), [0, 1]) == 0.0
    assert calibration_error(np.zeros((0, 2), np.float32), []) == 0.0


@pytest.mark.parametrize(("photos", "most"), [(150, 0.025), (600, 0.015)])
def test_calibration_error_of_few_photos_is_not_mostly_chance(
    photos: int, most: float
) -> None:
    """Without its correction: 4.6 points on 150 photos, of nothing but chance."""
    random = np.random.default_rng(0)
    perfect, off = [], []
    for _ in range(100):
        sure = 0.4 + 0.6 * random.beta(6, 1.2, photos)
        table = np.stack([sure, 1 - sure], 1)
        table[sure < 0.5] = table[sure < 0.5][:, ::-1]
        best = table.max(axis=1)
        perfect.append(calibration_error(table, table.argmax(1) == right(best, random)))
        off.append(
            calibration_error(table, table.argmax(1) == right(best - 0.08, random))
        )
    assert np.mean(perfect) < most
    assert np.mean(off) == pytest.approx(0.08, abs=0.01)


def right(
    probability: npt.NDArray[np.float64], random: np.random.Generator
) -> npt.NDArray[np.bool_]:
    return random.random(len(probability)) < probability


def test_auroc_against_every_pair() -> None:
    random = np.random.default_rng(0)
    known, unknown = random.integers(3, 9, 40), random.integers(0, 7, 30)
    pairs = [(k > u) + (k == u) / 2 for k in known for u in unknown]
    assert auroc(known, unknown) == pytest.approx(np.mean(pairs))
    assert auroc([2, 3], [0, 1]) == 1.0 and auroc([1, 1], [1]) == 0.5
    with pytest.raises(EdgegraftError, match="got none"):
        auroc([1], [])


def test_refusals_are_counted_by_hand(tmp_path: Path) -> None:
    """The tiny network finds a photo as familiar as its strongest channel."""
    model = with_card(
        network(familiarity=True), outputs=BOTH, familiarity_threshold=100.0
    )
    classifier = Classifier(model)
    pairs = [
        (photo(tmp_path / "r.png", (200, 10, 10)), "red"),
        (photo(tmp_path / "dark.png", (10, 90, 10)), "green"),
    ]
    known = evaluate(classifier, pairs)
    assert known.accuracy == 1.0 and known.refused == 1
    assert known.familiarity is not None and known.familiarity.tolist() == [200, 90]
    strange = [photo(tmp_path / f"{v}.png", (v, v, v)) for v in (20, 99, 100, 150)]
    (tmp_path / "broken.jpg").write_text("no photo")
    found = refusal(classifier, [*strange, str(tmp_path / "broken.jpg")], known)
    assert (found.known, found.known_refused) == (2, 1)
    assert (found.refused, found.photos) == (2, 4)  # 100 is on the threshold: known
    assert found.interval == wilson(2, 4)
    # of the 8 pairs 200 wins four, 90 only over 20
    assert found.auroc == pytest.approx(5 / 8)
    assert found.mean_confidence == pytest.approx(1 / 3, abs=0.01)
    assert [path for path, _ in found.failures] == [str(tmp_path / "broken.jpg")]
    assert found.to_dict()["share"] == 0.5
    with pytest.raises(EdgegraftError, match="expected unknown photos, got none"):
        refusal(classifier, [], known)


def test_a_model_without_familiarity_says_so() -> None:
    for model in (network(), with_card(network(familiarity=True), outputs=BOTH)):
        classifier = Classifier(model, labels=LABELS)
        with pytest.raises(EdgegraftError, match="cannot say unknown"):
            can_refuse(classifier)
