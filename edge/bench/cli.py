"""The verb ``bench``: each model with each number of threads, as a table or JSON.

Every combination but a single one runs in a process of its own, so that load time
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
with seconds, p50_ms ..., temperature_c, clock_mhz, throttled; null: not told).

It does not know: how anything is measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from edge.bench import conditions
from edge.bench.timing import Probe, bench, bench_apart
from edge.card import digest, read_card
from edge.classifier import Classifier
from edge.quiet import without_chatter
from edge.runtime import read_model, too_many

_SLOWER = 1.1  # of the first sample's time, before a sustained run is remarked on


def run(args: argparse.Namespace) -> int:
    """The verb."""
    pairs = [(model, threads) for model in args.models for threads in args.threads]
    if len(pairs) == 1:
        with without_chatter():
            records = [_here(args, *pairs[0])]
    else:
        records = [_apart(args, *pair) for pair in pairs]
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


def _here(args: argparse.Namespace, model: str, threads: int) -> dict[str, Any]:
    options = {"runtime": args.runtime, "threads": threads, "xnnpack": args.xnnpack}
    options["delegate"] = args.delegate
    spoiled = conditions.warnings()  # while our own work is not the load
    record = bench(model, runs=args.runs, **options)
    card = read_card(model)
    record["variant"] = card.variant if card else None
    record["model_sha256"] = digest(read_model(model))
    record["warnings"] = spoiled
    if args.photos or args.fps or args.minutes:
        from edge.bench import workload
    if args.photos:
        paths = workload.paths_of(args.photos, args.runs)
        record["photos"] = workload.photos(
            Classifier(model, **options),
            paths,
            lambda: Classifier(model, **{**options, "threads": 1}),
        )
    if args.fps:
        record["paced"] = workload.paced(Probe(model, **options), args.fps)
    if args.minutes:
        record["sustained"] = workload.sustained(Probe(model, **options), args.minutes)
    return record


def _apart(args: argparse.Namespace, model: str, threads: int) -> dict[str, Any]:
    more = []
    for name in ("photos", "fps", "minutes", "delegate"):
        if (value := getattr(args, name)) is not None:
            more += [f"--{name}", str(value)]
    return bench_apart(
        model,
        runtime=args.runtime,
        threads=threads,
        runs=args.runs,
        xnnpack=args.xnnpack,
        more=more,
    )


def _all_warnings(records: list[dict[str, Any]]) -> list[str]:
    """Those of each model, each once; then what the comparison shows."""
    # The load is that of our own processes after the first: only its own counts.
    notes = list(records[0]["warnings"])
    asked = sorted({record["threads"] for record in records})
    notes += [remark for threads in asked if (remark := too_many(threads))]
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
            told = f"{heat:.0f} C" if heat is not None else "no temperature reading"
            told += f", {clock:.0f} MHz" if clock is not None else ", no clock reading"
            told += "".join(f", {reason}" for reason in sample["throttled"] or ())
            print(
                f"{where}: {sample['seconds']:6.0f} s  p50 {sample['p50_ms']:.2f} ms, "
                f"p99 {sample['p99_ms']:.2f} ms, {told}"
            )
