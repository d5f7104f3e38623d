"""The records of a comparison: files, timings, differences, the budget, the choice.

The difference of two files is that on the same photos: only those that one gets right
and the other wrong matter. It holds for photos of the same distribution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge.card import ModelCard
from edge.errors import EdgegraftError
from edge.evaluate import CONFIDENCE_95, Evaluation, Refusal
from edge.preprocess import InputRecipe
from edge.text import plural
from finetune.paired import McNemar, mcnemar

MARGIN = 0.01  # of balanced accuracy: a smaller difference does not matter


@dataclass(frozen=True)
class Setting:
    """Host, runtime and threads of a measurement; times are comparable within one."""

    host: str
    runtime: str
    threads: int
    xnnpack: bool = True

    def __str__(self) -> str:
        return f"{self.host}, {self.how}"

    @property
    def how(self) -> str:
        """Runtime and threads, without the host."""
        without = "" if self.xnnpack else " without XNNPACK"
        return f"{self.runtime}{without}, {plural(self.threads, 'thread')}"


@dataclass(frozen=True)
class Timing:
    """One file in one setting: milliseconds, photos a second, MiB of the process.

    `photos_per_second`: without pauses (None: not measured). Times are the median of
    `rounds` processes, memory is their maximum.
    """

    setting: Setting
    load_ms: float
    first_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    photos_per_second: float | None
    peak_memory_mb: float
    rounds: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON and CSV: plain values, with those of the setting."""
        values = {k: v for k, v in vars(self).items() if k != "setting"}
        return {**vars(self.setting), **values}


@dataclass(frozen=True)
class Flip:
    """A test photo that float32 got right and this file wrong.

    `photo`: the pixels the file got, uint8 [H, W, 3]; `confidence`: the probability
    of the wrong `answer`.
    """

    path: str
    truth: str
    answer: str
    confidence: float
    photo: Any = field(repr=False)


@dataclass(frozen=True)
class MeasuredFile:
    """A file and its measurements; `size_bytes` is the size of the whole file.

    `run` is the name of its run, "" without one. `agreement`, `drop` and `paired`
    compare it with the float32 file of its run (of the first run if it has none), None
    without one. `rejected`: it failed the accuracy gate or its target refuses it.
    `accuracy_runtime` ran the test photos. `export`: figures of its export
    (`quantize.gate`), {} where it is not known. `timings`: this host first, by
    threads, then other devices.
    """

    title: str
    run: str
    variant: str
    path: Path
    digest: str
    rejected: bool
    accuracy_runtime: str
    recipe: InputRecipe
    evaluation: Evaluation = field(repr=False)
    agreement: float | None
    drop: float | None
    paired: McNemar | None
    refusal: Refusal | None
    flips: tuple[Flip, ...] = field(repr=False)
    size_bytes: int
    multiply_adds: int
    timings: tuple[Timing, ...] = field(repr=False)
    oldest_runtime: str | None
    refused_by: tuple[str, ...]
    card: ModelCard | None = field(default=None, repr=False)
    export: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def timing_in(self, setting: Setting) -> Timing | None:
        """Its timing in a setting; None where it was not measured."""
        return next((t for t in self.timings if t.setting == setting), None)

    def figures(self) -> dict[str, Any]:
        """The figures that do not depend on the device: plain values only."""
        evaluation, pair = self.evaluation, self.paired
        low, high = evaluation.interval
        balanced_low, balanced_high = evaluation.balanced_interval
        weakest = evaluation.weakest
        return {
            "title": self.title,
            "run": self.run,
            "variant": self.variant,
            "rejected": self.rejected,
            "file": self.path.name,
            "model_sha256": self.digest,
            "photos": evaluation.photos,
            "balanced_accuracy": evaluation.balanced_accuracy,
            "balanced_low": balanced_low,
            "balanced_high": balanced_high,
            "accuracy": evaluation.accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
            "macro_f1": evaluation.macro_f1,
            "weakest_label": weakest["label"],
            "weakest_recall": weakest["recall"],
            "weakest_photos": weakest["photos"],
            "accuracy_runtime": self.accuracy_runtime,
            "calibration_error": evaluation.calibration_error,
            "agreement": self.agreement,
            "drop": self.drop,
            "lost": pair.lost if pair else None,
            "gained": pair.gained if pair else None,
            "mcnemar_p": pair.p if pair else None,
            **(refusal_figures(self.refusal) if self.refusal else {}),
            **self.export,
            "size_bytes": self.size_bytes,
            "multiply_adds": self.multiply_adds,
            "oldest_runtime": self.oldest_runtime,
            "refused_by": " ".join(self.refused_by),
        }

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        flips = [[f.path, f.truth, f.answer, f.confidence] for f in self.flips]
        return {
            **self.figures(),
            "timings": [timing.to_dict() for timing in self.timings],
            "float_right_this_wrong": flips,
            "evaluation": self.evaluation.to_dict(),
        }


