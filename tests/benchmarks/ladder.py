"""The ladder on a damaged network: plain int8 against what the ladder makes of it.

The weights of one layer are scaled: the output channels of the first bottleneck's
projection by factors from 1 to `--most`, which the layer behind takes back, so that
the float network is the same. Plain int8 has no steps left for the quiet channels.
Then the ladder is climbed, each rung scored on the validation photos; float32, plain
int8 and the rung that is taken are scored on the test photos, which nothing else has
seen. With `--healthy 1` the undamaged network goes the same way first.

    EDGEGRAFT_ASSETS=DIR KERAS_HOME=DIR/keras_home python tests/benchmarks/ladder.py

DIR holds photos/cats_dogs and keras_home. A run made earlier is taken with `--run`: of
a MobileNetV2, MobileNetV3 small or EfficientNet, whatever its weights are from.
Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from backbones.network import BACKBONE  # noqa: E402
from edge.machine import describe  # noqa: E402
from finetune.console import Console  # noqa: E402
from finetune.job import finetune  # noqa: E402
from finetune.model import load  # noqa: E402
from finetune.paired import mcnemar  # noqa: E402
from finetune.run import Run  # noqa: E402
from finetune.settings import Settings  # noqa: E402
from quantize import recipes  # noqa: E402
from quantize.conversion import (  # noqa: E402
    calibration,
    scoring,
)
from quantize.conversion.builder import Builder  # noqa: E402
from quantize.gate import Gate  # noqa: E402
from quantize.recovery import ladder  # noqa: E402

# The batch norm of the first bottleneck's projection, and the only layer that reads it
PAIRS = {
    "mobilenet_v2": ("expanded_conv_project_BN", "block_1_expand"),
    "mobilenet_v3_small": ("expanded_conv/project/BatchNorm", "expanded_conv_1/expand"),
    "efficientnet_b": ("block1a_project_bn", "block2a_expand_conv"),
}


def damage(model: Any, backbone: str, most: float) -> None:
    """Scale the projection's channels 1 to `most`, in an order drawn once."""
    inner = model.get_layer(BACKBONE)
    names = next(pair for start, pair in PAIRS.items() if backbone.startswith(start))
    norm, reader = (inner.get_layer(name) for name in names)
    gamma, beta, *statistics = norm.get_weights()
    factors = np.geomspace(1, most, len(gamma)).astype(np.float32)
    factors = np.random.default_rng(0).permutation(factors)
    norm.set_weights([gamma * factors, beta * factors, *statistics])
    (kernel,) = reader.get_weights()  # [1, 1, C, O]
    reader.set_weights([kernel / factors[None, None, :, None]])


def climb(
    run: Run,
    model: Any,
    pixels: Any,
    console: Console,
    title: str,
    rungs: Sequence[str] | None = None,
) -> Any:
    """What every rung reaches on validation; plain and the best on test."""
    chosen = calibration.choose(run.split(), seed=run.settings.seed)
    judged, test = scoring.rows_of(run, "val"), scoring.rows_of(run, "test")
    builder = Builder(run, model, pixels, chosen, judged, console)
    int8 = recipes.variant("int8")
    reference, plain = builder.build(recipes.variant("float32")), builder.build(int8)
    started = time.perf_counter()
    found = ladder.climb(builder, int8, plain, reference, Gate(), rungs=rungs)
    seconds = time.perf_counter() - started

    def right(made: Any) -> Any:
        with console.bar("scoring test") as bar:
            scored = scoring.score_file(
                made.model, test, pixels, run.labels, progress=bar
            ).evaluation
        return scored.probabilities.argmax(axis=1) == scored.truth

    exact, before, after = right(reference), right(plain), right(found.built)
    return {
        "network": title,
        "validation_float32": reference.validation.accuracy,
        "rungs": [
            rung.to_dict() | {"kept_float": len(rung.kept_float)}
            for rung in found.rungs
        ],
        "taken": found.candidate.rung,
        "climb_seconds": round(seconds, 1),
        "test": {
            "photos": len(exact),
            "float32": float(exact.mean()),
            "plain_int8": float(before.mean()),
            "ladder_int8": float(after.mean()),
            "plain_lost_points": round(100 * float(exact.mean() - before.mean()), 2),
            "ladder_lost_points": round(100 * float(exact.mean() - after.mean()), 2),
            "p_ladder_lost": mcnemar(exact, after).p,
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbone", default="mobilenet_v2_1.0")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument(
        "--run",
        type=Path,
        help="a finished run of a MobileNetV2, MobileNetV3 small or EfficientNet B",
    )
    parser.add_argument("--most", type=float, default=1000.0)
    parser.add_argument("--rungs", nargs="+", help="only these, such as equalized")
    parser.add_argument("--healthy", type=int, choices=(0, 1), default=0)
    args = parser.parse_args()
    console = Console(json=True)
    with tempfile.TemporaryDirectory() as scratch:
        run = Run.open(args.run) if args.run else _train(args, Path(scratch), console)
        rows = [row for part in ("val", "test") for row in scoring.rows_of(run, part)]
        rows += calibration.choose(run.split(), seed=run.settings.seed)
        results = []
        with closing(scoring.decode(run, rows, console)) as pixels:
            if args.healthy:
                healthy = load(run), pixels, console, "as trained", args.rungs
                results.append(climb(run, *healthy))
            model = load(run)
            damage(model, run.settings.backbone, args.most)
            results.append(
                climb(run, model, pixels, console, "one layer scaled", args.rungs)
            )
    result = {
        "benchmark": "ladder",
        "backbone": run.settings.backbone,
        "size": run.settings.size,
        "peer": "plain int8 of the same network",
        "results": results,
        "ratio": results[-1]["test"]["ladder_int8"] / results[-1]["test"]["float32"],
        "host": describe(),
    }
    print(json.dumps(result))
    return 0


def _train(args: argparse.Namespace, folder: Path, console: Console) -> Run:
    photos = Path(os.environ["EDGEGRAFT_ASSETS"]) / "photos" / "cats_dogs"
    settings = Settings(
        backbone=args.backbone, size=args.size, weights=args.weights, unfreeze="none"
    )
    return finetune(photos, settings, folder / "run", console=console)


if __name__ == "__main__":
    raise SystemExit(main())
