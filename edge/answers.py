"""The verb ``classify``: photo after photo, told as text, JSON or CSV.

Nothing is collected: each answer is written before the next photo is opened, so a
folder of any size takes the same memory. It does not know: how a photo is
classified.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, TextIO

from edge.classifier import Classifier, Prediction
from edge.errors import EdgegraftError, ModelError, PhotoError
from edge.preprocess import load_pixels
from edge.quiet import without_chatter
from edge.sources import photos

_WIDEST_LABEL = 24
_WORTH_TELLING = 0.0005  # less would print as 0.0%


def classify(args: argparse.Namespace) -> int:
    """Label every photo; 2 when one of them could not be."""
    start = time.perf_counter()
    classifier = open_classifier(args)
    load_ms = (time.perf_counter() - start) * 1e3
    kind = _Json if args.json else _Csv if args.csv else _Text
    answers = kind(sys.stdout, args.model, classifier, args.top_k, load_ms)
    answers.begin()
    failed = False
    for argument in args.photos:
        try:
            for path in photos([argument]):
                try:
                    answers.photo(path, *_timed(classifier, path, args.top_k))
                except PhotoError as error:
                    failed = True
                    _report(error)
                    answers.failure(error.path, error.reason)
        except ModelError:
            raise
        except EdgegraftError as error:  # a folder or a pattern without photos
            failed = True
            _report(error)
            answers.failure(argument, str(error).removeprefix(f"{argument}: "))
    answers.end()
    return 2 if failed else 0


def open_classifier(args: argparse.Namespace) -> Classifier:
    """The classifier that the options of a verb ask for."""
    if (args.mean is None) != (args.std is None):
        raise EdgegraftError("expected --mean and --std together, got one of them")
    normalize = None if args.mean is None else (args.mean, args.std)
    with without_chatter():
        return Classifier(
            args.model,
            labels=args.labels,
            runtime=args.runtime,
            threads=args.threads,
            xnnpack=args.xnnpack,
            normalize=normalize,
        )


def _timed(
    classifier: Classifier, path: str, top_k: int
) -> tuple[Prediction, float, float]:
    """The prediction, and the milliseconds of decoding and of inference."""
    start = time.perf_counter()
    pixels = load_pixels(path, classifier.recipe)
    decoded = time.perf_counter()
    prediction = classifier.predict(pixels, top_k)
    done = time.perf_counter()
    return prediction, (decoded - start) * 1e3, (done - decoded) * 1e3


def _report(error: EdgegraftError) -> None:
    sys.stdout.flush()
    print(f"edgegraft: error: {error}", file=sys.stderr)


class _Text:
    """One line for a person: label, probability, photo, the runners-up."""

    def __init__(
        self,
        out: TextIO,
        model: str,
        classifier: Classifier,
        top_k: int,
        load_ms: float,
    ) -> None:
        self.out, self.model, self.classifier = out, model, classifier
        self.top_k, self.load_ms = top_k, load_ms
        self.failures: list[tuple[str, str]] = []

    def begin(self) -> None:
        longest = max(len(label) for label in self.classifier.labels)
        self.width = min(max(longest, len("unknown")), _WIDEST_LABEL)

    def photo(self, path: str, told: Prediction, decode: float, infer: float) -> None:
        percent = f"{told.probability:7.1%}" if told.known else "      -"
        others = told.ranking[1:] if told.known else told.ranking
        notes = [
            f"{label} {chance:.1%}"
            for label, chance in others
            if chance >= _WORTH_TELLING
        ]
        if not told.known:
            notes.insert(0, f"familiarity {told.familiarity:.3g}")
        more = f"  ({'; '.join(notes)})" if notes else ""
        print(f"{told.label:{self.width}}{percent}  {path}{more}", file=self.out)

    def failure(self, path: str, reason: str) -> None:
        pass  # already told on standard error

    def end(self) -> None:
        pass


class _Json(_Text):
    """One document, written as it grows."""

    def begin(self) -> None:
        import json

        self.dumps = json.dumps
        card, runtime = self.classifier.card, self.classifier.runtime
        head: dict[str, Any] = {
            "model": self.model,
            "name": card.name if card else None,
            "variant": card.variant if card else None,
            "runtime": runtime.name,
            "runtime_version": runtime.version,
            "load_ms": round(self.load_ms, 3),
        }
        self.out.write(self.dumps(head)[:-1] + ', "photos": [')
        self.first = True

    def photo(self, path: str, told: Prediction, decode: float, infer: float) -> None:
        record = {
            "photo": path,
            "label": told.label,
            "probability": told.probability,
            "known": told.known,
            "familiarity": told.familiarity,
            "ranking": [
                {"label": label, "probability": chance}
                for label, chance in told.ranking
            ],
            "decode_ms": round(decode, 3),
            "inference_ms": round(infer, 3),
        }
        self.out.write(("\n" if self.first else ",\n") + self.dumps(record))
        self.first = False

    def failure(self, path: str, reason: str) -> None:
        self.failures.append((path, reason))

    def end(self) -> None:
        failures = [{"photo": path, "reason": reason} for path, reason in self.failures]
        self.out.write(f'\n], "failures": {self.dumps(failures)}}}\n')


class _Csv(_Text):
    """A header, then one row for each photo; failures only on standard error."""

    def begin(self) -> None:
        import csv

        self.rows = csv.writer(self.out, lineterminator="\n")
        self.count = min(self.top_k, len(self.classifier.labels))
        ranks = range(2, self.count + 1)
        self.rows.writerow(
            ["photo", "label", "probability", "known", "familiarity"]
            + ["decode_ms", "inference_ms"]
            + [f"{what}_{rank}" for rank in ranks for what in ("label", "probability")]
        )

    def photo(self, path: str, told: Prediction, decode: float, infer: float) -> None:
        familiarity = "" if told.familiarity is None else f"{told.familiarity:.6g}"
        row = [path, told.label, f"{told.probability:.6f}", str(told.known).lower()]
        row += [familiarity, f"{decode:.3f}", f"{infer:.3f}"]
        for label, chance in told.ranking[1:]:
            row += [label, f"{chance:.6f}"]
        self.rows.writerow(row)