def refusal_figures(refusal: Refusal) -> dict[str, Any]:
    """The figures of a file on unknown photos, as plain values."""
    low, high = refusal.interval
    return {
        "unknown_photos": refusal.photos,
        "unknown_refused": refusal.share,
        "unknown_refused_low": low,
        "unknown_refused_high": high,
        "known_refused": refusal.known_share,
        "auroc": refusal.auroc,
    }


@dataclass(frozen=True)
class Difference:
    """Balanced accuracy of one file less that of another, with its 95 % interval.

    `photos` is the number that both were measured on; `paired` has the first file as
    its reference.
    """

    value: float
    low: float
    high: float
    photos: int
    paired: McNemar

    @property
    def significant(self) -> bool:
        """Whether the difference is significant."""
        return self.low > 0 or self.high < 0

    def equivalent(self, margin: float) -> bool:
        """Whether the two are shown to be equal within `margin`."""
        return -margin <= self.low and self.high <= margin

    def photos_needed(self, margin: float) -> int:
        """About how many photos would show a difference as large as this one, or that
        it is within `margin`, to two digits: the interval shrinks with their root."""
        half = (self.high - self.low) / 2
        size = abs(self.value)
        target = max(size, margin - size)
        needed = self.photos * (half / target) ** 2 if target else float("inf")
        if not math.isfinite(needed) or needed <= 0:
            return self.photos
        step = 10 ** max(0, math.floor(math.log10(needed)) - 1)
        return math.ceil(needed / step) * step

    def to_dict(self) -> dict[str, Any]:
        interval = {"value": self.value, "low": self.low, "high": self.high}
        return {**interval, **self.paired._asdict()}


def paired_test(reference: Evaluation, other: Evaluation) -> McNemar:
    """McNemar's exact test; EdgegraftError for evaluations of other photos."""
    if not np.array_equal(reference.truth, other.truth):
        raise EdgegraftError(
            "expected two files measured on the same photos, got evaluations with "
            f"other labels ({reference.photos:,} and {other.photos:,} photos)"
        )
    return mcnemar(reference.right, other.right)


def difference(first: Evaluation, second: Evaluation) -> Difference:
    """Balanced accuracy of `first` less that of `second`.

    The interval of each label is that of Bonett and Price 2012 ("Adjusted Wald
    confidence interval for a difference of binomial proportions based on paired
    data", Journal of Educational and Behavioral Statistics 37:479); labels are
    independent, so their variances add. EdgegraftError for other photos.
    """
    pair = paired_test(first, second)
    differences, variances = [], []
    for label in np.unique(first.truth):
        of_label = first.truth == label
        count = int(of_label.sum())
        only_first = int((first.right & ~second.right & of_label).sum())
        only_second = int((~first.right & second.right & of_label).sum())
        p1, p2 = (only_first + 1) / (count + 2), (only_second + 1) / (count + 2)
        differences.append(p1 - p2)
        variances.append((p1 + p2 - (p1 - p2) ** 2) / (count + 2))
    labels = max(len(differences), 1)
    centre = sum(differences) / labels
    half = CONFIDENCE_95 * sum(variances) ** 0.5 / labels
    return Difference(
        first.balanced_accuracy - second.balanced_accuracy,
        centre - half,
        centre + half,
        first.photos,
        pair,
    )


