"""A drawn set with planted faults and the list of them: ground truth for an audit.

`write_faulty` draws the sample set and spoils some of its photos; each photo has one
fault at most. `faults.json` beside the photos lists them: {kind: [[path, ...], ...]},
where copies also name their original.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from data.sample.sample_set import write_sample
from edge.errors import EdgegraftError
from edge.files import new_folder
from edge.preprocess import open_photo
from edge.text import printable

TRUTH = "faults.json"
# kind -> share of the drawn photos; every kind is planted once at least
SHARES = {
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
COPIES = ("duplicate", "near-duplicate")
CROP = 0.05  # of a side, at most, that a near-duplicate loses
_T = Image.Transpose
TURNS = {"turned 90": _T.ROTATE_90, "turned 180": _T.ROTATE_180}
NEAR = ("re-encoded", "resized", "cropped", "mirrored", *TURNS)


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
            faults = plant(stage / "photos", seed=seed)
            text = json.dumps({"drawn": True, "seed": seed, "faults": faults}, indent=1)
            (stage / TRUTH).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise EdgegraftError(
            f"{printable(root)}: expected a place to draw photos into, got: "
            f"{error.strerror or error}"
        ) from None
    return FaultySet(root / "photos", faults)


def plant(photos: Path, *, seed: int = 0) -> dict[str, list[list[str]]]:
    """Spoil some of the photos in `photos` (a folder per label); returns which.

    Only for generated folders: photos are changed and moved.
    """
    rng = np.random.default_rng([seed, 6])
    paths = sorted(path for path in photos.glob("*/*") if path.is_file())
    labels = sorted({path.parent.name for path in paths})
    shuffled = iter([paths[k] for k in rng.permutation(len(paths))])
    faults: dict[str, list[list[str]]] = {}
    for kind, share in SHARES.items():
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
    elif kind in COPIES:
        how = "the same bytes" if kind == "duplicate" else NEAR[index % len(NEAR)]
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
        left, top, right, low = rng.uniform(0, CROP, 4)
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
