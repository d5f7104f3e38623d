"""Whether the advice about photos is right, on real photos.

    python tests/benchmarks/advice.py [--photos DIR] [--copies 60] [--seed 5]

Copies of real photos are planted among them (trashnet of $EDGEGRAFT_ASSETS, or any
folder with a folder per label), and the audit is asked about the whole.

near_copies   recall of each kind of planted copy, named in any way; `augmented` is what
              Keras's ImageDataGenerator writes (turned by up to 40 degrees, shifted and
              zoomed by a fifth, mirrored, edges filled), at 224 pixels and full size.
others        pairs that are named and were not planted; `called_different` of them are
              different by the verdicts in trashnet_pairs.csv of the assets.
excluded      share of the original photos that audit.csv marks; planted copies apart.

Ends in one JSON line. Each figure is one function that takes the audit.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from data.audit.audit import Audit, audit  # noqa: E402
from data.source import scan  # noqa: E402

NEAR = ("near-duplicate", "near-two-labels", "near-leak", "burst", "same-thing")
Edit = Callable[[Image.Image, np.random.Generator], Image.Image]


def recoded(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=30)
    return Image.open(out).convert("RGB")


def cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    wide, high = (round(0.8 * side) for side in image.size)
    x, y = rng.integers(0, image.width - wide), rng.integers(0, image.height - high)
    return image.crop((x, y, x + wide, y + high))


def logo(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    image, side = image.copy(), min(image.size) / 4
    x, y = rng.uniform(0, image.width - side), rng.uniform(0, image.height - side)
    ImageDraw.Draw(image).ellipse((x, y, x + side, y + side), fill=(220, 30, 40))
    return image


def augmented(size: int | None) -> Edit:
    def edit(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        from tf_keras.preprocessing.image import ImageDataGenerator

        writer = ImageDataGenerator(
            rotation_range=40,
            width_shift_range=0.2,
            height_shift_range=0.2,
            shear_range=0.2,
            zoom_range=0.2,
            horizontal_flip=True,
            fill_mode="nearest",
        )
        if size is not None:
            image = image.resize((size, size), Image.Resampling.NEAREST)
        pixels = np.asarray(image, np.float32)
        seed = int(rng.integers(1 << 31))
        moved = writer.random_transform(pixels, seed=seed)
        return Image.fromarray(moved.clip(0, 255).astype(np.uint8))

    return edit


EDITS: dict[str, Edit] = {
    "recoded": recoded,
    "resized": lambda image, _: image.resize((image.width // 2, image.height // 2)),
    "cropped": cropped,
    "mirrored": lambda image, _: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned_90": lambda image, _: image.transpose(Image.Transpose.ROTATE_90),
    "turned_180": lambda image, _: image.transpose(Image.Transpose.ROTATE_180),
    "brightened": lambda image, _: ImageEnhance.Brightness(image).enhance(1.2),
    "logo": logo,
    "augmented": augmented(None),
    "augmented_224": augmented(224),
}

Planted = dict[Path, tuple[str, Path]]  # copy -> edit, original


def plant(source: Path, to: Path, copies: int, seed: int) -> Planted:
    """Copy `source` to `to` and put `copies` copies of each kind beside originals."""
    shutil.copytree(source, to)
    originals = sorted(photo.path for photo in scan(to).photos)
    rng = np.random.default_rng(seed)
    planted: Planted = {}
    for name, edit in EDITS.items():
        count = min(copies, len(originals))
        for row in np.sort(rng.choice(len(originals), count, False)):
            original = originals[row]
            path = original.with_name(f"{original.stem}-{name}.jpg")
            with Image.open(original) as image:
                edit(image.convert("RGB"), rng).save(path, quality=90)
            planted[path] = name, original
    return planted


def families(planted: Planted) -> dict[Path, Path]:
    """Each planted copy with its original; an original stands for itself."""
    return {path: original for path, (_, original) in planted.items()}


def near_copies(report: Audit, planted: Planted) -> dict[str, float]:
    """Recall: a copy is named with its original, or with another copy of that."""
    family = families(planted)
    linked: set[Path] = set()
    for one, other in report.alike:
        if family.get(one, one) == family.get(other, other):
            linked |= {one, other}
    hits: dict[str, list[bool]] = defaultdict(list)
    for path, (name, _) in planted.items():
        hits[name].append(path in linked)
    return {name: float(np.mean(found)) for name, found in hits.items()}


def others(report: Audit, planted: Planted, verdicts: Path) -> dict[str, int]:
    """Named pairs that were not planted, and how many the eye calls different."""
    family, root = families(planted), report.folder.root
    seen: dict[frozenset[str], str] = {}
    if verdicts.is_file():
        with open(verdicts, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                names = (Path(row["a"]).name, Path(row["b"]).name)
                seen[frozenset(names)] = row["verdict"]
    pairs = set()
    for finding in report.findings:
        if finding.kind in NEAR:
            ends = [family.get(p, p) for p in (finding.path, *finding.others)]
            pairs.add(frozenset(p.relative_to(root).name for p in ends))
    pairs = {pair for pair in pairs if len(pair) > 1}
    different = sum(seen.get(pair) == "different" for pair in pairs)
    return {"pairs": len(pairs), "called_different": different}


def excluded(report: Audit, planted: Planted) -> dict[str, float]:
    """Share that audit.csv marks, of originals and of planted copies."""
    mine = {photo.path for photo in report.folder.photos}
    originals, copies = mine - planted.keys(), planted.keys() & mine
    return {
        "originals": len(report.excluded & originals) / max(1, len(originals)),
        "copies": len(report.excluded & copies) / max(1, len(copies)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, metavar="DIR")
    parser.add_argument("--copies", type=int, default=60, metavar="N")
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    assets = Path(os.environ.get("EDGEGRAFT_ASSETS", "")) / "photos"
    source = args.photos or assets / "trashnet" / "train"
    if not source.is_dir():
        print("skipped: no real photos; set EDGEGRAFT_ASSETS or give --photos DIR")
        return 0
    with tempfile.TemporaryDirectory(prefix="edgegraft-bench-") as scratch:
        planted = plant(source, Path(scratch) / "photos", args.copies, args.seed)
        started = time.process_time()
        report = audit(scan(Path(scratch) / "photos"))
        seconds = time.process_time() - started
        found: dict[str, Any] = {
            "benchmark": "advice",
            "photos": "real",
            "count": len(report.folder.photos),
            "cpu_ms_per_photo": 1000 * seconds / len(report.folder.photos),
            "near_copies": near_copies(report, planted),
            "others": others(report, planted, assets / "trashnet_pairs.csv"),
            "excluded": excluded(report, planted),
        }
    print(json.dumps(found, default=float))
    return 0


if __name__ == "__main__":
    sys.exit(main())
