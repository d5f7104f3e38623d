"""The int8 MobileNetV2 1.0 at 224: LiteRT, ONNX Runtime, OpenVINO and ExecuTorch.

One network, the float32.tflite of a run, quantized by each camp's own tool on the same
200 training photos:

- LiteRT: int8.tflite as edgegraft exports and ships it (XNNPACK).
- ONNX Runtime: float32.tflite through tf2onnx, then `quant_pre_process` and
  `quantize_static` (QDQ, activations uint8, weights int8 per channel, MinMax).
- OpenVINO: float32.tflite through its own reader, then `nncf.quantize` (default:
  symmetric activations, weights per channel), compiled for LATENCY.
- ExecuTorch: the same ONNX graph, without its second output (familiarity), through
  onnx2torch, then PyTorch's `pt2e` with the XNNPACK quantizer (symmetric, weights per
  channel), lowered to XNNPACK.

All take the same uint8 pixels [1, 224, 224, 3] and give probabilities. Each runs in
fresh processes with 1 and with 2 threads, round by round, so that a slow moment of the
machine hits all alike. The accuracy on the test photos shows that each still is that
network. A batch of one: the time a camera's frame takes. Nothing is judged, whoever
wins. Ends in one JSON line; a ratio is LiteRT's time in parts
of the other's, below 1 where LiteRT is faster: of the medians, and of the fastest run
of all rounds, which is what is left where other programs disturb.

    python tests/benchmarks/runtimes.py [--run RUN] [--rounds 5] [--runs 60]

Without --run it takes the run of `make legs` (built where it isn't there): real photos
and weights where EDGEGRAFT_ASSETS is set, else random weights and noise, whose
accuracy says nothing. The environments are .legs/runtimes (about 3 GB with TensorFlow,
which tf2onnx needs; no worker that is timed imports it) and .legs/executorch (6 GB with
PyTorch).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
RUNTIMES = ("litert", "onnxruntime", "openvino", "executorch")
WORKER = ROOT / "tests" / "legs" / "runtimes_worker.py"
CALIBRATION = 200  # photos


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, help="with float32.tflite and int8.tflite")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=60, help="timed in a round (60)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--uv", default=shutil.which("uv") or f"{_beside('uv')}")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from edge.machine import describe
    from tests.legs.run import LEGS, Bench

    bench = Bench(args.uv, None, None)
    pythons = dict.fromkeys(
        RUNTIMES, bench.environment("runtimes", "runtimes.txt", sys.executable)
    )
    pythons["executorch"] = bench.environment(
        "executorch", "executorch.txt", sys.executable
    )
    work = LEGS / "runtimes-work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    exports, truth = _network(args.run, work)
    made = _worker(pythons["onnxruntime"], "prepare", work, exports)
    _worker(pythons["executorch"], "lower", work)
    paths = {
        "litert": exports / "int8.tflite",
        "onnxruntime": work / "int8.onnx",
        "openvino": work / "int8.xml",
        "executorch": work / "int8.pte",
    }
    accuracy = {}
    for name in RUNTIMES:
        answers = _worker(pythons[name], "answer", name, paths[name], work)["labels"]
        accuracy[name] = float(np.mean(np.array(answers) == truth))
    found: dict[tuple[str, int], list[dict[str, Any]]] = {
        (name, threads): [] for threads in args.threads for name in RUNTIMES
    }
    for number in range(args.rounds):
        pairs = list(found)
        shift = number % len(pairs)
        for name, threads in [*pairs[shift:], *pairs[:shift]]:
            words = (name, paths[name], work, threads, args.runs)
            found[name, threads].append(_worker(pythons[name], "time", *words))
    rows = [
        _row(name, threads, records, paths[name], accuracy[name])
        for (name, threads), records in found.items()
    ]
    host = describe()
    machine = f"{host['board']}, {host['cores']} cores, {host['machine']}"
    _print(rows, machine, len(truth))
    result = {
        "benchmark": "runtimes",
        "network": made["network"],
        **{
            f"ratio_{kind}": {
                f"litert / {other}, threads {threads}": round(
                    _of(rows, "litert", threads, kind)
                    / _of(rows, other, threads, kind),
                    3,
                )
                for threads in args.threads
                for other in RUNTIMES[1:]
            }
            for kind in ("p50_ms", "min_ms")
        },
        "rows": rows,
        "rounds": args.rounds,
        "runs": args.runs,
        "test_photos": len(truth),
        "machine": machine,
    }
    print(json.dumps(result))
    return 0


def _beside(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def _row(
    name: str,
    threads: int,
    records: list[dict[str, Any]],
    path: Path,
    accuracy: float,
) -> dict[str, Any]:
    size = path.stat().st_size
    if path.suffix == ".xml":  # the weights lie beside the graph
        size += path.with_suffix(".bin").stat().st_size
    times = {
        key: round(median(record[key] for record in records), 3)
        for key in ("load_ms", "p50_ms", "p95_ms", "p99_ms")
    }
    # what is left of a time when nothing else runs: the fastest of all rounds
    times["min_ms"] = round(min(record["min_ms"] for record in records), 3)
    return {
        "runtime": name,
        "version": records[0]["version"],
        "threads": threads,
        **times,
        "peak_mib": round(max(record["peak_mib"] for record in records), 1),
        "mb": round(size / 1e6, 2),
        "accuracy": round(accuracy, 4),
    }


def _of(rows: list[dict[str, Any]], name: str, threads: int, kind: str) -> float:
    return next(
        row[kind] for row in rows if (row["runtime"], row["threads"]) == (name, threads)
    )


def _print(rows: list[dict[str, Any]], machine: str, photos: int) -> None:
    print(
        "runtime                threads   load ms   min   p50    p95    p99   MiB    MB"
        "  acc."
    )
    for row in rows:
        print(
            f"{row['runtime'] + ' ' + row['version'][:9]:22} {row['threads']:7} "
            f"{row['load_ms']:9.1f} {row['min_ms']:5.2f} {row['p50_ms']:5.2f}  "
            f"{row['p95_ms']:5.2f}  {row['p99_ms']:5.2f} {row['peak_mib']:5.0f} "
            f"{row['mb']:5.2f} {row['accuracy']:6.1%}"
        )
    print(f"ms for one photo, {photos:,} test photos; on {machine}")


def _network(given: Path | None, work: Path) -> tuple[Path, Any]:
    """(folder with the two files, true label numbers of the test photos); writes
    calibration.npy and test.npy, uint8 [N, 224, 224, 3], into `work`."""
    from tests.legs.run import build

    if given is None and not os.environ.get("EDGEGRAFT_ASSETS"):
        subprocess.run([sys.executable, "-c", RANDOM, work], cwd=ROOT, check=True)
        return work, np.load(work / "truth.npy")
    from data import batches
    from finetune.run import Run
    from quantize.conversion import scoring

    run = Run.open(given or build()[0].parents[1])
    from finetune.console import Console

    console = Console(quiet=True)
    with scoring.decode(run, scoring.rows_of(run, "test"), console) as pixels:
        rows = scoring.rows_of(run, "test")
        np.save(work / "test.npy", scoring.take(pixels, rows))
    train = scoring.rows_of(run, "train")
    some = train[:: max(1, len(train) // CALIBRATION)][:CALIBRATION]
    with batches.load([row.photo for row in some], run.recipe) as pixels:
        np.save(work / "calibration.npy", pixels.array)
    return run.exports, np.array([run.labels.index(row.photo.label) for row in rows])


RANDOM = """
import sys
from pathlib import Path
import numpy as np
from backbones.keras import keras
from quantize.conversion.convert import Conversion

