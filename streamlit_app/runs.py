"""What the folders of runs hold, read with care: runs, searches, and the model files to
choose from. A folder may be half written, damaged or older."""

from __future__ import annotations

import csv
import io
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
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
from edge.run_folder import resume_command
from edge.text import plural, printable

EXPORTS = "*/exports/*.tflite"
SEARCH_FILE = "search.json"  # in the folder of a search, beside its finalists
REJECTED = ".rejected.tflite"  # lost more accuracy than its run allowed


@dataclass(frozen=True)
class ListedModel:
    """One file of the list; `stamp` (mtime in ns, bytes) changes when the file does.

    `run` is the run's name, or the path of a `standalone` file, one without a run;
    `variant` is the file's name without its ending.
    """

    path: Path
    run: str
    variant: str
    stamp: tuple[int, int]
    standalone: bool = False

    @property
    def name(self) -> str:
        """The name that the page shows."""
        return self.run if self.standalone else f"{self.run} / {self.variant}"

    @property
    def folder(self) -> Path | None:
        """The run's folder; None for a standalone file."""
        return None if self.standalone else self.path.parents[1]


def find_models(
    folders: Sequence[Path], files: Iterable[Path] = ()
) -> list[ListedModel]:
    """`files`, then those of the runs in `folders`, newest run first, int8 first in a
    run.

    A run's file that disappears meanwhile is left out. `files` are always listed: an
    error appears when they are opened.
    """
    models = [
        ListedModel(path, str(path), path.stem, _stamp(path, follow=True), True)
        for path in files
    ]
    listed = {entry.path.resolve() for entry in models}
    stamps = {
        path: _stamp(path)
        for artifacts in folders
        for path in artifacts.glob(EXPORTS)
        if not path.name.endswith(REJECTED) and path.resolve() not in listed
    }
    run_times: dict[Path, int] = {}
    for path, (modified, _) in stamps.items():
        run = path.parents[1]
        run_times[run] = max(run_times.get(run, 0), modified)

    def order(path: Path) -> tuple[int, str, bool, str]:
        run = path.parents[1]
        return -run_times[run], run.name, path.stem != "int8", path.stem

    return models + [
        ListedModel(path, run_name(path.parents[1]), path.stem, stamps[path])
        for path in sorted(stamps, key=order)
        if stamps[path] != (0, 0)
    ]


def run_name(folder: Path) -> str:
    """A run's name; for a finalist of a search, after the name of the search."""
    in_search = (folder.parent / SEARCH_FILE).is_file()
    return f"{folder.parent.name}/{folder.name}" if in_search else folder.name


def pick_model(
    models: Sequence[ListedModel], run: str | None, variant: str | None
) -> ListedModel:
    """The file that a link names; else the first of that run; else the first of all."""
    in_run = [entry for entry in models if entry.run == run]
    matches = [entry for entry in in_run if entry.variant == variant]
    return (matches or in_run or models)[0]


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

    def measured(self, file: str) -> Record:
        """The figures of the file of this name; empty where it was not measured."""
        return next((r for r in self.files if r.get("file") == file), {})

    @property
    def settings(self) -> list[str]:
        """Where and how the files were timed: "Pi 4, litert 2.3.0, 1 thread"."""
        lines = [setting(t) for record in self._records for t in _timings(record)]
        return list(dict.fromkeys(lines))

    def timed(self, where: str | None) -> list[Record]:
        """The files that have all figures of a plot, with their timing in the setting
        `where` (None: the first timing)."""
        files = []
        for record in self._records:
            timings = _timings(record)
            if where is not None:
                timings = [timing for timing in timings if setting(timing) == where]
            files += [{**record, **timing} for timing in timings[:1]]
        figures = ("accuracy", "p50_ms", "size_bytes")  # numbers, by the schema
        return [f for f in files if all(f.get(key) is not None for key in figures)]

    @property
    def _records(self) -> list[Record]:
        board = (self.comparison.get("host") or {}).get("board")
        files = self.comparison.get("files") or []
        return [{"host": board, **record} for record in files]


def setting(timing: Record) -> str:
    """Host, runtime and threads of a timing, as text."""
    threads = plural(timing.get("threads") or 1, "thread")
    parts = (timing.get("host"), timing.get("runtime"), threads)
    return ", ".join(str(part) for part in parts if part)


def _timings(record: Record) -> list[Record]:
    """The timings of a file; a comparison of an older edgegraft has one, unnested."""
    if record.get("timings") is not None:
        return list(record["timings"])
    keys = ("p50_ms", "peak_memory_mb", "runtime", "threads", "host")
    return [{key: record[key] for key in keys if key in record}]


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
        problems.append(
            f"training did not finish; resume: {resume_command(str(folder))}"
        )
    elif config and not comparison and not problems:
        problems.append(
            f"not measured yet; run: edgegraft compare {shlex.quote(str(folder))}"
        )
    split = _csv(folder / "split.csv")
    return Run(
        folder,
        config,
        metrics,
        comparison,
        history=_history(folder / "history.csv"),
        counts=_counts(split),
        digests={row.get("path") or "": row.get("sha256") or "" for row in split},
        problems=tuple(problems),
        readable=readable,
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


def disagreements(
    run: Run, record: Record, limit: int
) -> list[tuple[str, str, str, bytes | None]]:
    """Test photos that float32 got right and this file wrong: (name, truth, answer,
    content), the first `limit` with their content.

    The content is None where the photo is not where the run read it, or its digest is
    not the one of split.csv: so a run of another person cannot show photos of this
    machine that it does not have.
    """
    photos: list[tuple[str, str, str, bytes | None]] = []
    for entry in record.get("float_right_this_wrong") or []:
        name, truth, answer = _mistake(entry, run.labels)
        if name:
            content = _photo(run, name) if len(photos) < limit else None
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
    """(path, truth, answer) of a photo in comparison.json, in any of its formats."""
    if isinstance(entry, dict):
        return tuple(str(entry.get(k) or "") for k in ("photo", "truth", "answer"))  # type: ignore[return-value]
    if isinstance(entry, str):
        return entry, "", ""
    if not isinstance(entry, list) or not entry:
        return "", "", ""
    truth, answer = (
        labels[value]
        if isinstance(value, int) and 0 <= value < len(labels)
        else str(value)
        for value in (*entry, "", "")[1:3]
    )
    return str(entry[0]), truth, answer


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
    """The epochs of history.csv with the columns that are numbers."""
    epochs = []
    for row in _csv(path):
        numbers = {}
        for key, value in row.items():
            with suppress(TypeError, ValueError):
                number = float(value)
                if is_number(number):
                    numbers[str(key)] = number
        if "epoch" in numbers:
            epochs.append(numbers)
    return tuple(epochs)


def _counts(split: Sequence[dict[str, str]]) -> dict[str, dict[str, int]]:
    """Label to the photos in each part, counted from the rows of split.csv."""
    counts: dict[str, dict[str, int]] = defaultdict(Counter)
    for row in split:
        label, part = row.get("label"), row.get("split")
        if label and part:
            counts[label][part] += 1
    return {label: dict(parts) for label, parts in sorted(counts.items())}


def _csv(path: Path) -> list[dict[str, str]]:
    try:
        content = read_regular(path, inside=path.parent)
        text = content.decode("utf-8", "surrogateescape")
        return list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, csv.Error):
        return []


def _stamp(path: Path, follow: bool = False) -> tuple[int, int]:
    try:
        stat = path.stat() if follow else path.lstat()
    except OSError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_size)


def _modified(path: Path) -> int:
    return _stamp(path, follow=True)[0]
