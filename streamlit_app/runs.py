"""A run's folder, read with care: it may be half written, damaged or older."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.run_folder import going_on
from edge.text import plural

Record = dict[str, Any]
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
    problems: tuple[str, ...]

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
    threads = timing.get("threads", 1)
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
    config = _json(folder / "run.json", problems)
    metrics = _json(folder / "metrics.json", problems)
    comparison = _json(folder / "comparison.json", problems)
    if not config and not problems:
        problems.append("no run.json: not a run of edgegraft")
    elif config.get("status") not in (None, "trained"):
        problems.append(f"training did not finish; resume: {going_on(str(folder))}")
    elif config and not comparison and not problems:
        problems.append(
            f"not measured yet; run: edgegraft compare {shlex.quote(str(folder))}"
        )
    history, counts = _history(folder / "history.csv"), _counts(folder / "split.csv")
    return Run(folder, config, metrics, comparison, history, counts, tuple(problems))


def find_runs(artifacts: Path) -> list[Run]:
    """All runs, newest first."""
    folders = [path.parent for path in artifacts.glob("*/run.json")]
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


def disagreements(run: Run, record: Record) -> list[tuple[str, str, str, Path | None]]:
    """Test photos that float32 got right and this file wrong: (name, truth, answer,
    path); the path is None where the photo is not where the run read it."""
    labels, photos = run.labels, []
    listed = record.get("float_right_this_wrong")
    root = Path(str(run.config.get("photos") or ""))
    for entry in listed if isinstance(listed, list) else []:
        name, truth, answer = _mistake(entry, labels)
        if not name:
            continue
        path = (root / name).resolve() if run.config.get("photos") else None
        inside = path is not None and path.is_relative_to(root.resolve())
        there = path is not None and inside and path.is_file()
        photos.append((name, truth, answer, path if there else None))
    return photos


def _mistake(entry: Any, labels: Sequence[str]) -> tuple[str, str, str]:
    """(path, truth, answer) of what comparison.json says of one photo."""
    if isinstance(entry, dict):
        return tuple(str(entry.get(k) or "") for k in ("photo", "truth", "answer"))  # type: ignore[return-value]
    if isinstance(entry, str):
        return entry, "", ""
    if not isinstance(entry, list) or not entry:
        return "", "", ""
    words = [
        labels[value] if isinstance(value, int) and value < len(labels) else str(value)
        for value in entry[1:3]
    ]
    words += [""] * (2 - len(words))
    return str(entry[0]), words[0], words[1]


def _json(path: Path, problems: list[str]) -> Record:
    try:
        if path.stat().st_size > MOST_BYTES:
            problems.append(f"{path.name} is too large (over {MOST_BYTES >> 20} MB)")
            return {}
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        problems.append(f"{path.name} is damaged or half written")
        return {}
    return record if isinstance(record, dict) else {}


def _history(path: Path) -> tuple[dict[str, float], ...]:
    rows = []
    for row in _csv(path):
        numbers = {}
        for key, value in row.items():
            try:
                numbers[str(key)] = float(value)
            except (TypeError, ValueError):
                continue
        rows.append(numbers)
    return tuple(row for row in rows if "epoch" in row)


def _counts(path: Path) -> dict[str, dict[str, int]]:
    """Label to photos in each part, from split.csv."""
    table: dict[str, dict[str, int]] = {}
    for row in _csv(path):
        label, part = row.get("label"), row.get("split")
        if label and part:
            parts = table.setdefault(label, {})
            parts[part] = parts.get(part, 0) + 1
    return dict(sorted(table.items()))


def _csv(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, csv.Error):
        return []


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
