"""What a teacher gives a small network, over the same network without one.

A MobileNetV2 1.0 or another network at 224 (its linear probe; --fine-tuned: trained
further) teaches. Peer: the student's own recipe on the same photos without a teacher,
`custom_cnn` from scratch for 60 epochs, or from its ImageNet weights MobileNetV2 0.35
at 224 or EfficientNet-Lite0 at 96. Scored is the float32 file: on the validation part,
by which this recipe was chosen (of cats_dogs), or, with --test, on the test photos.
Chance grows with few photos: the interval is that of the paired difference over all
photos (of a photo's mean over the seeds).

    EDGEGRAFT_ASSETS=DIR python tests/benchmarks/distillation.py [--student NAME]
        [--teacher NAME] [--photos cats_dogs] [--test] [--seeds 1] [--set NAME=JSON ...]

DIR holds photos/{cats_dogs,trashnet} and keras_home. Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from finetune.console import Console  # noqa: E402
from finetune.job import Job, run_job  # noqa: E402
from finetune.settings import Settings  # noqa: E402
from tests.bench_room import assets  # noqa: E402
from tests.benchmarks.finetune_gain import add_options, answered, fields, interval  # noqa: E402

ALONE: dict[str, dict[str, Any]] = {
    "custom_cnn": {"epochs": 60, "patience": 60},
    "mobilenet_v2_0.35": {},
    "efficientnet_lite0": {"size": 96},
}
# As in docs/training.md
TAUGHT: dict[str, dict[str, Any]] = {
    "custom_cnn": {
        "teacher_views": 16,
        "augment": "light",
        "teacher_temperature": 3.0,
        "teacher_share": 1.0,
        "epochs": 8,
    },
    "mobilenet_v2_0.35": {"teacher_views": 6, "epochs": 4},
    "efficientnet_lite0": {"teacher_views": 6, "epochs": 4},
}


def trained(photos: Path, folder: Path, part: str, values: dict[str, Any]) -> Any:
    """(which photos of the part the float32 file answers rightly, seconds)."""
    started = time.perf_counter()
    job = Job(photos, Settings.for_network(**values), folder)
    done = run_job(job, Console(json=True))
    prepared, model = done.prepared, done.network
    seconds = time.perf_counter() - started
    with prepared.pixels:
        out = prepared.examples(part)
        answers = answered(model, out.pixels(np.arange(len(out))))
        return answers.argmax(axis=1) == out.truth, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--student", choices=tuple(ALONE), default="custom_cnn")
    parser.add_argument("--teacher", default="mobilenet_v2_1.0", metavar="NAME")
    parser.add_argument("--photos", default="cats_dogs", help="a folder in DIR/photos")
    add_options(parser)
    parser.add_argument("--fine-tuned", action="store_true", help="the teacher")
    args = parser.parse_args()
    if (real := assets("distillation")) is None:
        return 0
    photos = real / "photos" / args.photos
    part = "test" if args.test else "val"
    found: dict[str, list[Any]] = {"alone": [], "taught": [], "seconds": []}
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            unfreeze = "auto" if args.fine_tuned else "none"
            teacher = {"backbone": args.teacher, "unfreeze": unfreeze, "seed": seed}
            trained(photos, folder / "teacher", part, teacher)
            base = {"backbone": args.student, "seed": seed, **ALONE[args.student]}
            alone, _ = trained(photos, folder / "alone", part, base)
            lesson = {**TAUGHT[args.student], **fields(args)}
            values = {**base, **lesson, "teacher": str(folder / "teacher")}
            taught, seconds = trained(photos, folder / "taught", part, values)
        line = f"seed {seed}: {alone.mean():.4f} -> {taught.mean():.4f}"
        print(line, file=sys.stderr)
        for key, value in zip(found, (alone, taught, seconds), strict=True):
            found[key].append(value)
    gains = np.stack(found["taught"]).astype(float) - np.stack(found["alone"])
    each = [
        [round(float(x.mean()), 4) for x in pair]
        for pair in zip(found["alone"], found["taught"], strict=True)
    ]
    alone_mean, taught_mean = np.mean(each, axis=0)
    print(
        json.dumps(
            {
                "benchmark": "distillation",
                "peer": f"{args.student} without a teacher, as a float32 file",
                "teacher": args.teacher,
                "set": args.photos,
                "host": f"{platform.machine()}, {os.cpu_count()} cores",
                "scored_on": part,
                "photos": gains.shape[1],
                "seeds": args.seeds,
                "alone_accuracy": round(float(alone_mean), 4),
                "taught_accuracy": round(float(taught_mean), 4),
                "each": each,
                "gain_points": round(100 * float(gains.mean()), 2),
                "gain_interval": interval(gains.mean(axis=0)),
                "seconds": [round(s, 1) for s in found["seconds"]],
                "ratio_of_errors": round(
                    float((1 - taught_mean) / (1 - alone_mean)), 3
                ),
            }
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
