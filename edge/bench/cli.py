"""The verb ``bench``: each model with each number of threads, as a table or JSON.

Each of several combinations runs in a process of its own, so that load time
and peak memory are its own.

`--json` is one document, which `edgegraft compare --with` reads; its keys stay:
``models``, a record for each file and number of threads, and ``warnings``, lines.
A record has `model` (as given), `model_sha256`, `variant`, `runtime`,
`runtime_version`, `xnnpack`, `delegate`, `host` (the board), `threads`, `runs`;
`import_ms`, `load_ms`, `first_ms`, `p50_ms`, `p95_ms`, `p99_ms`, `mean_ms`;
`size_bytes`, `peak_memory_mb` (MiB), `warnings`. With ``--photos``: `photos` (how
many; `decode`, `resize`, `inference`, `rest`, `total`, each with p50_ms, p95_ms,
p99_ms; `batched` with workers, photos_per_second). With ``--fps``: `paced` (asked_fps,
fps, late, p50_ms ...). With ``--minutes``: `sustained` (minutes, slower, `samples`
with seconds, p50_ms ..., temperature_c, clock_mhz, throttled; null: the machine does
not say).
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from typing import Any

from edge.bench import conditions
from edge.bench.timing import RUNS, Probe, bench, bench_apart
from edge.classify.cli import opened
from edge.command import ModelOptions
from edge.model_file import ModelFile
from edge.quiet import without_chatter
from edge.runtime import too_many

_SLOWER = 1.1  # of the first sample's time, before a sustained run is remarked on


@dataclass(frozen=True)
class BenchOptions:
    """What to time: each model with each number of threads, `runs` timed runs.

    `photos`: a folder, to time decoding and resizing too; `fps`: a camera's pace;
    `minutes`: without a pause for that long.
    """

    models: tuple[ModelOptions, ...]
    threads: tuple[int, ...] = (1,)
    runs: int = RUNS
    photos: str | None = None
    fps: float | None = None
    minutes: float | None = None

    @classmethod
    def of(cls, args: argparse.Namespace) -> BenchOptions:
        """From parsed arguments."""
        return cls(
            tuple(ModelOptions.of(args, model) for model in args.models),
            tuple(args.threads),
            args.runs,
            args.photos,
            args.fps,
            args.minutes,
        )


def run(args: argparse.Namespace) -> int:
    """The verb."""
    options = BenchOptions.of(args)
    pairs = [
        replace(model, threads=threads)
        for model in options.models
        for threads in options.threads
    ]
    if len(pairs) == 1:
        with without_chatter():
            records = [_here(options, pairs[0])]
    else:
        records = [_apart(options, pair) for pair in pairs]
    notes = _all_warnings(records)
    if args.json:
        print(json.dumps({"models": records, "warnings": notes}, indent=1))
        return 0
    first = records[0]
    print(
        f"{first['host']}; {first['runtime']} {first['runtime_version']}, "
        f"runs {first['runs']}"
    )
    _print_table(records)
    for record in records:
        _print_work(record)
    for note in notes:
        print(f"edgegraft: warning: {note}", file=sys.stderr)
    return 0


def _here(options: BenchOptions, model: ModelOptions) -> dict[str, Any]:
    file = ModelFile.read(model.model)
    size = None
    if model.foreign is not None:
        model.foreign.check(file)
        size = model.foreign.size
    warnings = conditions.warnings()  # while our own work is not the load
    probe = Probe(
        file,
        runtime=model.runtime,
        threads=model.threads or 1,
        xnnpack=model.xnnpack,
        delegate=model.delegate,
        size=size,
    )
    record = bench(probe, options.runs)
    record["variant"] = file.card.variant if file.card else None
    record["model_sha256"] = file.digest
    record["warnings"] = warnings
    if options.photos or options.fps or options.minutes:
        from edge.bench import workload
    if options.photos:
        paths = workload.paths_of(options.photos, options.runs)
        record["photos"] = workload.photos(
            opened(model), paths, lambda: opened(replace(model, threads=1))
        )
    if options.fps:
        record["paced"] = workload.paced(probe, options.fps)
    if options.minutes:
        record["sustained"] = workload.sustained(probe, options.minutes)
    return record


def _apart(options: BenchOptions, model: ModelOptions) -> dict[str, Any]:
    values = {
        "photos": options.photos,
        "fps": options.fps,
        "minutes": options.minutes,
        "delegate": model.delegate,
        "labels": model.labels,
    }
    more = [f"--{name}={value}" for name, value in values.items() if value is not None]
    return bench_apart(
        model.model,
        runtime=model.runtime,
        threads=model.threads or 1,
        runs=options.runs,
        xnnpack=model.xnnpack,
        more=[*more, *(model.foreign.arguments() if model.foreign else ())],
    )


def _all_warnings(records: list[dict[str, Any]]) -> list[str]:
    """Those of each model, each once; then what the comparison shows."""
    # The load is that of our own processes after the first: only its own counts.
    notes = list(records[0]["warnings"])
    counts = sorted({record["threads"] for record in records})
    notes += [warning for count in counts if (warning := too_many(count))]
    for record in records:
        work = record.get("sustained")
        if work and work["slower"] > _SLOWER:
            notes.append(
                f"{record['model']}: {work['slower']:.2f} times slower at the end of "
                f"{work['minutes']:g} minutes than at the start; cool the board"
            )
    for int8 in records:
        for other in records:
            if (
                str(int8["variant"]).startswith("int8")
                and str(other["variant"]).startswith("float")
                and int8["threads"] == other["threads"]
                and int8["p50_ms"] > other["p50_ms"]
            ):
                notes.append(
                    f"{int8['model']} is slower than {other['model']}: "
                    f"{conditions.why_int8_is_slow(int8)}"
                )
    return notes


def _print_table(records: list[dict[str, Any]]) -> None:
    columns = ("load", "first", "p50", "p95", "p99", "mean")
    head = "".join(f"{name + ' ms':>10}" for name in columns)
    print(f"threads{head}  peak MiB   size MB")
    for record in records:
        times = "".join(f"{record[name + '_ms']:10.2f}" for name in columns)
        size = record["size_bytes"] / 1e6
        peak = record["peak_memory_mb"]
        threads, model = record["threads"], record["model"]
        print(f"{threads:7d}{times}{peak:10.0f}{size:10.2f}  {model}")


def _print_work(record: dict[str, Any]) -> None:
    where = f"{record['model']}, threads {record['threads']}"
    if work := record.get("photos"):
        parts = ("decode", "resize", "inference", "rest", "total")
        times = ", ".join(f"{part} {work[part]['p50_ms']:.2f}" for part in parts)
        print(f"{where}: {work['photos']} photos, p50 ms: {times}")
        batched = work["batched"]
        print(
            f"{where}: {batched['photos_per_second']:.1f} photos a second with "
            f"{batched['workers']} workers"
        )
    if work := record.get("paced"):
        print(
            f"{where}: at {work['fps']:.1f} of {work['asked_fps']:g} fps p50 "
            f"{work['p50_ms']:.2f} ms, p99 {work['p99_ms']:.2f} ms, {work['late']} late"
        )
    if work := record.get("sustained"):
        for sample in work["samples"]:
            heat, clock = sample["temperature_c"], sample["clock_mhz"]
            state = f"{heat:.0f} C" if heat is not None else "no temperature reading"
            state += f", {clock:.0f} MHz" if clock is not None else ", no clock reading"
            state += "".join(f", {reason}" for reason in sample["throttled"] or ())
            print(
                f"{where}: {sample['seconds']:6.0f} s  p50 {sample['p50_ms']:.2f} ms, "
                f"p99 {sample['p99_ms']:.2f} ms, {state}"
            )
