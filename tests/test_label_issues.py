"""`finetune.label_issues`: wrong labels are found by a network."""

import numpy as np
import pytest

from edge.errors import EdgegraftError
from finetune.label_issues import cross_validated, find_issues


def features(
    count: int, labels: int, seed: int = 0, apart: float = 3.0
) -> tuple[np.ndarray, np.ndarray]:
    """Clouds of points, one for each label."""
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % labels
    centres = rng.normal(0, 1, (labels, 16)) * apart / 4
    return centres[truth] + rng.normal(0, 1, (count, 16)), truth


def flipped(truth: np.ndarray, share: float, labels: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    wrong = rng.permutation(len(truth))[: round(share * len(truth))]
    given = truth.copy()
    given[wrong] = (given[wrong] + rng.integers(1, labels, len(wrong))) % labels
    return given


@pytest.mark.parametrize("labels", [2, 5])
def test_wrong_labels_come_first(labels: int) -> None:
    points, truth = features(600, labels, apart=5)
    given = flipped(truth, 0.05, labels)
    issues = find_issues(cross_validated(points, given), given)
    worst = issues.order[: round(0.08 * 600)]
    wrong = np.flatnonzero(given != truth)
    assert len(set(worst) & set(wrong)) >= 0.8 * len(wrong)
    hit = issues.flagged[wrong]
    assert (issues.suggested[wrong][hit] == truth[wrong][hit]).mean() > 0.9
    assert issues.flagged.sum() < 0.1 * 600


def test_clean_labels_are_hardly_flagged() -> None:
    points, truth = features(600, 3, apart=8)
    assert find_issues(cross_validated(points, truth), truth).flagged.sum() <= 6


def test_a_twin_does_not_vouch_for_a_wrong_label() -> None:
    """Two copies of a photo, both with the wrong label: only groups find them."""
    points, truth = features(200, 2, apart=6)
    points, given = np.repeat(points, 2, 0), np.repeat(truth, 2)
    given[:20] = 1 - given[:20]
    twins = np.repeat(np.arange(200), 2)
    alone = find_issues(cross_validated(points, given, strength=100), given)
    kept = find_issues(
        cross_validated(points, given, groups=twins, strength=100), given
    )
    assert kept.flagged[:20].sum() >= alone.flagged[:20].sum()
    assert kept.score[:20].mean() < alone.score[:20].mean()


def test_the_seed_decides() -> None:
    points, truth = features(90, 3)
    one = cross_validated(points, truth, seed=1)
    assert (one == cross_validated(points, truth, seed=1)).all()
    assert (one != cross_validated(points, truth, seed=2)).any()
    np.testing.assert_allclose(one.sum(1), 1)


def test_scores_by_hand() -> None:
    issues = find_issues(
        np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9], [0.7, 0.3]]),
        np.array([0, 0, 1, 0]),
    )
    np.testing.assert_allclose(issues.score, [0.8, -0.6, 0.8, 0.4])
    assert issues.order.tolist() == [1, 3, 0, 2]
    assert issues.suggested.tolist() == [1, 1, 0, 1]
    assert not issues.flagged.any()
    assert not issues.enough  # four photos


def test_few_photos_flag_nothing_and_say_so() -> None:
    points, truth = features(24, 2, apart=2)
    given = flipped(truth, 0.1, 2)
    issues = find_issues(cross_validated(points, given), given)
    assert not issues.flagged.any() and not issues.enough


def test_a_poor_classifier_lists_no_right_labels() -> None:
    """Its mistakes are its own: most of them would be called wrong labels before."""
    points, truth = features(400, 4, apart=1.5)
    probabilities = cross_validated(points, truth)
    assert (probabilities.argmax(1) != truth).mean() > 0.3
    assert find_issues(probabilities, truth).flagged.sum() <= 2


@pytest.mark.parametrize(
    ("probabilities", "truth", "message"),
    [
        (np.ones((3, 2)) / 2, [0, 1], r"got \[3, 2\] and \[2\]"),
        (np.ones((2, 2)), [0, 1], "rows that sum to 1"),
        (np.ones((2, 2)) / 2, [0, 2], "numbered below 2, got 0 to 2"),
        (np.ones((0, 2)), [], "rows that sum to 1"),
    ],
)
def test_what_cannot_be_scored(
    probabilities: np.ndarray, truth: list[int], message: str
) -> None:
    with pytest.raises(EdgegraftError, match=message):
        find_issues(probabilities, np.array(truth, np.int64))


def test_too_few_of_a_label_for_the_folds() -> None:
    points, truth = features(12, 3)
    with pytest.raises(
        EdgegraftError, match="with 5 photos each, got 3 with 4 at least"
    ):
        cross_validated(points, truth)
