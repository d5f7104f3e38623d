"""Whether the advice about photos is right, on real photos.

    python tests/benchmarks/advice.py [--photos DIR] [--copies 60] [--seed 5]
        [--only copies|labels|files]

Copies of real photos are planted among them (trashnet and cats_dogs of
$EDGEGRAFT_ASSETS, or any folder with a folder per label), and the whole is audited.

near_copies   recall of each kind of planted copy, named in any way; `augmented` is what
              Keras's ImageDataGenerator writes (turned by up to 40 degrees, shifted and
              zoomed by a fifth, mirrored, edges filled), at 224 pixels and full size.
others        pairs that are named and were not planted; `called_different` of them are
              different by the verdicts in trashnet_pairs.csv of the assets.
excluded      share of the original photos that audit.csv marks; planted copies apart.
cpu_ms        processor time a photo: of the whole audit, of the audit without near
              copies, and of the peer, OpenCV's SIFT alone (as many keypoints of the
              same photos, at the same size); near_per_sift: near copies over that.
label_issues  of wrong labels planted in draws of 60 to 2,000 photos: photos listed, and
              how many of these are wrong (features of EfficientNet-Lite0 at 192).
files         with --only files alone (half an hour on two cores): which file to ship,
              against the truth, and its calibration error (advice_files.py).

Ends in one JSON line. Each figure is one function.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from data.audit import keypoints  # noqa: E402
from data.audit.audit import Audit, audit  # noqa: E402
from data.batches import load  # noqa: E402
from data.photos import Photo, PhotoFolder  # noqa: E402
from data.source import scan  # noqa: E402
from edge.preprocess import InputRecipe  # noqa: E402
from finetune.label_issues import FOLDS, cross_validated, find_issues  # noqa: E402
from tests.bench_room import assets, circumstances  # noqa: E402
from tests.benchmarks import advice_files  # noqa: E402

NEAR = ("near-duplicate", "near-two-labels", "near-leak", "burst", "same-thing")
SETS = ("trashnet", "cats_dogs")
BACKBONE, SIZE = "efficientnet_lite0", 192  # of --backbone auto
DRAWS = {60: 15, 100: 15, 150: 15, 300: 6, 600: 3, 2000: 1}  # photos -> draws
SIFTED = 300  # photos of the peer
WRONG = (0.0, 0.03, 0.1)  # shares of wrong labels
Edit = Callable[[Image.Image, np.random.Generator], Image.Image]


def recoded(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=30)
    return Image.open(out).convert("RGB")


def cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    wide, high = (round(0.8 * side) for side in image.size)
    x = int(rng.integers(0, image.width - wide))
    y = int(rng.integers(0, image.height - high))
    return image.crop((x, y, x + wide, y + high))


def logo(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    image, side = image.copy(), min(image.size) / 4
    x, y = rng.uniform(0, image.width - side), rng.uniform(0, image.height - side)
    ImageDraw.Draw(image).ellipse((x, y, x + side, y + side), fill=(220, 30, 40))
    return image


def text(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    image, line = image.copy(), round(image.height / 12)
    draw = ImageDraw.Draw(image)
    for row in range(2):
        at = (image.width / 20, image.height * rng.uniform(0.05, 0.9))
        draw.text(at, ("SALE 2024", "www.example.org")[row], "white", font_size=line)
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
    "text": text,
    "augmented": augmented(None),
    "augmented_224": augmented(224),
    "augmented_150": augmented(150),
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
    for one, other in report.near_duplicates:
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


def timed(folder: PhotoFolder) -> tuple[Audit, dict[str, float]]:
    """The audit, and the processor time a photo."""
    started = time.process_time()
    report = audit(folder)
    whole = time.process_time() - started
    with patch.object(keypoints, "available", return_value=False):
        started = time.process_time()
        audit(folder)
        without = time.process_time() - started
    ms = 1000 / len(folder.photos)
    cost = {
        "audit": ms * whole,
        "without_near_copies": ms * without,
        "sift": sift(folder),
    }
    return report, {**cost, "near_per_sift": ms * (whole - without) / cost["sift"]}


def sift(folder: PhotoFolder) -> float:
    """Milliseconds a photo of OpenCV's SIFT alone, on `SIFTED` of the photos."""
    import cv2

    step = -(-len(folder.photos) // SIFTED)
    pictures = []
    for photo in folder.photos[::step]:
        with Image.open(photo.path) as image:
            grey = image.convert("L")
            grey.thumbnail((keypoints.SIDE, keypoints.SIDE))
            pictures.append(np.asarray(grey))
    detector = cv2.SIFT_create(  # type: ignore[attr-defined]
        nfeatures=keypoints.KEPT, contrastThreshold=keypoints.CONTRAST
    )
    started = time.process_time()
    for picture in pictures:
        detector.detectAndCompute(picture, None)
    return 1000 * (time.process_time() - started) / len(pictures)


def features_of(photos: Sequence[Photo]) -> Any:
    """Features float32 [N, D] of `BACKBONE` at `SIZE` with ImageNet weights."""
    from backbones import network, registry, weights
    from finetune.model import compute_outputs

    record = registry.get(BACKBONE)
    model = network.assemble(record, SIZE, 2, None, frozen=True)
    origin = weights.find(record, SIZE, "imagenet")
    weights.load(model.get_layer(network.BACKBONE), record, origin)
    with load(photos, InputRecipe(SIZE, SIZE), with_facts=False) as pixels:
        rows = [pixels.rows[photo.path] for photo in photos]
        return compute_outputs(network.feature_model(model), pixels.array, rows)


def label_issues(folder: PhotoFolder) -> dict[str, dict[str, int]]:
    """Of planted wrong labels in draws of these photos: how many photos are listed, and
    how many of those are planted. Labels that were wrong before count as right."""
    features = features_of(folder.photos)
    truth = np.array([folder.labels.index(photo.label) for photo in folder.photos])
    found = {}
    for count, draws in DRAWS.items():
        if count > len(truth):
            continue
        for share in WRONG:
            rng = np.random.default_rng(count)
            tally = np.zeros(4, int)
            for _ in range(draws):
                rows = rng.choice(len(truth), count, False)
                given, wrong = truth[rows].copy(), rng.random(count) < share
                steps = rng.integers(1, len(folder.labels), int(wrong.sum()))
                given[wrong] = (given[wrong] + steps) % len(folder.labels)
                if np.bincount(given, minlength=len(folder.labels)).min() < FOLDS:
                    continue  # no such folds: the command does not check either
                issues = find_issues(cross_validated(features[rows], given), given)
                listed = issues.flagged
                tally += (
                    listed.sum(),
                    (listed & wrong).sum(),
                    wrong.sum(),
                    issues.enough,
                )
            names = ("listed", "right", "planted", "draws_that_can_tell")
            found[f"{count} photos, {share:.0%} wrong, {draws} draws"] = dict(
                zip(names, map(int, tally), strict=True)
            )
    return found


def of_copies(source: Path, verdicts: Path, copies: int, seed: int) -> dict[str, Any]:
    """Every figure of the copies planted in one folder of real photos."""
    with tempfile.TemporaryDirectory(prefix="edgegraft-bench-") as scratch:
        planted = plant(source, Path(scratch) / "photos", copies, seed)
        report, cost = timed(scan(Path(scratch) / "photos"))
        return {
            "photos": len(report.folder.photos),
            "cpu_ms": cost,
            "near_copies": near_copies(report, planted),
            "others": others(report, planted, verdicts),
            "excluded": excluded(report, planted),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, metavar="DIR")
    parser.add_argument("--copies", type=int, default=60, metavar="N")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--only", choices=("copies", "labels", "files"))
    args = parser.parse_args()
    if args.only == "files":
        return advice_files.run(photos=args.photos)
    folder = assets("advice")
    if folder is None:
        return 0
    verdicts = folder / "photos" / "trashnet_pairs.csv"
    real = {name: folder / "photos" / name / "train" for name in SETS}
    sets = real if args.photos is None else {args.photos.name: args.photos}
    record: dict[str, Any] = {"benchmark": "advice", "photos": "real"}
    for name, source in sets.items():
        record[name] = {}
        if args.only != "labels":
            record[name] |= of_copies(source, verdicts, args.copies, args.seed)
        if args.only != "copies" and os.environ.get("KERAS_HOME"):
            record[name]["label_issues"] = label_issues(scan(source))
    print(json.dumps({**record, **circumstances()}, default=float))
    return 0


if __name__ == "__main__":
    sys.exit(main())
