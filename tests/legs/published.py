"""Google's own quantized classifiers in our runner: what they are published to say.

Two parts. Pictures: each line of `EXPECTED` is a label that is among the first K, and
its least score. Those of the cat are what the tests of google-coral/edgetpu
(classification/models_test.cc, K = 1) and google-coral/libcoral
(classification/model_test_cases.bzl, K = 3) demand of the same files on cat.bmp; here
the picture is cat_720p.jpg, on which edgetpu's "tiger cat" of the small file is second,
so any cat counts there. Pictures without a published score have to reach 0.5. Recipe:
the accuracy of the default for files without a card on ImageNet sample photos, against
that of the other recipes; it may not be more than `MARGIN` below the best.

    python -m tests.legs.published ASSETS [--table]
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

from edge.classifier import Classifier
from edge.foreign import ForeignOptions

CATS = frozenset({"tabby, tabby cat", "tiger cat", "Egyptian cat"})
SMALL, LARGE = "mobilenet_v1_0.25_128_quant", "mobilenet_v2_1.0_224_quant"
EXPECTED = (
    (SMALL, "cat_720p.jpg", 1, CATS, 0.36),
    (SMALL, "cat_720p.jpg", 3, {"tiger cat"}, 0.25),
    (SMALL, "parrot.jpg", 1, {"macaw"}, 0.5),
    (SMALL, "sunflower.bmp", 1, {"daisy"}, 0.5),
    (LARGE, "cat_720p.jpg", 1, {"Egyptian cat"}, 0.8),
    (LARGE, "cat_720p.jpg", 3, {"Egyptian cat"}, 0.7),
    (LARGE, "parrot.jpg", 1, {"macaw"}, 0.5),
    (LARGE, "sunflower.bmp", 1, {"daisy"}, 0.5),
)
MARGIN = 0.01  # of accuracy that the default may be below the best recipe
RECIPES = tuple(
    itertools.product(
        ("stretch", "crop"), (1.0, 0.875), ("bilinear", "bicubic", "bilinear-plain")
    )
)


def pictures(assets: Path) -> Iterator[tuple[str, bool]]:
    """A line for each expectation, and whether it is met."""
    folder = assets / "reference_tflite"
    for model, picture, k, labels, least in EXPECTED:
        classifier = Classifier(folder / f"{model}.tflite")
        ranking = classifier.classify(folder / picture, k).ranking
        met = any(name in labels and score >= least for name, score in ranking)
        said = ", ".join(f"{name} {score:.3f}" for name, score in ranking)
        yield f"{model} {picture}: {said}", met


def accuracy(assets: Path, options: ForeignOptions | None, model: str = SMALL) -> float:
    """Of the ImageNet sample photos, whose file names say what they show."""
    classifier = Classifier(
        assets / "reference_tflite" / f"{model}.tflite", foreign=options
    )
    right = 0
    photos = sorted((assets / "photos" / "unknown").iterdir())
    for photo in photos:
        name = photo.stem.partition("_")[2].replace("_", " ").lower()
        label = classifier.classify(photo, 1).label
        right += name in [part.strip().lower() for part in label.split(",")]
    return right / len(photos)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("assets", type=Path)
    parser.add_argument("--table", action="store_true", help="every recipe, both files")
    args = parser.parse_args()
    failed = 0
    for line, met in pictures(args.assets):
        failed += not met
        print(("met     " if met else "MISSED  ") + line)
    default = accuracy(args.assets, None)
    best = 0.0
    for model in (SMALL, LARGE) if args.table else (SMALL,):
        for resize, crop, kind in RECIPES:
            options = ForeignOptions(resize=resize, crop=crop, filter=kind)
            share = accuracy(args.assets, options, model)
            best = max(best, share) if model == SMALL else best
            print(f"{model} {resize:7} crop {crop:5} {kind:14} {share:.1%}")
    print(f"default {default:.1%}, best {best:.1%}")
    return 1 if failed or default < best - MARGIN else 0


if __name__ == "__main__":
    raise SystemExit(main())
