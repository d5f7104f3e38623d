"""Twenty programs at a time at `edge serve`: mix-ups, refusals, time for one.

    python tests/benchmarks/serve_load.py [--model FILE] [--clients 20] [--seconds 60]

First one client alone: the 95th percentile of its times against that of the same
photos decoded and classified in this process (the peer), at most 2 times. Then all
clients at once, each on a connection of its own, which know what each photo is called:
no answer may be another photo's, and 503 is the only refusal. Photos are drawn here.
Ends in one JSON line; exit code 1 where one of these does not hold (with --report only
says so).
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from edge.classifier import Classifier  # noqa: E402
from tests.bench_room import circumstances, make_model  # noqa: E402

MAX_RATIO = 2.0
PHOTOS, ALONE = 12, 200
SIDE = (640, 480)

Asked = list[tuple[bytes, str]]  # a photo, the probabilities of its labels as JSON


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="default: MobileNetV2 1.0, int8")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--report", action="store_true", help="do not judge")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or make_model(Path(folder))
        classifier = Classifier(str(model))
        photos = [drawn(number) for number in range(PHOTOS)]
        asked = [(photo, expected(classifier, photo)) for photo in photos]
        bare = times(lambda turn: classifier.classify(photos[turn % PHOTOS], 3))
        command = [sys.executable, "-m", "edge", "serve", str(model), "--port", "0"]
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                port = int(process.stdout.readline().split(":")[2].split("/")[0])
                record = measure(args, port, asked, bare)
            finally:
                process.terminate()
            record["exit_code"] = process.wait(30)
    print(json.dumps(record))
    return 0 if record["held"] or args.report else 1


def measure(
    args: argparse.Namespace, port: int, asked: Asked, bare: float
) -> dict[str, Any]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    alone = times(lambda turn: ask(client, asked[turn % PHOTOS][0]))
    counts = {"answers": 0, "wrong": 0, "refused": 0, "errors": 0}
    took: list[float] = []
    lock, stop = threading.Lock(), threading.Event()

    def run(number: int) -> None:
        mine = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        turn = number
        while not stop.is_set():
            photo, want = asked[turn % PHOTOS]
            turn += 1
            start = time.perf_counter()
            try:
                status, text = ask(mine, photo)
            except (OSError, http.client.HTTPException):
                status, text = 0, ""
                mine.close()
            outcome = "errors"
            if status == 503:
                outcome = "refused"
                stop.wait(0.1)
            elif status == 200:
                good = ranking(json.loads(text)["photos"][0]["ranking"]) == want
                outcome = "answers" if good else "wrong"
            with lock:
                counts[outcome] += 1
                took.append(time.perf_counter() - start)

    threads = [
        threading.Thread(target=run, args=(number,)) for number in range(args.clients)
    ]
    for thread in threads:
        thread.start()
    time.sleep(args.seconds)
    stop.set()
    for thread in threads:
        thread.join()
    ratio = alone / bare
    held = not counts["wrong"] and not counts["errors"] and ratio <= MAX_RATIO
    return {
        "benchmark": "serve_load",
        **circumstances(),
        "clients": args.clients,
        "seconds": args.seconds,
        **counts,
        "per_second": round(counts["answers"] / args.seconds, 1),
        "p95_all_ms": round(float(np.percentile(took, 95)) * 1e3, 1),
        "p95_one_ms": round(alone * 1e3, 2),
        "p95_bare_ms": round(bare * 1e3, 2),
        "ratio": round(ratio, 2),
        "held": held,
    }


def ask(client: http.client.HTTPConnection, photo: bytes) -> tuple[int, str]:
    client.request("POST", "/classify", photo)
    response = client.getresponse()
    return response.status, response.read().decode()


def times(work: Any) -> float:
    """The 95th percentile of ALONE runs, seconds, after a few that warm up."""
    took = []
    for turn in range(ALONE + 10):
        start = time.perf_counter()
        work(turn)
        took.append(time.perf_counter() - start)
    return float(np.percentile(took[10:], 95))


def drawn(number: int) -> bytes:
    """A JPEG of blocks in random colours, of a camera's size."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    out = io.BytesIO()
    small.resize(SIDE, Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


def expected(classifier: Classifier, photo: bytes) -> str:
    best = classifier.classify(photo, 3).ranking
    return ranking([{"label": n, "probability": p} for n, p in best])


def ranking(labels: list[dict[str, Any]]) -> str:
    return json.dumps([(one["label"], round(one["probability"], 5)) for one in labels])


if __name__ == "__main__":
    sys.exit(main())
