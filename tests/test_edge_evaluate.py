"""Counting right answers: intervals, tables, and photos that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.classifier import Classifier
from edge.errors import EdgegraftError
from edge.evaluate import calibration_error, evaluate, score, wilson
from edge.unknown import auroc, can_refuse, refusal
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
        "precision": 1.0,
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(0.8),
        "photos": 3,
    }
    assert green["precision"] == pytest.approx(2 / 3)
    assert blue == {
        "label": "blue",
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "photos": 0,
    }
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


def test_calibration_error_by_hand() -> None:
    # two photos at 0.8 (one right), two at 0.6 (both right): (0.3 + 0.4) / 2
    table = np.array([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4], [0.6, 0.4]], np.float32)
    truth = np.array([0, 1, 0, 0])
    assert calibration_error(table, truth) == pytest.approx(0.35, abs=1e-6)
    assert score(table, truth, ("a", "b")).calibration_error == pytest.approx(0.35)
    assert calibration_error(np.eye(2, dtype=np.float32), [0, 1]) == 0.0
    assert calibration_error(np.zeros((0, 2), np.float32), []) == 0.0


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
