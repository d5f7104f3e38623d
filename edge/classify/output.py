"""Predictions of ``classify`` for programs: one JSON document, or a CSV.

On standard output or in a file that is never half written: a document takes its name at
the end, a CSV can be resumed.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from edge.classifier import Classifier, Prediction
from edge.errors import EdgegraftError
from edge.text import csv_cell, plural

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def csv_columns(classifier: Classifier, top_k: int) -> list[str]:
    """The columns of a CSV."""
    names = ["photo", "label", "probability", "known", "familiarity"]
    names += ["decode_ms", "inference_ms"]
    for rank in range(2, min(top_k, len(classifier.labels)) + 1):
        names += [f"label_{rank}", f"probability_{rank}"]
    return names


def model_record(model: str, classifier: Classifier) -> dict[str, Any]:
    """What a JSON document says of the model and its runtime."""
    card, runtime = classifier.card, classifier.runtime
    return {
        "model": model,
        "name": card.name if card else None,
        "variant": card.variant if card else None,
        "runtime": runtime.name,
        "runtime_version": runtime.version,
    }


def photo_record(
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
        head = model_record(self.model, self.classifier)
        head["load_ms"] = round(self.load_ms, 3)
        if self.classifier.note:
            head["note"] = self.classifier.note
        self.out.write(json.dumps(head)[:-1] + ', "photos": [')
        self.first = True

    def photo(
        self, path: str, prediction: Prediction, decode_ms: float, inference_ms: float
    ) -> None:
        text = json.dumps(photo_record(path, prediction, decode_ms, inference_ms))
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
            self.rows.writerow(csv_columns(self.classifier, self.top_k))

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


class Done:
    """The photos that a CSV holds already; eight bytes each, not their paths."""

    def __init__(self) -> None:
        self.headed = False
        self._hashes: set[int] = set()

    def add(self, photo: str) -> None:
        self._hashes.add(hash(photo))

    def __contains__(self, photo: object) -> bool:
        return isinstance(photo, str) and hash(photo) in self._hashes

    def __len__(self) -> int:
        return len(self._hashes)


def summary(path: str, answered: int, failed: int, earlier: int = 0) -> str:
    """The last line, when the file is whole; `earlier` photos were in it."""
    text = f"{path}: {plural(answered, 'photo')} classified"
    if earlier:
        text += f", {earlier} before"
    return f"{text}, {failed} not (named above)" if failed else text


@contextmanager
def open_output(
    path: str, header: Sequence[str] | None, *, resume: bool = False
) -> Iterator[tuple[TextIO, Done]]:
    """A file to write answers to, and the photos it holds already.

    With a `header` it is a CSV: row after row is written to its place, so that a run
    that was stopped can be resumed (a row cut in the middle is taken away first).
    Anything else is written beside and renamed at the end. EdgegraftError when the
    file is there and not resumed, is not such a CSV, cannot be written, or finds no
    room on the disk.
    """
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        import shlex

        raise EdgegraftError(
            f"-o {path}: expected a folder {folder} to write to, got none; make it: "
            f"mkdir -p {shlex.quote(folder)}"
        )
    try:
        with _written(path, header, resume) as opened:
            yield opened
    except OSError as error:
        if error.errno not in _FULL:
            if str(error.filename).startswith(path):
                raise EdgegraftError(
                    f"-o {path}: cannot be written: {error.strerror}"
                ) from None
            raise
        hint = "; make room, and go on with --resume" if header else "; make room"
        raise EdgegraftError(f"{path}: {error.strerror}{hint}") from None


@contextmanager
def _written(
    path: str, header: Sequence[str] | None, resume: bool
) -> Iterator[tuple[TextIO, Done]]:
    done = Done()
    if os.path.exists(path) and not resume:
        hint = "continue it with --resume" if header else "remove it"
        raise EdgegraftError(f"{path} exists; {hint}, or give another -o FILE")
    if header is None:
        partial = f"{path}.{os.getpid()}.part"
        try:
            with open(partial, "x", encoding="utf-8", errors="surrogateescape") as file:
                yield file, done
            os.replace(partial, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(partial)
        return
    if os.path.exists(path):
        _read(path, list(header), done)
    with open(
        path, "a", encoding="utf-8", errors="surrogateescape", newline="", buffering=1
    ) as file:
        yield file, done


def _read(path: str, header: list[str], done: Done) -> None:
    """Cut off a half-written last row; note the photos of all others."""
    import csv

    with open(path, "rb+") as raw:
        size = raw.seek(0, os.SEEK_END)
        while size:
            step = min(size, 65536)
            raw.seek(size - step)
            newline = raw.read(step).rfind(b"\n")
            size = size - step + newline + 1 if newline >= 0 else size - step
            if newline >= 0:
                break
        raw.truncate(size)
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file)
        first = next(rows, None)
        if first is None:
            return
        if first != header:
            raise EdgegraftError(
                f"{path}: expected a CSV with the columns {','.join(header)}, "
                f"got {','.join(first)!r:.80}; use the same --top-k and model"
            )
        done.headed = True
        for row in rows:
            if len(row) != len(header):
                raise EdgegraftError(
                    f"{path}:{rows.line_num}: expected {len(header)} columns, got "
                    f"{len(row)}; remove this row"
                )
            done.add(row[0])
