"""Which filter and how much reduced decoding? Accuracy against time.

    EDGEGRAFT_ASSETS=DIR python tests/benchmarks/preprocessing.py [--size 160]
        [--backbone mobilenet_v2_0.35] [--count 2000] [--ways N]

For each way of making pixels, `edge.preprocess.load_pixels` (the one function of the
project) reads the *training* photos; a logistic regression on the frozen features of
the backbone is cross-validated on them (five folds, the same for all), so no test
photo decides. Times are milliseconds for each photo, file to pixels: the least of
three rounds, the ways in turn. `p` is McNemar's exact test against the first way,
which is the default. The ways differ in the filter and in the margin, the source
pixels that reduced decoding leaves for each target pixel (8: hardly any reduction of
photos like these). Ends in one
JSON line; exits 1 where another way is surely better (p < 0.05) in less time.
It does not know: other photos, other networks.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from edge import preprocess  # noqa: E402
from edge.classify.sources import walk  # noqa: E402
from edge.preprocess import InputRecipe, load_pixels  # noqa: E402

FULL = preprocess.MAX_MARGIN
WAYS = [
    ("bilinear", preprocess.MARGIN),
    ("bilinear", 2),
    ("bilinear", FULL),
    ("box", 1),
    ("box", 2),
    ("bicubic", 2),
    ("lanczos", 2),
    ("nearest", FULL),
]
WEIGHTS_SIZE = 224  # of the published file; the layers take any size
FOLDS, STRENGTH = 5, 0.03
ROUNDS, TIMED = 3, 200
SURE = 0.05


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbone", default="mobilenet_v2_0.35")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--count", type=int, default=2000, help="photos (2000)")
    parser.add_argument(
        "--ways", type=int, default=len(WAYS), help="only the first N ways"
    )
    args = parser.parse_args()
    del WAYS[args.ways :]
    assets = os.environ.get("EDGEGRAFT_ASSETS")
    if not assets:
        print(json.dumps({"benchmark": "preprocessing", "skipped": "needs photos"}))
        return 0
    os.environ.setdefault("KERAS_HOME", str(Path(assets, "keras_home")))
    photos = list(walk(str(Path(assets, "photos", "cats_dogs", "train"))))
    photos = photos[:: max(len(photos) // args.count, 1)][: args.count]
    times = timed(photos[:: max(len(photos) // TIMED, 1)], args.size)
    right = judged(photos, args.backbone, args.size)
    return report(times, right, args, len(photos))


def pixels(path: str, size: int, way: tuple[str, int]) -> Any:
    return load_pixels(path, InputRecipe(size, size, filter=way[0], margin=way[1]))


def timed(photos: list[str], size: int) -> dict[tuple[str, int], float]:
    """Milliseconds a photo of each way."""
    least: dict[tuple[tuple[str, int], str], float] = {}
    for _ in range(ROUNDS):
        for photo in photos:
            for way in WAYS:
                begin = time.perf_counter()
                pixels(photo, size, way)
                took = time.perf_counter() - begin
                least[way, photo] = min(took, least.get((way, photo), took))
    return {
        way: float(np.mean([least[way, photo] for photo in photos])) * 1e3
        for way in WAYS
    }


def judged(photos: list[str], backbone: str, size: int) -> dict[tuple[str, int], Any]:
    """For each way, which photos the cross-validated probe answers right."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    from backbones import network, registry, weights
    from finetune.model import compute_outputs

    record = registry.get(backbone)
    model = network.assemble(record, size, 2, frozen=True)
    origin = weights.find(record, WEIGHTS_SIZE, "imagenet")
    weights.load(model.get_layer(network.BACKBONE), record, origin)
    extractor = network.feature_model(model)
    truth = np.array([Path(photo).parent.name for photo in photos])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    right = {}
    for way in WAYS:
        array = np.stack([pixels(photo, size, way) for photo in photos])
        found = compute_outputs(extractor, array, range(len(array)))
        found = (found - found.mean(0)) / found.std()
        probe = LogisticRegression(C=STRENGTH, max_iter=1000)
        right[way] = cross_val_predict(probe, found, truth, cv=folds) == truth
    return right


def report(
    times: dict[tuple[str, int], float],
    right: dict[tuple[str, int], Any],
    args: argparse.Namespace,
    count: int,
) -> int:
    """The table, the JSON line; 1 when another way beats the default on both."""
    from finetune.paired import mcnemar

    default, rows, better = WAYS[0], [], []
    for way in WAYS:
        name, margin = way
        p = mcnemar(right[default], right[way]).p
        row = {
            "filter": name,
            "margin": margin,
            "ms": round(times[way], 3),
            "accuracy": round(float(right[way].mean()), 4),
            "p": round(p, 3),
        }
        rows.append(row)
        print("  ".join(f"{key} {value!s:8}" for key, value in row.items()))
        if (
            right[way].mean() > right[default].mean()
            and p < SURE
            and times[way] < times[default]
        ):
            better.append(f"{name} {margin}")
    record = {
        "benchmark": "preprocessing",
        "backbone": args.backbone,
        "size": args.size,
        "photos": count,
        "ways": rows,
        "held": not better,
        "better": better,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"),
    }
    print(json.dumps(record))
    return 1 if better else 0


if __name__ == "__main__":
    sys.exit(main())
