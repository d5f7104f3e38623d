"""Latency of files: measured here, in interleaved rounds, or on another device.

Every process runs one file with one number of threads; each round runs all of them, so
that other load on the machine affects all files alike. Documents of `edge bench --json`
from other devices are read into the same records.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.bench import bench_in_subprocess
from edge.errors import EdgegraftError
from finetune.console import Console
from quantize.comparison.records import MeasuredFile, Setting, Timing

ROUNDS = 3
RUNS = 30  # timed inferences of a file in a round
SECONDS = 0.5  # of a round without pauses, for photos a second
UNSTEADY = 2.0  # times the median; on an idle machine p95 is 1.0 to 1.3 times that
Timings = dict[Path, tuple[Timing, ...]]  # of files, by number of threads
_TIMES = ("load_ms", "first_ms", "p50_ms", "p95_ms", "p99_ms")
_REQUIRED = {
    **dict.fromkeys(("model", "runtime", "runtime_version", "host"), str),
    **dict.fromkeys((*_TIMES, "peak_memory_mb"), float),
    "threads": int,
}


@dataclass(frozen=True)
class Effort:
    """How long to measure: `runs` timed inferences and `seconds` without pauses in each
    of `rounds`, for each number of `threads` (the first one decides)."""

    threads: tuple[int, ...] = (1,)
    rounds: int = ROUNDS
    runs: int = RUNS
    seconds: float = SECONDS

    def __post_init__(self) -> None:
        threads = [("threads", n) for n in self.threads]
        for name, value in (*threads, ("rounds", self.rounds), ("runs", self.runs)):
            if value < 1:
                raise EdgegraftError(f"expected --{name} to be 1 or more, got {value}")
        if not self.threads or len(set(self.threads)) < len(self.threads):
            raise EdgegraftError(
                "expected --threads to be different numbers, got "
                f"{', '.join(map(str, self.threads)) or 'none'}"
            )
        if not 0 < self.seconds < float("inf"):
            raise EdgegraftError(
                f"expected --seconds to be more than 0, got {self.seconds:g}"
            )


def time_all(
    paths: Sequence[Path],
    runtime: str,
    effort: Effort,
    console: Console,
    sizes: Mapping[Path, tuple[int, int] | None] | None = None,
    *,
    is_late: Callable[[Timings], bool] = lambda _: False,
    after_round: Callable[[Timings], None] = lambda _: None,
) -> Timings:
    """Each file's timings on this machine, one for each number of threads.

    Each round starts with another file. `sizes`: width and height of networks of
    variable input size. Once `is_late` no further process is started, and files not
    timed by then are left out; it and `after_round` get the timings so far.
    """
    pairs = [(path, threads) for threads in effort.threads for path in paths]
    records: dict[tuple[Path, int], list[Mapping[str, Any]]] = {p: [] for p in pairs}
    options = {path: ["--minutes", f"{effort.seconds / 60:.6f}"] for path in paths}
    for path, size in (sizes or {}).items():
        if size:
            options[path] += ["--input-size", f"{size[0]}x{size[1]}"]
    done = 0

    def so_far() -> Timings:
        return {
            path: tuple(_timing(records[path, threads]) for threads in effort.threads)
            for path in paths
            if all(records[path, threads] for threads in effort.threads)
        }

    with console.bar("timing", unit="run") as bar:
        for index in range(effort.rounds):
            start = index % len(pairs)
            for path, threads in [*pairs[start:], *pairs[:start]]:
                if is_late(so_far()):
                    return so_far()
                record = bench_in_subprocess(
                    path,
                    runtime=runtime,
                    threads=threads,
                    runs=effort.runs,
                    extra_args=options[path],
                )
                records[path, threads].append(record)
                bar(done := done + 1, effort.rounds * len(pairs))
            after_round(so_far())
    return so_far()


def unsteady_warnings(here: Setting, files: Sequence[MeasuredFile]) -> list[str]:
    """A warning where some inferences of a file took far longer than most, as with
    other load on the machine; else an empty list."""
    timed = [(file, timing) for file in files if (timing := file.timing_in(here))]
    file, worst = max(timed, key=lambda pair: pair[1].p95_ms / (pair[1].p50_ms or 1.0))
    if worst.p95_ms <= UNSTEADY * worst.p50_ms:
        return []
    return [
        f"times vary: the median of {file.title} is {worst.p50_ms:.2f} ms, its p95 "
        f"{worst.p95_ms:.2f} ms; close other programs and measure again"
    ]


def read_devices(path: Path, option: str = "--with") -> dict[str, tuple[Timing, ...]]:
    """The timings in a document of `edge bench --json`, by the digest of the file.

    `option` gave the path. EdgegraftError, naming the file and the reason, for any
    other document.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        records = document["models"]
        if not isinstance(records, list) or not records:
            raise ValueError("no models in it")
        timings: dict[str, tuple[Timing, ...]] = {}
        for record in records:
            _check(record)
            key = record["model_sha256"]
            timings[key] = (*timings.get(key, ()), _timing([record]))
    except OSError as error:
        raise EdgegraftError(
            f"{option}: expected a file that edge bench --json wrote, got {path}: "
            f"{error.strerror or error}"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise EdgegraftError(
            f"{option}: expected what edge bench --json prints, got {path}: "
            f"{' '.join(reason.split()):.120}; on the device run: python -m edge bench "
            "MODEL... --json > pi.json"
        ) from None
    return timings


def _check(record: Any) -> None:
    """ValueError for a record that `edge bench` did not write."""
    if not isinstance(record, dict):
        raise ValueError(f"a model that is {record!r:.40}")
    if not isinstance(record.get("model_sha256"), str):
        raise ValueError("no model_sha256 (an older edgegraft on the device?)")
    for name, kind in _REQUIRED.items():
        value = record.get(name)
        valid = type(value) is kind
        if kind is float:  # whole numbers too; NaN is not 0 or more
            valid = type(value) in (int, float) and float(value or 0) >= 0
        if not valid:
            raise ValueError(f"{name} is {value!r:.40}")


def _timing(records: Sequence[Mapping[str, Any]]) -> Timing:
    """The rounds of one file in one setting, merged."""
    last = records[-1]
    rates = [
        float(record["sustained"]["photos_per_second"])
        for record in records
        if "photos_per_second" in (record.get("sustained") or {})
    ]
    return Timing(
        setting=Setting(
            host=last["host"],
            runtime=f"{last['runtime']} {last['runtime_version']}",
            threads=int(last["threads"]),
            xnnpack=bool(last.get("xnnpack", True)),
        ),
        **{
            name: statistics.median(float(record[name]) for record in records)
            for name in _TIMES
        },
        photos_per_second=statistics.median(rates) if rates else None,
        peak_memory_mb=max(float(record["peak_memory_mb"]) for record in records),
        rounds=len(records),
    )
