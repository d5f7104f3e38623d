"""The verbs for photos: audit, split, sample.

Every verb returns an exit code: 0 done, 1 the audit found photos that cannot be
trained on, 2 bad input (one line on stderr). Reports go to stdout, progress to
stderr and only where a person watches.

It does not know what an audit looks for or how a split is dealt.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edge.command import Parser, guard


def main(argv: Sequence[str] | None = None, prog: str = "python -m data") -> int:
    """Run a verb; the exit code."""
    args = _parser(prog).parse_args(argv)
    return guard(lambda: int(args.run(args)), debug=args.debug)


def _parser(prog: str) -> argparse.ArgumentParser:
    shared = Parser(add_help=False)
    shared.add_argument("--debug", action="store_true", help="show the traceback")
    reading = Parser(add_help=False, parents=[shared])
    reading.add_argument(
        "photos", type=Path, metavar="PHOTOS", help="folder with a folder per label"
    )
    reading.add_argument(
        "--workers", type=int, metavar="N", help="threads (default: one per core)"
    )
    reading.add_argument("--json", action="store_true", help="print one JSON document")
    parser = Parser(prog=prog, description="Look at photos, and split them.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    verb = verbs.add_parser(
        "audit", parents=[reading], help="say what is wrong with a folder of photos"
    )
    verb.set_defaults(run=_audit)

    verb = verbs.add_parser(
        "split", parents=[reading], help="write train, val and test down as a CSV"
    )
    verb.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("split.csv"),
        metavar="CSV",
        help="default: split.csv",
    )
    verb.add_argument("--seed", type=int, default=0, help="default: 0")
    verb.add_argument(
        "--val", type=float, default=0.15, metavar="SHARE", help="default: 0.15"
    )
    verb.add_argument(
        "--test", type=float, default=0.15, metavar="SHARE", help="default: 0.15"
    )
    verb.add_argument("--overwrite", action="store_true")
    verb.set_defaults(run=_split)

    verb = verbs.add_parser(
        "sample", parents=[shared], help="draw a set of cats and dogs to try things on"
    )
    verb.add_argument("folder", type=Path, metavar="DIR")
    verb.add_argument(
        "--count", type=int, default=120, metavar="N", help="per label (default: 120)"
    )
    verb.add_argument("--seed", type=int, default=0, help="default: 0")
    verb.set_defaults(run=_sample)
    return parser


def _audit(args: argparse.Namespace) -> int:
    from data.audit import audit
    from data.folder import scan

    started = time.perf_counter()
    report = audit(
        scan(args.photos), workers=args.workers, progress=_progress("reading photos")
    )
    seconds = time.perf_counter() - started
    if args.json:
        print(json.dumps({**report.to_dict(), "seconds": round(seconds, 3)}, indent=2))
    else:
        print("\n".join(report.lines()))
        speed = len(report.folder.photos) / seconds
        print(f"took {seconds:.1f} s, {speed:,.0f} photos/s")
    return 1 if report.obstacles else 0


def _split(args: argparse.Namespace) -> int:
    from data.audit import audit
    from data.folder import scan
    from data.parts import PARTS
    from data.split import make_split, refuse_existing
    from data.walk import shown

    refuse_existing(args.output, args.overwrite)  # before minutes of reading
    folder = scan(args.photos)
    report = audit(folder, workers=args.workers, progress=_progress("reading photos"))
    split = make_split(
        folder.photos, report.kept, seed=args.seed, val=args.val, test=args.test
    )
    split.write(args.output, folder.root, overwrite=args.overwrite)
    left_out = len(folder.photos) - len(report.kept)
    counts = split.counts()
    if args.json:
        record = {
            "path": str(args.output),
            "fingerprint": split.fingerprint,
            "labels": counts,
            "left_out": left_out,
        }
        print(json.dumps(record, indent=2))
        return 0
    wide = max(len("label"), *(len(label) for label in counts))
    print("label".ljust(wide) + "".join(f"{part:>9}" for part in PARTS))
    for label, row in counts.items():
        print(label.ljust(wide) + "".join(f"{row[part]:>9,}" for part in PARTS))
    print(f"written to {shown(args.output)}, fingerprint {split.fingerprint[:12]}")
    if left_out:
        print(f"{left_out:,} photos left out (see: edgegraft data audit)")
    return 0


def _sample(args: argparse.Namespace) -> int:
    from data.sample import write_sample
    from data.walk import shown

    sample = write_sample(
        args.folder,
        count=args.count,
        seed=args.seed,
        progress=_progress("drawing pictures"),
    )
    print(f"drawn, not photographed: {shown(sample.photos)}")
    print(f"next: edgegraft build {shown(sample.photos)}")
    return 0


def _progress(doing: str) -> Callable[[int, int], None] | None:
    """A line that counts photos and the seconds left; None where nobody watches."""
    out = sys.stderr
    if not out.isatty():
        return None
    started = last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total:
            out.write("\r\033[K")
        elif now - last > 0.1:
            last = now
            left = (now - started) / done * (total - done)
            out.write(f"\r{doing} {done:,}/{total:,}, {left:.0f} s left \033[K")
        out.flush()

    return show
