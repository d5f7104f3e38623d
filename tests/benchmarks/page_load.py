"""Twenty visitors of the page at once, for six minutes: errors, mix-ups, memory.

    python tests/benchmarks/page_load.py [--model FILE] [--visitors 20] [--seconds 360]

Each visitor speaks Streamlit's protocol in a session of its own: it uploads photo
after photo, each under a new name, and compares label and percent with what the same
file answers here, through `edge.Classifier`. The server's memory is read every second;
the peer is the server itself after the first half: the second half's largest against
the largest at its start (the ten seconds around the middle).

Ends in one JSON line; exits 1 on an error, a wrong answer, or memory that grew by more
than a tenth (with --report only says so). It does not know: what a browser does.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench_room import circumstances, make_model  # noqa: E402
from tests.page_client import Client  # noqa: E402
from tests.page_server import page, serve  # noqa: E402

Asked = list[tuple[bytes, tuple[str, str]]]  # a photo, its label and percent
GROWTH = 1.10
THINK = 0.25  # seconds a visitor looks at an answer
PHOTOS = 12


class Visitors:
    """What all of them saw."""

    def __init__(self, address: str, asked: Asked) -> None:
        self.address, self.asked = address, asked
        self.took: list[float] = []
        self.wrong: list[str] = []
        self.errors: list[str] = []
        self.stop = threading.Event()

    def visit(self, number: int) -> None:
        try:
            client = Client(self.address)
            turn = 0
            while not self.stop.is_set():
                content, want = self.asked[(number + turn) % len(self.asked)]
                name = f"visitor-{number}-photo-{turn}.jpg"
                start = time.perf_counter()
                told = client.ask(name, content)
                self.took.append(time.perf_counter() - start)
                if told != want:
                    self.wrong.append(f"{name}: expected {want}, got {told}")
                turn += 1
                self.stop.wait(THINK)
            client.close()
        except Exception as error:  # counted, whatever it is
            self.errors.append(f"visitor {number}: {type(error).__name__}: {error}")


def photos(model: Path) -> Asked:
    """Drawn photos and what the file answers, as the page writes it."""
    from PIL import Image

    from data.sample.picture import picture_file
    from edge.classifier import Classifier
    from streamlit_app.style import percent

    classifier = Classifier(model, threads=1)
    asked = []
    for index in range(PHOTOS):
        subject = ("cat", "dog")[index % 2]
        drawn = picture_file(subject, seed=1, stream=index, index=index)[1]
        image = Image.open(io.BytesIO(drawn)).convert("RGB").resize((1600, 1200))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=85)
        told = classifier.classify(file.getvalue())
        chance = percent(told.probability) if told.known else ""
        asked.append((file.getvalue(), (told.label, chance)))
    return asked


def memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no VmRSS")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="int8 file with a card")
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=360)
    parser.add_argument("--report", action="store_true", help="exit 0 whatever comes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = args.model or make_model(folder)
        (folder / "none").mkdir()
        command = page(model.resolve(), "--artifacts", folder / "none")
        with serve(command, folder / "log.txt") as served:
            visitors = Visitors(served.address, photos(model))
            threads = [
                threading.Thread(target=visitors.visit, args=(number,), daemon=True)
                for number in range(args.visitors)
            ]
            memory: list[tuple[float, float]] = []
            start = time.monotonic()
            for thread in threads:
                thread.start()
            while (now := time.monotonic() - start) < args.seconds:
                memory.append((now, memory_mib(served.process.pid)))
                time.sleep(1)
            visitors.stop.set()
            for thread in threads:
                thread.join(90)
    return report(visitors, memory, args)


def report(
    visitors: Visitors, memory: list[tuple[float, float]], args: argparse.Namespace
) -> int:
    half = args.seconds / 2
    middle = max(used for at, used in memory if half - 10 <= at <= half)
    later = max(used for at, used in memory if at > half)
    growth = later / middle
    for line in (*visitors.errors[:5], *visitors.wrong[:5]):
        print(line)
    held = not visitors.errors and not visitors.wrong and growth <= GROWTH
    took = sorted(visitors.took) or [0.0]
    print(
        f"{len(took):,} answers, {len(visitors.errors)} errors, {len(visitors.wrong)} "
        f"wrong; memory {middle:.0f} MiB at the middle, {later:.0f} after it "
        f"({growth:.3f}, goal {GROWTH}): {'held' if held else 'MISSED'}"
    )
    record = {
        "benchmark": "page_load",
        "visitors": args.visitors,
        "seconds": args.seconds,
        "answers": len(visitors.took),
        "errors": len(visitors.errors),
        "wrong": len(visitors.wrong),
        "ms": {
            "p50": round(median(took) * 1e3, 1),
            "p95": round(took[max(round(0.95 * len(took)) - 1, 0)] * 1e3, 1),
        },
        "memory_mib": {"middle": round(middle, 1), "later": round(later, 1)},
        "memory_growth": round(growth, 4),
        "held": held,
        **circumstances(),
    }
    print(json.dumps(record))
    return 0 if held or args.report else 1


if __name__ == "__main__":
    sys.exit(main())
