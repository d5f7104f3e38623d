"""`edgegraft backbones`: the table of networks, and whether weights are here."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from backbones import hub, registry, weights
from backbones.record import HUB
from edge.command import run_command

BACKBONES = (
    "List the networks to start from: parameters, multiply-adds, ImageNet accuracy, "
    "what int8 does to them, and whether their weights are on this machine."
)


def _row(name: str) -> dict[str, Any]:
    record = registry.get(name)
    published = record.imagenet
    sizes = published.sizes if published else ()
    return {
        "name": record.name,
        "family": record.family,
        "default_size": record.default_size,
        "parameters": record.parameters,
        "multiply_adds": record.multiply_adds,
        "imagenet_sizes": list(sizes),
        "any_size": published is None or published.any_size,
        "imagenet_top1": record.accuracy,
        "imagenet_top1_source": record.accuracy_source or None,
        "licence": published.licence if published else None,
        "int8": record.int8,
        "int8_reason": record.int8_reason or None,
        "weights_here": [size for size in sizes if weights.locate(record, size)],
        "notes": record.notes,
    }


def add_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _line(row: dict[str, Any]) -> str:
    size = str(row["default_size"])
    millions = [
        f"{row[key] / 1e6:.1f}" if row[key] else "-"
        for key in ("parameters", "multiply_adds")
    ]
    top1 = f"{row['imagenet_top1']:.1f} %" if row["imagenet_top1"] else "-"
    if not row["imagenet_sizes"]:
        here = "from scratch"
    elif not row["weights_here"]:
        here = "no"
    elif row["any_size"]:
        here = "yes"
    else:
        here = ", ".join(map(str, row["weights_here"]))
    return (
        f"{row['name']:<31} {size:>4} {millions[0]:>7} {millions[1]:>7} "
        f"{top1:>7}  {row['int8']:<8} {here}"
    )


def _notes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What the columns mean, with the sources of the figures."""
    lines = [
        "size: the default --size. M: million parameters without a head; MMAC: million",
        "multiply-adds for a photo of that size. top-1: ImageNet, published, not",
        "measured here, source:",
    ]
    sources: dict[str, list[str]] = {}
    for row in rows:
        if row["imagenet_top1_source"]:
            found = sources.setdefault(row["imagenet_top1_source"], [])
            found += [row["family"]] if row["family"] not in found else []
    lines += [
        f"  {source} ({', '.join(families)})" for source, families in sources.items()
    ]
    lines.append("int8: what plain int8 quantization meets in the network:")
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        key = (row["int8"], row["int8_reason"])
        found = reasons.setdefault(key, [])
        found += [row["family"]] if row["family"] not in found else []
    lines += [
        f"  {level}: {why} ({', '.join(f)})" for (level, why), f in reasons.items()
    ]
    licences = sorted({row["licence"] for row in rows if row["licence"]})
    lines.append(
        f"weights: on this machine, at which sizes; else fetched when asked for "
        f"({', '.join(licences)})"
    )
    return lines


def run(args: argparse.Namespace) -> int:
    rows = [_row(name) for name in registry.names()]
    folder = weights.cache_folder()
    if args.json:
        print(
            json.dumps(
                {
                    "backbones": rows,
                    "weights_folder": str(folder),
                    "hub_folder": str(hub.cache_folder()),
                },
                indent=2,
            )
        )
        return 0
    print(
        f"{'backbone':<31} {'size':>4} {'M':>7} {'MMAC':>7} {'top-1':>7}  "
        f"{'int8':<8} weights"
    )
    for row in rows:
        print(_line(row))
    print()
    for line in _notes(rows):
        print(line)
    print(f"weights folder: {folder}")
    print(
        f"or {HUB}HANDLE: a module of TF-Hub, its address or a local folder; "
        f"cache folder: {hub.cache_folder()}"
    )
    return 0


def main(argv: Sequence[str] | None = None, prog: str = "python -m backbones") -> int:
    """`edgegraft backbones`; returns the exit code."""
    return run_command(add_parser, run, argv, prog, BACKBONES)
