"""The verb ``evaluate``: accuracy, tables and refusals, as text or JSON."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from edge.classify.cli import open_classifier
from edge.classify.sources import labelled, photos
from edge.command import ModelOptions
from edge.errors import EdgegraftError
from edge.evaluate import Evaluation, Refusal, can_refuse, evaluate, refusal
from edge.files import read_regular, sha256
from edge.preprocess import FULL
from edge.run_folder import trained_with
from edge.terminal import Progress
from edge.text import columns, interval, json_text, plural, printable

_FIGURES = (("precision", ".1%"), ("recall", ".1%"), ("f1", ".3f"))
_WIDEST_TABLE = 12  # labels; a confusion of more is wider than a terminal


@dataclass(frozen=True)
class LabelledPhotos:
    """Photos to measure on: (path, label) pairs, a description (`what`), `notes` on how
    they were read, and the white level of 16-bit channels."""

    pairs: Iterable[tuple[str, str]]
    what: str = ""
    notes: tuple[str, ...] = ()
    white: int = FULL


class PhotoReader(Protocol):
    """Reads PHOTOS where the whole of edgegraft is installed, see `data.source`."""

    help: str

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Its options."""

    def read(self, args: argparse.Namespace) -> LabelledPhotos:
        """EdgegraftError where there are no labelled photos."""


def run(args: argparse.Namespace) -> int:
    """Accuracy on labelled photos; 2 when some could not be read."""
    classifier = open_classifier(ModelOptions.from_args(args))
    if args.unknown is not None:
        # before minutes are spent on the known ones
        can_refuse(classifier)
        if not os.path.isdir(args.unknown):
            got = "a file" if os.path.exists(args.unknown) else "nothing"
            raise EdgegraftError(
                f"--unknown {args.unknown}: expected a folder of photos, got {got}"
            )
    if args.reader is None:
        test_set = LabelledPhotos(labelled(args.photos, classifier.labels))
    else:
        test_set = args.reader.read(args)
    notes = list(test_set.notes)
    white = classifier.recipe.white
    if classifier.card is None and test_set.white != white:
        classifier.recipe = replace(classifier.recipe, white=test_set.white)
    elif FULL != test_set.white != white:
        notes.append(f"{white:,} is white to this model, as its card says")
    pairs = list(test_set.pairs)
    for note in (*notes, *_trained_on(args.model, pairs)):
        print(f"edgegraft: note: {note}", file=sys.stderr)
    with Progress() as bar:
        known = evaluate(classifier, pairs, progress=bar.update)
    unknown = None
    if args.unknown is not None:
        with Progress() as bar:
            unknown = refusal(
                classifier, photos([args.unknown]), known, progress=bar.update
            )
    failures = (*known.failures, *(unknown.failures if unknown else ()))
    for path, reason in failures:
        line = printable(f"{path}: {reason}")
        print(f"edgegraft: error: {line}", file=sys.stderr)
    if args.json:
        record = {
            "model": args.model,
            "runtime": classifier.runtime.name,
            "runtime_version": classifier.runtime.version,
            **({"measured_on": test_set.what} if test_set.what else {}),
            **known.to_dict(),
            "unknown": unknown.to_dict() if unknown else None,
            **({"note": classifier.note} if classifier.note else {}),
        }
        print(json_text(record, indent=1))
    else:
        if classifier.note:
            print(classifier.note)
        if test_set.what:
            print(f"measured on {test_set.what}")
        _print(known, unknown, str(classifier.runtime))
    return 2 if failures else 0


def _trained_on(model: str, pairs: Collection[tuple[str, str]]) -> Iterator[str]:
    """A note where some of the photos trained or tuned the model."""
    digests = trained_with(model)
    count = 0
    for path, _ in pairs if digests else ():
        with suppress(OSError):
            count += sha256(read_regular(path, links=True)) in digests
    if count:
        yield (
            f"{count} of these {plural(len(pairs), 'photo')} trained this model: "
            "expect less on new ones"
        )


def _print(known: Evaluation, unknown: Refusal | None, runtime: str) -> None:
    low, high = known.interval
    print(
        f"accuracy {known.accuracy:.1%} on {known.photos} photos "
        f"({interval(low, high)}), {runtime}"
    )
    if known.refused is not None and known.answered_right is not None:
        fraction = known.answered_right / known.photos
        print(
            f"called unknown although known: {known.refused} of {known.photos}; the "
            f"right label is the answer for {known.answered_right} ({fraction:.1%})"
        )
    error = 100 * known.calibration_error
    print(
        f"calibration error {error:.1f} points beyond what chance adds (0: confidence "
        "= accuracy)"
    )
    if unknown is not None:
        low, high = unknown.interval
        print(
            f"called unknown of {unknown.photos} unknown photos: {unknown.refused} "
            f"({unknown.share:.1%}, {interval(low, high)}); AUROC {unknown.auroc:.3f}"
        )
    _print_classes(known.rows)
    _print_confusion(known.labels, known.confusion)
    if known.refused:
        print(
            "accuracy and tables: the likeliest label, also of what is called unknown"
        )


def _print_classes(rows: list[dict[str, Any]]) -> None:
    head = ["label", "precision", "recall", "F1", "photos"]
    cells = [
        [
            row["label"],
            *("-" if row[k] is None else f"{row[k]:{form}}" for k, form in _FIGURES),
            str(row["photos"]),
        ]
        for row in rows
    ]
    print("\n".join(columns(cells, head)))


def _print_confusion(labels: tuple[str, ...], table: list[list[int]]) -> None:
    if len(labels) > _WIDEST_TABLE:
        return  # wider than a terminal; --json has it
    rows = [[label, *map(str, row)] for label, row in zip(labels, table, strict=True)]
    print("\n".join(columns(rows, ["true / said", *labels])))
