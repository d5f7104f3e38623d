"""What int8 loses of fine-tuned networks, on real photos: the default file and plain.

Each network is fine-tuned on each set of photos with each seed, by the defaults, and
exported; a run that is given with `--run` is taken as it is. All choices of the export
(ranges, repairs) see training and validation photos only. Then float32, plain int8
(`--no-ladder`) and the default int8 file are scored once on the test photos. `rungs`
are the repairs that were tried, as validation and training photos judge them;
`estimate_off_points` is how far the gate's estimate of the agreement is from that on
test photos, on average. `mirror_gain_points`: what the
mean of a photo's answer and its mirror image's, in twice the time, adds to accuracy.
`--repairs` measures each repair alone, from plain int8 (`repairs`; of `kept-float` the
file with most layers in float).
`close_calls`: share of test photos whose two best labels are nearly even in float32.
Peer, with `--tfmot`: quantization-aware training of the same network by TensorFlow's
tensorflow-model-optimization (in .legs/tfmot, about 2 GB).

    EDGEGRAFT_ASSETS=DIR KERAS_HOME=DIR/keras_home python tests/benchmarks/int8_loss.py

DIR holds photos/trashnet, photos/cats_dogs and keras_home. Goal: a mean loss of at most
0.3 points and 99 % agreement, nowhere more than 0.7 points. Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
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

from backbones import network  # noqa: E402
from edge.classifier import Classifier  # noqa: E402
from edge.errors import EdgegraftError  # noqa: E402
from edge.evaluate import Evaluation, score  # noqa: E402
from finetune import model  # noqa: E402
from finetune.console import Console  # noqa: E402
from finetune.job import finetune  # noqa: E402
from finetune.run import Run  # noqa: E402
from finetune.settings import Settings  # noqa: E402
from quantize import recipes  # noqa: E402
from quantize.conversion import calibration, scoring  # noqa: E402
from quantize.conversion.builder import Builder  # noqa: E402
from quantize.export import export  # noqa: E402
from quantize.gate import Gate  # noqa: E402
from quantize.recovery import ladder  # noqa: E402
from tests.benchmarks.finetune_gain import fields  # noqa: E402

BACKBONES = ("mobilenet_v2_0.35", "mobilenet_v2_1.0", "efficientnet_lite0")
SETS = ("trashnet", "cats_dogs")
CLOSE = 0.2  # log odds of the two best labels
TFMOT_EPOCHS = 8  # 248 steps with 510 photos


def with_tfmot(run: Run, python: Path) -> tuple[Evaluation, dict[str, Any]]:
    """The test photos as TensorFlow's own quantization-aware training answers them,
    and what the worker says of it."""
    trained = model.load(run)
    backbone = trained.get_layer(network.BACKBONE)
    scaling = trained.get_layer(network.SCALING)
    rows = {part: scoring.rows_of(run, part) for part in ("train", "test")}
    both = [*rows["train"], *rows["test"]]
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        (folder / "backbone.json").write_text(backbone.to_json())
        weights = [*backbone.get_weights(), *network.get_head(trained)]
        names = (f"{number:04}" for number in range(len(weights)))
        np.savez(folder / "weights.npz", **dict(zip(names, weights, strict=True)))
        train, test = (
            np.array([run.labels.index(row.photo.label) for row in rows[part]])
            for part in rows
        )
        with closing(scoring.decode(run, both, Console(quiet=True))) as pixels:
            np.savez(
                folder / "photos.npz",
                train=scoring.take(pixels, rows["train"]),
                test=scoring.take(pixels, rows["test"]),
                truth=train,
                scale=scaling.scale,
                offset=scaling.offset,
            )
        words = [python, ROOT / "tests" / "legs" / "tfmot_worker.py", work]
        done = subprocess.run(
            [*map(str, words), str(TFMOT_EPOCHS)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip()[-800:])
        answers = np.load(folder / "answers.npy")
    said = json.loads(done.stdout.splitlines()[-1])
    return score(answers, test, run.labels), said


def each_repair(run: Run, names: Sequence[str]) -> dict[str, tuple[bytes, float]]:
    """The file of each repair alone, and the seconds to make and score it."""
    chosen = calibration.choose(run.split(), seed=run.settings.seed)
    val, silent = scoring.rows_of(run, "val"), Console(quiet=True)
    int8 = recipes.variant("int8")
    found = {}
    with closing(scoring.decode(run, [*chosen, *val], silent)) as pixels:
        builder = Builder(run, model.load(run), pixels, chosen, val, silent)
        reference = builder.build(recipes.variant("float32"))
        plain = builder.build(int8)
        for name in names:
            state = ladder._Ladder(builder, plain, reference, Gate())
            started = time.perf_counter()
            try:
                built = [
                    builder.build(int8, candidate)
                    for candidate in ladder._RUNGS[name](state)
                ]
            except EdgegraftError as reason:
                print(f"{run.name}: {name}: {reason}", file=sys.stderr)
                continue
            found[name] = built[-1].model, time.perf_counter() - started
    return found


def measure(
    run: Run, *, tfmot: Path | None = None, repairs: bool = False
) -> dict[str, Any]:
    """Losses on the test photos of a run; its exports are replaced. tfmot: the python
    of the peer's environment."""
    plain = export(run, "float32,int8", repair=False, overwrite=True)
    files = {name: result.path.read_bytes() for name, result in plain.items()}
    files["plain"] = files.pop("int8")
    default = export(run, "int8", overwrite=True)["int8"]
    files["default"] = default.path.read_bytes()
    results = {"plain": plain["int8"], "default": default}
    peers = {} if tfmot is None else {"tfmot": with_tfmot(run, tfmot)}
    alone = each_repair(run, list(ladder._RUNGS)) if repairs else {}
    files |= {f"{name} alone": content for name, (content, _) in alone.items()}
    test = scoring.rows_of(run, "test")
    silent = Console(quiet=True)
    with closing(scoring.decode(run, test, silent)) as pixels:
        found = {}
        for name, model in files.items():
            with silent.bar("") as bar:
                found[name] = scoring.score_file(
                    model, test, pixels, run.labels, progress=bar
                ).evaluation
        mirrored = {}
        for name in ("float32", "default"):
            classifier = Classifier(files[name], threads=os.cpu_count())
            places = scoring.row_indices(pixels, test)
            turned = np.ascontiguousarray(pixels.array[places][:, :, ::-1])
            both = found[name].probabilities + classifier.probabilities(turned)
            right = float((both.argmax(1) == found[name].truth).mean())
            mirrored[name] = round(100 * (right - found[name].accuracy), 2)
    float32 = found["float32"]
    best = np.sort(np.log(np.maximum(float32.probabilities, 1e-9)), axis=1)[:, -2:]

    def distance(other: Evaluation) -> dict[str, float]:
        same = other.probabilities.argmax(1) == float32.probabilities.argmax(1)
        moved = np.abs(other.probabilities - float32.probabilities).sum(1) / 2
        return {
            "lost_points": round(100 * (float32.accuracy - other.accuracy), 2),
            "agreement": round(float(same.mean()), 4),
            "shift_points": round(100 * float(moved.mean()), 2),
        }

    def against(name: str) -> dict[str, Any]:
        exported = results[name]
        return {
            **distance(found[name]),
            "estimated_agreement": round(exported.fidelity.agreement, 4),
            "rejected": exported.rejected,
            "rung": exported.rung,
            "repair_seconds": round(sum(rung.seconds for rung in exported.rungs), 1),
            "rungs": [rung.to_dict() for rung in exported.rungs],
        }

    return {
        "run": run.name,
        "test_photos": float32.photos,
        "float32_accuracy": round(float32.accuracy, 4),
        "close_calls": round(float((best[:, 1] - best[:, 0] < CLOSE).mean()), 4),
        "mirror_gain_points": mirrored,
        **{name: against(name) for name in results},
        **{name: {**distance(one), **said} for name, (one, said) in peers.items()},
        "repairs": {
            name: {
                **distance(found[f"{name} alone"]),
                "seconds": round(seconds, 1),
            }
            for name, (_, seconds) in alone.items()
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbone", nargs="+", default=BACKBONES)
    parser.add_argument("--photos", nargs="+", default=SETS, help="sets in DIR/photos")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON")
    parser.add_argument("--repairs", action="store_true", help="each repair alone, too")
    parser.add_argument("--tfmot", action="store_true", help="the peer, too")
    parser.add_argument("--uv", default=shutil.which("uv"), help="for --tfmot")
    parser.add_argument("--run", nargs="+", type=Path, help="finished runs instead")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    silent = Console(quiet=True)
    tfmot = None
    if args.tfmot:
        from tests.legs.run import Bench

        uv = args.uv or f"{Path(sys.executable).with_name('uv')}"
        bench = Bench(uv, None, None)
        tfmot = bench.environment("tfmot", "tfmot.txt", sys.executable)
    options = {"tfmot": tfmot, "repairs": args.repairs}
    with tempfile.TemporaryDirectory() as work:
        if args.run:
            for folder in args.run:
                copy = Path(work) / folder.name
                shutil.copytree(folder, copy)
                rows.append(measure(Run.open(copy), **options))
                print(rows[-1], file=sys.stderr)
        else:
            assets = Path(os.environ["EDGEGRAFT_ASSETS"])
            for photos in args.photos:
                for backbone in args.backbone:
                    for seed in range(args.seeds):
                        name = f"{photos}-{backbone}-{seed}"
                        settings = Settings.for_network(
                            **fields(args), backbone=backbone, seed=seed
                        )
                        folder = Path(work) / name
                        source = assets / "photos" / photos
                        run = finetune(source, settings, folder, console=silent)
                        rows.append(measure(run, **options))
                        print(rows[-1], file=sys.stderr)
    summary: dict[str, Any] = {
        kind: {
            "mean_lost_points": float(
                np.mean([row[kind]["lost_points"] for row in rows])
            ),
            "most_lost_points": max(row[kind]["lost_points"] for row in rows),
            "mean_agreement": float(np.mean([row[kind]["agreement"] for row in rows])),
            "estimate_off_points": 100
            * float(
                np.mean(
                    [
                        abs(row[kind]["estimated_agreement"] - row[kind]["agreement"])
                        for row in rows
                    ]
                )
            ),
        }
        for kind in ("plain", "default")
    }
    summary["mean_mirror_gain_points"] = {
        name: float(np.mean([row["mirror_gain_points"][name] for row in rows]))
        for name in ("float32", "default")
    }
    print(json.dumps({"benchmark": "int8_loss", **summary, "runs": rows}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
