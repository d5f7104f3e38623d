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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge.command import Parser, guard
from edge.errors import EdgegraftError

if TYPE_CHECKING:
    from data.audit import Audit
    from data.folder import PhotoFolder
    from data.report import Exclusion
    from data.split import Split


def main(argv: Sequence[str] | None = None, prog: str = "python -m data") -> int:
    """Run a verb; the exit code."""
    args = _parser(prog).parse_args(argv)
    return guard(lambda: int(args.run(args)), debug=args.debug)


def _parser(prog: str) -> argparse.ArgumentParser:
    shared = Parser(add_help=False)
    shared.add_argument("--debug", action="store_true", help="show the traceback")
    reading = Parser(add_help=False, parents=[shared])
    reading.add_argument(
        "photos",
        type=Path,
        metavar="PHOTOS",
        help="folder with a folder per label, a list (.csv, .jsonl: path, label, and "
        "split, group if wanted) or an archive (.zip, .tar, .tar.gz)",
    )
    reading.add_argument(
        "--no-memory",
        action="store_true",
        help="decode photos that an earlier audit knows as well",
    )
    reading.add_argument(
        "--follow-links", action="store_true", help="enter linked folders too"
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
    verb.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="also write audit.html (thumbnails), audit.csv and audit.json there",
    )
    verb.add_argument("--overwrite", action="store_true")
    _add_exclusion(verb)
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
    verb.add_argument(
        "--keep",
        type=Path,
        metavar="CSV",
        help="an earlier split.csv: its photos stay where they were",
    )
    verb.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="K splits for cross-validation, as split-1.csv to split-K.csv",
    )
    verb.add_argument("--overwrite", action="store_true")
    _add_exclusion(verb)
    verb.set_defaults(run=_split)

    verb = verbs.add_parser(
        "sample", parents=[shared], help="draw a set of cats and dogs to try things on"
    )
    verb.add_argument("folder", type=Path, metavar="DIR")
    verb.add_argument(
        "--count", type=int, default=120, metavar="N", help="per label (default: 120)"
    )
    verb.add_argument("--seed", type=int, default=0, help="default: 0")
    verb.add_argument(
        "--faults",
        action="store_true",
        help="plant copies, wrong labels, damage and blur, listed in faults.json",
    )
    verb.set_defaults(run=_sample)
    return parser


def _add_exclusion(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--exclude-from",
        type=Path,
        metavar="CSV",
        help="leave out the photos that this audit.csv marks with exclude = yes",
    )


def _audit(args: argparse.Namespace) -> int:
    from data.report import refuse, write
    from data.walk import shown

    if args.output is not None:
        refuse(args.output, args.overwrite)  # before minutes of reading
    started = time.perf_counter()
    folder, exclusion = _chosen(args)
    report = _audited(folder, args)
    seconds = time.perf_counter() - started
    if args.output is not None:
        page = write(report, args.output, overwrite=args.overwrite)
    if args.json:
        record = {**report.to_dict(), "seconds": round(seconds, 3)}
        if exclusion is not None:
            record["excluded"] = exclusion.to_dict()
        print(json.dumps(record, indent=2))
        return 1 if report.obstacles else 0
    print("\n".join(report.lines()))
    _say_excluded(exclusion, report.digests)
    speed = len(report.folder.photos) / seconds
    print(f"took {seconds:.1f} s, {speed:,.0f} photos/s")
    if args.output is not None:
        print(f"written: {shown(page)}, with audit.csv and audit.json beside it")
    elif report.findings:
        print("see them: add -o DIR for a page with thumbnails and an audit.csv")
    return 1 if report.obstacles else 0


def _audited(folder: "PhotoFolder", args: argparse.Namespace) -> "Audit":
    from data.archive import cache_folder
    from data.audit import audit
    from data.memory import Memory
    from data.walk import shown

    progress = _progress("reading photos")
    if args.no_memory:
        return audit(folder, workers=args.workers, progress=progress)
    with Memory(cache_folder() / "audits.sqlite") as memory:
        report = audit(folder, workers=args.workers, memory=memory, progress=progress)
    if memory.problem:
        print(f"warning: not remembered: {shown(memory.problem)}", file=sys.stderr)
    return report


