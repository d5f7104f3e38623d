"""The photo room measured: audit, growth, batches, and audits against a known truth.

    python tests/benchmarks/data.py [--only speed growth batches faults]
        [--cleanvision PYTHON] [--faulty DIR] [--most 100000] [--report]

speed    `data audit` of 1,000 photos of 500 x 375 pixels in a fresh process, nothing
         remembered; then again, remembered. With --cleanvision, the Python of an
         environment that has it, CleanVision on the same photos for what both check.
growth   `data audit` of 1,000, 10,000 and 100,000 thumbnails (64 pixels), each in a
         fresh process: seconds and peak memory.
batches  the first epoch through `data.batches` against Keras's
         `image_dataset_from_directory` at the same size, and later epochs.
faults   recall and precision on a drawn set with planted faults (2,000 photos; drawing
         takes minutes, --faulty reuses a folder of `data sample --faults`).

Photos are smooth random pictures with fine grain, so that decoding is as much work as
a real photo's. Ends in one JSON line; exits 1 where a goal is missed (with --report
only says so).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from data.batches import load  # noqa: E402
from data.faults import write_faulty  # noqa: E402
from data.folder import scan  # noqa: E402
from edge.preprocess import InputRecipe  # noqa: E402

PHOTOS_PER_SECOND = 350  # goal of the audit, on 2 cores, at 500 pixels
LATER_EPOCHS = 5  # times as fast as decoding again
NEAR_RECALL, NEAR_PRECISION = 0.95, 0.98
SIZE, BATCH = 160, 32
LEAST_DRAWN = 900  # of each label

CLEANVISION = """
import sys, time, json
from cleanvision import Imagelab
kinds = ["dark", "light", "odd_aspect_ratio", "odd_size", "low_information",
         "exact_duplicates", "near_duplicates", "blurry", "grayscale"]
if __name__ == "__main__":
    started = time.perf_counter()
    lab = Imagelab(data_path=sys.argv[1], verbose=False)
    lab.find_issues({kind: {} for kind in kinds}, n_jobs=2, verbose=False)
    print(json.dumps({"seconds": time.perf_counter() - started}))
