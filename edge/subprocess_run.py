"""A model file runs in a child process first, so that it cannot end this one.

TensorFlow Lite's interpreters trust a model file: a wrong number in it makes native
code read outside its memory, or loop for ever. The child loads the file, runs it on a
grey and on a striped picture, and is bounded in time and memory. This proves that a
file runs, not that its predictions are right.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from edge.errors import EdgegraftError, ModelError, one_line

GREY = 128
# Bytes that a file may take beside those of the interpreter's code (half of the
# machine, where that is less), and how often it may lie in memory: as it is, unpacked
# to floats, and packed for the kernels
MEMORY, COPIES = 1 << 30, 8
# Seconds to load and run. The start of the interpreter, measured by the child itself,
# says how slow the machine is: a Pi Zero needs twenty times as long as a laptop.
SECONDS, STARTS = 8.0, 20.0
_START_SECONDS = 120.0  # for Python and the interpreter to load, on any machine
_REFUSED = 2


def run_in_subprocess(
    model: bytes,
    *,
    where: str = "model",
    python: str = sys.executable,
    **options: Any,
) -> None:
    """ModelError when `model` ends, hangs or fails an interpreter in a child process.

    `options`: runtime, xnnpack, delegate and size, as `edge.runtime.open_interpreter`;
    `where` names the model in messages; `python` is the Python that runs it.
    """
    arguments = json.dumps({"where": where, **options})
    try:
        result = subprocess.run(
            [python, "-m", "edge.subprocess_run", arguments],
            input=model,
            env=child_environment(),
            capture_output=True,
            timeout=2 * _START_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        result = None
    if result is None or result.returncode == -getattr(signal, "SIGALRM", 0):
        raise ModelError(
            f"{where}: two pictures took longer than the limit of {SECONDS:g} s "
            "(longer on a slow machine); export a smaller network, or copy it again"
        )
    if result.returncode not in (0, _REFUSED):
        raise ModelError(
            f"{where}: the interpreter crashes on it, or runs out of memory "
            f"({memory_for(model) >> 20:,} MiB); copy or export it again"
        )
    if result.returncode:
        lines = result.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ModelError(lines[-1] if lines else f"{where}: cannot be run")


def child_environment() -> dict[str, str]:
    """This process's environment, in which a child can import this package."""
    parent = str(Path(__file__).resolve().parents[1])
    search = os.pathsep.join(filter(None, [parent, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": search}


def _main(arguments: str) -> int:
    """The child: one run of the model on standard input; 2 when it is refused."""
    import time

    start = time.perf_counter()
    from edge.runtime import find, open_interpreter

    options = json.loads(arguments)
    try:
        find(options.get("runtime", "auto"))
        model = sys.stdin.buffer.read()
        _bound(time.perf_counter() - start, memory_for(model))
        _, interpreter = open_interpreter(model, threads=1, **options)
        _run(interpreter)
    except EdgegraftError as error:
        print(error, file=sys.stderr)
        return _REFUSED
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        reason = f"{one_line(error):.300}"
        print(f"{options['where']}: cannot be run: {reason}", file=sys.stderr)
        return _REFUSED
    return 0


def memory_for(model: bytes) -> int:
    """Bytes that a file may take: its weights are copied, and packed for kernels."""
    memory = MEMORY
    if hasattr(os, "sysconf"):  # not on Windows
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        memory = min(memory, machine // 2)
    return memory + COPIES * len(model)


def _bound(start: float, memory: int) -> None:
    """Limit the time and memory of what follows; `start`: seconds of loading code."""
    if hasattr(signal, "setitimer"):  # not on Windows; the parent's limit holds there
        signal.setitimer(signal.ITIMER_REAL, max(SECONDS, STARTS * start))
    bound_memory(memory)


def bound_memory(extra_bytes: int) -> None:
    """Limit this process to `extra_bytes` beside what it has; no core file is left."""
    try:
        import resource

        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[0])
        limit = pages * resource.getpagesize() + extra_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):  # no Linux: bounded in time only
        return


def _run(interpreter: Any) -> None:
    """Once on grey and once on all levels of grey: some crashes depend on the photo."""
    import numpy as np

    # np.resize joins one copy after the other: a single level would take long
    for levels in (np.full(256, GREY, np.uint8), np.arange(256, dtype=np.uint8)[::37]):
        for entry in interpreter.get_input_details():
            value = np.resize(levels, entry["shape"]).astype(entry["dtype"])
            interpreter.set_tensor(entry["index"], value)
        interpreter.invoke()
    for entry in interpreter.get_output_details():
        interpreter.get_tensor(entry["index"])
    signatures = interpreter.get_signature_list()
    if signatures:
        interpreter.get_signature_runner(next(iter(signatures)))


if __name__ == "__main__":
    raise SystemExit(_main(sys.argv[1]))
