"""Which file to ship: the most accurate within the budget.

Speed and size decide only between files shown to be equally accurate. A difference
that the photos are too few to show is no proof that there is none. Of files that they
cannot tell apart, the one that gives the right labels the most probability is taken:
on test parts of 54 trashnet photos that costs 0.5 points of balanced accuracy against
the best file, the most right answers 1.4 (tests/benchmarks/advice_files.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge.evaluate import Evaluation
from edge.text import plural
from quantize.comparison.paired import MARGIN, Difference, difference
from quantize.comparison.records import Budget, Choice, MeasuredFile, Setting

SAME_TIME = 0.05  # latencies closer than that are noise; then the smaller file
INT8 = ("int8", "int8-float-io")
NAMED = 2  # files named in a sentence


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
    file of a run passed the accuracy gate and fits, it stands for its run unless
    `any_variant`. A file that finds no photo of a label is left out when another
    within the budget finds some. Of files not shown to differ, the leader has the
    highest `balanced_probability`. A faster file replaces it when the 95 % interval of
    their difference lies within `margin` (equivalence).
    """
    usable = [file for file in files if not file.rejected and file.at(setting)]
    within_budget = [file for file in usable if _fits(file, budget, setting)]
    if not within_budget:
        return Choice(None, _none_fits(usable, budget, setting))
    fit = within_budget if any_variant else _int8_first(within_budget)
    finding = [file for file in fit if not _lost_labels(file, fit)]
    pool = finding or fit
    best = min(
        pool, key=lambda f: (-f.evaluation.balanced_accuracy, _ms(f, setting), _mb(f))
    )
    rivals = [f for f in pool if not difference(best.evaluation, f.evaluation).shown]
    leader = max([best, *rivals], key=lambda f: f.evaluation.balanced_probability)
    others = [file for file in pool if file is not leader]
    gaps = {f.title: difference(leader.evaluation, f.evaluation) for f in others}
    equal = [file for file in others if gaps[file.title].within(margin)]
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
        unclear = [f for f in others if f not in equal and not gaps[f.title].shown]
        if unclear:
            unclear.sort(key=lambda f: gaps[f.title].value)
            why += f"; {_unclear(unclear, gaps, margin)}"
    elif len(within_budget) > len(fit) and chosen.variant in INT8:
        why = f"its int8 passed the accuracy gate against float32{within}"
    else:
        why = f"the only file{within}"
    faster = [
        f
        for f in within_budget
        if f.run == chosen.run and f not in fit and _clearly_faster(f, chosen, setting)
    ]
    if faster and chosen.variant in INT8:
        quick = min(faster, key=lambda f: _ms(f, setting))
        why += (
            f"; {quick.variant} was faster where both were timed "
            f"({_ms(quick, setting):.2f} ms): time them on your device"
        )
    if pool is not fit and len(pool) < len(fit):
        label = _lost_labels(next(f for f in fit if f not in pool), fit)[0]
        count = len(fit) - len(pool)
        why += f"; {plural(count, 'file')} left out: no test photo of {label} found"
    if not any_variant and chosen.run and chosen.variant not in INT8:
        int8 = [f for f in files if f.run == chosen.run and f.variant in INT8]
        if int8 and all(f.rejected for f in int8):
            why += "; its int8 failed the accuracy gate"
        elif int8:
            why += "; its int8 is over the budget"
    return Choice(chosen, why, tuple(gaps.items()))


def by_budget(
    files: Sequence[MeasuredFile],
    setting: Setting,
    *,
    margin: float = MARGIN,
    any_variant: bool = False,
) -> list[dict[str, Any]]:
    """The file to ship for every budget that makes a difference, so that a reader of
    comparison.json needs no rule of its own: `ms` and `mb` are those of a file, null
    for no limit; `file` is null where none fits.
    """
    timed = [file for file in files if file.at(setting)]
    times: list[float | None] = [*sorted({_ms(file, setting) for file in timed}), None]
    sizes: list[float | None] = [*sorted({_mb(file) for file in timed}), None]
    known: dict[tuple[str, ...], Choice] = {}
    table = []
    for ms in times:
        for mb in sizes:
            budget = Budget(ms, mb)
            fit = tuple(f.title for f in timed if _fits(f, budget, setting))
            if fit not in known:
                known[fit] = choose(
                    files, budget, setting, margin=margin, any_variant=any_variant
                )
            chosen = known[fit].file
            name = chosen.title if chosen else None
            table.append({"ms": ms, "mb": mb, "file": name})
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
    timed = [file for file in files if file.at(setting) and not file.rejected]
    timed.sort(key=lambda f: (_ms(f, setting), -f.evaluation.balanced_accuracy))
    best: list[MeasuredFile] = []
    for file in timed:
        share = file.evaluation.balanced_accuracy
        if not best or share > best[-1].evaluation.balanced_accuracy:
            best.append(file)
    return best


def points(share: float) -> str:
    """A difference of shares: "-1.2 points"."""
    return f"{100 * share:+.1f} points".replace("-0.0", "0.0").replace("+0.0", "0.0")


def _int8_first(files: Sequence[MeasuredFile]) -> list[MeasuredFile]:
    """Without the float files of runs that have a usable int8."""
    runs = {file.run for file in files if file.run and file.variant in INT8}
    return [f for f in files if f.run not in runs or f.variant in INT8]


def _fits(file: MeasuredFile, budget: Budget, setting: Setting) -> bool:
    return (budget.ms is None or _ms(file, setting) <= budget.ms) and (
        budget.mb is None or _mb(file) <= budget.mb
    )


def _lost_labels(file: MeasuredFile, others: Sequence[MeasuredFile]) -> list[str]:
    """Labels of which the file finds no photo, and another file finds some."""
    rows = zip(*(other.evaluation.per_class for other in others), strict=True)
    own = file.evaluation.per_class
    return [
        str(mine["label"])
        for mine, row in zip(own, rows, strict=True)
        if mine["photos"] and not mine["right"] and any(one["right"] for one in row)
    ]


def _fastest(files: Sequence[MeasuredFile], setting: Setting) -> MeasuredFile:
    """The fastest; the smallest of those as fast, the first of those as small."""
    least = min(_ms(file, setting) for file in files)
    fast = [file for file in files if _ms(file, setting) <= least * (1 + SAME_TIME)]
    return min(fast, key=lambda file: round(_mb(file), 1))


def _unclear(
    files: Sequence[MeasuredFile], gaps: dict[str, Difference], margin: float
) -> str:
    """Which files the photos are too few for, and how many photos would do."""
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


def _clearly_faster(one: MeasuredFile, other: MeasuredFile, setting: Setting) -> bool:
    """Whether nearly all inferences of `one` take less than the other's median: on a
    busy machine a faster median alone says little."""
    timing = one.at(setting)
    return timing is not None and timing.p95_ms < _ms(other, setting)


def _ms(file: MeasuredFile, setting: Setting) -> float:
    timing = file.at(setting)
    assert timing is not None
    return timing.p50_ms


def _mb(file: MeasuredFile) -> float:
    return file.size_bytes / 1e6
