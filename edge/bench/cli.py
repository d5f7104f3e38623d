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
import itertools
import json
import sys
from dataclasses import replace
from typing import Any

from edge.bench import conditions
from edge.bench.timing import Probe, bench, bench_in_subprocess
from edge.classify.cli import opened
from edge.command import ModelOptions
from edge.model_file import ModelFile
from edge.quiet import without_chatter
from edge.runtime import thread_warning

_SLOWER = 1.1  # of the first sample's time, before a sustained run is remarked on


def run(args: argparse.Namespace) -> int:
    """The verb."""
    models = [
        replace(ModelOptions.from_args(args, model), threads=threads)
        for model in args.models
        for threads in args.threads
    ]
    if len(models) == 1:
        with without_chatter():
            records = [_bench_here(args, models[0])]
    else:
        records = [_bench_in_subprocess(args, model) for model in models]
    warnings = _all_warnings(records)
    if args.json:
        print(json.dumps({"models": records, "warnings": warnings}, indent=1))
        return 0
    first = records[0]
    print(
        f"{first['host']}; {first['runtime']} {first['runtime_version']}, "
        f"runs {first['runs']}"
    )
    _print_table(records)
    for record in records:
        _print_work(record)
    for warning in warnings:
        print(f"edgegraft: warning: {warning}", file=sys.stderr)
    return 0


def _bench_here(args: argparse.Namespace, model: ModelOptions) -> dict[str, Any]:
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
    record = bench(probe, args.runs)
    record["variant"] = file.card.variant if file.card else None
    record["model_sha256"] = file.digest
    record["warnings"] = warnings
    if args.photos or args.fps or args.minutes:
        from edge.bench import workload
    if args.photos:
        paths = workload.paths_of(args.photos, args.runs)
        record["photos"] = workload.photos(
            opened(model), paths, lambda: opened(replace(model, threads=1))
        )
    if args.fps:
        record["paced"] = workload.paced(probe, args.fps)
    if args.minutes:
        record["sustained"] = workload.sustained(probe, args.minutes)
    return record


def _bench_in_subprocess(
    args: argparse.Namespace, model: ModelOptions
) -> dict[str, Any]:
    """In a process of its own."""
    values = {
        "photos": args.photos,
        "fps": args.fps,
        "minutes": args.minutes,
        "delegate": model.delegate,
        "labels": model.labels,
    }
    extra = [f"--{name}={value}" for name, value in values.items() if value is not None]
    return bench_in_subprocess(
        model.model,
        runtime=model.runtime,
        threads=model.threads or 1,
        runs=args.runs,
        xnnpack=model.xnnpack,
        extra_args=[*extra, *(model.foreign.arguments() if model.foreign else ())],
    )


def _all_warnings(records: list[dict[str, Any]]) -> list[str]:
    """The machine's warnings, then those that follow from the timings."""
    # The load is that of our own processes after the first: only its own counts.
    warnings = list(records[0]["warnings"])
    counts = sorted({record["threads"] for record in records})
    warnings += [warning for count in counts if (warning := thread_warning(count))]
    for record in records:
        work = record.get("sustained")
        if work and work["slower"] > _SLOWER:
            warnings.append(
                f"{record['model']}: {work['slower']:.2f} times slower at the end of "
                f"{work['minutes']:g} minutes than at the start; cool the board"
            )
    for int8, other in itertools.permutations(records, 2):
        if (
            str(int8["variant"]).startswith("int8")
            and str(other["variant"]).startswith("float")
            and int8["threads"] == other["threads"]
            and int8["p50_ms"] > other["p50_ms"]
        ):
            warnings.append(
                f"{int8['model']} is slower than {other['model']}: "
                f"{conditions.why_int8_is_slow(int8)}"
            )
    return warnings


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
            temperature, clock = sample["temperature_c"], sample["clock_mhz"]
            state = "no temperature reading"
            if temperature is not None:
                state = f"{temperature:.0f} C"
            state += f", {clock:.0f} MHz" if clock is not None else ", no clock reading"
            state += "".join(f", {reason}" for reason in sample["throttled"] or ())
            print(
                f"{where}: {sample['seconds']:6.0f} s  p50 {sample['p50_ms']:.2f} ms, "
                f"p99 {sample['p99_ms']:.2f} ms, {state}"
            )