work, k = Path(sys.argv[1]), keras()
image = k.Input((224, 224, 3), name="image")
x = k.layers.Rescaling(1 / 127.5, -1.0)(image)
x = k.applications.MobileNetV2(
    input_shape=(224, 224, 3), include_top=False, weights=None, pooling="avg"
)(x, training=False)
model = k.Model(image, k.layers.Dense(2, activation="softmax", name="probabilities")(x))
pixels = np.random.default_rng(0).integers(0, 256, (32, 224, 224, 3), dtype=np.uint8)
(work / "float32.tflite").write_bytes(Conversion(model).make("float32"))
(work / "int8.tflite").write_bytes(Conversion(model, calibration=pixels).make("int8"))
np.save(work / "calibration.npy", pixels)
np.save(work / "test.npy", pixels)
np.save(work / "truth.npy", np.zeros(len(pixels), int))
"""


def _worker(python: Path, *words: object) -> dict[str, Any]:
    """One job in one of the two environments."""
    home = python.parents[1] / "home"
    consent = home / "intel" / "openvino_telemetry"
    consent.parent.mkdir(parents=True, exist_ok=True)
    consent.write_text("0")  # OpenVINO's tools send nothing home
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "HOME": str(home), "NNCF_CI": "1"}
    done = subprocess.run(
        [str(python), str(WORKER), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **quiet},
    )
    if done.returncode:
        raise RuntimeError(f"{words[:2]}: {done.stderr.strip()[-800:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


if __name__ == "__main__":
    raise SystemExit(main())
