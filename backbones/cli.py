"""`edgegraft backbones`: the table of networks, and whether weights are here."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from backbones import hub, registry, weights
from backbones.record import HUB, Packaged
from edge.command import run_command

BACKBONES = (
    "List the networks to start from, those whose weights are on this machine first: "
    "parameters, multiply-adds, ImageNet accuracy, and how int8 suits them."
)


def _row(name: str) -> dict[str, Any]:
    record = registry.get(name)
    imagenet = record.imagenet
    sizes = imagenet.sizes if imagenet else ()
    return {
        "name": record.name,
        "family": record.family,
        "default_size": record.default_size,
        "parameters": record.parameters,
        "multiply_adds": record.multiply_adds,
        "imagenet_sizes": list(sizes),
        "any_size": imagenet is None or imagenet.any_size,
        "imagenet_top1": record.accuracy,
        "imagenet_top1_source": record.accuracy_source or None,
        "licence": imagenet.licence if imagenet else None,
        "int8": record.int8,
        "int8_reason": record.int8_reason or None,
        "weights_here": [size for size in sizes if weights.locate(record, size)],
        "install": imagenet.install if isinstance(imagenet, Packaged) else None,
        "notes": record.notes,
    }


def add_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _is_ready(row: dict[str, Any]) -> bool:
    """Whether the network can be trained here and now, without a download."""
    return bool(row["weights_here"]) or row["family"] == "custom_cnn"


def _weights(row: dict[str, Any]) -> str:
    if row["family"] == "custom_cnn":
        return "from scratch"
    if row["weights_here"]:
        sizes = ", ".join(map(str, row["weights_here"]))
        return "any size" if row["any_size"] else sizes
    if row["install"]:
        return str(row["install"])
    return "download" if row["imagenet_sizes"] else "--weights FILE"


def _line(row: dict[str, Any]) -> str:
    size = str(row["default_size"])
    millions = [
        f"{row[key] / 1e6:.1f}" if row[key] else "-"
        for key in ("parameters", "multiply_adds")
    ]
    top1 = f"{row['imagenet_top1']:.1f} %" if row["imagenet_top1"] else "-"
    return (
        f"{row['name']:<31} {size:>4} {millions[0]:>7} {millions[1]:>7} "
        f"{top1:>7}  {row['int8']:<8} {_weights(row)}"
    )


def _notes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The meaning of the columns, with the sources of the figures."""
    lines = [
        "size: the default --size. M: million parameters without a head; MMAC: million",
        "multiply-adds for a photo of that size. top-1: ImageNet, published, not",
        "measured here, source:",
    ]
    sources: dict[str, dict[str, None]] = {}  # -> families, in order
    reasons: dict[str, dict[str, None]] = {}
    for row in rows:
        family = {row["family"]: None}
        if row["imagenet_top1_source"]:
            sources.setdefault(row["imagenet_top1_source"], {}).update(family)
        reason = f"{row['int8']}: {row['int8_reason']}"
        reasons.setdefault(reason, {}).update(family)
    lines += [f"  {text} ({', '.join(families)})" for text, families in sources.items()]
    lines.append("int8: how plain int8 quantization suits the network:")
    lines += [f"  {text} ({', '.join(families)})" for text, families in reasons.items()]
    licences = sorted({row["licence"] for row in rows if row["licence"]})
    lines.append(
        "weights: the input sizes that those on this machine serve, or how to get them "
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
    heading = (
        f"{'backbone':<31} {'size':>4} {'M':>7} {'MMAC':>7} {'top-1':>7}  "
        f"{'int8':<8} weights"
    )
    ready = [_line(row) for row in rows if _is_ready(row)]
    others = [_line(row) for row in rows if not _is_ready(row)]
    print("ready on this machine", heading, *ready, sep="\n")
    print("\nweights to be fetched", *others, "", *_notes(rows), sep="\n")
    print(f"weights folder: {folder}")
    print(
        f"or {HUB}HANDLE: a module of TF-Hub, its address or a local folder; "
        f"cache folder: {hub.cache_folder()}"
    )
    return 0


def main(argv: Sequence[str] | None = None, prog: str = "edgegraft backbones") -> int:
    """`edgegraft backbones`; returns the exit code."""
    return run_command(add_parser, run, argv, prog, BACKBONES)
