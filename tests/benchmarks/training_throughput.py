"""Training photos per second, against plain `model.fit`, and memory with 4x the photos.

The peer is what a Keras user writes: `image_dataset_from_directory` (photos decoded
in every epoch, with prefetch), the same augmentation mapped over it, the same network
with the same layers frozen, `model.fit`. Both run in this process, an epoch of the one
after an epoch of the other; the first of each is not counted, and the ratio is the
median of the pairs. Peak memory is that of a process of its own which decodes the
photos and trains one epoch, with N and with 4N photos (the same ones under more names).

    EDGEGRAFT_ASSETS=DIR python tests/benchmarks/training_throughput.py

DIR holds photos/cats_dogs/train and keras_home. Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from backbones import network, registry, weights  # noqa: E402
from backbones.keras import keras, seed_everything, tensorflow  # noqa: E402
from data import batches  # noqa: E402
from data.augment import augment, preset  # noqa: E402
from data.photos import Photo  # noqa: E402
from finetune.loop.examples import Examples  # noqa: E402
from finetune.loop.step import set_trainable  # noqa: E402
from finetune.loop.trainer import Trainer  # noqa: E402
from finetune.settings import Settings  # noqa: E402
from tests.bench_room import assets  # noqa: E402

BACKBONE = "mobilenet_v2_0.35"
LABELS = ("cat", "dog")


def photos_under(folder: Path, times: int = 1) -> list[Photo]:
    """The photos of a folder, each under so many names."""
    return [
        Photo(path, label)
        for label in LABELS
        for number in range(times)
        for path in sorted((folder / f"{number}" / label).iterdir())
    ]


def lay_out(source: Path, target: Path, count: int, times: int) -> None:
    """Links to `count` photos, `times` times over."""
    for label in LABELS:
        chosen = sorted((source / label).iterdir())[: count // len(LABELS)]
        for number in range(times):
            folder = target / f"{number}" / label
            folder.mkdir(parents=True)
            for path in chosen:
                (folder / path.name).symlink_to(path)


def network_for(settings: Settings) -> Any:
    """The network with its weights, frozen as the settings say."""
    record = registry.get(settings.backbone)
    model = network.assemble(record, settings.size, len(LABELS))
    origin = weights.find(record, settings.size, settings.weights)
    weights.load(model.get_layer(network.BACKBONE), record, origin)
    set_trainable(model, record, settings.unfreeze)
    return model


def trainer(
    settings: Settings, pixels: batches.Pixels, photos: Any, to: Path
) -> Trainer:
    rows = np.array([pixels.rows[photo.path] for photo in photos])
    truth = np.array([LABELS.index(photo.label) for photo in photos])
    whole = Examples(pixels.array, rows, truth)
    few = Examples(pixels.array, rows[:2], truth[:2])  # judging is not timed
    return Trainer(
        network_for(settings), settings, whole, few, from_probe=False, checkpoint=to
    )


def peer(settings: Settings, folder: Path) -> Any:
    """A compiled network and its photos, as a Keras user has them."""
    tf, k = tensorflow(), keras()
    how = preset(settings.augment)
    with contextlib.redirect_stdout(sys.stderr):  # it counts the files aloud
        found = k.utils.image_dataset_from_directory(
            str(folder / "0"),
            label_mode="categorical",
            image_size=(settings.size, settings.size),
            batch_size=settings.batch,
            seed=0,
        )

    def vary(images: Any, truth: Any) -> Any:
        seed = tf.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32)
        return augment(images, how, seed), truth

    dataset = found.map(vary, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    model = network_for(settings)
    loss = k.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing)
    model.compile(k.optimizers.Adam(1e-5), loss=loss, metrics=["accuracy"])
    return model, dataset


def speeds(settings: Settings, folder: Path, epochs: int) -> list[tuple[float, float]]:
    """Pairs of photos per second, ours and the peer's, from the second epoch on."""
    photos = photos_under(folder)
    found = []
    with (
        batches.load(photos, settings.recipe, with_facts=False) as pixels,
        tempfile.TemporaryDirectory() as to,
    ):
        ours = trainer(settings, pixels, photos, Path(to))
        ours.start()
        model, dataset = peer(settings, folder)
        for number in range(1, epochs + 2):
            started = time.perf_counter()
            ours._one_epoch(number, lambda *_: None)
            ours.average.swap()
            middle = time.perf_counter()
            model.fit(dataset, verbose=0)
            ended = time.perf_counter()
            pair = (
                ours.steps * ours.batch / (middle - started),
                len(photos) / (ended - middle),
            )
            print(f"epoch {number}: {pair[0]:.1f}, {pair[1]:.1f}", file=sys.stderr)
            found.append(pair)
    return found[1:]


def peak(settings: Settings, folder: Path, times: int) -> float:
    """MiB at most while decoding and training one epoch, in a process of its own."""
    photos = photos_under(folder, times)
    with (
        batches.load(photos, settings.recipe) as pixels,
        tempfile.TemporaryDirectory() as to,
    ):
        it = trainer(settings, pixels, photos, Path(to))
        it.start()
        it._one_epoch(1, lambda *_: None)
    # not ru_maxrss: a process inherits that from the one that started it
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def peak_elsewhere(folder: Path, times: int) -> float:
    command = [sys.executable, __file__, "--peak", str(folder), "--times", str(times)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=512, help="photos")
    parser.add_argument("--epochs", type=int, default=3, help="that are counted")
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--times", type=int, default=1, help=argparse.SUPPRESS)
    args = parser.parse_args()
    settings = Settings(backbone=BACKBONE, epochs=args.epochs + 1)
    seed_everything(0)
    if args.peak:
        print(peak(settings, args.peak, args.times))
        return 0
    if (real := assets("training_throughput")) is None:
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lay_out(real / "photos/cats_dogs/train", folder, args.count, 4)
        pairs = speeds(settings, folder, args.epochs)
        small, large = peak_elsewhere(folder, 1), peak_elsewhere(folder, 4)
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    print(
        json.dumps(
            {
                "benchmark": "training_throughput",
                "peer": "model.fit on image_dataset_from_directory",
                "network": f"{BACKBONE} at {settings.size}, {settings.unfreeze}",
                "augment": settings.augment,
                "photos": args.count,
                "photos_per_s": round(statistics.median(p[0] for p in pairs), 1),
                "peer_photos_per_s": round(statistics.median(p[1] for p in pairs), 1),
                "ratio": round(ratio, 3),
                "peak_mib": round(small),
                "peak_mib_4x": round(large),
                "memory_growth": round(large / small - 1, 3),
                "tensorflow": tensorflow().__version__,
                "cores": os.cpu_count(),
            }
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
