"""A run's folder, read with care: it may be half written, damaged or older."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.files import read_regular, sha256
from edge.run_folder import going_on
from edge.text import plural

Record = dict[str, Any]
# What a JSON value must look like; see `_check`
Schema = str | list[Any] | dict[str, Any]
MOST_BYTES = 64 << 20  # of a run's JSON file


@dataclass(frozen=True)
class Run:
    """One run folder; what is missing is empty, what is wrong is in `problems`."""

    folder: Path
    config: Record
    metrics: Record
    comparison: Record
    history: tuple[dict[str, float], ...]
    counts: dict[str, dict[str, int]]
    digests: dict[str, str]
    problems: tuple[str, ...]
    readable: bool = True

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def labels(self) -> tuple[str, ...]:
        labels = self.config.get("labels") or self.comparison.get("labels") or ()
        return tuple(str(label) for label in labels)

    @property
    def files(self) -> list[Record]:
        """The measured files, each with its first timing: this host, one thread."""
        return self.timed(None)

    @property
    def settings(self) -> list[str]:
        """Where and how the files were timed: "Pi 4, litert 2.3.0, 1 thread"."""
        lines = [setting(t) for record in self._records for t in _timings(record)]
        return list(dict.fromkeys(lines))

    def timed(self, where: str | None) -> list[Record]:
        """The files with all figures of a plot, with their timing in that setting."""
        files = []
        for record in self._records:
            for timing in _timings(record):
                if where is None or setting(timing) == where:
                    files.append({**record, **timing})
                    break
        return [
            record
            for record in files
            if all(
                isinstance(record.get(key), (int, float))
                for key in ("accuracy", "p50_ms", "size_bytes")
            )
        ]

    @property
    def _records(self) -> list[Record]:
        files = self.comparison.get("files")
        host = self.comparison.get("host")
        board = host.get("board") if isinstance(host, dict) else None
        return [
            {"host": board, **record}
            for record in (files if isinstance(files, list) else [])
            if isinstance(record, dict)
        ]


def setting(timing: Record) -> str:
    """Host, runtime and threads of a timing, for people."""
    threads = timing.get("threads") or 1
    parts = [timing.get("host"), timing.get("runtime")]
    parts.append(plural(threads, "thread"))
    return ", ".join(str(part) for part in parts if part)


def _timings(record: Record) -> list[Record]:
    """The timings of a file; a comparison of an older edgegraft has one, unnested."""
    timings = record.get("timings")
    if not isinstance(timings, list):
        keys = ("p50_ms", "peak_memory_mb", "runtime", "threads", "host")
        return [{key: record[key] for key in keys if key in record}]
    return [timing for timing in timings if isinstance(timing, dict)]


def read_run(folder: Path) -> Run:
    """Everything the page shows of a run."""
    problems: list[str] = []
    config = _json(folder / "run.json", _CONFIG, problems)
    metrics = _json(folder / "metrics.json", _METRICS, problems)
    comparison = _json(folder / "comparison.json", _COMPARISON, problems)
    readable = not problems
    if not config and readable:
        problems.append("no run.json: not a run of edgegraft")
    elif config.get("status") not in (None, "trained"):
        problems.append(f"training did not finish; resume: {going_on(str(folder))}")
    elif config and not comparison and not problems:
        problems.append(
            f"not measured yet; run: edgegraft compare {shlex.quote(str(folder))}"
        )
    split = _csv(folder / "split.csv")
    digests = {row["path"]: row["sha256"] or "" for row in split if "sha256" in row}
    return Run(
        folder,
        config,
        metrics,
        comparison,
        _history(folder / "history.csv"),
        _counts(split),
        digests,
        tuple(problems),
        readable,
    )


def find_runs(artifacts: Sequence[Path]) -> list[Run]:
    """All runs in these folders, newest first."""
    folders = [
        path.parent for folder in artifacts for path in folder.glob("*/run.json")
    ]
    folders.sort(key=lambda folder: (-_modified(folder / "run.json"), folder.name))
    return [read_run(folder) for folder in folders]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (latency, accuracy) that no other beats in both, by latency."""
    best, front = -1.0, []
    order = sorted(range(len(points)), key=lambda k: (points[k][0], -points[k][1]))
    for place in order:
        if points[place][1] > best:
            best = points[place][1]
            front.append(place)
    return front


def disagreements(
    run: Run, record: Record, most: int
) -> list[tuple[str, str, str, bytes | None]]:
    """Test photos that float32 got right and this file wrong: (name, truth, answer,
    content), at most `most` with their content.

    The content is None where the photo is not where the run read it, or its digest is
    not the one of split.csv: so a stranger's run cannot show photos of this machine
    that it does not have.
    """
    photos: list[tuple[str, str, str, bytes | None]] = []
    listed = record.get("float_right_this_wrong")
    for entry in listed if isinstance(listed, list) else []:
        name, truth, answer = _mistake(entry, run.labels)
        if name:
            content = _photo(run, name) if len(photos) < most else None
            photos.append((name, truth, answer, content))
    return photos


def _photo(run: Run, name: str) -> bytes | None:
    """The content of a photo of the run's split."""
    root = Path(str(run.config.get("photos") or ""))
    try:
        content = read_regular((root / name).resolve(), inside=root)
    except (OSError, ValueError):
        return None
    return content if sha256(content) == run.digests.get(name) else None


def _mistake(entry: Any, labels: Sequence[str]) -> tuple[str, str, str]:
    """(path, truth, answer) of what comparison.json says of one photo."""
    if isinstance(entry, dict):
        return tuple(str(entry.get(k) or "") for k in ("photo", "truth", "answer"))  # type: ignore[return-value]
    if isinstance(entry, str):
        return entry, "", ""
    if not isinstance(entry, list) or not entry:
        return "", "", ""
    words = [
        labels[value]
        if isinstance(value, int) and 0 <= value < len(labels)
        else str(value)
        for value in entry[1:3]
    ]
    words += [""] * (2 - len(words))
    return str(entry[0]), words[0], words[1]


