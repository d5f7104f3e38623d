"""Does `edge camera` run for long? A looping video, taken away and given back.

    python tests/benchmarks/camera_soak.py [MODEL] [--minutes 60] [--fps 10] [--away 5]

The video is drawn here; it vanishes --away times, evenly over the run. Memory is
read from outside, each second. Ends in one JSON line; exit code 1 when memory grew
by more than 5 % after the first tenth, or the source was not taken up again. Needs
OpenCV (the extra `camera`). It does not know: real cameras.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
MOST_GROWTH = 1.05
SIDE, SECONDS, VIDEO_FPS = (640, 480), 4, 30


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--fps", type=float, default=10.0)
    parser.add_argument("--away", type=int, default=5, help="times it is taken away")
    args = parser.parse_args()
    try:
        import cv2
    except ImportError:
        print(json.dumps({"benchmark": "camera_soak", "skipped": "needs OpenCV"}))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder, "live.avi")
        draw(cv2, video)
        record = soak(args, video, Path(folder))
    print(json.dumps(record))
    return 0 if record["held"] else 1


def draw(cv2: Any, path: Path) -> None:
    """Noise that moves, so that every frame costs a camera's decoding."""
    coder = cv2.VideoWriter_fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), coder, VIDEO_FPS, SIDE)
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    picture = noise.repeat(8, 0).repeat(8, 1)
    for number in range(SECONDS * VIDEO_FPS):
        writer.write(np.ascontiguousarray(np.roll(picture, 4 * number, axis=1)))
    writer.release()


def soak(args: argparse.Namespace, video: Path, folder: Path) -> dict[str, Any]:
    """Run the command, take its source away, watch its memory."""
    seconds = args.minutes * 60
    command = [sys.executable, "-u", "-m", "edge", "camera"]
    command += [str(args.model or tiny(folder)), str(video)]
    command += ["--live", "--json", "--fps", str(args.fps)]
    notes: list[str] = []
    frames, memory = [0], []
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:

        def count() -> None:
            for _ in process.stdout or ():
                frames[0] += 1

        def listen() -> None:
            notes.extend(line.strip() for line in process.stderr or ())

        threads = [threading.Thread(target=count), threading.Thread(target=listen)]
        for thread in threads:
            thread.start()
        start = time.monotonic()
        due = [(number + 0.5) * seconds / args.away for number in range(args.away)]
        hidden = folder / "away.avi"
        taken = 0
        while (now := time.monotonic() - start) < seconds and process.poll() is None:
            if hidden.exists():
                if sum("lost" in note for note in notes) >= taken:
                    os.replace(hidden, video)
            elif taken < len(due) and now >= due[taken]:
                os.replace(video, hidden)
                taken += 1
            memory.append(memory_mb(process.pid))
            time.sleep(1)
        process.terminate()
        code = process.wait(30)
        for thread in threads:
            thread.join()
    settled = memory[len(memory) // 10 :]
    part = max(len(settled) // 5, 1)
    before, after = (float(np.median(m)) for m in (settled[:part], settled[-part:]))
    back = sum("back after" in note for note in notes)
    held = after <= before * MOST_GROWTH and back == taken == args.away and code == 0
    return {
        "benchmark": "camera_soak",
        "minutes": round(seconds / 60, 2),
        "asked_fps": args.fps,
        "frames": frames[0],
        "fps": round(frames[0] / seconds, 2),
        "memory_mb_begin": round(before, 1),
        "memory_mb_end": round(after, 1),
        "taken_away": taken,
        "taken_up_again": back,
        "exit_code": code,
        "held": held,
    }


def memory_mb(process: int) -> float:
    """Resident memory now, MiB."""
    try:
        status = Path(f"/proc/{process}/status").read_text("utf-8")
    except OSError:
        return 0.0
    found = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(found[0].split()[1]) / 1024 if found else 0.0


def tiny(folder: Path) -> Path:
    """The tests' own network, when no model is given."""
    sys.path.insert(0, str(ROOT))
    from tests.edge_models import network, with_card

    model = folder / "tiny.tflite"
    model.write_bytes(with_card(network()))
    return model


if __name__ == "__main__":
    sys.exit(main())
