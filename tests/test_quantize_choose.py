"""Which file ships: the rules, on figures made up."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from edge.errors import EdgegraftError
from edge.evaluate import score
from quantize.comparison import choose as rules
from quantize.comparison.records import (
    Budget,
    Setting,
    Timing,
    difference,
    paired_test,
)
from quantize.comparison.timing import unsteady_warnings
from quantize.reporting import text
from tests.quantize_room import LABELS


def evaluated(right: int, wrong: int, *, turned: int = 0):
    """An evaluation with its first photos right; `turned` of these are wrong here.
    Half of the photos show each label."""
    truth = np.arange(right + wrong) % 2
    guess = truth.copy()
    guess[right:] = 1 - guess[right:]
    guess[:turned] = 1 - guess[:turned]
    return score(np.eye(2, dtype=np.float32)[guess], truth, LABELS)


def uneven(cats: int, dogs: int, cats_right: int, dogs_right: int):
    truth = np.array([0] * cats + [1] * dogs)
    guess = np.array(
        [0] * cats_right
        + [1] * (cats - cats_right)
        + [1] * dogs_right
        + [0] * (dogs - dogs_right)
    )
    return score(np.eye(2, dtype=np.float32)[guess], truth, ("Cat", "dog"))


# -- the paired tests -------------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    # exact two-sided binomial tails, worked out by hand
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (6, 0, 2 / 64), (8, 1, 20 / 512)],
)
def test_mcnemar_is_the_exact_tail(lost, gained, p):
    before, after = np.zeros(30, int), np.zeros(30, int)
    after[:lost] = 1
    before[lost : lost + gained] = 1
    table = np.eye(2, dtype=np.float32)
    pair = paired_test(
        score(table[before], np.zeros(30), LABELS),
        score(table[after], np.zeros(30), LABELS),
    )
    assert (pair.lost, pair.gained) == (lost, gained)
    assert pair.p == pytest.approx(p)


def test_many_flips_do_not_overflow():
    pair = paired_test(evaluated(4000, 0), evaluated(4000, 0, turned=4000))
    assert pair.p == 0.0


def test_files_on_other_photos_are_not_paired():
    for compare in (paired_test, difference):
        with pytest.raises(EdgegraftError, match="same photos"):
            compare(evaluated(3, 1), evaluated(3, 2))


def test_the_interval_of_a_difference_by_hand():
    """Of 40 photos a label: 4 of one label only the first has right, none the other."""
    first, second = uneven(40, 40, 40, 40), uneven(40, 40, 36, 40)
    gap = difference(first, second)
    assert gap.value == pytest.approx(0.05) and gap.photos == 80
    cat, dog = (5 / 42 + 1 / 42 - (4 / 42) ** 2) / 42, (2 / 42) / 42
    half = 1.959964 * (cat + dog) ** 0.5 / 2
    assert gap.low == pytest.approx(2 / 42 - half)
    assert gap.high == pytest.approx(2 / 42 + half)
    assert not gap.significant and not gap.equivalent(0.01)
    assert gap.photos_needed(0.01) > 80
    same = difference(uneven(4000, 4000, 3900, 3900), uneven(4000, 4000, 3900, 3900))
    assert same.equivalent(0.01) and not same.significant


def test_the_interval_of_a_difference_covers_the_truth():
    """94 % at least of 95 % intervals, with few photos of one of the labels."""
    random = np.random.default_rng(1)
    truth = np.repeat([0, 1], [60, 15])
    easy, covered = np.repeat([0.9, 0.8], [60, 15]), 0
    for _ in range(400):
        both = random.random(75) < easy
        first = both | (random.random(75) < 0.3)
        second = both | (random.random(75) < 0.1)
        table = np.eye(2, dtype=np.float32)
        one, two = (
            score(table[np.where(right, truth, 1 - truth)], truth, LABELS)
            for right in (first, second)
        )
        gap = difference(one, two)
        covered += gap.low <= (0.1 + 0.2) / 2 * 0.2 <= gap.high
    assert covered / 400 >= 0.94


# -- which file to ship -------------------------------------------------------------


HERE = Setting("a desk", "litert 2.3.0", 1)
PI = Setting("Raspberry Pi 4", "litert 2.3.0", 4)


def measured(
    title, evaluation, ms, mb, *, rejected=False, on=HERE, run="", variant="int8"
):
    timing = SimpleNamespace(setting=on, p50_ms=ms, p95_ms=1.05 * ms)
    return SimpleNamespace(
        title=title,
        path=f"{title}.tflite",
        run=run,
        variant=variant,
        evaluation=evaluation,
        timing_in=lambda setting: timing if setting == on else None,
        size_bytes=int(mb * 1e6),
        rejected=rejected,
        agreement=None,
    )


LARGE = measured("large", evaluated(95, 5), 14.0, 9.0)
SMALL = measured("small", evaluated(95, 5, turned=2), 3.0, 2.7)
TINY = measured("tiny", evaluated(95, 5, turned=20), 1.0, 0.5)


def choose(files, on=HERE, any_variant=False, **budget):
    return rules.choose(files, Budget(**budget), on, any_variant=any_variant)


def test_the_most_accurate_ships_where_the_photos_cannot_tell():
    choice = choose([SMALL, LARGE, TINY])
    assert choice.file is LARGE
    assert choice.why.startswith("most accurate of 3 files; cannot tell it apart from ")
    assert "small with 100 test photos; about " in choice.why
    assert "tiny" not in choice.why  # it is shown to be worse
    assert choice.to_dict()["differences"]["tiny"]["low"] > 0


def test_of_files_that_the_photos_cannot_tell_apart_the_more_certain_ships():
    """`sure` has one answer less right, and gives right labels far more."""
    right, sure = evaluated(18, 2), evaluated(18, 2, turned=1)
    table = np.where(right.probabilities == 1, 0.55, 0.45).astype(np.float32)
    hesitant = score(table, right.truth, LABELS)
    choice = choose(
        [measured("hesitant", hesitant, 1, 1), measured("sure", sure, 3, 3)]
    )
    assert choice.file.title == "sure"
    assert choice.why.startswith(
        "most probability on right labels of 2 files; cannot tell it apart from"
    )


def test_a_faster_file_ships_where_it_is_shown_to_be_as_accurate():
    many = evaluated(19_000, 1_000), evaluated(19_000, 1_000, turned=8)
    large, small = measured("large", many[0], 14, 9), measured("small", many[1], 3, 2)
    choice = choose([large, small, measured("worse", evaluated(9_500, 10_500), 1, 1)])
    assert choice.file is small
    assert choice.why.startswith("fastest of 2 files with equal accuracy: 0.0 points")
    assert "against large, 95 % interval -0.1 points to" in choice.why


def test_a_budget_leaves_out_what_does_not_fit():
    assert choose([LARGE, SMALL, TINY], ms=2).file is TINY
    assert choose([LARGE, SMALL, TINY], mb=1).file is TINY
    assert choose([LARGE, SMALL, TINY], mb=3).why.startswith(
        "most accurate of 2 files within 3 MB"
    )
    none = choose([LARGE, SMALL], ms=2, mb=1)
    assert none.file is None
    assert none.why.startswith("no file is within 2 ms and 1 MB on a desk")
    assert "small: 3.00 ms, 2.70 MB" in none.why
    for wrong in (-1, 0, float("nan"), float("inf")):
        with pytest.raises(
            EdgegraftError, match="--budget-ms to be a number above 0, got"
        ):
            Budget(ms=wrong)


def test_the_table_of_budgets_says_what_the_rule_says():
    files = [LARGE, SMALL, TINY]
    table = rules.by_budget(files, HERE)
    assert len(table) == 16  # three times and sizes, and no limit
    for row in table:
        chosen = choose(files, ms=row["ms"], mb=row["mb"]).file
        assert row["file"] == (chosen.title if chosen else None)
    assert len({row["file"] for row in table}) > 1
    assert table[-1] == {"ms": None, "mb": None, "file": choose(files).file.title}


def test_a_file_that_loses_a_label_does_not_ship():
    """5 of 300 photos: right of nearly all others, it is more accurate, and useless."""
    loses = measured("cnn", uneven(300, 5, 300, 0), 1.0, 0.1)
    finds = measured("mobilenet", uneven(300, 5, 240, 1), 3.0, 0.7)
    assert loses.evaluation.accuracy > finds.evaluation.accuracy
    assert loses.evaluation.balanced_accuracy == finds.evaluation.balanced_accuracy
    choice = choose([loses, finds], ms=5, mb=1)
    assert choice.file is finds
    assert choice.why.endswith("1 file left out: no test photo of dog found")
    # where none finds any, it is said
    alone = choose([loses, measured("other", uneven(300, 5, 250, 0), 3.0, 0.7)])
    assert alone.file is loses
    told = text.cautions(SimpleNamespace(evaluation=loses.evaluation, paired=None))
    assert told[0] == "it finds no test photo of dog (0 of 5)"
    assert "guessing (50% balanced accuracy)" in told[1]


def test_float32_ships_where_its_int8_loses_a_label_that_it_finds():
    """One photo of a label may be chance, two are not."""

    def run(found):
        return [
            measured("a/float32", uneven(90, 3, 80, found), 3, 4, run="a", variant="f"),
            measured("a/int8", uneven(90, 3, 85, 0), 1, 1, run="a"),
        ]

    float32, int8 = run(1)
    assert choose([float32, int8]).file is int8
    float32, int8 = run(2)
    other = measured("b/int8", uneven(90, 3, 80, 1), 1, 1, run="b")
    choice = choose([float32, int8, other])
    assert choice.file is float32
    assert choice.why.endswith("; 1 file left out: no test photo of dog found")
    assert choose([float32, int8], ms=2).file is int8  # float32 does not fit


def test_int8_that_passed_its_gate_stands_for_its_run():
    slow = measured("a/int8", evaluated(95, 5, turned=1), 9, 1, run="a")
    better = measured("a/float32", evaluated(95, 5), 3, 4, run="a", variant="float32")
    other = measured("b/float32", evaluated(90, 10), 3, 4, run="b", variant="float32")
    choice = choose([better, slow, other])
    assert choice.file is slow and "most accurate of 2 files" in choice.why
    passed = "its int8 passed the accuracy gate against float32"
    faster = "; float32 was faster where both were timed (3.00 ms): time them on your "
    assert choose([better, slow]).why == f"{passed}{faster}device"
    assert choose([better, slow], mb=2).why == "the only file within 2 MB"
    quick = measured("a/int8", evaluated(95, 5, turned=1), 2.9, 1, run="a")
    assert choose([better, quick]).why == passed
    quick.agreement = 0.979
    agrees = "; same label on 97.9% of test photos"
    assert choose([better, quick]).why == passed + agrees
    better.timing_in(HERE).p95_ms = 9.5  # on a busy machine
    assert choose([better, slow]).why == passed
    better.timing_in(HERE).p95_ms = 3.2
    assert choose([better, slow], any_variant=True).file is better
    twin = measured("a/io", evaluated(95, 5), 2, 1, run="a", variant="int8-float-io")
    assert choose([twin, better, slow]).file is slow  # its twin is less rounded
    assert choose([twin, better, slow], ms=5).file is twin
    over = choose([better, slow], ms=5)
    assert over.file is better
    assert over.why == "the only file within 5 ms; its int8 is over the budget"
    slow.rejected = True
    choice = choose([better, slow])
    assert choice.file is better
    assert choice.why == "the only file; its int8 failed the accuracy gate"


def test_only_files_measured_on_the_device_are_chosen():
    there = measured("large", evaluated(95, 5), 80.0, 9.0, on=PI)
    assert choose([there, SMALL], on=PI).file is there
    assert rules.front([there, SMALL], PI) == [there]


def test_a_rejected_file_never_ships():
    aside = measured("int8", evaluated(95, 5), 1.0, 1.0, rejected=True)
    assert choose([LARGE, aside]).file is LARGE
    assert choose([aside]).why == "no file: all were rejected"


def test_the_front_has_no_file_that_another_beats():
    slow = measured("slow", evaluated(90, 10), 20.0, 9.0)
    assert rules.front([slow, LARGE, TINY, SMALL], HERE) == [TINY, SMALL, LARGE]


def test_times_that_vary_are_warned_of():
    def files(p95):
        timing = Timing(HERE, 1.0, 1.0, 0.7, p95, p95, None, 50.0, 3)
        return [SimpleNamespace(title="int8", timing_in=lambda setting: timing)]

    (told,) = unsteady_warnings(HERE, files(9.0))
    assert "the median of int8 is 0.70 ms, its p95 9.00 ms" in told
    assert unsteady_warnings(HERE, files(0.8)) == []
