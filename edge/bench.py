"""How fast is a model file on this machine?

Times are wall-clock milliseconds of the interpreter alone (pixels in, result out),
after one first run that is given apart. It does not know: decoding, accuracy.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from edge import host
from edge.errors import EdgegraftError, ModelError
from edge.runtime import find, open_interpreter

RUNS = 50
WARM_SECONDS = 0.2  # clocks and caches settle before the timed runs


def bench(
    model: str | os.PathLike[str] | bytes,
    *,
    runtime: str = "auto",
    threads: int = 1,
    runs: int = RUNS,
    pixels: npt.NDArray[Any] | None = None,
    xnnpack: bool = True,
) -> dict[str, Any]:
    """Load time, first run, then p50, p95 and mean of `runs`, in milliseconds.

    `pixels` is one input in the model's own dtype and shape; noise when not given.
    `load_ms` is from the file to an interpreter with its tensors allocated, the
    import of the interpreter (`import_ms`) left out. `peak_memory_mb` is of the
    whole process so far: call `bench_apart` for that of one model.
    """
    if runs < 1:
        raise EdgegraftError(f"expected runs to be 1 or more, got {runs}")
    start = time.perf_counter()
    find(runtime)
    imported = time.perf_counter()
    found, interpreter = open_interpreter(
        model, runtime=runtime, threads=threads, xnnpack=xnnpack
    )
    loaded = time.perf_counter()
    entry = interpreter.get_input_details()[0]
    value = _noise(entry) if pixels is None else _fitting(pixels, entry)
    result = interpreter.get_output_details()[0]["index"]

    def once() -> float:
        begin = time.perf_counter()
        interpreter.set_tensor(entry["index"], value)
        interpreter.invoke()
        interpreter.get_tensor(result)
        return (time.perf_counter() - begin) * 1e3

    first = once()
    warm_until = time.perf_counter() + WARM_SECONDS
    while time.perf_counter() < warm_until:
        once()
    times = np.array([once() for _ in range(runs)])
    size = len(model) if isinstance(model, bytes) else os.path.getsize(model)
    return {
        "model": "model" if isinstance(model, bytes) else os.fspath(model),
        "import_ms": (imported - start) * 1e3,
        "load_ms": (loaded - imported) * 1e3,
        "first_ms": first,
        "p50_ms": float(np.percentile(times, 50)),
        "p95_ms": float(np.percentile(times, 95)),
        "mean_ms": float(times.mean()),
        "runs": runs,
        "threads": threads,
        "xnnpack": xnnpack,
        "runtime": found.name,
        "runtime_version": found.version,
        "host": host.board(),
        "size_bytes": size,
        "peak_memory_mb": host.peak_memory_mb(),
    }


def bench_apart(
    model: str | os.PathLike[str],
    *,
    runtime: str = "auto",
    threads: int = 1,
    runs: int = RUNS,
    xnnpack: bool = True,
) -> dict[str, Any]:
    """`bench` in a fresh process: load time and peak memory are this model's own."""
    import json
    import subprocess
    from pathlib import Path

    parent = str(Path(__file__).resolve().parents[1])
    inherited = os.environ.get("PYTHONPATH")
    search = parent + (os.pathsep + inherited if inherited else "")
    options = ["--runtime", runtime, "--threads", str(threads), "--runs", str(runs)]
    options += [] if xnnpack else ["--no-xnnpack"]
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
