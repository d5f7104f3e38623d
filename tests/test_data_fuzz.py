"""Hundreds of damaged files: each is decoded or named, nothing crashes or hangs."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
FILES = 224  # 8 of each way and format; `make fuzz` has ten thousand
FORMATS = {
    ".jpg": {"format": "JPEG", "quality": 85},
    ".jpeg": {"format": "JPEG", "progressive": True},
    ".png": {"format": "PNG"},
    ".webp": {"format": "WEBP"},
    ".gif": {"format": "GIF"},
    ".tif": {"format": "TIFF", "compression": "tiff_lzw"},
    ".bmp": {"format": "BMP"},
}
HEADER = 64  # bytes that a spliced header takes over


def photos(rng: np.random.Generator) -> dict[str, bytes]:
    """One small whole photo in each format."""
    small = rng.integers(0, 256, (6, 8, 3), np.uint8)
    image = Image.fromarray(small).resize((64, 48), Image.Resampling.BICUBIC)
    out = {}
    for suffix, options in FORMATS.items():
        file = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = int(rng.integers(1, 9))
        extra = {"exif": exif} if options["format"] in ("JPEG", "WEBP") else {}
        image.save(file, **options, **extra)
        out[suffix] = file.getvalue()
    return out


def damaged(whole: bytes, other: bytes, way: int, rng: np.random.Generator) -> bytes:
    if way == 0:  # cut short
        return whole[: int(rng.integers(0, len(whole)))]
    if way == 1:  # some bytes flipped, anywhere
        data = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(0, len(data), int(rng.integers(1, 20)))
        data[places] = rng.integers(0, 256, len(places))
        return data.tobytes()
    if way == 2:  # bytes flipped in the header, where sizes and tables are
        data = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(0, min(len(data), 200), int(rng.integers(1, 6)))
        data[places] = rng.integers(0, 256, len(places))
        return data.tobytes()
    return other[:HEADER] + whole[HEADER:]  # the header of another photo


def test_each_damaged_file_is_decoded_or_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    whole = [photos(rng) for _ in range(4)]
    suffixes = list(FORMATS)
    for number in range(FILES):
        suffix = suffixes[number % len(suffixes)]
        photo = whole[number % 4][suffix]
        other = whole[(number + 1) % 4][suffixes[int(rng.integers(len(suffixes)))]]
        path = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number:04}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(damaged(photo, other, number // len(suffixes) % 4, rng))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "edgegraft",
            "data",
            "audit",
            str(tmp_path / "photos"),
            "--json",
        ],
        cwd=ROOT,
        env={**os.environ, "EDGEGRAFT_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr  # libtiff says there what it trips over
    record = json.loads(done.stdout)
    unreadable = [f for f in record["findings"] if f["kind"] == "unreadable"]
    assert record["photos"] == FILES
    assert record["usable"] + len(unreadable) == FILES
    assert FILES / 4 < len(unreadable) < FILES * 0.95
    assert all(f["reason"] and "\n" not in f["reason"] for f in unreadable)
