"""What affects timings on this machine: clock, heat, throttling, other programs.

Read from the kernel's files, and from ``vcgencmd`` on a Raspberry Pi. Whether a
virtual machine's neighbours are busy cannot be read.
"""

from __future__ import annotations

import glob
import time
from typing import Any

from edge.files import read_or_empty

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


def now() -> dict[str, Any]:
    """Temperature (degrees Celsius), clock (MHz) and throttling; None: unknown."""
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


def governors() -> list[str]:
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


def warnings() -> list[str]:
    """What makes timings unreliable here and now, and how to fix it."""
    problems = []
    slow = [name for name in governors() if name != "performance"]
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
    for line in read_or_empty("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return bool((_INT8_X86 | _INT8_ARM) & set(value.split()))
    return None


def why_int8_is_slow(record: dict[str, Any]) -> str:
    """Why an int8 file is slower than a float one, and what to install."""
    if not record["xnnpack"]:
        return "without XNNPACK the int8 kernels are slow; leave --no-xnnpack out"
    if record["runtime"] == "tflite-runtime":
        return (
            f"tflite-runtime {record['runtime_version']} has no XNNPACK kernels for "
            "int8; run: pip install ai-edge-litert (64-bit systems)"
        )
    if fast_int8() is False:
        return (
            "this processor has no 8-bit dot product (VNNI on x86, dotprod on Arm); "
            "int8 still saves memory and file size, float16 may be the faster file"
        )
    return "the network is so small that its fixed costs decide, or the machine is busy"


def _line(path: str) -> str:
    return read_or_empty(path).partition("\n")[0].strip()
