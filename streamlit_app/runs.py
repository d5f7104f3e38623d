"""A run's folder, read with care: it may be half written, damaged or older."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import EdgegraftError
from edge.files import read_regular, sha256
from edge.records import (
    COMPARISON,
    METRICS,
    RUN,
    SEARCH,
    Record,
    Schema,
    is_number,
    read_record,
)
from edge.run_folder import going_on
from edge.text import plural, printable
from streamlit_app.models import SEARCH_FILE, run_name


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
        return run_name(self.folder)

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
    config = _json(folder / "run.json", RUN, problems)
    metrics = _json(folder / "metrics.json", METRICS, problems)
    comparison = _json(folder / "comparison.json", COMPARISON, problems)
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
    digests = {row.get("path") or "": row.get("sha256") or "" for row in split}
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


def read_comparison(folder: Path) -> Record:
    """comparison.json of a folder; empty where there is none that can be read."""
    return _json(folder / "comparison.json", COMPARISON, [])


def find_runs(artifacts: Sequence[Path]) -> list[Run]:
    """All runs in these folders, newest first."""
    folders = [
        path.parent for folder in artifacts for path in folder.glob("*/run.json")
    ]
    folders.sort(key=lambda folder: (-_modified(folder / "run.json"), folder.name))
    return [read_run(folder) for folder in folders]


@dataclass(frozen=True)
class Search:
    """A folder of `edgegraft search`; `problem` where its record cannot be read."""

    folder: Path
    record: Record
    problem: str = ""

    @property
    def candidates(self) -> list[Record]:
        """Those with a time, the fastest first."""
        listed = self.record.get("candidates") or []
        timed = [c for c in listed if (c.get("timing") or {}).get("p50_ms")]
        return sorted(timed, key=lambda c: float(c["timing"]["p50_ms"]))


def find_searches(artifacts: Sequence[Path]) -> list[Search]:
    """All searches in these folders, newest first."""
    paths = [path for folder in artifacts for path in folder.glob(f"*/{SEARCH_FILE}")]
    searches = []
    for path in sorted(paths, key=_modified, reverse=True):
        problems: list[str] = []
        record = _json(path, SEARCH, problems)
        searches.append(Search(path.parent, record, "".join(problems)))
    return searches


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
        return read_record(path, schema, inside=path.parent)
    except FileNotFoundError:
        return {}
    except EdgegraftError as error:
        problems.append(str(error).removeprefix(f"{printable(path.parent)}/"))
        return {}


def _history(path: Path) -> tuple[dict[str, float], ...]:
    rows = []
    for row in _csv(path):
        numbers = {}
        for key, value in row.items():
            with suppress(TypeError, ValueError):
                number = float(value)
                if is_number(number):
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
