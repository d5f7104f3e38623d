"""Telling unknown photos: candidates compared on the exported int8 file.

MobileNetV2 1.0 at 224 with a probe on cats and dogs; each candidate is built into the
graph, converted to int8 and run through the runner that ships. Thresholds pass 95 % of
the validation photos; the unknown photos (neither cat nor dog) are only measured on.
The peer is the largest probability, which every classifier has. The cost is that of
the second output: the int8 file with it against the one without, inference by
inference in turn.

    EDGEGRAFT_ASSETS=DIR python tests/benchmarks/familiarity.py [--backbone NAME]
        [--near]

DIR holds photos/cats_dogs/{train,test}, photos/unknown and keras_home. --near measures
photos that are nearly known instead: one label of photos/trashnet is held out at a
time, six heads on the same frozen features (float, before export). Ends in one JSON
line; `negatives` is taught with half of the unknown photos and measured on the others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from backbones import network, registry, weights  # noqa: E402
from data import batches  # noqa: E402
from data.source import scan  # noqa: E402
from edge.classify.sources import photos as photos_in  # noqa: E402
from edge.evaluate import auroc  # noqa: E402
from edge.preprocess import load_pixels  # noqa: E402
from edge.runtime import open_interpreter  # noqa: E402
from finetune import familiarity  # noqa: E402
from finetune.head import probe  # noqa: E402
from finetune.model import compute_outputs  # noqa: E402
from finetune.settings import Settings  # noqa: E402
from quantize.conversion.convert import Conversion  # noqa: E402
from tests.bench_room import assets  # noqa: E402

VALIDATION = 0.15
CALIBRATION = 100  # photos; more move no figure here
PARTS = ("test", "val", "unknown")
TIMED = 200  # inferences of each file


class Photos:
    """Pixels and features of the four sets, decoded and computed once."""

    def __init__(self, assets: Path, settings: Settings, extractor: Any) -> None:
        def load(part: str) -> tuple[Any, Any]:
            found = scan(assets / "photos" / "cats_dogs" / part)
            with batches.load(found.photos, settings.recipe) as pixels:
                array = pixels.of(found.photos)
            truth = [found.labels.index(photo.label) for photo in found.photos]
            return array, np.array(truth)

        pixels, truth = load("train")
        order = np.random.default_rng(0).permutation(len(pixels))
        cut = round(len(pixels) * VALIDATION)
        self.train, self.val = pixels[order[cut:]], pixels[order[:cut]]
        self.truth, self.val_truth = truth[order[cut:]], truth[order[:cut]]
        self.test, self.test_truth = load("test")
        unknown = sorted(photos_in([str(assets / "photos" / "unknown")]))
        self.unknown = np.stack([load_pixels(p, settings.recipe) for p in unknown])
        self.seen = {
            part: compute_outputs(extractor, array, range(len(array)))
            for part, array in (
                ("train", self.train),
                ("val", self.val),
                ("unknown", self.unknown),
            )
        }


def plain(centres: Any) -> familiarity.Familiarity:
    """The cosine to the nearest of these, unstretched."""
    return familiarity.Familiarity(
        np.asarray(familiarity.unit(centres).T, np.float32),
        np.zeros(len(centres), np.float32),
        np.zeros(0, np.float32),
    )


def run(flat: bytes, pixels: Any) -> tuple[Any, Any]:
    """(probabilities [N, L], familiarity [N] or None) of a bare int8 file."""
    _, interpreter = open_interpreter(flat, threads=1)
    entry = interpreter.get_input_details()[0]["index"]
    outputs = interpreter.get_signature_runner().get_output_details()
    found: dict[str, list[Any]] = {name: [] for name in outputs}
    for photo in pixels:
        interpreter.set_tensor(entry, photo[None])
        interpreter.invoke()
        for name, output in outputs.items():
            scale, zero = output["quantization"]
            raw = interpreter.get_tensor(output["index"]).reshape(-1)
            found[name].append((raw.astype(np.float32) - zero) * scale)
    table = {name: np.stack(rows) for name, rows in found.items()}
    second = table.get("familiarity")
    return table["probabilities"], None if second is None else second[:, 0]


def figures(known: Any, val: Any, unknown: Any) -> dict[str, float]:
    limit = familiarity.quantile(val)
    return {
        "auroc": round(auroc(known, unknown), 4),
        "unknown_refused": round(float((unknown < limit).mean()), 4),
        "test_passed": round(float((known >= limit).mean()), 4),
    }


def near(folder: Path, settings: Settings, extractor: Any) -> dict[str, Any]:
    """Each label of trashnet held out: its photos are unknown, the test photos of the
    others are known; the far photos of photos/unknown beside them."""

    def seen(paths: list[Path]) -> Any:
        array = np.stack([load_pixels(path, settings.recipe) for path in paths])
        return compute_outputs(extractor, array, range(len(array)))

    parts = {}
    for part in ("train", "test"):
        found = scan(folder / "photos" / "trashnet" / part)
        truth = np.array([found.labels.index(photo.label) for photo in found.photos])
        parts[part] = seen([photo.path for photo in found.photos]), truth
    far = seen(sorted(map(Path, photos_in([str(folder / "photos" / "unknown")]))))
    (train, truth), (test, test_truth) = parts["train"], parts["test"]
    record = {}
    for number, label in enumerate(found.labels):
        order = np.random.default_rng(number).permutation(len(train))
        order = order[truth[order] != number]
        cut = round(len(order) * VALIDATION)
        val, rows = train[order[:cut]], order[cut:]
        head = familiarity.fit(train[rows], truth[rows], val)
        known, held = head.scores(test[test_truth != number]), head.scores(val)
        out = [train[truth == number], test[test_truth == number]]
        record[label] = {
            **figures(known, held, head.scores(np.concatenate(out))),
            "far": figures(known, held, head.scores(far)),
        }
    names = ("auroc", "unknown_refused", "test_passed")
    mean = {n: float(np.mean([row[n] for row in record.values()])) for n in names}
    return {"mean": mean, "labels": record}


def latency(files: list[bytes], photo: Any) -> list[float]:
    """Milliseconds of each file, one inference of each in turn: the lower decile,
    since other processes only add."""
    opened = [open_interpreter(flat, threads=1)[1] for flat in files]
    times: list[list[float]] = [[] for _ in files]
    for interpreter in opened:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], photo[None])
        interpreter.invoke()
    random = np.random.default_rng(0)
    for _ in range(TIMED):
        for place in random.permutation(len(files)):  # no file always comes second
            interpreter, taken = opened[place], times[place]
            started = time.perf_counter()
            interpreter.invoke()
            taken.append(1000 * (time.perf_counter() - started))
    return [statistics.quantiles(taken, n=10)[0] for taken in times]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", default="mobilenet_v2_1.0")
    parser.add_argument("--near", action="store_true")
    args = parser.parse_args()
    if (folder := assets("familiarity")) is None:
        return 0
    settings = Settings(backbone=args.backbone)
    record = registry.get(settings.backbone)
    model = network.assemble(record, settings.size, 2)
    origin = weights.find(record, settings.size, "imagenet")
    weights.load(model.get_layer(network.BACKBONE), record, origin)
    if args.near:
        found = near(folder, settings, network.feature_model(model))
        title = f"{args.backbone} at {settings.size}, float"
        print(
            json.dumps({"benchmark": "familiarity --near", "network": title, **found})
        )
        return 0
    photos = Photos(folder, settings, network.feature_model(model))
    x, val = photos.seen["train"], photos.seen["val"]
    fitted = probe.fit(x, photos.truth, val, photos.val_truth, 2)
    network.set_head(model, fitted.kernel, fitted.bias)

    def attach(found: familiarity.Familiarity) -> Any:
        return familiarity.attach(model, found)

    shipped = familiarity.fit(x, photos.truth, val)
    taught = familiarity.fit(
        x, photos.truth, val, negatives=photos.seen["unknown"][::2]
    )
    means = np.stack([x[photos.truth == label].mean(axis=0) for label in (0, 1)])
    candidates = {
        "prototypes": attach(shipped),
        "nearest_of_all": attach(plain(x)),
        "class_means": attach(plain(means)),
        "prototypes_with_negatives": attach(taught),
    }

    def int8(network_: Any) -> bytes:
        photos_ = photos.train[:CALIBRATION]
        return Conversion(network_, calibration=photos_).make("int8")

    single = int8(model)
    alone = {part: run(single, getattr(photos, part))[0] for part in PARTS}
    record_: dict[str, Any] = {
        "max_probability": figures(*(alone[part].max(axis=1) for part in PARTS)),
    }
    right = {"alone": float((alone["test"].argmax(1) == photos.test_truth).mean())}
    files = {}
    for title, both in candidates.items():
        files[title] = int8(both)
        found = {part: run(files[title], getattr(photos, part)) for part in PARTS}
        known, held, strange = (found[part][1] for part in PARTS)
        if title == "prototypes_with_negatives":
            strange = strange[1::2]  # those it was not taught
        added = len(files[title]) - len(single)
        record_[title] = {**figures(known, held, strange), "bytes_added": added}
        right[title] = float((found["test"][0].argmax(1) == photos.test_truth).mean())
    without, with_it = latency([single, files["prototypes"]], photos.test[0])
    print(
        json.dumps(
            {
                "benchmark": "familiarity",
                "peer": "max_probability",
                "network": f"{args.backbone} at {settings.size}, int8",
                "runtime": str(open_interpreter(single, threads=1)[0]),
                "host": f"{platform.machine()}, {os.cpu_count()} cores",
                "photos": {part: len(getattr(photos, part)) for part in PARTS},
                **record_,
                "test_accuracy_without": round(right["alone"], 4),
                "test_accuracy_with": round(right["prototypes"], 4),
                "ms_p10_without": round(without, 3),
                "ms_p10_with": round(with_it, 3),
                "latency_ratio": round(with_it / without, 4),
            }
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
