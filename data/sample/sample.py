"""The built-in sample set: drawn animals, as files that look like photos.

`write_sample` draws a folder of labelled pictures out of a seed. Each picture depends
only on (seed, group, number), so a larger set begins with the smaller one. One seed
gives the same bytes with the same Pillow; another Pillow may encode the same pixels
differently. With `poses` above 1 the same animal is drawn several times, and
photos.csv beside the folder says which pictures belong together.

This module does not know how a picture is drawn, nor what the set is used for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from data.sample.snapshot import Job, write_pictures
from data.sample.species import SPECIES
from edge.errors import EdgegraftError
from edge.preprocess import open_photo

VERSION = 1  # of the drawings: a new number for every change that moves a pixel
MARKER = "sample.json"
MOST = 100_000  # pictures per group; beyond it a typing error is likelier

Facts = dict[str, Any]  # what a set was drawn from
LIST = "photos.csv"
# subject -> number of its stream of random numbers; its easy picture's is higher
STREAMS = {
    "cat": 0, "dog": 1, "unknown": 2, "rabbit": 3, "bear": 4, "bird": 5, "turtle": 6,
}  # fmt: skip
EASY = 100
ANIMALS = tuple(SPECIES)
CLASSES = ("cat", "dog")


@dataclass(frozen=True)
class SampleSet:
    """Where things are: `photos` holds one folder per label, `unknown` neither."""

    root: Path
    photos: Path
    unknown: Path
    classes: tuple[str, ...] = CLASSES
    grouped: bool = False

    @property
    def source(self) -> Path:
        """What to train on: the folder, or the list that names the groups."""
        return self.root / LIST if self.grouped else self.photos

    @property
    def tests(self) -> list[Path]:
        """One easy picture of each class, outside `photos`."""
        return [self.root / f"test_{name}.jpg" for name in self.classes]


def write_sample(
    folder: str | os.PathLike[str],
    *,
    count: int = 120,
    seed: int = 0,
    unknown: int | None = None,
    classes: Sequence[str] = CLASSES,
    poses: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> SampleSet:
    """Draw `count` pictures of each class into `folder`, or find the same set there.

    unknown: pictures of other things (default: a third of count). classes: two or more
    of ANIMALS. poses: pictures of the same animal. progress is called with
    (done, total). The folder appears at once and complete, or not at all.

    Raises EdgegraftError for numbers out of range, a folder that holds something else,
    and a disk that cannot be written.
    """
    unknown = count // 3 if unknown is None else unknown
    for name, value, least in (
        ("count", count, 1),
        ("unknown", unknown, 0),
        ("seed", seed, 0),
        ("poses", poses, 1),
    ):
        most = MOST if name != "seed" else 2**63 - 1
        if isinstance(value, bool) or not isinstance(value, int):
            raise EdgegraftError(
                f"sample: expected {name} as an integer, got {value!r}"
            )
        if not least <= value <= most:
            raise EdgegraftError(
                f"sample: expected {name} from {least} to {most}, got {value}"
            )
    for name in classes:
        if name not in ANIMALS:
            raise EdgegraftError(
                f"sample: expected classes of {', '.join(ANIMALS)}, got {name!r:.40}"
            )
    if len(set(classes)) != len(classes) or len(classes) < 2:
        raise EdgegraftError(
            f"sample: expected two classes or more, each once, got {','.join(classes)}"
        )
    root = Path(folder).absolute()
    facts: Facts = {
        "version": VERSION,
        "seed": seed,
        "count": count,
        "unknown": unknown,
        "classes": sorted(classes),
        "poses": poses,
    }
    found = SampleSet(
        root, root / "photos", root / "unknown", tuple(sorted(classes)), poses > 1
    )
    try:
        if _already_there(root, facts):
            return found
        root.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
        try:
            stage = temporary / "set"
            _draw_into(stage, facts, progress)
            if root.exists():
                root.rmdir()  # empty, as was checked
            os.replace(stage, root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise EdgegraftError(
            f"could not write the sample set to {root}: {reason}; "
            "choose a folder on a disk with room that you may write to"
        ) from error
    return found


def contact_sheet(
    paths: Sequence[str | os.PathLike[str]], columns: int = 8, side: int = 160
) -> Image.Image:
    """The photos, upright and cut to squares of `side` pixels, in rows: RGB."""
    if not paths or columns < 1:
        raise EdgegraftError("contact sheet: expected photos and at least one column")
    gap = max(1, side // 40)
    across = min(columns, len(paths))
    rows = -(-len(paths) // across)
    step = side + gap
    sheet = Image.new("RGB", (across * step + gap, rows * step + gap), "white")
    for k, path in enumerate(paths):
        image = open_photo(os.fspath(path))
        edge = min(image.size)
        x, y = (image.width - edge) // 2, (image.height - edge) // 2
        tile = image.resize((side, side), 1, box=(x, y, x + edge, y + edge))
        sheet.paste(tile, (gap + k % across * step, gap + k // across * step))
    return sheet


def _jobs(facts: Facts) -> Iterator[Job]:
    """Every picture of the set; cats and dogs first, as they always were."""
    for subject, stream in STREAMS.items():
        if subject == "unknown":
            for index in range(facts["unknown"]):
                yield f"unknown/IMG_{index + 1:04d}", subject, stream, index, None
        elif subject in facts["classes"]:
            for index in range(facts["count"]):
                animal = index // facts["poses"] if facts["poses"] > 1 else None
                name = f"photos/{subject}/IMG_{index + 1:04d}"
                yield name, subject, stream, index, animal
    for subject in facts["classes"]:
        yield f"test_{subject}", subject, EASY + STREAMS[subject], 0, None


def _list(facts: Facts, names: Iterable[str]) -> str:
    """photos.csv: path, label and group of every picture in photos."""
    lines = ["path,label,group"]
    for name in sorted(names):
        top, _, rest = name.partition("/")
        if top == "photos":
            label, _, file = rest.partition("/")
            number = int(Path(file).stem.removeprefix("IMG_")) - 1
            lines.append(f"{name},{label},{label}-{number // facts['poses']}")
    return "\n".join(lines) + "\n"


def _draw_into(
    stage: Path,
    facts: Facts,
    progress: Callable[[int, int], None] | None,
) -> None:
    for place in ("unknown", *(f"photos/{name}" for name in facts["classes"])):
        (stage / place).mkdir(parents=True, exist_ok=True)
    jobs = list(_jobs(facts))
    easy = frozenset(EASY + stream for stream in STREAMS.values())
    digests: dict[str, str] = {}
    drawing = write_pictures(stage, jobs, seed=facts["seed"], plain=easy)
    with contextlib.closing(drawing):  # ends its processes, whatever happens here
        for name, digest in drawing:
            digests[name] = digest
            if progress is not None:
                progress(len(digests), len(jobs))
    if facts["poses"] > 1:
        text = _list(facts, digests).encode()
        (stage / LIST).write_bytes(text)
        digests[LIST] = hashlib.sha256(text).hexdigest()
    record = {**facts, "drawn": True, "sha256": dict(sorted(digests.items()))}
    (stage / MARKER).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _already_there(root: Path, facts: Facts) -> bool:
    """Whether the set is there, whole; EdgegraftError when something else is."""
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
        record = {"classes": list(CLASSES), "poses": 1, **record}  # older sets
        told = {name: record[name] for name in facts}
    except (OSError, ValueError, KeyError, TypeError):
        raise EdgegraftError(
            f"sample: expected a new or empty folder, got other files in {root}; "
            "give another path"
        ) from None
    if told != facts:
        differs = ", ".join(f"{k} {told[k]}" for k in facts if told[k] != facts[k])
        raise EdgegraftError(
            f"sample: {root} holds another sample set ({differs}); "
            "give another path, or delete it"
        )
    there = {
        p.relative_to(root).as_posix()
        for p in root.rglob("*")
        if p.is_file() and not p.name.startswith(".")
    }
    odd = sorted(there ^ {*digests, MARKER})
    odd += [
        name
        for name in sorted(there & set(digests))
        if hashlib.sha256((root / name).read_bytes()).hexdigest() != digests[name]
    ]
    if odd:
        raise EdgegraftError(
            f"sample: the set in {root} was changed ({odd[0]}"
            + (f" and {len(odd) - 1} more" if len(odd) > 1 else "")
            + "); give another path, or delete it"
        )
    return True
