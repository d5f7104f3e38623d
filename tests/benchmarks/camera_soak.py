"""Does `edge camera` run for long? A looping video, taken away and given back.

    python tests/benchmarks/camera_soak.py [MODEL] [--minutes 60] [--fps 10] [--away 5]
        [--broker]

The video is drawn here; it vanishes --away times, evenly over the run. With --broker
the camera also publishes to a mosquitto, which is killed and started again as often,
in between; each change of the label that the camera printed has to reach a subscriber,
in order. Memory is read from outside, each second. Ends in one JSON line; exit code 1
when memory grew by more than 5 % after the first tenth, the source was not taken up
again, or a change was lost. Needs OpenCV (the extra `camera`), --broker mosquitto and
the extra `mqtt`.
"""

from __future__ import annotations

import argparse
import itertools
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
MAX_GROWTH = 1.05
BROKER_AWAY = 20.0  # seconds, at most, of each loss of the broker
SETTLE = 20.0  # seconds for what waited for it: longer than the longest pause
SIDE, SECONDS, VIDEO_FPS = (640, 480), 4, 30


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--fps", type=float, default=10.0)
    parser.add_argument("--away", type=int, default=5, help="times it is taken away")
    parser.add_argument("--broker", action="store_true", help="and a broker, in turn")
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
    """Noise that moves, red then blue: every frame costs a camera's decoding."""
    coder = cv2.VideoWriter_fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), coder, VIDEO_FPS, SIDE)
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    picture = noise.repeat(8, 0).repeat(8, 1)
    for number in range(SECONDS * VIDEO_FPS):
        frame = np.roll(picture, 4 * number, axis=1) // 2
        frame[..., 2 if number < SECONDS * VIDEO_FPS // 2 else 0] += 127
        writer.write(np.ascontiguousarray(frame))
    writer.release()


def soak(args: argparse.Namespace, video: Path, folder: Path) -> dict[str, Any]:
    """Run the command, take its source away, watch its memory."""
    seconds = args.minutes * 60
    command = [sys.executable, "-u", "-m", "edge", "camera"]
    command += [str(args.model or tiny(folder)), str(video)]
    command += ["--live", "--json", "--fps", str(args.fps)]
    notes: list[str] = []
    frames, memory = [0], []
    printed: list[str] = []
    broker = Broker(folder) if args.broker else None
    if broker is not None:
        command += ["--smooth", "0", "--mqtt", f"mqtt://127.0.0.1:{broker.port}/soak"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:

        def count() -> None:
            for line in process.stdout or ():
                frames[0] += 1
                answer = json.loads(line)
                if answer["changed"]:
                    printed.append(answer["label"])

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
                if sum("lost; waiting" in note for note in notes) >= taken:
                    os.replace(hidden, video)
            elif taken < len(due) and now >= due[taken]:
                os.replace(video, hidden)
                taken += 1
            if broker is not None:  # between two losses of the source
                step = seconds / args.away
                since = now % step - 0.7 * step
                broker.present(not 0 <= since < min(step / 4, BROKER_AWAY))
            memory.append(memory_mb(process.pid))
            time.sleep(1)
        if broker is not None:
            broker.present(True)
            time.sleep(SETTLE)
        process.terminate()
        code = process.wait(30)
        for thread in threads:
            thread.join()
    settled = memory[len(memory) // 10 :]
    part = max(len(settled) // 5, 1)
    before, after = (float(np.median(m)) for m in (settled[:part], settled[-part:]))
    back = sum("back after" in note for note in notes)
    held = after <= before * MAX_GROWTH and back == taken == args.away and code == 0
    delivered: dict[str, Any] = {}
    if broker is not None:
        got = broker.close()
        lost = got != printed
        held = held and not lost
        delivered = {
            "broker_killed": broker.killed,
            "changes": len(printed),
            "changes_delivered": len(got),
            "in_order": not lost,
            "first_difference": first_difference(got, printed),
        }
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
        **delivered,
        "exit_code": code,
        "held": held,
    }


class Broker:
    """A mosquitto that is killed, and what a subscriber whom it remembers was told."""

    def __init__(self, folder: Path) -> None:

        from paho.mqtt import client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion

        sys.path.insert(0, str(ROOT))
        from tests.camera_room import Mosquitto

        self._broker = Mosquitto(
            folder,
            "allow_anonymous true",
            *("persistence true", f"persistence_location {folder}/"),
            *("autosave_on_changes true", "autosave_interval 1"),
        )
        self.port = self._broker.port
        self._is_there = False
        self.killed = 0
        self._labels: list[str] = []
        self._seen: set[bytes] = set()
        self.present(True)
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id="soak", clean_session=False
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("soak/state", 1)
        self._client.on_message = self._note
        self._client.connect_async("127.0.0.1", self.port)
        self._client.loop_start()

    def present(self, there: bool) -> None:
        if there == self._is_there:
            return
        if there:
            self._broker.start()
        else:
            self._broker.kill()
            self.killed += 1
        self._is_there = there

    def _note(self, client: Any, data: Any, message: Any) -> None:
        """A label; QoS 1 may bring a message again, a heartbeat says it anew."""
        if message.payload in self._seen:
            return
        self._seen.add(message.payload)
        label = json.loads(message.payload)["label"]
        if self._labels[-1:] != [label]:
            self._labels.append(label)

    def close(self) -> list[str]:
        """The labels, in their order."""
        self._client.disconnect()
        self._client.loop_stop()
        self._broker.kill()
        return self._labels


def first_difference(got: list[str], want: list[str]) -> str | None:
    """Where two lists of labels part, for a person; None for equal ones."""
    pairs = enumerate(itertools.zip_longest(got, want))
    return next((f"{place}: {a}, not {b}" for place, (a, b) in pairs if a != b), None)


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
