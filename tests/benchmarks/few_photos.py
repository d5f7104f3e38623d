"""Few photos: accuracy from 10 and 20 photos a label, against the Keras recipe.

For each seed so many training photos are drawn; `finetune` and `export` make an int8
file of them (MobileNetV2 1.0 at 224, no fine-tuning), which is scored through the
runner on the same 600 test photos, the run's test part. The Keras tutorial's recipe
(time_to_accuracy.py) gets the same 20 photos a label, the same weights and size.
`seconds` is from photos to the verified int8 file, TensorFlow's import included once.

    EDGEGRAFT_ASSETS=DIR python tests/benchmarks/few_photos.py [--seeds 5]

DIR holds photos/cats_dogs/{train,test} and keras_home. Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from backbones.keras import keras, tensorflow  # noqa: E402
from data import batches  # noqa: E402
from data.source import scan  # noqa: E402
from edge.classifier import Classifier  # noqa: E402
from edge.evaluate import Evaluation, score  # noqa: E402
from finetune.console import Console  # noqa: E402
from finetune.job import Job, run_job  # noqa: E402
from finetune.settings import Settings  # noqa: E402
from quantize.export import export  # noqa: E402
from tests.bench_room import assets  # noqa: E402
from tests.benchmarks import time_to_accuracy as tutorial  # noqa: E402

BACKBONE, SIZE, ALPHA = "mobilenet_v2_1.0", 224, 1.0
WEIGHTS = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
COUNTS = (10, 20)
GOALS = {10: 0.975, 20: 0.98}


def draw(source: Path, folder: Path, count: int, seed: int) -> Path:
    """folder/{label}: links to `count` photos of each label."""
    random = np.random.default_rng([seed, count])
    for label in sorted(path for path in source.iterdir() if path.is_dir()):
        names = sorted(path.name for path in label.iterdir())
        chosen = folder / label.name
        chosen.mkdir(parents=True)
        for number in random.permutation(len(names))[:count]:
            os.symlink(label / names[number], chosen / names[number])
    return folder


def ours(photos: Path, weights: Path, folder: Path, seed: int) -> tuple[float, bytes]:
    """(seconds from photos to the int8 file, the file)."""
    settings = Settings(
        backbone=BACKBONE, size=SIZE, weights=str(weights), unfreeze="none", seed=seed
    )
    os.environ["EDGEGRAFT_CACHE"] = str(folder / "cache")
    started = time.perf_counter()
    console = Console(json=True)
    done = run_job(Job(photos, settings, folder / "run"), console)
    with done.prepared.pixels as pixels:
        files = export(
            done.run, ("int8",), model=done.network, pixels=pixels, console=console
        )
    seconds = time.perf_counter() - started
    return seconds, files["int8"].path.read_bytes()


def judged(model: bytes, pixels: Any, truth: list[int]) -> Evaluation:
    """The file on the test photos, through the runner that ships."""
    classifier = Classifier(model)
    found = classifier.probabilities(pixels)
    return score(found, truth, classifier.labels)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--recipe-seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=10, help="of the recipe's phases")
    args = parser.parse_args()
    if (real := assets("few_photos")) is None:
        return 0
    cats_dogs = real / "photos" / "cats_dogs"
    weights = real / "keras_home" / "models" / WEIGHTS
    started = time.perf_counter()
    tensorflow(), keras()
    importing = time.perf_counter() - started
    known = scan(cats_dogs / "test")
    truth = [known.labels.index(photo.label) for photo in known.photos]
    with batches.load(known.photos, Settings(size=SIZE).recipe) as decoded:
        test = decoded.of(known.photos)
    record: dict[str, Any] = {}
    for count in COUNTS:
        found, errors, times = [], [], []
        for seed in range(args.seeds):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                photos = folder / "photos"
                draw(cats_dogs / "train", photos / "train", count, seed)
                draw(cats_dogs / "test", photos / "test", len(truth), seed)
                seconds, model = ours(photos, weights, folder, seed)
            result = judged(model, test, truth)
            found.append(result.accuracy)
            errors.append(result.calibration_error)
            times.append(seconds)
        record[f"{count}_a_label"] = {
            "int8_test_accuracy": round(float(np.mean(found)), 4),
            "each": [round(value, 4) for value in found],
            "calibration_error": round(float(np.mean(errors)), 4),
            "seconds": round(float(np.median(times)) + importing, 1),
            "goal": GOALS[count],
        }
    recipe = []
    for seed in range(args.recipe_seeds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            draw(cats_dogs / "train", folder / "train", 20, seed)
            os.symlink(cats_dogs / "test", folder / "test")
            recipe.append(
                tutorial.recipe(folder, weights, args.epochs, size=SIZE, alpha=ALPHA)
            )
            shutil.rmtree(folder / "train")
    ours_20 = record["20_a_label"]
    theirs = float(np.mean([accuracy for _, accuracy in recipe]))
    print(
        json.dumps(
            {
                "benchmark": "few_photos",
                "peer": f"Keras tutorial recipe, 2 x {args.epochs} epochs, 20 a label",
                "network": f"MobileNetV2 {ALPHA} at {SIZE}",
                "host": f"{platform.machine()}, {os.cpu_count()} cores",
                "seeds": args.seeds,
                **record,
                "recipe_test_accuracy": round(theirs, 4),
                "recipe_training_s": round(float(np.mean([s for s, _ in recipe])), 1),
                "ratio_of_errors": round(
                    (1 - ours_20["int8_test_accuracy"]) / max(1 - theirs, 1e-9), 3
                ),
            }
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
