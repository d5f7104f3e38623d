"""Does a file really load on the last tflite-runtime? Asked of a Python that has it.

That wheel wants numpy 1 and Python 3.11 or older, so it mostly lives in an environment
of its own, whose Python is named (`--tflite-runtime`); where it is installed beside
this program, that one is asked. The file is run once there, in another process.

It does not know: which operators a runtime has (targets), or whether the answers
there are the same (tests/legs).
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edge import subprocess_run
from edge.errors import EdgegraftError, ModelError
from edge.runtime import Runtime

RUNTIME = "tflite-runtime"
_ASK = f"import importlib.metadata as m; print(m.version('{RUNTIME}'))"
_TOO_LONG = 60.0  # seconds, for a Python to say its version


@dataclass(frozen=True)
class Elsewhere:
    """A Python, and the tflite-runtime that it has."""

    python: str
    runtime: Runtime

    def __str__(self) -> str:
        return str(self.runtime)

    def refusal(self, model: bytes) -> str | None:
        """Why a file does not run there; None when it does."""
        try:
            subprocess_run.survive(
                model, runtime=RUNTIME, python=self.python, where="the file"
            )
        except ModelError as error:
            return str(error)
        return None


def find(python: Path | None) -> Elsewhere | None:
    """The Python asked for; else this one if it has tflite-runtime, else None.

    EdgegraftError for one that was asked for and does not have it.
    """
    if python is None:
        if importlib.util.find_spec("tflite_runtime") is None:
            return None
        python = Path(sys.executable)
    try:
        done = subprocess.run(
            [str(python), "-c", _ASK],
            capture_output=True,
            text=True,
            timeout=_TOO_LONG,
            check=False,
        )
        told = (done.stdout if not done.returncode else done.stderr).strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        done, told = None, str(error)
    if done is None or done.returncode or not told:
        reason = told.splitlines()[-1] if told else "no answer"
        raise EdgegraftError(
            f"--tflite-runtime: expected a Python with {RUNTIME}, got {python} "
            f"({reason:.120}); make one with: uv venv --python 3.11 old, then uv pip "
            f"install --python old {RUNTIME} 'numpy<2'"
        )
    return Elsewhere(str(python), Runtime(RUNTIME, told))