def _chosen(args: argparse.Namespace) -> "tuple[PhotoFolder, Exclusion | None]":
    """The photos asked for, without those that --exclude-from leaves out."""
    from data.folder import scan
    from data.report import read_exclusion

    folder = scan(args.photos, follow_links=args.follow_links)
    if args.exclude_from is None:
        return folder, None
    exclusion = read_exclusion(args.exclude_from, folder)
    return exclusion.apply(folder), exclusion


def _say_excluded(exclusion: "Exclusion | None", digests: Mapping[Path, str]) -> None:
    from data.walk import shown

    if exclusion is None:
        return
    print(f"{len(exclusion.paths):,} photos left out by {shown(exclusion.source)}")
    changed = exclusion.changed(digests)
    if changed:
        print(
            f"warning: {len(changed):,} photos changed since that audit "
            f"(first: {shown(changed[0])}); audit them anew"
        )


def _split(args: argparse.Namespace) -> int:
    from data.split import Split, make_folds, make_split, refuse_existing
    from data.walk import shown

    if args.folds is not None and args.keep is not None:
        raise EdgegraftError("split: expected --folds or --keep, got both")
    outputs = [args.output]
    if args.folds is not None:
        stem, ending = args.output.stem, args.output.suffix
        outputs = [
            args.output.with_name(f"{stem}-{k}{ending}")
            for k in range(1, max(args.folds, 0) + 1)
        ]
    for output in outputs:
        refuse_existing(output, args.overwrite)  # before minutes of reading
    folder, exclusion = _chosen(args)
    keep = None if args.keep is None else Split.read(args.keep, folder.root)
    report = _audited(folder, args)
    photos, together = folder.photos, report.alike
    if args.folds is not None:
        splits = make_folds(
            photos, report.kept, args.folds, seed=args.seed, together=together
        )
    else:
        split = make_split(
            photos,
            report.kept,
            seed=args.seed,
            val=args.val,
            test=args.test,
            together=together,
            keep=keep,
        )
        splits = (split,)
    for output, split in zip(outputs, splits, strict=True):
        split.write(output, folder.root, overwrite=args.overwrite)
    left_out = len(folder.photos) - len(report.kept)
    if args.json:
        records = [
            {
                "path": str(output),
                "fingerprint": split.fingerprint,
                "labels": split.counts(),
                "left_out": left_out,
                **({} if exclusion is None else {"excluded": exclusion.to_dict()}),
            }
            for output, split in zip(outputs, splits, strict=True)
        ]
        print(json.dumps(records if args.folds is not None else records[0], indent=2))
        return 0
    for output, split in zip(outputs, splits, strict=True):
        _print_counts(split)
        print(f"written to {shown(output)}, fingerprint {split.fingerprint[:12]}")
    if left_out:
        print(f"{left_out:,} photos left out (see: edgegraft data audit)")
    _say_excluded(exclusion, report.digests)
    return 0


def _print_counts(split: "Split") -> None:
    from data.parts import PARTS

    counts = split.counts()
    wide = max(len("label"), *(len(label) for label in counts))
    print("label".ljust(wide) + "".join(f"{part:>9}" for part in PARTS))
    for label, row in counts.items():
        print(label.ljust(wide) + "".join(f"{row[part]:>9,}" for part in PARTS))


def _sample(args: argparse.Namespace) -> int:
    if args.faults:
        return _faulty(args)
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


def _faulty(args: argparse.Namespace) -> int:
    from data.faults import TRUTH, write_faulty
    from data.walk import shown

    found = write_faulty(
        args.folder,
        count=args.count,
        seed=args.seed,
        progress=_progress("drawing pictures"),
    )
    planted = ", ".join(f"{len(x):,} {kind}" for kind, x in found.faults.items())
    print(f"drawn, with faults on purpose: {shown(found.photos)}")
    print(f"planted: {planted}; see {TRUTH}")
    print(f"next: edgegraft data audit {shown(found.photos)}")
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
