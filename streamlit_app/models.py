"""The model files the page can choose from: those given, and those of the runs.

It does not know: Streamlit, or what is in a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

EXPORTS = "*/exports/*.tflite"
LEFT_OUT = ".rejected.tflite"  # lost more accuracy than its run allowed


@dataclass(frozen=True)
class ModelFile:
    """A file to choose: `stamp` changes when the file does.

    `run` is the run's name, or for a file that was given its path; `variant` is the
    file's name without its ending.
    """

    path: Path
    run: str
    variant: str
    stamp: tuple[int, int]
    given: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return self.run if self.given else f"{self.run} / {self.variant}"

    @property
    def folder(self) -> Path | None:
        """The run's folder; None for a file that was given."""
        return None if self.given else self.path.parent.parent


def find_models(artifacts: Path, given: Iterable[Path] = ()) -> list[ModelFile]:
    """The files that were given, then those of the runs, the newest run first.

    Within a run int8 comes first: it is the one to deploy. A file that vanishes
    while looking is left out, one that was given is not: opening it says what is
    wrong.
    """
    found = [
        ModelFile(path, str(path), path.stem, _stamp(path), given=True)
        for path in given
    ]
    seen = {entry.path.resolve() for entry in found}
    exports = [
        path
        for path in artifacts.glob(EXPORTS)
        if not path.name.endswith(LEFT_OUT) and path.resolve() not in seen
    ]
    stamps = {path: _stamp(path) for path in exports}
    newest: dict[Path, int] = {}
    for path, (modified, _) in stamps.items():
        run = path.parent.parent
        newest[run] = max(newest.get(run, 0), modified)
    exports.sort(
        key=lambda path: (
            -newest[path.parent.parent],
            path.parent.parent.name,
            path.stem != "int8",
            path.stem,
        )
    )
    return found + [
        ModelFile(path, path.parent.parent.name, path.stem, stamps[path])
        for path in exports
        if stamps[path] != (0, 0)
    ]


def chosen(
    models: Sequence[ModelFile], run: str | None, variant: str | None
) -> ModelFile:
    """The file a link asks for; else the first of that run; else the first."""
    of_run = [entry for entry in models if entry.run == run]
    exact = [entry for entry in of_run if entry.variant == variant]
    return (exact or of_run or list(models))[0]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_size)
