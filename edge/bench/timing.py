"""How fast is a model file on this machine?

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
from edge.errors import EdgegraftError, ModelError
from edge.model_file import ModelFile
from edge.runtime import find, open_interpreter

RUNS = 50
WARM_SECONDS = 0.2  # clocks and caches settle before the timed runs


def bench(
    model: ModelFile | str | os.PathLike[str] | bytes,
    *,
    runtime: str = "auto",
    threads: int = 1,
    runs: int = RUNS,
    pixels: npt.NDArray[Any] | None = None,
    xnnpack: bool = True,
    delegate: str | None = None,
    size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Load time, first run, then p50, p95, p99 and mean of `runs`, in milliseconds.

    `pixels` is one input in the model's own dtype and shape; noise when not given.
    `load_ms` is from the file to an interpreter with its tensors allocated, the
    import of the interpreter (`import_ms`) left out. `peak_memory_mb` is of the
    whole process so far: call `bench_apart` for that of one model.
    """
    if runs < 1:
        raise EdgegraftError(f"expected runs to be 1 or more, got {runs}")
    file = ModelFile.read(model)
    probe = Probe(
        file,
        runtime=runtime,
        threads=threads,
        xnnpack=xnnpack,
        delegate=delegate,
        pixels=pixels,
        size=size,
    )
    first = probe.once()
    warm_until = time.perf_counter() + WARM_SECONDS
    while time.perf_counter() < warm_until:
        probe.once()
    times = np.array([probe.once() for _ in range(runs)])
    return {
        "model": file.where,
        "import_ms": probe.import_ms,
        "load_ms": probe.load_ms,
        "first_ms": first,
        **percentiles(times),
        "mean_ms": float(times.mean()),
        "runs": runs,
        "threads": threads,
        "xnnpack": xnnpack,
        "delegate": delegate,
        "runtime": probe.runtime.name,
        "runtime_version": probe.runtime.version,
        "host": machine.board(),
        "size_bytes": len(file.content),
        "peak_memory_mb": machine.peak_memory_mb(),
    }


class Probe:
    """An interpreter with an input: `once` runs it and gives the milliseconds."""

    def __init__(
        self,
        model: ModelFile | str | os.PathLike[str] | bytes,
        *,
        runtime: str = "auto",
        threads: int = 1,
        xnnpack: bool = True,
        delegate: str | None = None,
        pixels: npt.NDArray[Any] | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        file = ModelFile.read(model)
        start = time.perf_counter()
        find(runtime)
        self.import_ms = (time.perf_counter() - start) * 1e3
        file.prove(runtime=runtime, xnnpack=xnnpack, delegate=delegate, size=size)
        start = time.perf_counter()
        self.runtime, self._interpreter = open_interpreter(
            ModelFile.read(model).flatbuffer,
            runtime=runtime,
            threads=threads,
            xnnpack=xnnpack,
            delegate=delegate,
            size=size,
            where=file.where,
        )
        self.load_ms = (time.perf_counter() - start) * 1e3
        entry = self._interpreter.get_input_details()[0]
        self._index = entry["index"]
        self._value = _noise(entry) if pixels is None else _fitting(pixels, entry)
        self._result = self._interpreter.get_output_details()[0]["index"]

    def once(self) -> float:
        begin = time.perf_counter()
        self._interpreter.set_tensor(self._index, self._value)
        self._interpreter.invoke()
        self._interpreter.get_tensor(self._result)
        return (time.perf_counter() - begin) * 1e3


def percentiles(times: npt.NDArray[Any]) -> dict[str, float]:
    """p50, p95 and p99 of times in milliseconds."""
    shares = (50, 95, 99)
    found = np.percentile(times, shares)
    return {f"p{s}_ms": float(v) for s, v in zip(shares, found, strict=True)}


def bench_apart(
    model: str | os.PathLike[str],
    *,
    runtime: str = "auto",
    threads: int = 1,
    runs: int = RUNS,
    xnnpack: bool = True,
    more: Sequence[str] = (),
) -> dict[str, Any]:
    """`bench` in a fresh process: load time and peak memory are this model's own.

    `more` are further options of the command.
    """
    import json
    import subprocess
    from pathlib import Path

    parent = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    search = parent + (os.pathsep + inherited if inherited else "")
    options = ["--runtime", runtime, "--threads", str(threads), "--runs", str(runs)]
    options += [] if xnnpack else ["--no-xnnpack"]
    options += more
    done = subprocess.run(
        [sys.executable, "-m", "edge", "bench", os.fspath(model), "--json", *options],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        raise ModelError(last.removeprefix("edgegraft: error: "))
    record: dict[str, Any] = json.loads(done.stdout)["models"][0]
    return record


def _noise(entry: dict[str, Any]) -> npt.NDArray[Any]:
    noise = np.random.default_rng(0).integers(0, 256, entry["shape"], np.uint8)
    dtype: np.dtype[Any] = np.dtype(entry["dtype"])
    value: npt.NDArray[Any] = noise.astype(dtype)  # wraps around for int8
    return value


def _fitting(pixels: npt.NDArray[Any], entry: dict[str, Any]) -> npt.NDArray[Any]:
    value = pixels if pixels.ndim == len(entry["shape"]) else pixels[None]
    if value.shape != tuple(entry["shape"]) or value.dtype != entry["dtype"]:
        raise EdgegraftError(
            f"expected pixels {np.dtype(entry['dtype'])} {list(entry['shape'])}, "
            f"got {pixels.dtype} {list(pixels.shape)}"
        )
    return value
