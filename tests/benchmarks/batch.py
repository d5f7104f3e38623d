"""`edge classify FOLDER`: all cores against one worker, and memory against photos.

    python tests/benchmarks/batch.py [--model FILE] [--photos DIR] [--count 2000]

The same folder of --count photos (links to those of --photos, of $EDGEGRAFT_ASSETS, or
drawn ones) with one worker (one thread), with one for each core (the default), and
with one worker whose interpreter takes all cores, in turn, twice each, in fresh
processes; the better time of each counts, and the goal compares the first two.
Then a tenth of the photos: the peak of resident memory must not grow by more than
5 % with ten times as many. Without --model an int8 MobileNetV2 1.0 at 224 of random
weights. Ends in one JSON line; exits 1 where a goal is missed. It does not know:
accuracy, other programs on the machine (the load is in the record; two workers need
two idle cores).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from edge.classify.sources import walk  # noqa: E402
from edge.runtime import cores  # noqa: E402
from tests.bench_room import circumstances, make_model  # noqa: E402

MIN_SPEEDUP, MAX_GROWTH = 1.7, 1.05
ROUNDS = 2
WAYS = {
    "one worker": ("--workers", "1", "--threads", "1"),
    "one worker of all threads": ("--workers", "1"),
    "all workers": (),
}
# The command, then its own peak of memory (not the parent's at the fork).
COMMAND = """
import sys
from edge.cli import main
from edge.machine import peak_memory_mb
code = main(sys.argv[1:])
print(peak_memory_mb(), file=sys.stderr)
sys.exit(code)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--count", type=int, default=2000, help="photos (2000)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        model = args.model
        if model is None:
            model = make_model(place)
        many = links(sources(args.photos, place), place / "many", args.count)
        few = links(many, place / "few", args.count // 10)
        record = measure(model, many[0].parent, few[0].parent, place)
    record |= {
        "photos": args.count,
        "cores": cores(),
        **circumstances(),
    }
    print(json.dumps(record))
    return 0 if record["held"] else 1


def sources(folder: Path | None, scratch: Path) -> list[Path]:
    """Photos that there are; drawn ones where there are none."""
    assets = os.environ.get("EDGEGRAFT_ASSETS")
    if folder is None and assets:
        folder = Path(assets, "photos", "cats_dogs", "train")
    if folder is None:
        from PIL import Image

        folder = scratch / "drawn"
        folder.mkdir()
        for number in range(20):
            noise = Image.effect_noise((500, 375), 40 + number).convert("RGB")
            noise.save(folder / f"{number}.jpg", quality=90)
    return list(map(Path, walk(str(folder))))


def links(photos: list[Path], folder: Path, count: int) -> list[Path]:
    """A folder of `count` links, to the photos in turn."""
    folder.mkdir()
    made = [folder / f"{number:05}.jpg" for number in range(count)]
    for number, link in enumerate(made):
        link.symlink_to(photos[number % len(photos)].resolve())
    return made


def measure(model: Path, many: Path, few: Path, scratch: Path) -> dict[str, Any]:
    """Seconds and memory of one worker and of all, in turn."""
    best: dict[str, float] = {}
    peak: dict[str, float] = {}
    for _ in range(ROUNDS):
        for way, asked in WAYS.items():
            took, memory = run(model, many, asked, scratch)
            best[way] = min(took, best.get(way, took))
        peak["many"] = memory
        _, peak["few"] = run(model, few, (), scratch)
    speedup = best["one worker"] / best["all workers"]
    growth = peak["many"] / peak["few"]
    print(
        f"{', '.join(f'{way} {best[way]:.2f} s' for way in WAYS)}: "
        f"{speedup:.2f} x (goal {MIN_SPEEDUP}); {peak['few']:.1f} MiB for a tenth, "
        f"{peak['many']:.1f} MiB: {growth:.3f} x (goal {MAX_GROWTH})"
    )
    return {
        "benchmark": "batch",
        **{f"{way.replace(' ', '_')}_s": round(best[way], 2) for way in WAYS},
        "speedup": round(speedup, 3),
        "memory_few_mib": round(peak["few"], 1),
        "memory_many_mib": round(peak["many"], 1),
        "memory_growth": round(growth, 4),
        "held": speedup >= MIN_SPEEDUP and growth <= MAX_GROWTH,
    }


def run(
    model: Path, folder: Path, asked: Sequence[str], scratch: Path
) -> tuple[float, float]:
    """Seconds of the whole command, MiB at its peak."""
    out = scratch / "answers.csv"
    out.unlink(missing_ok=True)
    start = time.perf_counter()
    done = subprocess.run(
        [
            *(sys.executable, "-c", COMMAND, "classify", str(model), str(folder)),
            *("--csv", "-o", str(out), *asked),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    took = time.perf_counter() - start
    answers = len(out.read_text("utf-8").splitlines()) - 1
    if answers != len(os.listdir(folder)):
        raise RuntimeError(f"expected an answer to each photo, got {answers}")
    return took, float(done.stderr.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
