"""The verbs ``info`` and ``doctor``, told as tables or JSON.

It does not know: how anything is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib.util import find_spec
from typing import Any

from edge.errors import EdgegraftError
from edge.quiet import without_chatter


def info(args: argparse.Namespace) -> int:
    """What a model file says about itself."""
    from edge.card import check_digest, read_card, read_labels
    from edge.runtime import open_interpreter, read_model

    content = read_model(args.model)
    card = read_card(content)
    if card is not None:
        check_digest(content, card, args.model)
    labels = card.labels if card else read_labels(content)
    tensors: dict[str, Any] = {"inputs": None, "outputs": None}
    try:
        with without_chatter():
            _, interpreter = open_interpreter(content, threads=1, where=args.model)
        tensors["inputs"] = _tensors(interpreter.get_input_details())
        tensors["outputs"] = _tensors(interpreter.get_output_details())
    except EdgegraftError as error:  # the card is worth reading all the same
        print(f"edgegraft: warning: {error}", file=sys.stderr)
    record = {
        "model": args.model,
        "size_bytes": len(content),
        "card": json.loads(card.to_json()) if card else None,
        "labels": list(labels) if labels is not None else None,
        **tensors,
    }
    if args.json:
        print(json.dumps(record, indent=1, ensure_ascii=False))
    else:
        _print_info(record)
    return 0


def doctor(args: argparse.Namespace) -> int:
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
    _print_rows(rows)
    if not working:
        print("edgegraft: error: no TFLite interpreter works here", file=sys.stderr)
    return 0 if working else 2


def _tensors(details: list[dict[str, Any]]) -> list[dict[str, Any]]:
    import numpy as np

    return [
        {
            "name": entry["name"],
            "dtype": str(np.dtype(entry["dtype"])),
            "shape": [int(side) for side in entry["shape"]],
            "scale": float(entry["quantization"][0]),
            "zero_point": int(entry["quantization"][1]),
        }
        for entry in details
    ]


def _print_info(record: dict[str, Any]) -> None:
    card = record["card"] or {}
    labels = record["labels"]
    rows: list[tuple[str, Any]] = [
        ("model", os.path.basename(record["model"])),
        ("size", f"{record['size_bytes'] / 1e6:.2f} MB"),
    ]
    if not card:
        rows.append(("card", "none: a foreign file, classify needs --labels"))
        if labels is not None:
            rows[-1] = ("card", "none: a foreign file, labels from its metadata")
    for name in ("name", "variant"):
        if name in card:
            rows.append((name, card[name]))
    if labels is not None:
        shown = ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")
        rows.append((f"{len(labels)} labels", shown))
    if card:
        recipe = card["input"]
        size = f"{recipe['width']} x {recipe['height']}"
        rows.append(("photo", f"{size}, {recipe['resize']}, {recipe['filter']}"))
    for kind in ("inputs", "outputs"):
        for entry in record[kind] or []:
            shape = f"{entry['dtype']} {entry['shape']}"
            if entry["scale"]:
                shape += f" scale {entry['scale']:g} zero {entry['zero_point']}"
            rows.append((kind[:-1], shape))
    for part, measured in (card.get("measured") or {}).items():
        rows.append((part, _measured(measured)))
    for name, value in (card.get("provenance") or {}).items():
        if text := _plain(value):
            rows.append((name.replace("_", " "), text))
    _print_rows(rows)


def _plain(value: Any) -> str:
    """A value of a card as a person writes it; empty for nothing."""
    if isinstance(value, dict):
        lists = any(isinstance(one, list) for one in value.values())
        parts = (
            f"{name}{':' if lists else ''} {_plain(one)}" for name, one in value.items()
        )
        return ("; " if lists else ", ").join(parts)
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _measured(measured: Any) -> str:
    if isinstance(measured, dict) and "unknown_refused" in measured:
        return _refusals(measured)
    if not isinstance(measured, dict) or "accuracy" not in measured:
        return _plain(measured)
    text = f"accuracy {measured['accuracy']:.1%}"
    if "interval" in measured:
        low, high = measured["interval"]
        text += f" (95 % interval {low:.1%} to {high:.1%})"
    if "photos" in measured:
        text += f" on {measured['photos']} photos"
    return text


def _refusals(measured: dict[str, Any]) -> str:
    """What became of photos of other things (see `edge.unknown`)."""
    text = f"{measured['unknown_refused']:.1%}"
    if "unknown_photos" in measured:
        text += f" of {measured['unknown_photos']} photos of other things"
    text += " refused"
    if measured.get("known_refused") is not None:
        text += f", and {measured['known_refused']:.1%} of the test photos"
    if measured.get("auroc") is not None:
        text += f"; AUROC {measured['auroc']:.3f}"
    return text


def _print_rows(rows: list[tuple[str, Any]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}}  {value}")
