"""The verb ``evaluate``: accuracy, tables and refusals, as text or JSON.

It does not know: how anything is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from itertools import chain
from typing import Any

from edge.classify.cli import open_classifier
from edge.classify.sources import labelled, photos
from edge.errors import EdgegraftError
from edge.evaluate import Evaluation, evaluate
from edge.unknown import Refusal, can_refuse, refusal

_WIDEST_TABLE = 12  # labels; a confusion of more is wider than a terminal


def run(args: argparse.Namespace) -> int:
    """Accuracy on labelled photos; 2 when some could not be read."""
    classifier = open_classifier(args)
    if args.unknown is not None:
        # before minutes are spent on the known ones
        can_refuse(classifier)
        if not os.path.isdir(args.unknown):
            got = "a file" if os.path.exists(args.unknown) else "nothing"
            raise EdgegraftError(
                f"--unknown {args.unknown}: expected a folder of photos, got {got}"
            )
    pairs = labelled(args.photos, classifier.labels)
    known = evaluate(classifier, pairs, progress=_progress)
    unknown = None
    if args.unknown is not None:
        unknown = refusal(classifier, photos([args.unknown]), known, progress=_progress)
    _clear()
    failures = chain(known.failures, unknown.failures if unknown else ())
    failed = False
    for path, reason in failures:
        failed = True
        print(f"edgegraft: error: {path}: {reason}", file=sys.stderr)
    if args.json:
        record = {
            "model": args.model,
            "runtime": classifier.runtime.name,
            "runtime_version": classifier.runtime.version,
            **known.to_dict(),
            "unknown": unknown.to_dict() if unknown else None,
        }
        print(json.dumps(record, indent=1, ensure_ascii=False))
    else:
        _print(known, unknown, str(classifier.runtime))
    return 2 if failed else 0


def _progress(done: int) -> None:
    if done % 20 == 0 and sys.stderr.isatty():
        print(f"\r{done} photos", end="", file=sys.stderr, flush=True)


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)


def _print(known: Evaluation, unknown: Refusal | None, runtime: str) -> None:
    low, high = known.interval
    print(
        f"accuracy {known.accuracy:.1%} on {known.photos} photos "
        f"(95 % interval {low:.1%} to {high:.1%}), {runtime}"
    )
    if known.refused is not None and known.answered_right is not None:
        share = known.answered_right / known.photos
        print(
            f"called unknown although known: {known.refused} of {known.photos}; the "
            f"right label is the answer for {known.answered_right} ({share:.1%})"
        )
    print(
        f"calibration error {known.calibration_error:.3f} (0: as sure as it is right)"
    )
    if unknown is not None:
        low, high = unknown.interval
        print(
            f"called unknown of {unknown.photos} unknown photos: {unknown.refused} "
            f"({unknown.refused / unknown.photos:.1%}, 95 % interval {low:.1%} to "
            f"{high:.1%}); AUROC {unknown.auroc:.3f}"
        )
    _print_classes(known.per_class)
    _print_confusion(known.labels, known.confusion)
    if known.refused:
        print(
            "accuracy and tables: the likeliest label, also of what is called unknown"
        )


def _print_classes(rows: list[dict[str, Any]]) -> None:
    width = max(len("label"), *(len(row["label"]) for row in rows))
    print(f"{'label':{width}}  precision  recall      F1  photos")
    for row in rows:
        print(
            f"{row['label']:{width}}  {row['precision']:9.1%}  {row['recall']:6.1%}"
            f"  {row['f1']:6.3f}  {row['photos']:6d}"
        )


def _print_confusion(labels: tuple[str, ...], table: list[list[int]]) -> None:
    if len(labels) > _WIDEST_TABLE:
        return  # wider than a terminal; --json has it
    width = max(len("true / said"), *(len(label) for label in labels))
    cell = max(6, *(len(label) for label in labels)) + 2
    print(f"{'true / said':{width}}" + "".join(f"{name:>{cell}}" for name in labels))
    for label, row in zip(labels, table, strict=True):
        print(f"{label:{width}}" + "".join(f"{count:{cell}d}" for count in row))
