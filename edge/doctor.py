"""The verb ``doctor``: is this machine ready to run models?"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import find_spec

from edge.errors import EdgegraftError
from edge.quiet import without_chatter
from edge.text import print_rows


def run(args: argparse.Namespace) -> int:
    """Is this machine ready? 2 when no interpreter works."""
    missing = [name for name in ("numpy", "PIL") if find_spec(name) is None]
    if missing:
        names = ["Pillow" if name == "PIL" else name for name in missing]
        raise EdgegraftError(
            f"expected numpy, Pillow and a TFLite interpreter, {' and '.join(names)} "
            f"not installed for {sys.executable}; run: pip install numpy pillow "
            "ai-edge-litert"
        )
    import numpy
    import PIL

    from edge.bench import machine
    from edge.runtime import diagnose

    with without_chatter():
        runtimes = diagnose()
    working = [name for name, _, problem, _ in runtimes if problem is None]
    record = {
        **machine.describe(),
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
        "runtimes": [
            {"name": name, "version": version, "problem": problem, "advice": advice}
            for name, version, problem, advice in runtimes
        ],
        "used": working[0] if working else None,
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
    for name, version, problem, advice in runtimes:
        state = "works" if problem is None else problem
        if working and name == working[0]:
            state += " (used)"
        rows.append((name, f"{version}: {state}" if version else state))
        if advice and advice != problem:
            rows.append(("", advice))
    print_rows(rows)
    if not working:
        print("edgegraft: error: no TFLite interpreter works here", file=sys.stderr)
    return 0 if working else 2
