"""The verb ``info``: what a model file says about itself, as a table or JSON."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from edge.command import ModelOptions
from edge.errors import EdgegraftError
from edge.model_file import ModelFile
from edge.terminal import without_chatter
from edge.text import interval, json_text, listed, print_rows, printable

# Entries of a card's provenance, where their names do not say enough
_PROVENANCE = {"oldest_runtime": "oldest TF Lite", "rung": "int8 repair"}


def run(args: argparse.Namespace) -> int:
    """What a model file says about itself."""
    options = ModelOptions.from_args(args)
    file = ModelFile.read(options.model)
    tensors: dict[str, Any] = {"inputs": None, "outputs": None, "feeding": None}
    if options.foreign is not None:
        options.foreign.check(file)
    card = file.card  # a damaged one ends it here
    try:
        size = options.foreign.size if options.foreign else None
        with without_chatter():
            _, interpreter = file.open(
                runtime=options.runtime,
                threads=1,
                xnnpack=options.xnnpack,
                delegate=options.delegate,
                size=size,
            )
        inputs = interpreter.get_input_details()
        tensors["inputs"] = _tensors(inputs)
        tensors["outputs"] = _tensors(interpreter.get_output_details())
        if card is None and inputs:
            from edge.foreign import ForeignInput, ForeignOptions, check_size

            foreign = options.foreign or ForeignOptions()
            check_size(file, foreign)
            feeding = ForeignInput(file, inputs[0], foreign).describe()
            thresholds = (t for t in file.metadata.thresholds if t is not None)
            feeding["score_threshold"] = next(thresholds, None)
            tensors["feeding"] = feeding
    except EdgegraftError as error:  # the card is worth reading all the same
        print(f"edgegraft: warning: {printable(str(error))}", file=sys.stderr)
    labels, source = file.labels, "its metadata"
    if card is None and (options.labels or labels is None):
        from edge.foreign import labels_beside
        from edge.tflite import read_label_file

        if path := options.labels or labels_beside(options.model):
            labels, source = read_label_file(path), path
    record = {
        "model": options.model,
        "size_bytes": len(file.content),
        "card": json.loads(card.to_json()) if card else None,
        "labels": None if labels is None else list(labels),
        "labels_from": None if labels is None else "its card" if card else source,
        **tensors,
    }
    if args.json:
        print(json_text(record, indent=1))
    else:
        _print_info(record)
    return 0


def _tensors(details: list[dict[str, Any]]) -> list[dict[str, Any]]:
    import numpy as np

    return [
        {
            "name": entry["name"],
            "dtype": str(np.dtype(entry["dtype"])),
            "shape": [int(side) for side in entry["shape"]],
            "open": [
                axis
                for axis, side in enumerate(entry["shape_signature"])
                if int(side) == -1
            ],
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
        source = f"labels from {record['labels_from']}"
        note = "classify needs --labels" if labels is None else source
        rows.append(("card", f"none: a foreign file, {note}"))
    rows += [(name, card[name]) for name in ("name", "variant") if name in card]
    if labels is not None:
        rows.append((f"{len(labels)} labels", listed(labels)))
    if card:
        recipe = card["input"]
        size = f"{recipe['width']} x {recipe['height']}"
        rows.append(("photo", f"{size}, {recipe['resize']}, {recipe['filter']}"))
        if region := recipe.get("region"):
            numbers = ",".join(f"{number:g}" for number in region)
            rows.append(("region", f"{numbers} (x, y, width, height)"))
    elif record["feeding"]:
        rows += _feeding(record["feeding"])
    for kind in ("inputs", "outputs"):
        for entry in record[kind] or []:
            sides = [
                "any" if axis in entry["open"] else str(side)
                for axis, side in enumerate(entry["shape"])
            ]
            shape = f"{entry['dtype']} [{', '.join(sides)}]"
            if entry["scale"]:
                shape += f" scale {entry['scale']:g} zero {entry['zero_point']}"
            rows.append((_role(kind, entry, card), shape))
    threshold = card.get("familiarity_threshold")
    if threshold is not None:
        rows.append(("unknown", f"photos whose familiarity is below {threshold:.3g}"))
    for part, measured in (card.get("measured") or {}).items():
        rows.append((part, _measured(measured)))
    for name, value in (card.get("provenance") or {}).items():
        if text := _plain(value):
            rows.append((_PROVENANCE.get(name, name.replace("_", " ")), text))
    print_rows(rows)


def _role(kind: str, entry: dict[str, Any], card: dict[str, Any]) -> str:
    """The name of a tensor's row; of our files' outputs it is their role."""
    if kind == "inputs" or len(card.get("outputs") or ()) < 2:
        return kind[:-1]
    return "familiarity" if entry["shape"][-1:] == [1] else "probabilities"


def _feeding(feeding: dict[str, Any]) -> list[tuple[str, str]]:
    """How photos are fed to a file without a card, and where that comes from."""
    sources = feeding["sources"]
    size = f"{feeding['width']} x {feeding['height']}, {feeding['layout']}"
    scaling = sources["scaling"]
    if feeding["mean"]:
        numbers = [", ".join(f"{n:g}" for n in feeding[k]) for k in ("mean", "std")]
        scaling = f"mean {numbers[0]}, std {numbers[1]} (from {scaling})"
    rows = [
        ("photo", size),
        ("resize", f"{feeding['resize']} ({sources['resize']})"),
        ("crop", f"{feeding['crop']:g} of the middle ({sources['crop']})"),
        ("filter", f"{feeding['filter']} ({sources['filter']})"),
        ("scaling", scaling),
    ]
    if (threshold := feeding["score_threshold"]) is not None:
        text = f"{threshold:g}: unknown below it (from TFLite Metadata)"
        rows.append(("threshold", text))
    return rows


def _plain(value: Any) -> str:
    """A value of a card as plain text; empty for nothing."""
    if isinstance(value, dict):
        has_list = any(isinstance(item, list) for item in value.values())
        colon, separator = (":", "; ") if has_list else ("", ", ")
        return separator.join(
            f"{name}{colon} {_plain(item)}" for name, item in value.items()
        )
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
        text += f" ({interval(low, high)})"
    if "photos" in measured:
        text += f" on {measured['photos']} photos"
    if "weakest_label" in measured and "weakest_recall" in measured:
        label, recall = measured["weakest_label"], measured["weakest_recall"]
        text += f"; weakest: {label} ({recall:.1%} found)"
    return text


def _refusals(measured: dict[str, Any]) -> str:
    """The refusals of unknown photos (see `edge.evaluate`)."""
    text = f"{measured['unknown_refused']:.1%}"
    if "unknown_photos" in measured:
        text += f" of {measured['unknown_photos']} photos of other things"
    text += " refused"
    if measured.get("known_refused") is not None:
        text += f", and {measured['known_refused']:.1%} of the test photos"
    if measured.get("auroc") is not None:
        text += f"; AUROC {measured['auroc']:.3f}"
    return text