"""

AUDIT = """
import json, resource, sys
from data.cli import main
code = main(sys.argv[1:])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"peak_mib": peak / 1024}), file=sys.stderr)
sys.exit(code)
"""


def draw(folder: Path, count: int, size: tuple[int, int], quality: int = 88) -> Path:
    """`count` different photos under two labels."""
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
    grain = np.random.default_rng(0).normal(0, 7, (size[1], size[0], 1))
    for number in range(count):
        rng = np.random.default_rng([1, number])
        small = rng.integers(0, 256, (6, 8, 3), np.uint8)
        image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
        pixels = np.asarray(image) + np.roll(grain, number, 1)
        path = folder / ("cat", "dog")[number % 2] / f"{number:06}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
            path, quality=quality
        )
    return folder


def audited(photos: Path, cache: Path, *options: str) -> dict[str, Any]:
    """`data audit` in a process of its own: its report, and its peak memory."""
    done = subprocess.run(
        [sys.executable, "-c", AUDIT, "audit", str(photos), "--json", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "EDGEGRAFT_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    record: dict[str, Any] = json.loads(done.stdout)
    return {**record, **json.loads(done.stderr.splitlines()[-1])}


def speed(scratch: Path, args: argparse.Namespace) -> dict[str, Any]:
    count = 1000
    photos = draw(scratch / "speed", count, (500, 375))
    first = audited(photos, scratch / "cache")["seconds"]
    again = audited(photos, scratch / "cache")["seconds"]
    found = {
        "audit_photos_per_s": count / first,
        "audit_again_photos_per_s": count / again,
    }
    if args.cleanvision:
        done = subprocess.run(
            [args.cleanvision, "-c", CLEANVISION, str(photos)],
            capture_output=True,
            text=True,
            check=True,
        )
        seconds = json.loads(done.stdout.splitlines()[-1])["seconds"]
        found["cleanvision_photos_per_s"] = count / seconds
    return found


def growth(scratch: Path, args: argparse.Namespace) -> dict[str, Any]:
    found = {}
    for count in (1_000, 10_000, 100_000):
        if count > args.most:
            break
        photos = draw(scratch / f"growth{count}", count, (64, 64), 80)
        record = audited(photos, scratch / "cache", "--no-memory")
        found[f"growth_{count}"] = {
            "seconds": record["seconds"],
            "ms_per_photo": 1000 * record["seconds"] / count,
            "peak_mib": record["peak_mib"],
        }
        print(f"{count:,} thumbnails: {found[f'growth_{count}']}", file=sys.stderr)
    return found


def batches(scratch: Path, args: argparse.Namespace) -> dict[str, Any]:
    count = 1000
    photos = draw(scratch / "batches", count, (500, 375))
    folder = scan(photos)
    started = time.perf_counter()
    with load(folder.photos, InputRecipe(SIZE, SIZE)) as pixels:
        first = time.perf_counter() - started
        started = time.perf_counter()
        order = np.random.default_rng(0).permutation(count)
        for start in range(0, count, BATCH):
            pixels.array[order[start : start + BATCH]].astype(np.float32)
        later = time.perf_counter() - started
    started = time.perf_counter()
    with load(folder.photos, InputRecipe(SIZE, SIZE), looking=False):
        plain = time.perf_counter() - started
    from backbones.keras import keras

    dataset = keras().utils.image_dataset_from_directory(
        str(photos), image_size=(SIZE, SIZE), batch_size=BATCH, seed=0
    )
    theirs = []
    for _ in range(2):
        started = time.perf_counter()
        for images, _labels in dataset:
            images.numpy()
        theirs.append(time.perf_counter() - started)
    return {
        "first_epoch_s": first,
        "first_epoch_without_audit_s": plain,
        "later_epochs_s": later,
        "keras_first_epoch_s": theirs[0],
        "keras_later_epochs_s": theirs[1],
    }


def faults(scratch: Path, args: argparse.Namespace) -> dict[str, Any]:
    if args.faulty:
        photos = args.faulty / "photos"
        record = json.loads((args.faulty / "faults.json").read_text("utf-8"))
        planted = record["faults"]
    else:
        drawn = write_faulty(scratch / "faulty", count=LEAST_DRAWN, seed=1)
        photos, planted = drawn.photos, drawn.faults
    record = audited(photos, scratch / "cache", "--no-memory")
    found: dict[str, Any] = {"faulty_photos": record["photos"]}
    for kind, truth, seen in _compared(planted, record["findings"]):
        hits = len(truth & seen)
        found[f"fault_{kind}"] = {
            "planted": len(truth),
            "recall": hits / len(truth),
            "precision": hits / max(1, len(seen)),
        }
    return found


def _compared(
    planted: dict[str, list[list[str]]], findings: list[dict[str, Any]]
) -> Iterator[tuple[str, set[Any], set[Any]]]:
    for kind, rows in planted.items():
        if kind == "wrong-label":  # it takes a network to see these
            continue
        name = "unreadable" if kind == "damaged" else kind
        mine = [f for f in findings if f["kind"] == name]
        if kind in ("duplicate", "near-duplicate"):
            yield (
                kind,
                {frozenset(row[:2]) for row in rows},
                {frozenset((f["path"], f["others"][0])) for f in mine},
            )
        else:
            yield kind, {row[0] for row in rows}, {f["path"] for f in mine}


def missed(found: dict[str, Any]) -> list[str]:
    """The goals that were not reached."""
    lines = []
    if found.get("audit_photos_per_s", PHOTOS_PER_SECOND) < PHOTOS_PER_SECOND:
        lines.append(f"audit: expected {PHOTOS_PER_SECOND} photos/s or more")
    if "first_epoch_s" in found:
        if found["first_epoch_without_audit_s"] > found["keras_first_epoch_s"]:
            lines.append("batches: expected a first epoch no slower than Keras's")
        if found["later_epochs_s"] * LATER_EPOCHS > found["keras_later_epochs_s"]:
            lines.append(f"batches: expected later epochs {LATER_EPOCHS} times as fast")
    goals = dict.fromkeys(("damaged", "wrong-ending", "duplicate"), (1.0, 1.0))
    goals["near-duplicate"] = (NEAR_RECALL, NEAR_PRECISION)
    for kind, (recall, precision) in goals.items():
        scores = found.get(f"fault_{kind}", {"recall": 1, "precision": 1})
        if scores["recall"] < recall or scores["precision"] < precision:
            lines.append(f"{kind}: expected recall {recall}, precision {precision}")
    return lines


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return round(value, 3) if isinstance(value, float) else value


def main() -> int:
    parts = {"speed": speed, "growth": growth, "batches": batches, "faults": faults}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--cleanvision", metavar="PYTHON")
    parser.add_argument("--faulty", type=Path, metavar="DIR")
    parser.add_argument("--most", type=int, default=100_000, metavar="N")
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    found: dict[str, Any] = {
        "benchmark": "data",
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
    }
    with tempfile.TemporaryDirectory(prefix="edgegraft-bench-") as scratch:
        for name in args.only:
            found |= rounded(parts[name](Path(scratch), args))
            print(f"{name} done", file=sys.stderr)
    found["peak_mib_here"] = round(
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )
    found["missed"] = missed(found)
    print(json.dumps(found))
    return 1 if found["missed"] and not args.report else 0


if __name__ == "__main__":
    sys.exit(main())
