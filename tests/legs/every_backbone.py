"""Every variant of every backbone: converted, verified, run on both runtimes.

For each record, with random weights, at a small size:

1. Its parameters, its multiply-adds at the default size and where Keras has its
   weights are as the record says.
2. All variants are made, verified (`quantize.tflite.verify`), and run by
`edge.Classifier`. 3. float32 answers as Keras does, within FLOAT32_OFF.
4. float16 answers so within FLOAT16_OFF, and the integer variants follow Keras (see
   AGREEMENT), where the record calls the network good for int8; of the others, whose
   sigmoid gates amplify any rounding without bounds while the weights are random
   (float16 of EfficientNet B3 followed Keras by 0.58), the figure is told.
5. Every file that the target tflite-runtime-2.14 is said to take loads and runs there
   (Python 3.11, numpy 1), with LiteRT's best label wherever that is no tie.

Run by `make backbones`; names of backbones may be given. `.ci/run` takes every sixth
in turn, from commit to commit (`--share`); one of each family is in every `make test`.
Ends with one line; exit code 1 when anything does not hold.

Random weights, made bearable: a network that nobody trained lets the photo drown. So
batch norm is given the statistics of the photos it will see, depthwise kernels are made
positive (a kernel with zero mean wipes out what is smooth; not where sigmoid gates
multiply what they let grow), and the head spreads the features over the labels. What is
left of the photo is still small against the activations, so rounding is amplified far
beyond what a trained network shows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from run import Bench, Failed, Skipped

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".legs" / "backbones"
TARGET = "tflite-runtime-2.14"

SIZE = 64  # two pixels are left before the pooling
LABELS = ("a", "b", "c", "d")
SEEN, ASKED = 32, 32  # photos: for statistics and calibration, and to compare on
SPREAD = 1.5  # standard deviation of the logits over photos
# float32 sums in another order, 1e-7 each, over up to 200 layers that amplify them
FLOAT32_OFF = 1e-3
# weights rounded to 11 bits, 2.4e-4 of each, likewise amplified: up to 0.12 was seen,
# on NASNet, the deepest; the correlation below must hold as well
FLOAT16_OFF = 0.25
FLOAT16_AGREEMENT = 0.9
# Correlation with Keras's logits over photos, per label. 8 bits round weights and
# activations by up to 4e-3 of their range in each of up to 60 layers, and a random
# network amplifies that: 0.48 to 1.0 was seen. A file that does not look at its photo
# has 0, with a standard deviation of 0.10 (32 photos, 3 free labels): 0.3 is three.
AGREEMENT = 0.3
TIE = 0.02  # best and second label this near: rounding may swap them
# of quantized files on another runtime: XNNPACK rounds in its own way, and these
# networks amplify it (trained ones: tests/legs/run.py)
SWAPPED = 0.5


def photos(count: int, seed: int) -> Any:
    """uint8 [count, SIZE, SIZE, 3]: a colour each, with coarse and fine pattern."""
    random = np.random.default_rng(seed)
    colours = random.uniform(0, 255, (count, 1, 1, 3))
    found = np.tile(colours, (1, SIZE, SIZE, 1))
    for cells in (2, 4, 8, 16, SIZE):
        pattern = random.uniform(-8, 8, (count, cells, cells, 3))
        times = SIZE // cells
        found += np.repeat(np.repeat(pattern, times, axis=1), times, axis=2)
    return found.clip(0, 255).astype(np.uint8)


def settled(record: Any) -> Any:
    """The network of a record with random weights that let the photo through."""
    from backbones import network
    from backbones.keras import seed_everything, tensorflow

    tf = tensorflow()
    seed_everything(1)
    model = network.assemble(record, SIZE, len(LABELS))
    inner = model.get_layer(network.BACKBONE)
    seen = photos(SEEN, 0).astype(np.float32)
    for layer in inner.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.momentum = 0.0
        for weight in layer.weights:
            if "depthwise" in weight.name and record.int8 != "hard":
                weight.assign(tf.abs(weight))
    inner(model.get_layer(network.SCALING)(seen), training=True)
    # called, not `predict`ed: that would trace the network, which takes longer
    features = network.feature_model(model)(seen, training=False).numpy()
    kernel = np.random.default_rng(2).normal(size=(features.shape[1], len(LABELS)))
    logits = (features - features.mean(axis=0)) @ kernel
    kernel *= SPREAD / logits.std(axis=0)
    bias = -features.mean(axis=0) @ kernel
    network.set_head(model, kernel.astype(np.float32), bias.astype(np.float32))
    return model


def _logits(probabilities: Any) -> Any:
    logs = np.log(np.clip(probabilities, 1 / 512, 1.0))
    logs -= logs.mean(axis=1, keepdims=True)
    return logs - logs.mean(axis=0)


def _follows(got: Any, wanted: Any) -> float:
    """Correlation of two sets of answers [n, L], over photos, per label."""
    one, other = _logits(got).ravel(), _logits(wanted).ravel()
    if not one.std():
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def check(name: str) -> dict[str, Any]:
    """One record through all variants. Never raises: what failed is in `wrong`."""
    from backbones import registry

    started = time.monotonic()
    report: dict[str, Any] = {"name": name, "wrong": [], "variants": {}}
    try:
        _check_record(registry.get(name), report)
        _check_variants(registry.get(name), report)
    except Exception as error:
        report["wrong"].append(f"{type(error).__name__}: {error}")
        report["trace"] = traceback.format_exc()
    report["seconds"] = round(time.monotonic() - started, 1)
    return report


def _check_record(record: Any, report: dict[str, Any]) -> None:
    from tests.backbones_room import multiply_adds, wrong_downloads, wrong_facts

    extractor = record.build(record.default_size, None)
    report["wrong"] += [f"wrong {name}" for name in wrong_facts(record, extractor)]
    report["wrong"] += [
        f"Keras does not download {file}" for file in wrong_downloads(record, SIZE)
    ]
    counted = multiply_adds(extractor)
    if counted != record.multiply_adds:
        report["wrong"].append(
            f"{record.multiply_adds:,} multiply-adds told, {counted:,} counted"
        )


def _check_variants(record: Any, report: dict[str, Any]) -> None:
    from edge.card import ModelCard
    from edge.classifier import Classifier
    from edge.preprocess import InputRecipe
    from edge.terminal import without_chatter
    from quantize import recipes
    from quantize.conversion.convert import Conversion
    from quantize.tflite import metadata
    from quantize.tflite.verify import verify

    model = settled(record)
    asked, recipe = photos(ASKED, 3), InputRecipe(SIZE, SIZE)
    wanted = model(asked.astype(np.float32), training=False).numpy()
    if len(set(wanted.argmax(axis=1))) < 2:
        report["wrong"].append("all photos look alike to it: the leg tests nothing")
    conversion = Conversion(model, calibration=photos(SEEN, 0))
    for variant in recipes.VARIANTS:
        made = conversion.make(variant)
        card = ModelCard(labels=LABELS, input=recipe, variant=variant)
        file = FOLDER / record.name / f"{variant}.tflite"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(metadata.embed(made, card))
        with without_chatter():
            facts = verify(made, variant, recipe, LABELS)
            got = Classifier(file).probabilities(asked)
        np.save(file.with_suffix(".npy"), got)
        off, follows = float(np.abs(got - wanted).max()), _follows(got, wanted)
        report["variants"][variant] = {
            "off": off,
            "follows": follows,
            "ops": sum(count for _, _, count in facts.ops),
            "oldest_runtime": facts.oldest_runtime,
            "file": str(file) if TARGET not in facts.refused_by else None,
            "refused": list(facts.refused_by.get(TARGET, ())),
        }
        if variant != "float32" and record.int8 != "good":
            continue  # rounding is told, not judged, where gates amplify it
        limit = {"float32": FLOAT32_OFF, "float16": FLOAT16_OFF}.get(variant)
        if limit is not None and off > limit:
            report["wrong"].append(f"{variant} is {off:.2g} off Keras, at most {limit}")
        least = FLOAT16_AGREEMENT if variant == "float16" else AGREEMENT
        if variant != "float32" and follows < least:
            report["wrong"].append(f"{variant} follows Keras by {follows:.2f} only")


# -- in the environment of tflite-runtime --------------------------------------------


def old_runtime(files: Sequence[str]) -> list[str]:
    """Run there: what is wrong with these files, each with LiteRT's answers by it."""
    from edge.classifier import Classifier

    wrong = []
    for file in files:
        name = "/".join(Path(file).parts[-2:])
        wanted = np.load(Path(file).with_suffix(".npy"))
        try:
            got = Classifier(file, runtime="tflite-runtime").probabilities(
                photos(len(wanted), 3)
            )
        except Exception as error:
            wrong.append(f"{name}: {error}")
            continue
        ranked = np.sort(wanted, axis=1)
        clear = ranked[:, -1] - ranked[:, -2] > TIE
        swapped = (got.argmax(axis=1) != wanted.argmax(axis=1)) & clear
        quantized = not Path(file).stem.startswith("float")
        if swapped.mean() > (SWAPPED if quantized else 0):
            wrong.append(f"{name}: {swapped.sum()} of {len(got)} best labels differ")
    return wrong


