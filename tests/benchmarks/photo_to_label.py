"""From a file on disk to a label: edgegraft, MediaPipe, Keras, and the bare minimum.

    python tests/benchmarks/photo_to_label.py [--model FILE] [--photos DIR] [--rounds 5]
        [--mediapipe .legs/mediapipe/bin/python] [--keras PYTHON] [--report]

The same photos and the same model file (int8 MobileNetV2 1.0 at 224) for everybody,
each in a process of its own that is kept warm: `edge.Classifier.classify`,
MediaPipe's ImageClassifier on `Image.create_from_file`, Keras `load_img` and
`model.predict` (the way most tutorials serve), and bare Pillow decoding and resizing
plus a bare interpreter, with nothing around. In every round each of them labels all
photos of a kind, one way after the other, another one first each time (whose threads
still spin slows the next); the first round is not counted. A photo's time is its least
of all rounds, because other programs only ever add to it; given is
the mean over photos.
Everybody runs with its own default of threads; --threads sets those of edge and bare.

Photos of 500 pixels come from --photos (or $EDGEGRAFT_ASSETS, or are drawn); those of
12 and 48 megapixels are the first of them enlarged. Ends in one JSON line; exits 1
where a goal is missed (with --report only says so). Whoever is not installed is
left out and said so. It does not know: accuracy, cold starts (edge_start.py).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench_room import circumstances, make_model  # noqa: E402

GOALS = {
    ("mediapipe", "500px"): 0.65,
    ("mediapipe", "12mp"): 0.30,
    ("keras", "500px"): 0.06,
    ("bare", "500px"): 1 / 1.15,  # of edge's time: edge takes 1.15 times at most
}
LARGE = {"12mp": (4032, 3024), "48mp": (8064, 6048)}

# A worker: reads a path a line, answers with the milliseconds and the label.
SERVE = """
import sys, time
def serve(label):
    print("ready", flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        told = label(line.rstrip("\\n"))
        print((time.perf_counter() - begin) * 1e3, told, flush=True)
"""
WORKERS = {
    "edge": """
from edge.classifier import Classifier
classifier = Classifier(sys.argv[1], threads=int(sys.argv[2]) or None)
serve(lambda path: classifier.classify(path).ranking[0][0])
""",
    "bare": """
from ai_edge_litert.interpreter import Interpreter
import numpy as np
from PIL import Image
from edge.runtime import default_threads
threads = int(sys.argv[2]) or default_threads()
model = Interpreter(model_path=sys.argv[1], num_threads=threads)
model.allocate_tensors()
entry, result = model.get_input_details()[0], model.get_output_details()[0]
high, wide = (int(side) for side in entry["shape"][1:3])
def label(path):
    image = Image.open(path)
    image.draft(None, (wide, high))
    pixels = np.asarray(image.resize((wide, high), Image.Resampling.BILINEAR))
    model.set_tensor(entry["index"], pixels[None])
    model.invoke()
    return int(model.get_tensor(result["index"])[0].argmax())
serve(label)
""",
    "mediapipe": """
import mediapipe as mp
from mediapipe.tasks.python import vision
from mediapipe.tasks.python.core.base_options import BaseOptions
options = vision.ImageClassifierOptions(
    base_options=BaseOptions(model_asset_path=sys.argv[1]))
classifier = vision.ImageClassifier.create_from_options(options)
def label(path):
    told = classifier.classify(mp.Image.create_from_file(path))
    return told.classifications[0].categories[0].category_name
serve(label)
""",
    "keras": """
import numpy as np
from backbones.keras import keras
k = keras()
image = k.Input((224, 224, 3))
x = k.layers.Rescaling(1 / 127.5, -1.0)(image)
x = k.applications.MobileNetV2(input_shape=(224, 224, 3), include_top=False,
    weights=None, pooling="avg")(x, training=False)
model = k.Model(image, k.layers.Dense(2, activation="softmax")(x))
def label(path):
    photo = k.utils.load_img(path, target_size=(224, 224))
    pixels = np.expand_dims(k.utils.img_to_array(photo), 0)
    return int(model.predict(pixels, verbose=0)[0].argmax())
serve(label)
""",
}


class Worker:
    """One of the ways, in its own process."""

    def __init__(self, name: str, python: str, model: Path, threads: int) -> None:
        search = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [python, "-c", SERVE + WORKERS[name], str(model), str(threads)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while (line := self._read()) != "ready\n":
            if not line:
                error = self._process.stderr
                told = error.read().strip().splitlines() if error else []
                raise RuntimeError(told[-1] if told else "ended at once")

    def label(self, path: Path) -> tuple[float, str]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        took, _, told = self._read().strip().partition(" ")
        return float(took), told

    def close(self) -> None:
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="int8 file with a card")
    parser.add_argument("--photos", type=Path, help="a folder of JPEG photos")
    parser.add_argument("--count", type=int, default=30, help="500-pixel photos (30)")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (5)")
    parser.add_argument("--threads", type=int, default=0, help="of edge and bare")
    theirs = ROOT / ".legs" / "mediapipe" / "bin" / "python"
    parser.add_argument("--mediapipe", default=str(theirs), metavar="PYTHON")
    parser.add_argument("--keras", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--report", action="store_true", help="exit 0 whatever comes")
    args = parser.parse_args()
    pythons = {"edge": sys.executable, "bare": sys.executable}
    pythons |= {"mediapipe": args.mediapipe, "keras": args.keras}
    with tempfile.TemporaryDirectory() as scratch:
        model = args.model or make_model(Path(scratch))
        photos = choose(args, Path(scratch))
        workers: dict[str, Worker] = {}
        for name, python in pythons.items():
            try:
                workers[name] = Worker(name, python, model, args.threads)
            except (OSError, RuntimeError) as reason:
                print(f"{name}: left out, {reason}")
        try:
            times = measure(workers, photos, args.rounds)
        finally:
            for worker in workers.values():
                worker.close()
    return report(times, args)


def choose(args: argparse.Namespace, scratch: Path) -> dict[str, list[Path]]:
    """Photos of each kind; the large ones are written here."""
    from PIL import Image

    assets = os.environ.get("EDGEGRAFT_ASSETS")
    folder = args.photos
    if folder is None and assets:
        folder = Path(assets, "photos", "cats_dogs", "test")
    if folder is None:
        for number in range(args.count):
            made = Image.effect_noise((500, 375), 40 + number).convert("RGB")
            made.save(scratch / f"drawn{number}.jpg", quality=90)
        folder = scratch
    found = sorted(folder.rglob("*.jpg"))
    step = max(len(found) // args.count, 1)
    chosen = {"500px": found[::step][: args.count]}
    if not chosen["500px"]:
        raise SystemExit(f"{folder}: expected .jpg photos, found none")
    for kind, size in LARGE.items():
        path = scratch / f"{kind}.jpg"
        with Image.open(chosen["500px"][0]) as photo:
            photo.convert("RGB").resize(size).save(path, quality=90)
        chosen[kind] = [path]
    return chosen


def measure(
    workers: dict[str, Worker], photos: dict[str, list[Path]], rounds: int
) -> dict[str, dict[str, float]]:
    """Kind of photo to way to milliseconds."""
    least: dict[tuple[str, Path], float] = {}
    names = list(workers)
    for turn in range(rounds + 1):
        for paths in photos.values():
            for name in (*names[turn % len(names) :], *names[: turn % len(names)]):
                worker = workers[name]
                for path in paths:
                    took, _ = worker.label(path)
                    if turn:
                        least[name, path] = min(took, least.get((name, path), took))
    return {
        kind: {name: mean(least[name, path] for path in paths) for name in workers}
        for kind, paths in photos.items()
    }


def report(times: dict[str, dict[str, float]], args: argparse.Namespace) -> int:
    """The table, the goals, the JSON line; the exit code."""
    held = True
    shares: dict[str, float] = {}
    for kind, ways in times.items():
        told = ", ".join(f"{name} {ms:.2f}" for name, ms in ways.items())
        print(f"{kind:6} ms: {told}")
        for name, ms in ways.items():
            if name == "edge":
                continue
            shares[f"{kind}_of_{name}"] = round(ways["edge"] / ms, 4)
            goal = GOALS.get((name, kind))
            if goal is None:
                continue
            most = 1 / goal if name == "bare" else goal
            kept = ways["edge"] / ms <= most
            held = held and kept
            print(
                f"       edge takes {ways['edge'] / ms:.3f} of {name}'s time "
                f"(goal {most:.2f}): {'held' if kept else 'MISSED'}"
            )
    record: dict[str, Any] = {
        "benchmark": "photo_to_label",
        "ms": {
            kind: {name: round(ms, 3) for name, ms in ways.items()}
            for kind, ways in times.items()
        },
        "edge_takes": shares,
        "rounds": args.rounds,
        "threads": args.threads or "default",
        "held": held,
        **circumstances(),
    }
    print(json.dumps(record))
    return 0 if held or args.report else 1


if __name__ == "__main__":
    sys.exit(main())
