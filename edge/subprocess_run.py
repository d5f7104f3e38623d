"""A file from elsewhere is run in another process first: damage must not end this one.

TensorFlow Lite's interpreters trust a model file. `structure` refuses what is plainly
torn, but a number can be wrong in more ways than can be checked (the options of an
operator, a shape that its weights do not have), and native code then reads where
nothing is. Files made by edgegraft carry a digest of themselves and need no trial;
another is loaded and run once on a grey picture by a child, for about 0.3 s, and
refused when the child does not come back.

It does not know: whether the answers are right.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from edge.errors import EdgegraftError, ModelError

TOO_LONG = 120.0  # seconds; a large network on a Pi Zero needs ten
GREY = 128


# (digest, runtime, Python) of files that came through
_passed: set[tuple[str, str, str]] = set()


def survive(
    model: bytes,
    *,
    runtime: str = "auto",
    where: str = "model",
    python: str = sys.executable,
) -> None:
    """ModelError when `model` ends, hangs or fails an interpreter of its own.

    `runtime` as in `open_interpreter`; `where` names the model in the message;
    `python` runs the interpreter. A file that came through once is not tried again by
    this process.
    """
    known = (hashlib.sha256(model).hexdigest(), runtime, python)
    if known in _passed:
        return
    parent = str(Path(__file__).resolve().parents[1])
    inherited = os.environ.get("PYTHONPATH")
    search = parent + (os.pathsep + inherited if inherited else "")
    try:
        done = subprocess.run(
            [python, "-m", "edge.subprocess_run", runtime, where],
            input=model,
            env={**os.environ, "PYTHONPATH": search},
            capture_output=True,
            timeout=TOO_LONG,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"{where}: damaged .tflite model: it did not answer a grey picture within "
            f"{TOO_LONG:g} s; copy or export it again"
        ) from None
    if done.returncode < 0 or done.returncode > 2:
        raise ModelError(
            f"{where}: damaged .tflite model: it ends the interpreter "
            f"(exit {done.returncode}); copy or export it again"
        )
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ModelError(lines[-1] if lines else f"{where}: cannot be run")
    _passed.add(known)


def _main(runtime: str, where: str) -> int:
    """The child: one run of the model on standard input; 2 when it is refused."""
    import numpy as np

    from edge.runtime import open_interpreter

    try:
        model = sys.stdin.buffer.read()
        _, interpreter = open_interpreter(
            model, runtime=runtime, threads=1, where=where
        )
        for entry in interpreter.get_input_details():
            grey = np.full(entry["shape"], GREY).astype(entry["dtype"])
            interpreter.set_tensor(entry["index"], grey)
        interpreter.invoke()
        for entry in interpreter.get_output_details():
            interpreter.get_tensor(entry["index"])
        signatures = interpreter.get_signature_list()
        if signatures:
            interpreter.get_signature_runner(next(iter(signatures)))
    except EdgegraftError as error:
        print(error, file=sys.stderr)
        return 2
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        reason = " ".join(str(error).split())
        print(f"{where}: cannot be run: {reason:.300}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(_main(*sys.argv[1:3]))
