"""Few photos: accuracy from 10, 20 or 50 photos a label.

For each seed so many training photos are drawn; `finetune` and `export` make an int8
file of them (no fine-tuning), which is scored through the runner on the set's test
photos. `--heads` leaves the export out: the features of all photos are computed once,
and the heads that `finetune` would fit to each draw are scored in float32; many draws
and networks then take minutes. On cats and dogs the peer is the Keras tutorial's recipe
(time_to_accuracy.py) with 20 photos a label, the weights and size of MobileNetV2 1.0;
else the peer is the last --backbone. `seconds` is from photos to the verified int8
file, TensorFlow's import included once.

    EDGEGRAFT_ASSETS=DIR python tests/benchmarks/few_photos.py [--seeds 5]
    ... --photos trashnet --backbone efficientnet_lite0 mobilenet_v2_1.0 --heads

DIR holds photos/SET/{train,test} and keras_home. Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from backbones import network, registry, weights  # noqa: E402
from backbones.keras import keras, tensorflow  # noqa: E402
from data import batches  # noqa: E402
from data.source import scan  # noqa: E402
from edge.classifier import Classifier  # noqa: E402
from edge.evaluate import Evaluation, score  # noqa: E402
from finetune import model  # noqa: E402
from finetune.console import Console  # noqa: E402
from finetune.head import cross_fit, probe  # noqa: E402
from finetune.job import Job, run_job  # noqa: E402
from finetune.settings import Settings  # noqa: E402
from quantize.export import export  # noqa: E402
from tests.bench_room import assets, circumstances  # noqa: E402
from tests.benchmarks import time_to_accuracy as tutorial  # noqa: E402

RECIPE, SIZE, ALPHA = "mobilenet_v2_1.0", 224, 1.0  # the Keras tutorial's
WEIGHTS = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
CATS_DOGS = "cats_dogs"
COUNTS = (10, 20)
GOALS = {(RECIPE, 10): 0.975, (RECIPE, 20): 0.98}  # on cats and dogs


def drawn(total: int, count: int, seed: int) -> list[int]:
    """`count` places among the `total` photos of a label, in the order of names."""
    random = np.random.default_rng([seed, count])
    return [int(place) for place in random.permutation(total)[:count]]


def draw(source: Path, folder: Path, count: int, seed: int) -> Path:
    """folder/{label}: links to `count` photos of each label."""
    for label in sorted(path for path in source.iterdir() if path.is_dir()):
        names = sorted(path.name for path in label.iterdir())
        chosen = folder / label.name
        chosen.mkdir(parents=True)
        for place in drawn(len(names), count, seed):
            os.symlink(label / names[place], chosen / names[place])
    return folder


def settings_of(backbone: str, size: int | None, seed: int = 0) -> Settings:
    """Of a linear probe; `size` None for the network's own."""
    sized: dict[str, Any] = {} if size is None else {"size": size}
    return Settings.for_network(backbone=backbone, unfreeze="none", seed=seed, **sized)


def ours(photos: Path, settings: Settings, folder: Path) -> tuple[float, bytes]:
    """(seconds from photos to the int8 file, the file)."""
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


def files_of(
    source: Path, settings: Settings, count: int, seeds: int, importing: float
) -> dict[str, Any]:
    """Int8 files of `seeds` draws, on all test photos."""
    known = scan(source / "test")
    truth = [known.labels.index(photo.label) for photo in known.photos]
    with batches.load(known.photos, settings.recipe) as decoded:
        test = decoded.of(known.photos)
    found, times = [], []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            photos = folder / "photos"
            draw(source / "train", photos / "train", count, seed)
            draw(source / "test", photos / "test", len(truth), seed)
            own = replace(settings, seed=seed)
            seconds, content = ours(photos, own, folder)
        classifier = Classifier(content)
        answers = classifier.probabilities(test)
        found.append(score(answers, truth, classifier.labels))
        times.append(seconds)
    seconds = round(float(np.median(times)) + importing, 1)
    return {**summary(found), "file": "int8", "seconds": seconds}


