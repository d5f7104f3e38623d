"""The files of a comparison: those that runs exported, and other `.tflite` files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.split import Split
from edge.errors import EdgegraftError
from edge.model_file import ModelFile
from finetune.run import RUN_FILE, Run
from quantize import recipes

TRAIN = "train"
EXPORTS = "exports"  # of a run: the folder of its files
RunOrFile = Run | str | os.PathLike[str]


@dataclass(frozen=True)
class Candidate:
    """A file to measure, read once; `run`: the one that exported it, None for a file
    outside of runs."""

    path: Path
    title: str
    run: Run | None
    model: ModelFile


def opened(things: Sequence[RunOrFile], *, runless: bool = False) -> list[Run | Path]:
    """Run folders as runs, model files as paths; EdgegraftError for anything else,
    and where there is no run, unless `runless`."""
    sources = [item if isinstance(item, Run) else _open(Path(item)) for item in things]
    if not sources or not (runless or any(isinstance(item, Run) for item in sources)):
        first = sources[0] if sources else "nothing"
        raise EdgegraftError(
            f"expected a run folder, whose test photos the files are measured on, got "
            f"{first}; say which photos with: --photos PHOTOS"
        )
    return sources


def _open(path: Path) -> Run | Path:
    return path if path.is_file() else Run.open(path)


def candidates(
    things: Sequence[Run | Path], *, same_photos: bool = True
) -> tuple[Candidate, ...]:
    """Every file of `things` in their order.

    EdgegraftError for a run without files, with `same_photos` for one with other photos
    than the first, and for a file that is listed twice or cannot be read.
    """
    runs = [thing for thing in things if isinstance(thing, Run)]
    listed: list[tuple[Path, str, Run | None]] = []
    owners: dict[Path, Run | None] = {}  # folder -> run, of single files
    for thing in things:
        if isinstance(thing, Run):
            if same_photos and thing is not runs[0]:
                _refuse_other_photos(runs[0], thing)
            prefix = "" if len(things) == 1 else f"{thing.name}/"
            listed += [(p, prefix + _title(p), thing) for p in exported(thing)]
        else:
            folder = thing.resolve().parent
            if folder not in owners:
                owners[folder] = _owner(folder)
            listed.append((thing, thing.stem, owners[folder]))
    paths = Counter(path.resolve() for path, _, _ in listed)
    titles = Counter(title for _, title, _ in listed)
    for path, count in paths.items():
        if count > 1:
            raise EdgegraftError(f"expected each file once, got {path} twice")
    return tuple(
        Candidate(
            path,
            _title_with_folder(path) if titles[title] > 1 else title,
            owner,
            ModelFile.read(path).checked(),
        )
        for path, title, owner in listed
    )


def _owner(folder: Path) -> Run | None:
    """The run with these exports; None where `folder` is no run's."""
    if folder.name != EXPORTS or not (folder.parent / RUN_FILE).is_file():
        return None
    try:
        return Run.open(folder.parent)
    except EdgegraftError:  # then its card has to do
        return None


def _title_with_folder(path: Path) -> str:
    """A title for files of the same name: with the name of the run or folder."""
    folder = path.resolve().parent
    return f"{(folder.parent if folder.name == EXPORTS else folder).name}/{path.stem}"


def _refuse_other_photos(run: Run, other: Run) -> None:
    if not _same_held_out(run.split(), other.split()):
        raise EdgegraftError(
            f"expected runs on the same photos and split (those of --add may come on "
            f"top), got {other.folder} with other data than {run.folder}: it may have "
            "trained on the test photos; compare its files alone"
        )


def _same_held_out(first: Split, second: Split) -> bool:
    """Whether both have the same held-out photos, whatever they were trained on."""
    if first.fingerprint == second.fingerprint:
        return True
    held_out = [
        {(row.part, row.sha256, row.photo.label) for row in s.rows if row.part != TRAIN}
        for s in (first, second)
    ]
    trained = {row.sha256 for row in second.rows if row.part == TRAIN}
    same = held_out[0] == held_out[1]
    return same and trained.isdisjoint(sha256 for _, sha256, _ in held_out[0])


def _title(path: Path) -> str:
    variant = path.name.split(".")[0]
    return f"{variant} (rejected)" if rejected(path) else variant


def exported(run: Run) -> tuple[Path, ...]:
    """The run's files in the order of the variants table, rejected ones last."""
    order = list(recipes.VARIANTS)

    def rank(path: Path) -> tuple[bool, int, str]:
        variant = path.name.split(".")[0]
        index = order.index(variant) if variant in order else len(order)
        return rejected(path), index, path.name

    files = tuple(sorted(run.exports.glob("*.tflite"), key=rank))
    if not files and not run.trained:
        raise run.unfinished()
    if not files:
        raise EdgegraftError(
            f"expected exported files in {run.exports}, got none; make them with: "
            f"edgegraft quantize {run.folder}"
        )
    return files


def rejected(path: Path) -> bool:
    return path.name.endswith(".rejected.tflite")
