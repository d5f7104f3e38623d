"""Runs a file once on the last tflite-runtime, in another process.

That wheel needs numpy 1 and Python 3.11 or older, so it is mostly installed in an
environment of its own, whose Python is the argument of `--tflite-runtime`; the default
is this Python, if it has the package.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edge.errors import EdgegraftError, ModelError
from edge.runtime import Runtime
from edge.subprocess_run import run_in_subprocess

RUNTIME = "tflite-runtime"
_PRINT_VERSION = f"import importlib.metadata as m; print(m.version('{RUNTIME}'))"
_TIMEOUT = 60.0  # seconds, for a Python to print a version


@dataclass(frozen=True)
class OldRuntime:
    """A Python and its tflite-runtime."""

    python: str
    runtime: Runtime

    def __str__(self) -> str:
        return str(self.runtime)

    def refusal(self, model: bytes) -> str | None:
        """Why a file does not run there; None if it does."""
        try:
            run_in_subprocess(
                model, runtime=RUNTIME, python=self.python, where="the file"
            )
        except ModelError as error:
            return str(error)
        return None


def find(python: Path | None) -> OldRuntime | None:
    """The runtime of `python`, by default of this Python, None if it has none.

    EdgegraftError when `python` does not have it.
    """
    if python is None:
        if importlib.util.find_spec("tflite_runtime") is None:
            return None
        python = Path(sys.executable)
    try:
        done = subprocess.run(
            [str(python), "-c", _PRINT_VERSION],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        output = (done.stdout if not done.returncode else done.stderr).strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        done, output = None, str(error)
    if done is None or done.returncode or not output:
        reason = output.splitlines()[-1] if output else "no output"
        raise EdgegraftError(
            f"--tflite-runtime: expected a Python with {RUNTIME}, got {python} "
            f"({reason:.120}); make one with: uv venv --python 3.11 old, then uv pip "
            f"install --python old {RUNTIME} 'numpy<2'"
        )
    return OldRuntime(str(python), Runtime(RUNTIME, output))
