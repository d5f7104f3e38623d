"""How fast model files are on this machine: the verb ``bench``, as a table or JSON.

Each of several combinations of model and threads runs in a process of its own, so that
load time and peak memory are its own. Times are wall-clock milliseconds of the
interpreter alone (pixels in, result out), after one first run that is given apart;
then, where asked for, of realistic work: photos, a camera's frame rate, constant load.

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
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge import machine
from edge.classifier import Classifier
from edge.classify.cli import opened
from edge.command import ModelOptions
from edge.errors import EdgegraftError, ModelError, PhotoError
from edge.model_file import ModelFile
from edge.preprocess import fit, open_for
from edge.runtime import cores, find, open_interpreter, thread_warning
from edge.terminal import without_chatter

RUNS = 50
WARM_SECONDS = 0.2  # clocks and caches settle before the timed runs
_PACED_SECONDS = 5.0
_SAMPLE_SECONDS = 10.0  # between two readings of clock and temperature
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
    warnings = machine.timing_warnings()  # while our own work is not the load
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
    if args.photos:
        paths = _photo_paths(args.photos, args.runs)
        record["photos"] = bench_photos(
            opened(model), paths, lambda: opened(replace(model, threads=1))
        )
    if args.fps:
        record["paced"] = bench_paced(probe, args.fps)
    if args.minutes:
        record["sustained"] = bench_sustained(probe, args.minutes)
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
                f"{_why_int8_is_slow(int8)}"
            )
    return warnings


def _why_int8_is_slow(record: dict[str, Any]) -> str:
    """Why an int8 file is slower than a float one, and what to install."""
    if not record["xnnpack"]:
        return "without XNNPACK the int8 kernels are slow; leave --no-xnnpack out"
    if record["runtime"] == "tflite-runtime":
        return (
            f"tflite-runtime {record['runtime_version']} has no XNNPACK kernels for "
            "int8; run: pip install ai-edge-litert (64-bit systems)"
        )
    if machine.fast_int8() is False:
        return (
            "this processor has no 8-bit dot product (VNNI on x86, dotprod on Arm); "
            "int8 still saves memory and file size, float16 may be the faster file"
        )
    return "the network is so small that its fixed costs decide, or the machine is busy"


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


def bench(probe: Probe, runs: int) -> dict[str, Any]:
    """Load time, first run, then p50, p95, p99 and mean of `runs`, in milliseconds.

    `load_ms` is from the file to an interpreter with its tensors allocated, the
    import of the interpreter (`import_ms`) left out. `peak_memory_mb` is of the
    whole process so far: call `bench_in_subprocess` for that of one model.
    """
    first = probe.once()
    warm_until = time.perf_counter() + WARM_SECONDS
    while time.perf_counter() < warm_until:
        probe.once()
    times = np.array([probe.once() for _ in range(runs)])
    return {
        "model": probe.file.where,
        "import_ms": probe.import_ms,
        "load_ms": probe.load_ms,
        "first_ms": first,
        **percentiles(times),
        "mean_ms": float(times.mean()),
        "runs": runs,
        "threads": probe.threads,
        "xnnpack": probe.xnnpack,
        "delegate": probe.delegate,
        "runtime": probe.runtime.name,
        "runtime_version": probe.runtime.version,
        "host": machine.board(),
        "size_bytes": len(probe.file.content),
        "peak_memory_mb": machine.peak_memory_mb(),
    }


class Probe:
    """An interpreter with noise as input: `once` runs it and gives the milliseconds."""

    def __init__(
        self,
        model: ModelFile | str | os.PathLike[str] | bytes,
        *,
        runtime: str = "auto",
        threads: int = 1,
        xnnpack: bool = True,
        delegate: str | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        self.file = ModelFile.read(model)
        self.threads, self.xnnpack, self.delegate = threads, xnnpack, delegate
        start = time.perf_counter()
        find(runtime)
        self.import_ms = (time.perf_counter() - start) * 1e3
        self.file.prove(runtime=runtime, xnnpack=xnnpack, delegate=delegate, size=size)
        start = time.perf_counter()
        self.runtime, self._interpreter = open_interpreter(
            ModelFile.read(model).flatbuffer,
            runtime=runtime,
            threads=threads,
            xnnpack=xnnpack,
            delegate=delegate,
            size=size,
            where=self.file.where,
        )
        self.load_ms = (time.perf_counter() - start) * 1e3
        entry = self._interpreter.get_input_details()[0]
        self._input_index = entry["index"]
        noise = np.random.default_rng(0).integers(0, 256, entry["shape"], np.uint8)
        self._input = noise.astype(entry["dtype"])  # wraps around for int8
        self._output_index = self._interpreter.get_output_details()[0]["index"]

    def once(self) -> float:
        start = time.perf_counter()
        self._interpreter.set_tensor(self._input_index, self._input)
        self._interpreter.invoke()
        self._interpreter.get_tensor(self._output_index)
        return (time.perf_counter() - start) * 1e3


def percentiles(times: npt.NDArray[Any]) -> dict[str, float]:
    """p50, p95 and p99 of times in milliseconds."""
    return {f"p{rank}_ms": float(np.percentile(times, rank)) for rank in (50, 95, 99)}


def bench_in_subprocess(
    model: str | os.PathLike[str],
    *,
    runtime: str = "auto",
    threads: int = 1,
    runs: int = RUNS,
    xnnpack: bool = True,
    extra_args: Sequence[str] = (),
) -> dict[str, Any]:
    """`bench` in a fresh process: load time and peak memory are this model's own.

    `extra_args` are further options of the command.
    """
    import json
    import subprocess

    from edge.subprocess_run import child_environment

    options = ["--runtime", runtime, "--threads", str(threads), "--runs", str(runs)]
    options += [] if xnnpack else ["--no-xnnpack"]
    options += extra_args
    result = subprocess.run(
        [sys.executable, "-m", "edge", "bench", os.fspath(model), "--json", *options],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or [f"exit {result.returncode}"]
        raise ModelError(lines[-1].removeprefix("edgegraft: error: "))
    record: dict[str, Any] = json.loads(result.stdout)["models"][0]
    return record


def bench_photos(
    classifier: Classifier, paths: list[str], build: Callable[[], Classifier]
) -> dict[str, Any]:
    """Decode, resize, inference and the rest apart (ms); then photos a second with
    a worker on every core. `build` opens one more classifier with one thread."""
    from edge.classify import workers

    recipe = classifier.recipe
    rows = []
    for path in paths:
        times = [time.perf_counter()]
        try:
            image = open_for(path, recipe)
        except PhotoError:
            continue  # `classify` names them; here only whole photos count
        times.append(time.perf_counter())
        pixels = fit(image, recipe)
        times.append(time.perf_counter())
        outputs = classifier.run(pixels[None])
        times.append(time.perf_counter())
        classifier.prediction(outputs["probabilities"][0], None)
        times.append(time.perf_counter())
        rows.append(np.diff(times) * 1e3)
    if not rows:
        raise EdgegraftError("--photos: expected photos that can be read, got none")
    table = np.array(rows)
    record: dict[str, Any] = {"photos": len(rows)}
    for name, column in zip(
        ("decode", "resize", "inference", "rest"), table.T, strict=True
    ):
        record[name] = percentiles(column)
    record["total"] = percentiles(table.sum(axis=1))
    classifiers = [build() for _ in range(cores())]

    def classify(worker: Classifier, path: str) -> bool:
        try:
            worker.classify(path)
        except PhotoError:
            return False
        return True

    start = time.perf_counter()
    count = sum(workers.in_order(paths, classify, classifiers))
    per_second = count / (time.perf_counter() - start)
    record["batched"] = {"workers": len(classifiers), "photos_per_second": per_second}
    return record


def bench_paced(
    probe: Probe, fps: float, seconds: float = _PACED_SECONDS
) -> dict[str, Any]:
    """Inference at a camera's frame rate: clock and caches cool down between frames."""
    times: list[float] = []
    late = 0
    start = due = time.perf_counter()
    while due - start < seconds - 0.5 / fps:  # half a frame: `due` is a sum of floats
        time.sleep(max(0.0, due - time.perf_counter()))
        times.append(probe.once())
        due += 1 / fps
        if (now := time.perf_counter()) > due:
            late += 1
            due = now
    return {
        "asked_fps": fps,
        "fps": len(times) / max(time.perf_counter() - start, seconds),
        "late": late,
        **percentiles(np.array(times)),
    }


def bench_sustained(
    probe: Probe, minutes: float, *, every: float = _SAMPLE_SECONDS
) -> dict[str, Any]:
    """Without a pause for `minutes`: does it get slower as the machine gets warm?"""
    samples = []
    count = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < minutes * 60:
        times = []
        length = min(every, max(minutes * 60 - elapsed, 0.05))
        while time.perf_counter() - start - elapsed < length:
            times.append(probe.once())
        count += len(times)
        sample: dict[str, Any] = {"seconds": round(time.perf_counter() - start, 1)}
        samples.append({**sample, **percentiles(np.array(times)), **machine.state()})
    first, last = samples[0]["p50_ms"], samples[-1]["p50_ms"]
    return {
        "minutes": minutes,
        "photos_per_second": count / (time.perf_counter() - start),
        "slower": last / first,
        "samples": samples,
    }


def _photo_paths(folder: str, count: int) -> list[str]:
    """The first `count` photos of a folder (or a pattern)."""
    from edge.classify.sources import photos as listed

    if not os.path.exists(folder) and not any(char in folder for char in "*?["):
        raise EdgegraftError(f"{folder}: expected a folder of photos, got nothing")
    return list(itertools.islice(listed([folder]), count))
