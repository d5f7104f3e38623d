"""The paired test, and which file ships: rules on figures made up."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from edge.errors import EdgegraftError
from edge.evaluate import score
from quantize.comparison import choose as decide
from quantize.comparison.timing import Setting, Timing, unsteady
from quantize.reporting import text
from tests.quantize_room import LABELS


def judged(right: int, wrong: int, *, turned: int = 0):
    """An evaluation with its first photos right; `turned` of these are wrong here."""
    guess = np.array([0] * right + [1] * wrong)
    guess[:turned] = 1
    return score(np.eye(2, dtype=np.float32)[guess], np.zeros(right + wrong), LABELS)


def uneven(cats: int, found: int):
    """Of `cats` and 2 dogs all cats are recognised, and `found` of the dogs."""
    truth = np.array([0] * cats + [1] * 2)
    guess = np.array([0] * cats + [1] * found + [0] * (2 - found))
    return score(np.eye(2, dtype=np.float32)[guess], truth, ("Cat", "dog"))


def test_a_file_that_is_no_better_than_a_guess_is_told():
    """Of 1 to 100 nearly every answer is right, whatever the network has learnt."""
    for found in (0, 2):  # 98.0 and 100 % of 102: neither surely better than 98.0 %
        (told,) = text.no_better_than_a_guess(uneven(100, found))
        assert told.startswith("always answering Cat would be 98.0% right, too")
    assert text.no_better_than_a_guess(uneven(4, 2))  # 6 photos tell nothing
    even = score(np.eye(2)[np.arange(40) % 2], np.arange(40) % 2, ("Cat", "dog"))
    assert text.no_better_than_a_guess(even) == []
    # where the file to ship is named, too
    why = choose([measured("int8", uneven(100, 2), 1.0, 1.0)]).why
    assert why.startswith("100.0% accurate (always answering Cat would be 98.0% right")
    even_one = choose([measured("int8", even, 1.0, 1.0)]).why
    assert "always" not in even_one and even_one.endswith(": the only file")


def test_times_that_vary_are_warned_of():
    def files(p95):
        timing = Timing(HERE, 1.0, 1.0, 0.7, p95, p95, None, 50.0, 3)
        return [SimpleNamespace(title="int8", at=lambda setting: timing)]

    (told,) = unsteady(HERE, files(9.0))
    assert "int8 took 0.70 ms in the middle, but p95 is 9.00 ms" in told
    assert unsteady(HERE, files(0.8)) == []


# -- the paired test ------------------------------------------------------------


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
    pair = decide.paired(
        score(table[before], np.zeros(30), LABELS),
        score(table[after], np.zeros(30), LABELS),
    )
    assert (pair.lost, pair.gained) == (lost, gained)
    assert pair.p == pytest.approx(p)


def test_many_flips_do_not_overflow():
    pair = decide.paired(judged(4000, 0), judged(4000, 0, turned=4000))
    assert pair.p == 0.0


def test_files_on_other_photos_are_not_paired():
    with pytest.raises(EdgegraftError, match="same photos"):
        decide.paired(judged(3, 1), judged(3, 2))


# -- which file to ship -------------------------------------------------------------


HERE = Setting("a desk", "litert 2.3.0", 1)
PI = Setting("Raspberry Pi 4", "litert 2.3.0", 4)


def measured(title, evaluation, ms, mb, *, rejected=False, on=HERE):
    timing = SimpleNamespace(setting=on, p50_ms=ms)
    return SimpleNamespace(
        title=title,
        evaluation=evaluation,
        at=lambda setting: timing if setting == on else None,
        size_bytes=int(mb * 1e6),
        rejected=rejected,
    )


FLOAT = measured("float32", judged(95, 5), 14.0, 9.0)
INT8 = measured("int8", judged(95, 5, turned=2), 3.0, 2.7)
BAD = measured("tiny", judged(95, 5, turned=20), 1.0, 0.5)


def choose(files, on=HERE, **budget):
    return decide.choose(files, decide.Budget(**budget), on)


def test_the_fastest_that_is_not_surely_worse_ships():
    choice = choose([FLOAT, INT8, BAD])
    assert choice.file is INT8
    assert "not surely worse than float32" in choice.why and "p = 0.50" in choice.why
    assert "3.00 ms on a desk, litert 2.3.0, 1 thread" in choice.why


def test_a_budget_leaves_out_what_does_not_fit():
    assert choose([FLOAT, INT8, BAD], ms=2).file is BAD
    assert choose([FLOAT, INT8, BAD], mb=1).file is BAD
    none = choose([FLOAT, INT8], ms=2, mb=1)
    assert none.file is None and "no file fits 2 ms and 1 MB" in none.why
    assert "int8: 3.00 ms, 2.70 MB" in none.why and "on a desk" in none.why
    for wrong in (-1, 0, float("nan"), float("inf")):
        with pytest.raises(EdgegraftError, match="--budget-ms above 0, got"):
            decide.Budget(ms=wrong)


def test_only_files_measured_on_the_device_are_chosen():
    there = measured("float32", judged(95, 5), 80.0, 9.0, on=PI)
    choice = choose([there, INT8], on=PI)
    assert choice.file is there and "on Raspberry Pi 4" in choice.why
    assert decide.front([there, INT8], PI) == [there]


def test_a_rejected_file_never_ships():
    aside = measured("int8", judged(95, 5), 1.0, 1.0, rejected=True)
    assert choose([FLOAT, aside]).file is FLOAT
    assert choose([aside]).why == "no file (all were rejected)"


def test_the_front_has_no_file_that_another_beats():
    slow = measured("slow", judged(90, 10), 20.0, 9.0)
    assert decide.front([slow, FLOAT, BAD, INT8], HERE) == [BAD, INT8, FLOAT]
