"""How the legs judge a foreign client's answers: what passes, what does not."""

from __future__ import annotations

import pytest

from tests.legs.foreign import AGREEMENT, MAX_DIFFERENCE, Disagreement, judge

OURS = {
    f"{n}.jpg": [("cat", 0.9), ("dog", 0.1), ("familiarity", 0.5)] for n in range(9)
}


def theirs(label="cat", seen=0.5, photos=OURS, **changes):
    answers = dict.fromkeys(photos, (label, seen))
    same = {"client": "it", "labels": ["cat", "dog"], "input": answers, "full": answers}
    return {**same, **changes}


def test_the_same_answers_pass_and_are_told():
    told = judge(OURS, theirs(), sure=True)
    assert "it agrees with edge classify on 100.00% of 9 photos" in told
    assert "second head, is 0.0000 apart" in told


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (theirs("dog"), f"expected {AGREEMENT['input']:.1%} at input size"),
        (theirs(labels=["a", "b"]), "expected the labels"),
        (theirs(seen=None), "expected a head named familiarity"),
        (theirs(seen=0.5 + 1.5 * MAX_DIFFERENCE), "apart in the middle"),
        (theirs(photos=list(OURS)[:5]), "55.56%"),
    ],
)
def test_others_do_not(answers, words):
    with pytest.raises(Disagreement, match=words):
        judge(OURS, answers, sure=True)


def test_an_unsure_network_is_judged_at_the_inputs_size_only():
    wrong = dict.fromkeys(OURS, ("dog", 0.5))
    assert "0.00% of 9 photos" in judge(OURS, theirs(full=wrong), sure=False)
    with pytest.raises(Disagreement):
        judge(OURS, theirs(full=wrong), sure=True)
    with pytest.raises(Disagreement):
        judge(OURS, theirs(input=wrong), sure=False)


def test_a_file_without_familiarity_has_none_to_compare():
    plain = {photo: ranking[:2] for photo, ranking in OURS.items()}
    assert "has no familiarity" in judge(plain, theirs(seen=None), sure=True)
