"""The model files to choose from: those given on the command line, then the runs'."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

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


def choose(
    models: Sequence[ListedModel], run: str | None, variant: str | None
) -> ListedModel:
    """The file that a link names; else the first of that run; else the first of all."""
    in_run = [entry for entry in models if entry.run == run]
    matches = [entry for entry in in_run if entry.variant == variant]
    return (matches or in_run or models)[0]


def _stamp(path: Path, follow: bool = False) -> tuple[int, int]:
    try:
        stat = path.stat() if follow else path.lstat()
    except OSError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_size)
