"""The verb ``doctor``: is this machine ready to run models?"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from edge.quiet import without_chatter
from edge.text import print_rows

# Optional packages: module, name, use, names on PyPI
_EXTRAS = (
    ("cv2", "OpenCV", "camera", ("opencv-python-headless", "opencv-python")),
    ("pillow_heif", "HEIF", "photos of iPhones", ("pillow-heif",)),
    ("paho", "MQTT", "camera --mqtt", ("paho-mqtt",)),
)


def run(args: argparse.Namespace) -> int:
    """Is this machine ready? 2 when no interpreter works."""
    import numpy
    import PIL

    from edge.bench import machine
    from edge.runtime import diagnose

    with without_chatter():
        runtimes = diagnose()
    working = [name for name, _, problem, _ in runtimes if problem is None]
    extras = {name: _version(module, names) for module, name, _, names in _EXTRAS}
    record = {
        **machine.describe(),
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
    if find_spec(module) is None:
        return None
    for package in packages:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "installed"
