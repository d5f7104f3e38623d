"""Conversion: int8 of MobileNetV2 1.0 at 224, and five variants together or one by one.

The peer is ourselves without sharing: a fresh conversion for each variant, as one
command a variant would do it. Decoding the photos and loading TensorFlow are not in the
times. With EDGEGRAFT_ASSETS set the photos are real and the weights ImageNet's; without
they are noise and random, which takes as long.

    python tests/benchmarks/conversion.py [--photos 200]

Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from backbones import network, registry, weights  # noqa: E402
from data import batches  # noqa: E402
from data.source import scan  # noqa: E402
from edge.machine import describe  # noqa: E402
from edge.preprocess import InputRecipe  # noqa: E402
from quantize.conversion.convert import Conversion  # noqa: E402

BACKBONE, SIZE = "mobilenet_v2_1.0", 224
VARIANTS = ("float32", "float16", "dynamic", "int8", "int16x8")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=200)
    args = parser.parse_args()
    record = registry.get(BACKBONE)
    model = network.assemble(record, SIZE, 2)
    assets = os.environ.get("EDGEGRAFT_ASSETS")
    if assets:
        origin = weights.find(record, SIZE, "imagenet")
        weights.load(model.get_layer(network.BACKBONE), record, origin)
        found = scan(Path(assets) / "photos" / "cats_dogs" / "train").photos
        with batches.load(found[: args.photos], InputRecipe(SIZE, SIZE)) as pixels:
            photos = pixels.array.copy()
    else:
        shape = (args.photos, SIZE, SIZE, 3)
        photos = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def seconds(*variants: str) -> float:
        started = time.perf_counter()
        conversion = Conversion(model, calibration=photos)
        for variant in variants:
            conversion.make(variant)
        return time.perf_counter() - started

    seconds("float32")  # TensorFlow's first conversion loads its own parts
    alone = {variant: round(seconds(variant), 2) for variant in VARIANTS}
    together = seconds(*VARIANTS)
    told = {
        "benchmark": "conversion",
        "backbone": BACKBONE,
        "photos": len(photos),
        "int8_seconds": alone["int8"],
        "alone_seconds": alone,
        "together_seconds": round(together, 2),
        "ratio": round(together / sum(alone.values()), 3),
        "peer": "each variant by a conversion of its own",
        "host": describe(),
    }
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
