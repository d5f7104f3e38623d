"""Predictions of ``classify`` for programs: one JSON document, or a CSV."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TextIO

from edge.classifier import Classifier, Prediction
from edge.text import csv_cell


def header(classifier: Classifier, top_k: int) -> list[str]:
    """The columns of a CSV."""
    names = ["photo", "label", "probability", "known", "familiarity"]
    names += ["decode_ms", "inference_ms"]
    for rank in range(2, min(top_k, len(classifier.labels)) + 1):
        names += [f"label_{rank}", f"probability_{rank}"]
    return names


def describe(model: str, classifier: Classifier) -> dict[str, Any]:
    """What a JSON document says of the model and its runtime."""
    card, runtime = classifier.card, classifier.runtime
    return {
        "model": model,
        "name": card.name if card else None,
        "variant": card.variant if card else None,
        "runtime": runtime.name,
        "runtime_version": runtime.version,
    }


def record(
    path: str, prediction: Prediction, decode_ms: float, inference_ms: float
) -> dict[str, Any]:
    """A photo in a JSON document."""
    return {
        "photo": path,
        "label": prediction.label,
        "probability": prediction.probability,
        "known": prediction.known,
        "familiarity": prediction.familiarity,
        "ranking": [
            {"label": label, "probability": probability}
            for label, probability in prediction.ranking
        ],
        "decode_ms": round(decode_ms, 3),
        "inference_ms": round(inference_ms, 3),
    }


class JsonWriter:
    """One document, written as it grows."""

    def __init__(
        self, out: TextIO, model: str, classifier: Classifier, load_ms: float
    ) -> None:
        self.out, self.headed = out, False
        self.model, self.classifier, self.load_ms = model, classifier, load_ms
        self.failures: list[dict[str, str]] = []

    def begin(self) -> None:
        head = describe(self.model, self.classifier)
        head["load_ms"] = round(self.load_ms, 3)
        if self.classifier.note:
            head["note"] = self.classifier.note
        self.out.write(json.dumps(head)[:-1] + ', "photos": [')
        self.first = True

    def photo(
        self, path: str, prediction: Prediction, decode_ms: float, inference_ms: float
    ) -> None:
        text = json.dumps(record(path, prediction, decode_ms, inference_ms))
        self.out.write(("\n" if self.first else ",\n") + text)
        self.first = False

    def failure(self, path: str, reason: str) -> None:
        self.failures.append({"photo": path, "reason": reason})

    def end(self) -> None:
        self.out.write(f'\n], "failures": {json.dumps(self.failures)}}}\n')


class CsvWriter:
    """A header, then one row for each photo; failures only on standard error.

    Names are written as `csv_cell` does, unless `raw`.
    """

    def __init__(
        self, out: TextIO, classifier: Classifier, top_k: int, *, raw: bool = False
    ) -> None:
        self.out, self.headed = out, False
        self._cell: Callable[[str], str] = str if raw else csv_cell
        self.classifier, self.top_k = classifier, top_k

    def begin(self) -> None:
        import csv

        self.rows = csv.writer(self.out, lineterminator="\n")
        if not self.headed:
            self.rows.writerow(header(self.classifier, self.top_k))

    def photo(
        self, path: str, prediction: Prediction, decode_ms: float, inference_ms: float
    ) -> None:
        familiarity = (
            "" if prediction.familiarity is None else f"{prediction.familiarity:.6g}"
        )
        row = [
            self._cell(path),
            self._cell(prediction.label),
            f"{prediction.probability:.6f}",
            str(prediction.known).lower(),
        ]
        row += [familiarity, f"{decode_ms:.3f}", f"{inference_ms:.3f}"]
        for label, probability in prediction.ranking[1:]:
            row += [self._cell(label), f"{probability:.6f}"]
        self.rows.writerow(row)

    def failure(self, path: str, reason: str) -> None:
        """Nothing: standard error has it."""

    def end(self) -> None:
        """Nothing: every row is complete."""
