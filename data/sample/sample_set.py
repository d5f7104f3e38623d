"""The built-in sample set: drawn cats and dogs, as files that look like photos.

`write_sample` draws a folder of labelled pictures out of a seed. Each picture depends
only on (seed, group, number), so a larger set begins with the smaller one. One seed
gives the same bytes with the same Pillow; another Pillow may encode the same pixels
differently. What is measured on drawn pictures says nothing about real photos.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.sample.picture_files import Job, write_pictures
from edge.errors import EdgegraftError
from edge.files import new_folder, sha256_of_file

VERSION = 1  # of the drawings: incremented by every change that moves a pixel
MARKER = "sample.json"
MAX_COUNT = 100_000  # pictures per group; beyond it a typing error is likelier

Settings = dict[str, Any]  # version, seed, count, unknown
# subject -> its stream of random numbers; that of its easy picture is EASY higher
STREAMS = {"cat": 0, "dog": 1, "unknown": 2}
EASY = 100
LABELS = ("cat", "dog")


@dataclass(frozen=True)
class SampleSet:
    """The folders: `photos` has one folder per label, `unknown` other things."""

    root: Path
    photos: Path
    unknown: Path

    @property
    def tests(self) -> list[Path]:
        """One easy picture of each label, outside `photos`."""
        return [self.root / f"test_{name}.jpg" for name in LABELS]


def write_sample(
    folder: str | os.PathLike[str],
    *,
    count: int = 120,
    seed: int = 0,
    unknown: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SampleSet:
    """Draw `count` cats and as many dogs into `folder`, or find the same set there.

    unknown: pictures of other things (default: a third of count). progress is called
    with (done, total). The folder appears at once and complete, or not at all.

    EdgegraftError for numbers out of range, a folder with other content, and a disk
    that cannot be written.
    """
    unknown = count // 3 if unknown is None else unknown
    for name, value, minimum, maximum in (
        ("count", count, 1, MAX_COUNT),
        ("unknown", unknown, 0, MAX_COUNT),
        ("seed", seed, 0, 2**63 - 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int):
            raise EdgegraftError(
                f"sample: expected {name} as an integer, got {value!r}"
            )
        if not minimum <= value <= maximum:
            raise EdgegraftError(
                f"sample: expected {name} from {minimum} to {maximum}, got {value}"
            )
    root = Path(folder).absolute()
    settings = {"version": VERSION, "seed": seed, "count": count, "unknown": unknown}
    sample = SampleSet(root, root / "photos", root / "unknown")
    try:
        if not _exists(root, settings):
            with new_folder(root) as stage:
                _draw_into(stage, settings, progress)
    except OSError as error:
        reason = error.strerror or str(error)
        raise EdgegraftError(
            f"could not write the sample set to {root}: {reason}; "
            "choose a folder on a disk with room that you may write to"
        ) from error
    return sample


def _jobs(settings: Settings) -> Iterator[Job]:
    """Every picture of the set."""
    for subject, stream in STREAMS.items():
        unknown = subject == "unknown"
        folder = subject if unknown else f"photos/{subject}"
        for index in range(settings["unknown" if unknown else "count"]):
            yield f"{folder}/IMG_{index + 1:04d}", subject, stream, index
    for subject in LABELS:
        yield f"test_{subject}", subject, EASY + STREAMS[subject], 0


def _draw_into(
    stage: Path, settings: Settings, progress: Callable[[int, int], None] | None
) -> None:
    for folder in ("unknown", *(f"photos/{name}" for name in LABELS)):
        (stage / folder).mkdir(parents=True, exist_ok=True)
    jobs = list(_jobs(settings))
    easy = frozenset(EASY + stream for stream in STREAMS.values())
    digests: dict[str, str] = {}
    drawing = write_pictures(stage, jobs, seed=settings["seed"], plain=easy)
    with contextlib.closing(drawing):  # ends its processes, whatever happens here
        for name, digest in drawing:
            digests[name] = digest
            if progress is not None:
                progress(len(digests), len(jobs))
    record = {**settings, "drawn": True, "sha256": dict(sorted(digests.items()))}
    (stage / MARKER).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _exists(root: Path, settings: Settings) -> bool:
    """Whether the complete set exists; EdgegraftError when something else does."""
    if not root.exists():
        return False
    if not root.is_dir():
        raise EdgegraftError(
            f"sample: expected a new or empty folder, got a file: {root}; "
            "give another path"
        )
    if not any(root.iterdir()):
        return False
    try:
        record = json.loads((root / MARKER).read_text(encoding="utf-8"))
        digests: dict[str, str] = record["sha256"]
        existing = {name: record[name] for name in settings}
    except (OSError, ValueError, KeyError, TypeError):
        raise EdgegraftError(
            f"sample: expected a new or empty folder, got other files in {root}; "
            "give another path"
        ) from None
    if existing != settings:
        differs = ", ".join(
            f"{name} {old}" for name, old in existing.items() if old != settings[name]
        )
        raise EdgegraftError(
            f"sample: {root} holds another sample set ({differs}); "
            "give another path, or delete it"
        )
    files = {
        p.relative_to(root).as_posix()
        for p in root.rglob("*")
        if p.is_file() and not p.name.startswith(".")
    }
    changed = sorted(files ^ {*digests, MARKER})
    changed += [
        name
        for name in sorted(files & set(digests))
        if sha256_of_file(root / name) != digests[name]
    ]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise EdgegraftError(
            f"sample: the set in {root} was changed ({changed[0]}{more}); give another "
            "path, or delete it"
        )
    return True
