"""Timing of a model file on this machine.

Times are wall-clock milliseconds of the interpreter alone (pixels in, result out),
after one first run that is given apart.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.bench import machine
from edge.errors import ModelError
from edge.model_file import ModelFile
from edge.runtime import find, open_interpreter

RUNS = 50
WARM_SECONDS = 0.2  # clocks and caches settle before the timed runs


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
