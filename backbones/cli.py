"""`edgegraft backbones`: the table of networks, and whether weights are here.

Does not know: photos, training.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from backbones import registry, weights
from edge.command import run_command


def _row(name: str) -> dict[str, Any]:
    record = registry.get(name)
    here = record.imagenet is not None and any(
        weights.locate(record, size) for size in record.imagenet.sizes
    )
    return {
        "name": record.name,
        "family": record.family,
        "default_size": record.default_size,
        "imagenet_sizes": list(record.imagenet.sizes) if record.imagenet else [],
        "imagenet_top1": record.accuracy,
        "imagenet_top1_source": record.accuracy_source or None,
        "licence": record.imagenet.licence if record.imagenet else None,
        "weights_here": [
            size
            for size in (record.imagenet.sizes if record.imagenet else ())
            if here and weights.locate(record, size)
        ],
        "notes": record.notes,
    }


def add_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    rows = [_row(name) for name in registry.names()]
    if args.json:
        print(
            json.dumps(
                {"backbones": rows, "weights_folder": str(weights.cache_folder())},
                indent=2,
            )
        )
        return 0
    print(f"{'backbone':<20} {'ImageNet top-1':>14}  {'weights on this machine':<24}")
    for row in rows:
        top1 = f"{row['imagenet_top1']:.1f} %" if row["imagenet_top1"] else "-"
        if row["weights_here"]:
            here = "size " + ", ".join(map(str, row["weights_here"]))
        elif row["imagenet_sizes"]:
            here = "no (fetched when asked for)"
        else:
            here = row["notes"].split(";")[0]
        print(f"{row['name']:<20} {top1:>14}  {here}")
    print(f"weights folder: {weights.cache_folder()}")
    return 0


def main(argv: Sequence[str] | None = None, prog: str = "python -m backbones") -> int:
    """`edgegraft backbones`; returns the exit code."""
    return run_command(add_parser, run, argv, prog, __doc__)