@dataclass(frozen=True)
class Budget:
    """Limits of the file to ship: `ms` median latency, `mb` size in MB (10^6 bytes);
    None: no limit. EdgegraftError for anything but positive numbers."""

    ms: float | None = None
    mb: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("ms", self.ms), ("mb", self.mb)):
            numeric = isinstance(value, int | float)
            if value is not None and not (numeric and 0 < value < float("inf")):
                raise EdgegraftError(
                    f"expected --budget-{name} to be a number above 0, got {value!r}"
                )

    def __str__(self) -> str:
        limits = [f"{self.ms:g} ms"] if self.ms is not None else []
        limits += [f"{self.mb:g} MB"] if self.mb is not None else []
        return " and ".join(limits)


@dataclass(frozen=True)
class Choice:
    """The file to ship (None: none fits) and why, in a sentence.

    `differences`: the most accurate file within the budget less each other one.
    """

    file: MeasuredFile | None
    why: str
    differences: tuple[tuple[str, Difference], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "file": self.file.title if self.file else None,
            "path": str(self.file.path) if self.file else None,
            "why": self.why,
            "differences": {title: d.to_dict() for title, d in self.differences},
        }


@dataclass(frozen=True)
class Headline:
    """The accuracy of the file to ship.

    `source`: "test photos", or "cross-validated" where these are few. `note`: why few
    test photos were used; "" where they are many. `weakest`: the label with the lowest
    recall, its photos and how many of them were right; None in runs of old versions
    that are cross-validated.
    """

    accuracy: float
    interval: tuple[float, float]
    photos: int
    source: str
    note: str = ""
    weakest: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "interval": list(self.interval)}


@dataclass(frozen=True)
class Comparison:
    """Files measured on one host; `folder` is where the comparison is written.

    `deciding_setting`: its times decide. `warnings`: why measurements may be wrong.
    `headline`: of the chosen file, None where none was chosen.
    """

    run: str
    folder: Path
    labels: tuple[str, ...]
    host: dict[str, Any]
    method: str
    budget: Budget
    deciding_setting: Setting
    files: tuple[MeasuredFile, ...]
    choice: Choice
    headline: Headline | None = None
    warnings: tuple[str, ...] = ()
    by_budget: tuple[dict[str, Any], ...] = ()

    def __repr__(self) -> str:
        chosen, files = self.choice.file, plural(len(self.files), "file")
        if chosen is None:
            return f"<Comparison of {files}: none fits>"
        evaluation = chosen.evaluation
        return (
            f"<Comparison of {files}: ship {chosen.path}, balanced accuracy "
            f"{evaluation.balanced_accuracy:.1%} on {evaluation.photos:,} photos>"
        )

    @property
    def best(self) -> Path | None:
        """The file to ship."""
        return self.choice.file.path if self.choice.file else None

    @property
    def settings(self) -> tuple[Setting, ...]:
        """All settings with times: the host of `deciding_setting` first, by threads."""
        settings = {timing.setting for file in self.files for timing in file.timings}

        def rank(s: Setting) -> tuple[bool, str, str, int, bool]:
            other = s.host != self.deciding_setting.host
            return other, s.host, s.runtime, s.threads, not s.xnnpack

        return tuple(sorted(settings, key=rank))

    def to_dict(self, columns: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
        """For JSON; `columns`: how to show the files."""
        return {
            "run": self.run,
            "labels": list(self.labels),
            "host": self.host,
            "method": self.method,
            "judged_on": str(self.deciding_setting),
            "warnings": list(self.warnings),
            "budget_ms": self.budget.ms,
            "budget_mb": self.budget.mb,
            "ship": self.choice.to_dict(),
            "by_budget": list(self.by_budget),
            "headline": self.headline.to_dict() if self.headline else None,
            "columns": list(columns),
            "files": [measured.to_dict() for measured in self.files],
        }
