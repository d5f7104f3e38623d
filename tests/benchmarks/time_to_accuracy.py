"""Time to accuracy: `finetune` against the published Keras transfer-learning recipe.

The recipe is the one of the TensorFlow tutorial "Transfer learning and fine-tuning":
MobileNetV2, frozen, a new head for 10 epochs (Adam 1e-4), then the layers from 100 up
for 10 more (RMSprop 1e-5), batch 32, random mirror and rotation, photos through
`image_dataset_from_directory`. Both start from photos on disk with TensorFlow loaded,
use the same weights, size and photos, and are scored on the same test photos, which
neither has seen. The time of `finetune` is that of the whole call, with its pictures
and files written.

    EDGEGRAFT_ASSETS=DIR python tests/benchmarks/time_to_accuracy.py [--epochs 10]

DIR holds photos/cats_dogs/{train,test} and keras_home. Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from backbones.keras import keras, tensorflow  # noqa: E402
from finetune.console import Console  # noqa: E402
from finetune.job import finetune  # noqa: E402
from finetune.settings import Settings  # noqa: E402
from tests.bench_room import assets  # noqa: E402

SIZE, BATCH, ALPHA = 160, 32, 0.35
FINE_TUNE_AT = 100
WEIGHTS = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"


def recipe(
    photos: Path, weights: Path, epochs: int, *, size: int = SIZE, alpha: float = ALPHA
) -> tuple[float, float]:
    """The tutorial's recipe: (seconds of training, accuracy on the test photos)."""
    tf, k = tensorflow(), keras()
    k.utils.set_random_seed(0)

    def dataset(part: str, shuffle: bool) -> object:
        return k.utils.image_dataset_from_directory(
            str(photos / part),
            image_size=(size, size),
            batch_size=BATCH,
            shuffle=shuffle,
            seed=0,
        ).prefetch(tf.data.AUTOTUNE)

    started = time.perf_counter()
    train = dataset("train", True)
    augmentation = k.Sequential(
        [k.layers.RandomFlip("horizontal"), k.layers.RandomRotation(0.2)]
    )
    base = k.applications.MobileNetV2(
        (size, size, 3), alpha=alpha, include_top=False, weights=str(weights)
    )
    base.trainable = False
    image = k.Input((size, size, 3))
    x = augmentation(image)
    x = k.applications.mobilenet_v2.preprocess_input(x)
    x = base(x, training=False)
    x = k.layers.GlobalAveragePooling2D()(x)
    x = k.layers.Dropout(0.2)(x)
    model = k.Model(image, k.layers.Dense(1)(x))
    loss = k.losses.BinaryCrossentropy(from_logits=True)
    accuracy = k.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")
    model.compile(k.optimizers.Adam(1e-4), loss=loss, metrics=[accuracy])
    model.fit(train, epochs=epochs, verbose=0)
    base.trainable = True
    for layer in base.layers[:FINE_TUNE_AT]:
        layer.trainable = False
    model.compile(k.optimizers.RMSprop(1e-5), loss=loss, metrics=[accuracy])
    model.fit(train, epochs=2 * epochs, initial_epoch=epochs, verbose=0)
    seconds = time.perf_counter() - started
    return seconds, float(model.evaluate(dataset("test", False), verbose=0)[1])


def ours(photos: Path, weights: Path, unfreeze: str) -> tuple[float, float]:
    """`finetune` on the same: (seconds of the whole call, test accuracy)."""
    settings = Settings(
        backbone=f"mobilenet_v2_{ALPHA}",
        size=SIZE,
        weights=str(weights),
        unfreeze=unfreeze,
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EDGEGRAFT_CACHE"] = folder  # nothing decoded by an earlier run
        started = time.perf_counter()
        run = finetune(photos, settings, Path(folder) / "run", console=Console())
        seconds = time.perf_counter() - started
        metrics = json.loads((run.folder / "metrics.json").read_text())
    return seconds, float(metrics["test"]["accuracy"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=10, help="of each of two phases")
    args = parser.parse_args()
    if (real := assets("time_to_accuracy")) is None:
        return 0
    photos = real / "photos" / "cats_dogs"
    weights = real / "keras_home" / "models" / WEIGHTS
    tensorflow(), keras()
    probe_s, probe_accuracy = ours(photos, weights, "none")
    recipe_s, recipe_accuracy = recipe(photos, weights, args.epochs)
    print(
        json.dumps(
            {
                "benchmark": "time_to_accuracy",
                "peer": f"Keras tutorial recipe, 2 x {args.epochs} epochs",
                "network": f"MobileNetV2 {ALPHA} at {SIZE}",
                "cores": os.cpu_count(),
                "recipe_s": round(recipe_s, 1),
                "recipe_test_accuracy": round(recipe_accuracy, 4),
                "finetune_s": round(probe_s, 1),
                "finetune_test_accuracy": round(probe_accuracy, 4),
                "reached": probe_accuracy >= recipe_accuracy,
                "time_ratio": round(probe_s / recipe_s, 4),
            }
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