def _json(path: Path, schema: Schema, problems: list[str]) -> Record:
    """A JSON object that fits `schema`; else empty, and the reason in `problems`."""
    try:
        if path.lstat().st_size > MOST_BYTES:
            problems.append(f"{path.name} is too large (over {MOST_BYTES >> 20} MB)")
            return {}
        record = json.loads(read_regular(path, inside=path.parent))
        _check(record, schema, path.name)
    except FileNotFoundError:
        return {}
    except _Misfit as error:
        problems.append(str(error))
        return {}
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error.strerror or error}")
        return {}
    except (ValueError, RecursionError):
        problems.append(f"{path.name} is damaged or half written")
        return {}
    return dict(record)


class _Misfit(Exception):
    """A field of a run's file has another type than expected."""


def _check(value: Any, schema: Schema, where: str) -> None:
    """_Misfit, naming the field, where `value` has another shape than `schema`.

    A dict of schemas: an object whose fields fit where it has them (null counts as
    absent); a list of one schema: a list of such; else a name out of `_KINDS`.
    """
    if isinstance(schema, dict):
        _expect(isinstance(value, dict), where, "an object", value)
        for key, inner in schema.items():
            if value.get(key) is not None:
                _check(value[key], inner, f"{where}: {key}")
    elif isinstance(schema, list):
        _expect(isinstance(value, list), where, "a list", value)
        for place, entry in enumerate(value):
            _check(entry, schema[0], f"{where}[{place}]")
    else:
        _expect(_KINDS[schema](value), where, schema, value)


def _expect(fits: bool, where: str, kind: str, value: Any) -> None:
    if not fits:
        raise _Misfit(f"{where}: expected {kind}, got {value!r:.40}")


def _is_number(value: Any) -> bool:
    # a magnitude that no figure of a run has; NaN fails both comparisons
    return type(value) in (int, float) and -1e15 < value < 1e15


_KINDS: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "a number": _is_number,
    "a number of 0 or more": lambda value: _is_number(value) and value >= 0,
    "a share from 0 to 1": lambda value: _is_number(value) and 0 <= value <= 1,
    "a whole number": lambda value: type(value) is int and 0 <= value < 1e15,
    "anything": lambda _: True,
}
_SHARE, _COUNT, _SIZE, _TEXT = (
    "a share from 0 to 1",
    "a whole number",
    "a number of 0 or more",
    "text",
)
_EVALUATION: Schema = {
    "labels": [_TEXT],
    "photos": _COUNT,
    "accuracy": _SHARE,
    "calibration_error": _SHARE,
    "confusion": [[_COUNT]],
    "per_class": [
        {"label": _TEXT, "precision": _SHARE, "recall": _SHARE, "photos": _COUNT}
    ],
}
_TIMING: dict[str, Schema] = {
    "host": _TEXT,
    "runtime": _TEXT,
    "threads": _COUNT,
    "p50_ms": _SIZE,
    "peak_memory_mb": _SIZE,
}
_COMPARISON: Schema = {
    "labels": [_TEXT],
    "host": {"board": _TEXT},
    "ship": {"file": _TEXT, "why": _TEXT},
    "by_budget": [{"ms": _SIZE, "mb": _SIZE, "file": _TEXT}],
    "files": [
        {
            **_TIMING,
            "title": _TEXT,
            "variant": _TEXT,
            "file": _TEXT,
            "accuracy": _SHARE,
            "accuracy_low": _SHARE,
            "accuracy_high": _SHARE,
            "photos": _COUNT,
            "size_bytes": _SIZE,
            "drop": "a number",
            "agreement": _SHARE,
            "mcnemar_p": _SHARE,
            "timings": [_TIMING],
            "evaluation": _EVALUATION,
            "float_right_this_wrong": ["anything"],
        }
    ],
}
_CONFIG: Schema = {
    "status": _TEXT,
    "labels": [_TEXT],
    "photos": _TEXT,
    "created": _TEXT,
    "settings": {"backbone": _TEXT},
    "data": {"parts": {"train": _COUNT, "val": _COUNT, "test": _COUNT}},
}
_METRICS: Schema = {
    "test": _EVALUATION,
    "calibration": {
        "test": {
            "bins_after": [{"confidence": _SHARE, "accuracy": _SHARE, "photos": _COUNT}]
        }
    },
    "familiarity": {"test": {"share": _SHARE}, "test_passed": _SHARE},
}


def _history(path: Path) -> tuple[dict[str, float], ...]:
    rows = []
    for row in _csv(path):
        numbers = {}
        for key, value in row.items():
            with suppress(TypeError, ValueError):
                number = float(value)
                if _is_number(number):
                    numbers[str(key)] = number
        rows.append(numbers)
    return tuple(row for row in rows if "epoch" in row)


def _counts(split: Sequence[dict[str, str]]) -> dict[str, dict[str, int]]:
    """Label to photos in each part, of the rows of split.csv."""
    table: dict[str, dict[str, int]] = {}
    for row in split:
        label, part = row.get("label"), row.get("split")
        if label and part:
            parts = table.setdefault(label, {})
            parts[part] = parts.get(part, 0) + 1
    return dict(sorted(table.items()))


def _csv(path: Path) -> list[dict[str, str]]:
    try:
        content = read_regular(path, inside=path.parent)
        text = content.decode("utf-8", "surrogateescape")
        return list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, csv.Error):
        return []


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
