"""The photo room measured: the audit's speed and growth, and batches of pixels.

    python tests/benchmarks/data.py [--only speed growth batches] [--peers]
        [--most 10000] [--report]

speed    `data audit` of 600 photos of 500 x 375 pixels in a fresh process, nothing
         remembered, twice; beside it plain Pillow, which only decodes them, on as many
         threads; then again, remembered. With --peers CleanVision on the same photos,
         for what both check.
growth   `data audit` of 1,000 and 10,000 (--most 100000: and 100,000) thumbnails of 64
         pixels, each in a fresh process: seconds and peak memory.
batches  the first epoch through `data.batches`, later epochs, and the first epoch of
         the next run, out of the cache; beside it Keras's
         `image_dataset_from_directory` at the same size, which resizes without
         smoothing, and the same in tf.data with smoothing, as we do. Photos of 500 x
         375 and of 4000 x 3000 pixels.

Rounds of both sides alternate and the fastest of each counts. Photos are smooth random
pictures with fine grain, so that decoding is as much work as a real photo's. What the
audit finds is measured by data_truth.py. Ends in one JSON line; exits 1 where a goal is
missed (with --report only says so).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from data.batches import load, load_through_cache  # noqa: E402
from data.source import scan  # noqa: E402
from edge.preprocess import InputRecipe  # noqa: E402
from edge.runtime import cores  # noqa: E402
from tests.legs.peers import in_peers  # noqa: E402

PHOTOS_PER_SECOND = 350  # goal of the audit, on 2 cores, at 500 pixels
LINEAR = 1.5  # times as long for each photo, of the time at 1,000
PER_PHOTO = 4  # KiB; its name, digest and facts take 1.3, what is compared the rest
LATER_EPOCHS = 5  # times as fast as decoding again
SIZE, BATCH = 160, 32
ROUNDS = 2  # of the audit, each in two fresh processes
EPOCHS = 6  # rounds of first and later epochs, which take less than a second each

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


def decoded_by_pillow(paths: list[Path]) -> float:
    """Seconds to read and decode these photos with Pillow, and nothing more."""

    def one(path: Path) -> None:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            image.load()

    started = time.perf_counter()
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(one, paths))
    return time.perf_counter() - started


def speed(scratch: Path, args: argparse.Namespace) -> dict[str, Any]:
    count = 600
    photos = draw(scratch / "speed", count, (500, 375))
    paths = sorted(photos.glob("*/*.jpg"))
    seconds: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        cache = scratch / f"cache{number}"
        seconds.setdefault("audit", []).append(audited(photos, cache)["seconds"])
        seconds.setdefault("audit_again", []).append(audited(photos, cache)["seconds"])
        seconds.setdefault("pillow", []).append(decoded_by_pillow(paths))
        if args.peers:
            found = in_peers(CLEANVISION, str(photos))["seconds"]
            seconds.setdefault("cleanvision", []).append(found)
    told = {f"{name}_photos_per_s": count / min(s) for name, s in seconds.items()}
    told["audit_per_pillow"] = min(seconds["audit"]) / min(seconds["pillow"])
    if args.peers:
        told["audit_per_cleanvision"] = min(seconds["audit"]) / min(
            seconds["cleanvision"]
        )
    return told


def growth(scratch: Path, args: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    last: tuple[int, float] | None = None
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
        if last is not None:
            more = (record["peak_mib"] - last[1]) * 1024 / (count - last[0])
            found[f"growth_{count}"]["kib_per_further_photo"] = more
        last = count, record["peak_mib"]
        print(f"{count:,} thumbnails: {found[f'growth_{count}']}", file=sys.stderr)
    return found


def batches(scratch: Path, args: argparse.Namespace) -> dict[str, Any]:
    found = {}
    for name, count, size in (("small", 600, (500, 375)), ("large", 20, (4000, 3000))):
        photos = draw(scratch / name, count, size)
        seconds = _epochs(photos, scratch / f"cache-{name}")
        found[f"batches_{size[0]}x{size[1]}"] = {
            **{f"{key}_s": min(values) for key, values in seconds.items()},
            **{
                f"first_per_{peer}": min(seconds["first"]) / min(seconds[peer])
                for peer in ("keras", "smoothed")
            },
            "keras_per_later": min(seconds["keras_later"]) / min(seconds["later"]),
        }
    return found


def _epochs(photos: Path, cache: Path) -> dict[str, list[float]]:
    folder, recipe = scan(photos), InputRecipe(SIZE, SIZE)
    datasets = _datasets(photos)
    seconds: dict[str, list[float]] = {}

    def timed(name: str, do: Callable[[], object]) -> None:
        started = time.perf_counter()
        do()
        seconds.setdefault(name, []).append(time.perf_counter() - started)

    os.environ["EDGEGRAFT_CACHE"] = str(cache)
    load_through_cache(folder.photos, recipe).close()
    for _ in range(EPOCHS):
        timed("first", lambda: load(folder.photos, recipe, with_facts=False).close())
        timed("first_with_audit", lambda: load(folder.photos, recipe).close())
        timed("next_run", lambda: load_through_cache(folder.photos, recipe).close())
        with load_through_cache(folder.photos, recipe) as pixels:
            order = np.random.default_rng(0).permutation(len(pixels.array))
            starts = range(0, len(order), BATCH)
            timed(
                "later",
                lambda: _pass(
                    pixels.array[order[s : s + BATCH]].astype(np.float32)  # noqa: B023
                    for s in starts  # noqa: B023
                ),
            )
        for name, dataset in datasets.items():
            epoch = lambda: _pass(images.numpy() for images in dataset)  # noqa: B023, E731
            timed(name, epoch)
            if name == "keras":
                timed("keras_later", epoch)
    return seconds


def _pass(batches: Iterable[Any]) -> None:
    """Every batch is made and let go again, as in training."""
    for _ in batches:
        pass


def _datasets(photos: Path) -> dict[str, Any]:
    """What Keras makes of the folder, and the same resized with smoothing."""
    from backbones.keras import keras, tensorflow

    tf = tensorflow()
    theirs = keras().utils.image_dataset_from_directory(
        str(photos), image_size=(SIZE, SIZE), batch_size=BATCH, seed=0
    )

    def decoded(path: Any) -> Any:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.image.resize(image, (SIZE, SIZE), antialias=True)

    paths = [str(path) for path in sorted(photos.glob("*/*.jpg"))]
    smoothed = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths), seed=0)
    smoothed = smoothed.map(decoded, tf.data.AUTOTUNE).batch(BATCH)
    plain = theirs.map(lambda images, _: images)
    return {
        "keras": plain.prefetch(tf.data.AUTOTUNE),
        "smoothed": smoothed.prefetch(tf.data.AUTOTUNE),
    }


def missed(found: dict[str, Any]) -> list[str]:
    """The goals that were not reached."""
    lines = []
    if found.get("audit_photos_per_s", PHOTOS_PER_SECOND) < PHOTOS_PER_SECOND:
        lines.append(f"audit: expected {PHOTOS_PER_SECOND} photos/s or more")
    each = {name: found[name] for name in found if name.startswith("growth")}
    times = [record["ms_per_photo"] for record in each.values()]
    if times and max(times) > LINEAR * times[0]:
        lines.append(f"growth: expected time per photo to stay within {LINEAR} times")
    for name, record in each.items():
        if record.get("kib_per_further_photo", 0) > PER_PHOTO:
            lines.append(
                f"{name}: expected {PER_PHOTO} KiB for a further photo at most"
            )
    for name, epochs in found.items():
        if name.startswith("batches"):
            if epochs["first_per_keras"] > 1:
                lines.append(f"{name}: expected a first epoch no slower than Keras's")
            if epochs["keras_per_later"] < LATER_EPOCHS:
                lines.append(f"{name}: expected later epochs {LATER_EPOCHS}x as fast")
    return lines


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return round(value, 3) if isinstance(value, float) else value


def main() -> int:
    parts = {"speed": speed, "growth": growth, "batches": batches}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--most", type=int, default=10_000, metavar="N")
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