def heads_of(
    source: Path, settings: Settings, counts: Sequence[int], seeds: int
) -> dict[int, dict[str, Any]]:
    """Float32 heads of `seeds` draws of each count, on all test photos."""
    parts = {part: scan(source / part) for part in ("train", "test")}
    labels = parts["train"].labels
    origin = weights.find(registry.get(settings.backbone), settings.size, "imagenet")
    extractor = network.feature_model(model.build(settings, len(labels), origin))
    values, truths = {}, {}
    for part, folder in parts.items():
        with batches.load(folder.photos, settings.recipe) as pixels:
            rows = [pixels.rows[photo.path] for photo in folder.photos]
            values[part] = model.compute_outputs(extractor, pixels.array, rows)
        truths[part] = np.array([labels.index(photo.label) for photo in folder.photos])
    train = parts["train"].photos
    places: dict[str, list[int]] = {label: [] for label in labels}
    for place in sorted(range(len(train)), key=lambda number: train[number].path.name):
        places[train[place].label].append(place)
    record = {}
    for count in counts:
        found = []
        for seed in range(seeds):
            rows = [
                own[place]
                for own in places.values()
                for place in drawn(len(own), count, seed)
            ]
            truth = truths["train"][rows]
            fitted = cross_fit.fit(
                values["train"][rows],
                truth,
                len(labels),
                groups=range(len(rows)),
                seed=seed,
            )
            assert fitted is not None
            logits = values["test"] @ fitted.kernel + fitted.bias
            answers = probe.softmax(logits / np.float32(fitted.temperature))
            found.append(score(answers, truths["test"], labels))
        record[count] = {**summary(found), "file": "float32, before export"}
    return record


def summary(found: Sequence[Evaluation]) -> dict[str, Any]:
    """Of the draws of one count."""
    accuracies = [one.accuracy for one in found]
    return {
        "test_accuracy": round(float(np.mean(accuracies)), 4),
        "each": [round(value, 4) for value in accuracies],
        "balanced_accuracy": round(
            float(np.mean([one.balanced_accuracy for one in found])), 4
        ),
        "calibration_error": round(
            float(np.mean([one.calibration_error for one in found])), 4
        ),
    }


def recipe(source: Path, weights_file: Path, seeds: int, epochs: int) -> dict[str, Any]:
    """The Keras tutorial's, on 20 photos a label."""
    found = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            draw(source / "train", folder / "train", 20, seed)
            os.symlink(source / "test", folder / "test")
            found.append(
                tutorial.recipe(folder, weights_file, epochs, size=SIZE, alpha=ALPHA)
            )
    return {
        "peer": f"Keras tutorial recipe, 2 x {epochs} epochs, 20 a label",
        "recipe_test_accuracy": round(float(np.mean([a for _, a in found])), 4),
        "recipe_training_s": round(float(np.mean([s for s, _ in found])), 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--photos", default=CATS_DOGS, help="set in DIR/photos")
    add("--backbone", nargs="+", default=[RECIPE])
    add("--size", type=int, help="input size (default: each network's own)")
    add("--counts", type=int, nargs="+", default=COUNTS, help="photos a label")
    add("--seeds", type=int, default=5)
    add("--heads", action="store_true", help="float32 heads, no export")
    add("--recipe-seeds", type=int, default=1, help="on cats and dogs")
    add("--epochs", type=int, default=10, help="of the recipe's phases")
    args = parser.parse_args()
    if (real := assets("few_photos")) is None:
        return 0
    source = real / "photos" / args.photos
    started = time.perf_counter()
    tensorflow(), keras()
    importing = time.perf_counter() - started
    record: dict[str, Any] = {}
    for backbone in args.backbone:
        settings = settings_of(backbone, args.size)
        if args.heads:
            found = heads_of(source, settings, args.counts, args.seeds)
        else:
            found = {
                count: files_of(source, settings, count, args.seeds, importing)
                for count in args.counts
            }
        for count, one in found.items():
            goal = GOALS.get((backbone, count)) if args.photos == CATS_DOGS else None
            if goal is not None:
                one["goal"] = goal
        record[f"{backbone} at {settings.size}"] = {
            f"{count}_a_label": one for count, one in found.items()
        }
    peer: dict[str, Any] = {"peer": args.backbone[-1]}
    if args.photos == CATS_DOGS and args.recipe_seeds:
        path = real / "keras_home" / "models" / WEIGHTS
        peer = recipe(source, path, args.recipe_seeds, args.epochs)
    result = {
        "benchmark": "few_photos",
        "photos": args.photos,
        "seeds": args.seeds,
        **peer,
        "networks": record,
        **circumstances(),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
