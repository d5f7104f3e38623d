"""The page, served for tests and benchmarks on a free port of this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START = 90.0  # seconds a server may take to listen, on a machine that is busy


@dataclass(frozen=True)
class Served:
    address: str
    process: subprocess.Popen[bytes]


@contextmanager
def serve(command: Sequence[str], log: Path) -> Iterator[Served]:
    """Run a server until the block ends; `{port}` in the command is a free one.

    RuntimeError, with what it said, when it ends or does not listen.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [part.replace("{port}", str(port)) for part in command],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": search},
            stdout=out,
            stderr=out,
        )
    try:
        end = time.monotonic() + START
        while True:
            with socket.socket() as probe:
                if not probe.connect_ex(("localhost", port)):
                    break
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(log.read_text(errors="replace"))
            time.sleep(0.1)
        yield Served(f"http://localhost:{port}", process)
    finally:
        process.terminate()
        process.wait()


def page(*arguments: str | Path) -> list[str]:
    """The command line of the page itself."""
    start = [sys.executable, "-m", "streamlit_app", "--no-browser", "--port", "{port}"]
    return [*start, *map(str, arguments)]
