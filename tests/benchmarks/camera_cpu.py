"""What does watching cost? `edge camera` on 1080p at --fps 2 against a plain loop.

    python tests/benchmarks/camera_cpu.py [--seconds 20] [--fps 2]

The peer is what one writes by hand with OpenCV: grab each frame of a looping video at
its own pace, retrieve and classify one of them --fps times a second with the same
`Classifier`. Both run alone, one after another, twice; the CPU seconds (user, system)
of each second of the second half are compared, the least of each. Ends in one JSON
line; exit code 1 above 1.1 times (with --report only says so). The video is drawn here
(Motion-JPEG, as a webcam sends it). Needs OpenCV.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench_room import circumstances  # noqa: E402
from tests.edge_models import network, save, with_card  # noqa: E402

MAX_RATIO = 1.1
VIDEO_FPS, SECONDS = 30, 2
SIDE = (1920, 1080)
_PLAIN = """
import sys, time
import cv2
from edge.classifier import Classifier
path, model, fps = sys.argv[1], sys.argv[2], float(sys.argv[3])
classifier = Classifier(model)
capture = cv2.VideoCapture(path)
due = look = time.monotonic()
while True:
    if not capture.grab():
        capture.release()
        capture = cv2.VideoCapture(path)
        continue
    due += 1 / 30
    time.sleep(max(0.0, due - time.monotonic()))
    if time.monotonic() >= look:
        look += 1 / fps
        _, frame = capture.retrieve()
        classifier.classify(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--fps", type=float, default=2.0)
    parser.add_argument("--report", action="store_true", help="do not judge")
    args = parser.parse_args()
    try:
        import cv2
    except ImportError:
        print(json.dumps({"benchmark": "camera_cpu", "skipped": "needs OpenCV"}))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        video, model = Path(folder, "v.avi"), str(Path(folder, "m.tflite"))
        save(Path(model), with_card(network()))
        coder = cv2.VideoWriter_fourcc(*"MJPG")  # type: ignore[attr-defined]
        writer = cv2.VideoWriter(str(video), coder, VIDEO_FPS, SIDE)
        noise = np.random.default_rng(0).integers(0, 256, (135, 240, 3), np.uint8)
        picture = noise.repeat(8, 0).repeat(8, 1)
        for number in range(SECONDS * VIDEO_FPS):
            writer.write(np.ascontiguousarray(np.roll(picture, 8 * number, axis=1)))
        writer.release()
        fps = str(args.fps)
        commands = {
            "camera": ["-m", "edge", "camera", model, str(video), "--live"],
            "motion": ["-m", "edge", "camera", model, str(video), "--live", "--motion"],
            "plain": ["-c", _PLAIN, str(video), model, fps],
        }
        for name in ("camera", "motion"):
            commands[name] += ["--json", "--fps", fps]
        shares: dict[str, float] = {}
        for _ in range(2):
            for name, words in commands.items():
                share = cpu_share([sys.executable, *words], args.seconds)
                shares[name] = min(shares.get(name, share), share)
    ratio = shares["camera"] / shares["plain"]
    record = {
        "benchmark": "camera_cpu",
        **circumstances(),
        "video": f"{SIDE[0]}x{SIDE[1]}, {VIDEO_FPS} fps",
        "fps": args.fps,
        **{f"cpu_{name}": round(share, 3) for name, share in shares.items()},
        "ratio_motion": round(shares["motion"] / shares["plain"], 2),
        "ratio": round(ratio, 2),
        "held": ratio <= MAX_RATIO,
    }
    print(json.dumps(record))
    return 0 if record["held"] or args.report else 1


def cpu_share(command: list[str], seconds: float) -> float:
    """CPU seconds of a second, in the second half of so many."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        try:
            time.sleep(seconds / 2)
            before, start = cpu_seconds(process.pid), time.monotonic()
            time.sleep(seconds / 2)
            used = cpu_seconds(process.pid) - before
            return used / (time.monotonic() - start)
        finally:
            process.terminate()


def cpu_seconds(process: int) -> float:
    """User and system time of a process so far."""
    text = Path(f"/proc/{process}/stat").read_text("utf-8")
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
