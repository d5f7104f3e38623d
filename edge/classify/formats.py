"""How the answers of ``classify`` look: text for a person, one JSON document, a CSV.

It does not know: how a photo is classified, in which order answers come.
"""

from __future__ import annotations

from typing import Any, TextIO

from edge.classifier import Classifier, Prediction

_WIDEST_LABEL = 24
_WORTH_TELLING = 0.0005  # less would print as 0.0%


def header(classifier: Classifier, top_k: int) -> list[str]:
    """The columns of a CSV."""
    names = ["photo", "label", "probability", "known", "familiarity"]
    names += ["decode_ms", "inference_ms"]
    for rank in range(2, min(top_k, len(classifier.labels)) + 1):
        names += [f"label_{rank}", f"probability_{rank}"]
    return names


class Text:
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
        self.headed = False  # the file has its header from an earlier run

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


class Json(Text):
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


class Csv(Text):
    """A header, then one row for each photo; failures only on standard error."""

    def begin(self) -> None:
        import csv

        self.rows = csv.writer(self.out, lineterminator="\n")
        if not self.headed:
            self.rows.writerow(header(self.classifier, self.top_k))

    def photo(self, path: str, told: Prediction, decode: float, infer: float) -> None:
        familiarity = "" if told.familiarity is None else f"{told.familiarity:.6g}"
        row = [path, told.label, f"{told.probability:.6f}", str(told.known).lower()]
        row += [familiarity, f"{decode:.3f}", f"{infer:.3f}"]
        for label, chance in told.ranking[1:]:
            row += [label, f"{chance:.6f}"]
        self.rows.writerow(row)
