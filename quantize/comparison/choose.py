"""Which file to ship: the most accurate within the budget.

Speed and size decide only between files shown to be equally accurate; a difference that
is not significant is no proof of equality. Of files without a significant difference,
the one with the highest probability of the right labels is chosen: on test parts of 54
trashnet photos that costs 0.5 points of balanced accuracy against the best file, the
most right answers 1.4 (tests/benchmarks/advice_files.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from edge.evaluate import Evaluation, pareto_front
from edge.text import plural
from quantize.comparison.records import (
    MARGIN,
    Budget,
    Choice,
    Difference,
    MeasuredFile,
    Setting,
    difference,
)

SAME_TIME = 0.05  # latencies closer than that are noise; then the smaller file
INT8 = ("int8", "int8-float-io")
NAMED = 2  # files named in a sentence
FOUND = 2  # photos of a label that float32 finds and int8 does not: one may be chance


def choose(
    files: Sequence[MeasuredFile],
    budget: Budget,
    setting: Setting,
    *,
    margin: float = MARGIN,
    any_variant: bool = False,
) -> Choice:
    """The most accurate file within the budget, by balanced accuracy on `setting`.

    Rejected files, and files without a time in `setting`, are left out. Where an int8
    file of a run passed the accuracy gate and fits, it represents its run unless
    `any_variant`, or unless float32 finds `FOUND` photos or more of a label of which
    the int8 file finds none: then all its files compete. A file with a recall of 0 is
    left out when another one of these finds photos of that label. Of files without a
    significant difference, the leader has the highest `balanced_probability`. A faster
    file replaces it when the 95 % interval of their difference lies within `margin`
    (equivalence).
    """
    usable = [file for file in files if not file.rejected and file.timing_in(setting)]
    within_budget = [file for file in usable if _fits(file, budget, setting)]
    if not within_budget:
        return Choice(None, _none_fits(usable, budget, setting))
    eligible = within_budget if any_variant else _int8_first(within_budget)
    pool = [file for file in eligible if not _lost_labels(file, eligible)] or eligible
    best = min(
        pool, key=lambda f: (-f.evaluation.balanced_accuracy, _ms(f, setting), _mb(f))
    )
    rivals = [
        f for f in pool if not difference(best.evaluation, f.evaluation).significant
    ]
    leader = max([best, *rivals], key=lambda f: f.evaluation.balanced_probability)
    others = [file for file in pool if file is not leader]
    gaps = {f.title: difference(leader.evaluation, f.evaluation) for f in others}
    equal = [file for file in others if gaps[file.title].equivalent(margin)]
    chosen = _fastest([leader, *equal], setting)
    within = f" within {budget}" if str(budget) else ""
    if chosen is not leader:
        gap = gaps[chosen.title]
        why = (
            f"fastest of {len(equal) + 1} files{within} with equal accuracy: "
            f"{points(-gap.value)} against {leader.title}, 95 % interval "
            f"{points(-gap.high)} to {points(-gap.low)}"
        )
    elif others:
        what = "most accurate" if leader is best else "most probability on right labels"
        why = f"{what} of {len(pool)} files{within}"
        unclear = [
            f for f in others if f not in equal and not gaps[f.title].significant
        ]
        if unclear:
            unclear.sort(key=lambda f: gaps[f.title].value)
            why += f"; {_unclear(unclear, gaps, margin)}"
    elif len(within_budget) > len(eligible) and chosen.variant in INT8:
        why = f"its int8 passed the accuracy gate against float32{within}"
        if chosen.agreement is not None:
            why += f"; same label on {chosen.agreement:.1%} of test photos"
    else:
        why = f"the only file{within}"
    faster = [
        f
        for f in within_budget
        if f.run == chosen.run
        and f not in eligible
        and _clearly_faster(f, chosen, setting)
    ]
    if faster and chosen.variant in INT8:
        fastest = min(faster, key=lambda f: _ms(f, setting))
        why += (
            f"; {fastest.variant} was faster where both were timed "
            f"({_ms(fastest, setting):.2f} ms): time them on your device"
        )
    if len(pool) < len(eligible):
        label = _lost_labels(next(f for f in eligible if f not in pool), eligible)[0]
        count = plural(len(eligible) - len(pool), "file")
        why += f"; {count} left out: no test photo of {label} found"
    if not any_variant and chosen.run and chosen.variant not in INT8:
        int8 = [f for f in files if f.run == chosen.run and f.variant in INT8]
        if int8 and all(f.rejected for f in int8):
            why += "; its int8 failed the accuracy gate"
        elif int8 and not any(f in within_budget for f in int8):
            why += "; its int8 is over the budget"
    return Choice(chosen, why, tuple(gaps.items()))


def by_budget(
    files: Sequence[MeasuredFile],
    setting: Setting,
    *,
    margin: float = MARGIN,
    any_variant: bool = False,
) -> list[dict[str, Any]]:
    """The file to ship for every combination of limits, for readers of comparison.json:
    `ms` and `mb` are those of a file, null for no limit; `file` is null where none
    fits.
    """
    timed = [file for file in files if file.timing_in(setting)]
    times: list[float | None] = [*sorted({_ms(file, setting) for file in timed}), None]
    sizes: list[float | None] = [*sorted({_mb(file) for file in timed}), None]
    choices: dict[tuple[str, ...], Choice] = {}  # by the files within the budget
    table = []
    for ms, mb in itertools.product(times, sizes):
        budget = Budget(ms, mb)
        within = tuple(f.title for f in timed if _fits(f, budget, setting))
        if within not in choices:
            choices[within] = choose(
                files, budget, setting, margin=margin, any_variant=any_variant
            )
        chosen = choices[within].file
        table.append({"ms": ms, "mb": mb, "file": chosen.title if chosen else None})
    return table


def no_better_than_guessing(evaluation: Evaluation) -> str | None:
    """A warning where balanced accuracy is not shown to be above that of a guess."""
    tested = evaluation.tested
    if len(tested) == 1 < len(evaluation.labels):
        return (
            f"the test photos show {tested[0]['label']} alone: a file that always "
            "answers it would reach 100%"
        )
    chance = 1 / max(len(tested), 1)
    if evaluation.balanced_interval[0] > chance:
        return None
    return (
        f"{plural(evaluation.photos, 'test photo')} do not show that it is better than "
        f"guessing ({chance:.0%} balanced accuracy)"
    )


def front(files: Sequence[MeasuredFile], setting: Setting) -> list[MeasuredFile]:
    """The Pareto front in a setting, fastest first: no other file is as fast and more
    accurate."""
    timed = [file for file in files if file.timing_in(setting) and not file.rejected]
    points = [(_ms(file, setting), file.evaluation.balanced_accuracy) for file in timed]
    return [timed[index] for index in pareto_front(points)]


def points(difference: float) -> str:
    """A difference of fractions in percentage points: "-1.2 points"."""
    text = f"{100 * difference:+.1f} points"
    return text.replace("-0.0", "0.0").replace("+0.0", "0.0")


def _int8_first(files: Sequence[MeasuredFile]) -> list[MeasuredFile]:
    """Of each run with a usable int8 only that file: `int8`, else `int8-float-io`, the
    same network with float input and output. All of a run whose int8 loses a label."""
    best = {
        file.run: file.variant
        for variant in reversed(INT8)
        for file in files
        if file.run and file.variant == variant
        if not _lost_labels(file, [f for f in files if f.run == file.run], FOUND)
    }
    return [f for f in files if best.get(f.run, f.variant) == f.variant]


def _fits(file: MeasuredFile, budget: Budget, setting: Setting) -> bool:
    return (budget.ms is None or _ms(file, setting) <= budget.ms) and (
        budget.mb is None or _mb(file) <= budget.mb
    )


def _lost_labels(
    file: MeasuredFile, others: Sequence[MeasuredFile], least: int = 1
) -> list[str]:
    """Labels with a recall of 0, of which another file finds `least` photos or more."""
    by_label = zip(*(other.evaluation.per_class for other in others), strict=True)
    return [
        str(row["label"])
        for row, rows in zip(file.evaluation.per_class, by_label, strict=True)
        if row["photos"] and not row["right"] and any(r["right"] >= least for r in rows)
    ]


def _fastest(files: Sequence[MeasuredFile], setting: Setting) -> MeasuredFile:
    """The fastest; of equally fast files the smallest, of equally small the first."""
    minimum = min(_ms(file, setting) for file in files)
    fast = [file for file in files if _ms(file, setting) <= minimum * (1 + SAME_TIME)]
    return min(fast, key=lambda file: round(_mb(file), 1))


def _unclear(
    files: Sequence[MeasuredFile], gaps: dict[str, Difference], margin: float
) -> str:
    """The files without a significant difference, and how many photos it would take."""
    names = ", ".join(file.title for file in files[:NAMED])
    more = len(files) - NAMED
    names += f" and {more} more" if more > 0 else ""
    nearest = gaps[files[0].title]
    needed = nearest.photos_needed(margin)
    return (
        f"cannot tell it apart from {names} with {nearest.photos:,} test photos; about "
        f"{needed:,} would"
    )


def _none_fits(usable: Sequence[MeasuredFile], budget: Budget, setting: Setting) -> str:
    if not usable:
        return "no file: all were rejected"
    sizes = "; ".join(
        f"{f.title}: {_ms(f, setting):.2f} ms, {_mb(f):.2f} MB" for f in usable
    )
    return f"no file is within {budget} on {setting} ({sizes})"


def _clearly_faster(file: MeasuredFile, other: MeasuredFile, setting: Setting) -> bool:
    """Whether the p95 of `file` is below the other's median: on a busy machine a faster
    median is not reliable."""
    timing = file.timing_in(setting)
    return timing is not None and timing.p95_ms < _ms(other, setting)


def _ms(file: MeasuredFile, setting: Setting) -> float:
    timing = file.timing_in(setting)
    assert timing is not None
    return timing.p50_ms


def _mb(file: MeasuredFile) -> float:
    return file.size_bytes / 1e6
