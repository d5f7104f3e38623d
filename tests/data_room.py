"""Photos for the tests of `data`: listed only, or drawn as noise."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from data.photos import Photo
from data.split import Split

FOLDER = Path("photos")


def digest(content: object) -> str:
    return hashlib.sha256(ascii(content).encode()).hexdigest()


def photos(label: str, count: int, part: str | None = None) -> list[Photo]:
    place = FOLDER / (part or "") / label
    return [Photo(place / f"{i:04}.jpg", label, part) for i in range(count)]


def all_different(some: list[Photo]) -> dict[Path, str]:
    return {photo.path: digest(photo.path) for photo in some}


def parts_of(split: Split) -> dict[Path, str]:
    return {row.photo.path: row.part for row in split.rows}


def draw(path: Path, seed: int, size: tuple[int, int] = (80, 60)) -> Photo:
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path)
    return Photo(path, path.parent.name)


def draw_twenty(folder: Path) -> list[Photo]:
    """JPEG, PNG and WebP in turn; the folder's name is the label."""
    endings = ("jpg", "png", "webp")
    return [draw(folder / f"{i:02}.{endings[i % 3]}", i) for i in range(20)]
