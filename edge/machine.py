"""This machine: what it is, what affects timings on it, and what works on it.

Board, cores and memory; clock, heat, throttling and other programs, read from the
kernel's files, and from ``vcgencmd`` on a Raspberry Pi (whether a virtual machine's
neighbours are busy cannot be read); and the verb ``doctor``: is it ready to run models?
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from edge.files import read_or_empty
from edge.terminal import without_chatter
from edge.text import print_rows

_MEBI = 1024 * 1024
_CPU = "/sys/devices/system/cpu"
_THERMAL = "/sys/class/thermal"
_STAT = "/proc/stat"
_IDLE = slice(3, 5)  # idle, and waiting for a disk
_SAMPLE_SECONDS = 0.25  # over which CPU usage is measured
_BUSY = 0.5  # of all cores, before it is worth a warning
# Raspberry Pi documentation, "get_throttled": now in bits 0-3, since the start 16-19.
_THROTTLED = {
    0: "the supply voltage is low",
    1: "the clock is capped",
    2: "the processor is throttled",
    3: "the temperature limit is reached",
}
_INT8_X86 = {"avx512_vnni", "avx_vnni"}
_INT8_ARM = {"asimddp", "i8mm"}
# Optional packages: module, name, use, names on PyPI
_EXTRAS = (
    ("cv2", "OpenCV", "camera", ("opencv-python-headless", "opencv-python")),
    ("pillow_heif", "HEIF", "photos of iPhones", ("pillow-heif",)),
    ("paho", "MQTT", "camera --mqtt", ("paho-mqtt",)),
)


def board() -> str:
    """The board or processor, as the machine names itself."""
    for path in ("/proc/device-tree/model", "/sys/firmware/devicetree/base/model"):
        text = read_or_empty(path).strip("\0 \n")
        if text:
            return text
    for name in filter(None, _cpu_info("model name", "Model", "Hardware")):
        return name
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


def state() -> dict[str, Any]:
    """Now: temperature (degrees Celsius), clock (MHz) and throttling; None: unknown."""
    temperatures = [
        float(value) / 1000
        for path in glob.glob(f"{_THERMAL}/thermal_zone*/temp")
        if (value := _line(path)).lstrip("-").isdigit()
    ]
    clocks = [
        int(value) / 1000
        for path in glob.glob(f"{_CPU}/cpu*/cpufreq/scaling_cur_freq")
        if (value := _line(path)).isdigit()
    ]
    return {
        "temperature_c": max(temperatures) if temperatures else None,
        "clock_mhz": min(clocks) if clocks else None,
        "throttled": throttled(),
    }


def _governors() -> list[str]:
    """The clock governors in use, each once."""
    paths = glob.glob(f"{_CPU}/cpu*/cpufreq/scaling_governor")
    return sorted({line for path in paths if (line := _line(path))})


def throttled() -> list[str] | None:
    """Why a Raspberry Pi is throttled now; None on other machines."""
    import shutil
    import subprocess

    if shutil.which("vcgencmd") is None:
        return None
    try:
        done = subprocess.run(
            ["vcgencmd", "get_throttled"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
        bits = int(done.stdout.strip().partition("=")[2], 16)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return [reason for bit, reason in _THROTTLED.items() if bits >> bit & 1]


def timing_warnings() -> list[str]:
    """What makes timings unreliable here and now, and how to fix it."""
    problems = []
    slow = [name for name in _governors() if name != "performance"]
    if slow:
        problems.append(
            f"the CPU governor is {', '.join(slow)}: short runs are timed at a low "
            f"clock; run: echo performance | sudo tee {_CPU}/cpu*/cpufreq/"
            "scaling_governor"
        )
    problems += [f"{reason}: times may be too long" for reason in throttled() or ()]
    busy = _busy()
    if busy > _BUSY:
        problems.append(
            f"other programs are running ({busy:.0%} of the processor is busy): times "
            "are too long"
        )
    return problems


def _busy() -> float:
    """Share of all cores in use now, while this program sleeps; 0: unknown.

    The load average still counts, for a minute, programs that have ended.
    """
    before = _ticks()
    time.sleep(_SAMPLE_SECONDS)
    ticks = [end - start for start, end in zip(before, _ticks(), strict=False)]
    if len(ticks) < _IDLE.stop or not sum(ticks):
        return 0.0
    return 1 - sum(ticks[_IDLE]) / sum(ticks)


def _ticks() -> list[int]:
    """proc(5), the line "cpu" of /proc/stat, without guests, which it counts twice."""
    return [int(tick) for tick in _line(_STAT).split()[1:9]]


def fast_int8() -> bool | None:
    """Whether this processor has dot products of 8-bit integers; None: unknown."""
    for flags in _cpu_info("flags", "Features"):
        return bool((_INT8_X86 | _INT8_ARM) & set(flags.split()))
    return None


def _cpu_info(*names: str) -> Iterator[str]:
    """The values that /proc/cpuinfo has under these names."""
    for line in read_or_empty("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names:
            yield value.strip()


def _line(path: str) -> str:
    return read_or_empty(path).partition("\n")[0].strip()


def run(args: argparse.Namespace) -> int:
    """The verb ``doctor``: is this machine ready? 2 when no interpreter works."""
    import numpy
    import PIL

    from edge.runtime import diagnose

    with without_chatter():
        runtimes = diagnose()
    working = [name for name, _, problem, _ in runtimes if problem is None]
    extras = {name: _version(module, names) for module, name, _, names in _EXTRAS}
    record = {
        **describe(),
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
        "runtimes": [
            {"name": name, "version": release, "problem": problem, "advice": advice}
            for name, release, problem, advice in runtimes
        ],
        "used": working[0] if working else None,
        "more": extras,
    }
    if args.json:
        print(json.dumps(record, indent=1))
        return 0 if working else 2
    rows = [
        ("board", f"{record['board']}, {record['cores']} cores"),
        ("system", f"{record['system']} {record['machine']}, {record['bits']} bit"),
        ("Python", record["python"]),
        ("numpy", record["numpy"]),
        ("Pillow", record["pillow"]),
    ]
    for name, release, problem, advice in runtimes:
        state = "works" if problem is None else problem
        if working and name == working[0]:
            state += " (used)"
        elif working and release is None:
            state += ", not needed"
        rows.append((name, f"{release}: {state}" if release else state))
        if advice and advice != problem:
            rows.append(("", advice))
    for _, name, use, packages in _EXTRAS:
        hint = f"not installed, for {use}: pip install {packages[0]}"
        rows.append((name, extras[name] or hint))
    if working:
        absent = [use for _, name, use, _ in _EXTRAS if not extras[name]]
        text = f"photos; not yet: {', '.join(absent)}" if absent else "photos, camera"
        rows.append(("ready for", text))
    print_rows(rows)
    if not working:
        print("edgegraft: error: no TFLite interpreter works here", file=sys.stderr)
    return 0 if working else 2


def _version(module: str, packages: tuple[str, ...]) -> str | None:
    """None where the module is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    if find_spec(module) is None:
        return None
    for package in packages:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "installed"
