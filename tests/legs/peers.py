"""CleanVision and cleanlab in an environment of their own, .legs/peers: they bring
pandas and more, which nothing else here needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.legs.run import LEGS, Bench


def in_peers(code: str, *arguments: str) -> dict[str, Any]:
    """Run Python code there; what its last line says, as JSON."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    python = Bench(uv, None, None).environment("peers", "peers.txt", sys.executable)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), "-c", code, *arguments],
        cwd=LEGS,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"peers: {done.stderr.strip()[-400:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
