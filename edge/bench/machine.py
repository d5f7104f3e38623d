"""This machine: its name, its cores, the memory this process has taken."""

from __future__ import annotations

import os
import sys

from edge.files import read_or_empty

_MEBI = 1024 * 1024


def board() -> str:
    """The board or processor, as the machine names itself."""
    for path in ("/proc/device-tree/model", "/sys/firmware/devicetree/base/model"):
        text = read_or_empty(path).strip("\0 \n")
        if text:
            return text
    for line in read_or_empty("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware") and value.strip():
            return value.strip()
    import platform

    return platform.processor() or platform.machine() or "unknown"


def describe() -> dict[str, str | int]:
    """Board, cores, architecture, system and Python, for reports."""
    import platform

    return {
        "board": board(),
        "cores": os.cpu_count() or 1,
        "machine": platform.machine(),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "system": platform.system(),
        "python": platform.python_version(),
    }


def peak_memory_mb() -> float:
    """The most memory (MiB) this process has held so far; 0.0 where unknown."""
    # Linux's ru_maxrss starts from the parent's peak; VmHWM is this process alone.
    for line in read_or_empty("/proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MEBI if sys.platform == "darwin" else peak / 1024