def _run_elsewhere(python: Path, files: list[str]) -> list[str]:
    """What is wrong with these files there, in a process of their own."""
    done = subprocess.run(
        [str(python), str(Path(__file__)), "--old-runtime"],
        input=json.dumps(files),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no output"]
        return [f"{TARGET}: {lines[-1]}"]
    wrong: list[str] = json.loads(done.stdout.splitlines()[-1])
    return wrong


def _old_runtime(files: list[str], uv: str, workers: int) -> tuple[list[str], str]:
    bench = Bench(uv, None, None)
    try:
        python = bench.environment("tflite-runtime", "tflite-runtime.txt", "3.11")
    except Skipped as reason:
        return [], f"skipped {TARGET}: {reason}"
    except Failed as reason:
        return [f"{TARGET}: {reason}"], ""
    with ThreadPoolExecutor(workers) as pool:
        shares = [share for n in range(workers) if (share := files[n::workers])]
        found = pool.map(lambda share: _run_elsewhere(python, share), shares)
        wrong = [line for lines in found for line in lines]
    return wrong, f"{len(files)} files run on {TARGET}, too"


# -- the whole -----------------------------------------------------------------------


def _line(report: dict[str, Any]) -> str:
    found = report["variants"]
    parts = [
        f"{variant} {facts['off']:.1g}"
        if variant.startswith("float")
        else f"{variant} r={facts['follows']:.2f}"
        for variant, facts in found.items()
    ]
    state = "wrong" if report["wrong"] else "ok"
    return f"{state:<6}{report['name']:<32}{report['seconds']:>5} s  " + ", ".join(
        parts
    )


def _share(text: str) -> tuple[int, int]:
    first, _, every = text.partition("/")
    if not (first.isdigit() and every.isdigit() and int(every)):
        raise argparse.ArgumentTypeError(f"expected K/N, got {text!r}")
    return int(first), int(every)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--uv", default="uv", help="the uv to make environments with")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--share", type=_share, default=(0, 1), metavar="K/N", help="every Nth from K"
    )
    parser.add_argument("--old-runtime", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("backbone", nargs="*", help="names (default: all)")
    args = parser.parse_args()
    if args.old_runtime:
        print(json.dumps(old_runtime(json.load(sys.stdin))))
        return 0
    from backbones import registry

    known = registry.names()
    unknown = [name for name in args.backbone if name not in known]
    if unknown:
        parser.error(f"expected backbones of {', '.join(known)}, got {unknown[0]}")
    # the largest first, so that none is left alone at the end
    names = sorted(
        args.backbone or known, key=lambda name: -(registry.get(name).parameters or 0)
    )
    first, every = args.share
    names = names[first % every :: every]
    workers = max(1, min(args.workers, len(names)))
    # TensorFlow would start a thread a core in each worker; most of the work is Python
    each = max(1, (os.cpu_count() or 1) // workers)
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(each))
    started, wrong = time.monotonic(), 0
    files: list[str] = []
    with ProcessPoolExecutor(workers) as pool:
        for report in pool.map(check, names):
            print(_line(report), flush=True)
            for line in report["wrong"]:
                print(f"      {line}\n{report.get('trace', '')}", flush=True)
            wrong += len(report["wrong"])
            variants = report["variants"].values()
            files += [facts["file"] for facts in variants if facts["file"]]
    failed, told = _old_runtime(files, args.uv, workers)
    for line in failed:
        print(f"wrong {line}")
    print(
        f"{len(names)} backbones, {wrong + len(failed)} wrong, "
        f"{time.monotonic() - started:.0f} s; {told}"
    )
    return 1 if wrong or failed else 0


if __name__ == "__main__":
    sys.exit(main())
