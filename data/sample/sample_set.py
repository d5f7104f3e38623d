"""The built-in sample set: drawn cats and dogs, as files that look like photos.

`write_sample` draws a folder of labelled pictures out of a seed. Each picture depends
only on (seed, group, number), so a larger set begins with the smaller one. One seed
gives the same bytes with the same Pillow; another Pillow may encode the same pixels
differently. What is measured on drawn pictures says nothing about real photos.

`write_faulty` draws the set with planted faults: ground truth for an audit. Each photo
has one fault at most. `faults.json` beside the photos lists them:
{kind: [[path, ...], ...]}, where copies also name their original.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from data.sample.picture import Job, write_pictures
from edge.errors import EdgegraftError
from edge.files import new_folder, sha256_of_file
from edge.preprocess import open_photo
from edge.text import printable

VERSION = 1  # of the drawings: incremented by every change that moves a pixel
MARKER = "sample.json"
MAX_COUNT = 100_000  # pictures per group; beyond it a typing error is likelier

Settings = dict[str, Any]  # version, seed, count, unknown
# subject -> its stream of random numbers; that of its easy picture is EASY higher
STREAMS = {"cat": 0, "dog": 1, "unknown": 2}
EASY = 100
LABELS = ("cat", "dog")

FAULTS_FILE = "faults.json"
# kind -> share of the drawn photos; every kind is planted once at least
FAULT_SHARES = {
    "damaged": 0.01,
    "wrong-ending": 0.01,
    "duplicate": 0.02,
    "near-duplicate": 0.10,
    "wrong-label": 0.05,
    "blurred": 0.01,
    "dark": 0.01,
    "bright": 0.01,
    "blank": 0.005,
}
COPIED = ("duplicate", "near-duplicate")
MAX_CROP = 0.05  # of a side, at most, that a near-duplicate loses
_T = Image.Transpose
TURNS = {"turned 90": _T.ROTATE_90, "turned 180": _T.ROTATE_180}
NEAR_COPIES = ("re-encoded", "resized", "cropped", "mirrored", *TURNS)


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


@dataclass(frozen=True)
class FaultySet:
    """`photos` holds a folder per label; `faults` is the content of faults.json,
    with paths relative to `photos`."""

    photos: Path
    faults: dict[str, list[list[str]]]


def write_faulty(
    folder: str | os.PathLike[str],
    *,
    count: int = 120,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> FaultySet:
    """Draw `count` pictures of each label into the new `folder`, and spoil some.

    The folder appears whole or not at all. EdgegraftError when it is there already,
    `count` is under 20, or the disk cannot be written.
    """
    root = Path(folder).absolute()
    if count < 20:
        raise EdgegraftError(f"faults: expected a count of 20 or more, got {count}")
    if os.path.lexists(root):
        raise EdgegraftError(
            f"{printable(root)}: expected a new folder for photos with faults, got one "
            "that is there already; give another path"
        )
    try:
        with new_folder(root) as stage:
            sample = write_sample(
                stage / "set", count=count, seed=seed, unknown=0, progress=progress
            )
            sample.photos.rename(stage / "photos")
            shutil.rmtree(sample.root)
            faults = plant_faults(stage / "photos", seed=seed)
            text = json.dumps({"drawn": True, "seed": seed, "faults": faults}, indent=1)
            (stage / FAULTS_FILE).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise EdgegraftError(
            f"{printable(root)}: expected a place to draw photos into, got: "
            f"{error.strerror or error}"
        ) from None
    return FaultySet(root / "photos", faults)


def plant_faults(photos: Path, *, seed: int = 0) -> dict[str, list[list[str]]]:
    """Spoil some of the photos in `photos` (a folder per label); returns which.

    Only for generated folders: photos are changed and moved.
    """
    rng = np.random.default_rng([seed, 6])
    paths = sorted(path for path in photos.glob("*/*") if path.is_file())
    labels = sorted({path.parent.name for path in paths})
    shuffled = iter([paths[k] for k in rng.permutation(len(paths))])
    faults: dict[str, list[list[str]]] = {}
    for kind, share in FAULT_SHARES.items():
        planted = faults.setdefault(kind, [])
        for index in range(max(1, round(share * len(paths)))):
            record = _spoil(kind, next(shuffled), index, labels, rng)
            planted.append(
                [p.relative_to(photos).as_posix() if isinstance(p, Path) else p
                 for p in record]
            )  # fmt: skip
    return faults


def _spoil(
    kind: str, path: Path, index: int, labels: list[str], rng: np.random.Generator
) -> Iterator[Path | str]:
    """Plant one fault: the photo that has it, then its original and other details."""
    if kind == "damaged":
        path.write_bytes(_damaged(path.read_bytes(), index, rng))
        yield path
    elif kind == "wrong-ending":
        suffix = ".png" if path.suffix == ".jpg" else ".jpg"
        yield path.rename(path.with_suffix(suffix))
    elif kind == "wrong-label":
        others = [label for label in labels if label != path.parent.name]
        other = others[rng.integers(len(others))]
        moved = path.parents[1] / other / f"{path.stem}_from_{path.parent.name}"
        yield path.rename(moved.with_suffix(path.suffix))
        yield path.parent.name
    elif kind in COPIED:
        how = (
            "the same bytes"
            if kind == "duplicate"
            else NEAR_COPIES[index % len(NEAR_COPIES)]
        )
        copy = path.with_name(f"COPY_{rng.integers(10**6):06}{index}.jpg")
        if kind == "duplicate":
            copy = copy.with_suffix(path.suffix)
            shutil.copyfile(path, copy)
        else:
            near = _near_copy(open_photo(path), how, rng)
            near.save(copy, "JPEG", quality=int(rng.integers(50, 90)))
        yield from (copy, path, how)
    else:
        bad = _badly_taken(kind, open_photo(path), rng)
        jpeg = path.with_suffix(".jpg")
        path.unlink()
        bad.save(jpeg, "JPEG", quality=88)
        yield jpeg


def _damaged(data: bytes, index: int, rng: np.random.Generator) -> bytes:
    variants = (
        lambda: data[: int(len(data) * rng.uniform(0.1, 0.95))],  # cut short
        lambda: b"",
        lambda: b"\x00" * 64 + data[64:],  # no header
        lambda: b"<!doctype html><title>404 Not Found</title>",
    )
    return variants[index % len(variants)]()


def _near_copy(image: Image.Image, how: str, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    if how == "resized":
        scale = float(rng.uniform(0.4, 0.8))
        return image.resize((round(width * scale), round(height * scale)))
    if how == "cropped":
        left, top, right, low = rng.uniform(0, MAX_CROP, 4)
        box = (width * left, height * top, width * (1 - right), height * (1 - low))
        return image.crop(tuple(round(side) for side in box))
    if how == "mirrored":
        return image.transpose(_T.FLIP_LEFT_RIGHT)
    return image.transpose(TURNS[how]) if how in TURNS else image


def _badly_taken(
    kind: str, image: Image.Image, rng: np.random.Generator
) -> Image.Image:
    if kind == "blurred":
        radius = max(image.size) * float(rng.uniform(0.015, 0.03))
        return image.filter(ImageFilter.GaussianBlur(radius))
    if kind == "dark":
        return ImageEnhance.Brightness(image).enhance(float(rng.uniform(0.05, 0.12)))
    if kind == "bright":
        white = Image.new("RGB", image.size, (255, 255, 255))
        return Image.blend(image, white, float(rng.uniform(0.9, 0.95)))
    return Image.new("RGB", image.size, tuple(int(c) for c in rng.integers(0, 256, 3)))
