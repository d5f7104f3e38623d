"""Damaged, hostile and odd files through the commands and the page, at random.

    python -m tests.fuzz [--minutes 15] [--seed N] [--only photos,models] [--keep DIR]
    python -m tests.fuzz --slice       (seconds: some kinds, without TensorFlow)

Kinds, with their full numbers: 10,000 photos through `edge classify` and `data audit`;
3,000 changed networks through `edge info`, `classify`, `evaluate`, `bench`, each tenth
through `compare`, which takes seconds; 500 model cards and 500 runs with hostile
records; 200 archives, each audited twice; 500 visits of the page, served under
`ulimit -n 256`; a `build` killed at 20 random moments and resumed. Each kind has a
share of the minutes and ends at its number or with its share; the figures say how many
there were. Sought: signals, tracebacks, unexpected exit codes, more than 10 s of
processor time, changed files, connections to others, characters that a terminal acts
on, more than 400 MiB for a photo, for a changed network more than its bound (1 GiB).
The files of a batch with a fault are kept with --keep. The same seed makes the same
files.

The last line is one JSON object. Exits 1 where there was a fault.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import batches, processes
from tests.fuzz.batches import Base, Tally

Work = Callable[[Base, int, int, Path | None], Tally]


@dataclass(frozen=True)
class Kind:
    """`full` inputs, `batch` at a time, in `share` of the minutes."""

    work: Work
    full: int
    batch: int
    share: float


KINDS = {
    "photos": Kind(batches.photos, 10_000, 100, 0.18),
    "models": Kind(batches.models, 3_000, 10, 0.32),
    "cards": Kind(batches.cards, 500, 5, 0.1),
    "runs": Kind(batches.runs, 500, 5, 0.1),
    "archives": Kind(batches.archives, 200, 5, 0.06),
    "visits": Kind(processes.visits, 500, 500, 0.1),
    "kills": Kind(processes.kills, 20, 20, 0.14),
}
SLICE = {"photos": 30, "models": 4, "cards": 3, "runs": 3, "archives": 2}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=15.0, help="in all (15)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join(KINDS), help="kinds, with commas")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="for files at fault")
    parser.add_argument("--slice", action="store_true", help="a few of each, in one go")
    args = parser.parse_args()
    chosen = list(SLICE) if args.slice else args.only.split(",")
    begin, total, figures = time.monotonic(), Tally(), {}
    with tempfile.TemporaryDirectory(prefix="edgegraft-fuzz-") as scratch:
        os.environ["EDGEGRAFT_CACHE"] = str(Path(scratch, "cache"))
        base = tiny_base(Path(scratch)) if args.slice else make_base(Path(scratch))
        shares = sum(KINDS[name].share for name in chosen)
        if args.slice:
            batches.load()
        for name in chosen:
            seconds = args.minutes * 60 * KINDS[name].share / shares
            if args.slice:
                tally = KINDS[name].work(base, args.seed, SLICE[name], args.keep)
            else:
                tally = campaign(KINDS[name], base, args.seed, seconds, args.keep)
            total.merge(tally)
            figures[name] = dict(tally.counts)
            print(f"{name}: {figures[name]}, {len(tally.faults)} faults", flush=True)
            for fault in tally.faults:
                print(f"  {fault}", file=sys.stderr)
    record = {
        "campaign": "fuzz",
        "seed": args.seed,
        **figures,
        "peak_mib": round(total.peak_mib),
        "slowest_s": round(total.slowest_s, 1),
        "faults": len(total.faults),
        "minutes": round((time.monotonic() - begin) / 60, 1),
    }
    print(json.dumps(record))
    return 1 if total.faults else 0


def make_base(folder: Path) -> Base:
    """A real run with two files, of drawn photos, and the photos beside it."""
    from data.sample.sample_set import write_sample

    sample = write_sample(folder / "sample", count=24, seed=3, unknown=1)
    command = [
        sys.executable, "-m", "edgegraft", "build", sample.photos, "--run", "good",
        "--artifacts", folder / "artifacts", "--backbone", "custom_cnn",
        "--size", "32", "--epochs", "1", "--no-ladder",
    ]  # fmt: skip
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode not in processes.BUILT:
        raise RuntimeError(built.stderr)
    return Base(folder / "artifacts" / "good", sample.tests[0], sample.photos)


def tiny_base(folder: Path) -> Base:
    """A run written by hand, its networks too, without TensorFlow."""
    from tests.page_helpers import photo, write_run

    picture = folder / "red.png"
    picture.write_bytes(photo("red"))
    return Base(write_run(folder / "artifacts"), picture, folder / "photos")


def campaign(
    kind: Kind, base: Base, seed: int, seconds: float, keep: Path | None
) -> Tally:
    """Batches on all cores until the kind's number or its time is reached."""
    end, total = time.monotonic() + seconds, Tally()
    waiting: set[Future[Tally]] = set()
    starts = iter(range(0, kind.full, kind.batch))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, batches.load) as pool:
        while True:
            while len(waiting) < 2 * (os.cpu_count() or 1):
                start = next(starts, None)
                if start is None or time.monotonic() > end:
                    break
                order = base, seed * 1_000_003 + start, kind.batch, keep
                waiting.add(pool.submit(kind.work, *order))
            if not waiting:
                return total
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                total.merge(future.result())


if __name__ == "__main__":
    sys.exit(main())
