"""The verbs for photos: audit, split, sample, capture.

Every verb returns an exit code: 0 done, 1 the audit found too few photos of a label,
or too few labels, to train on, 2 bad input (one line on stderr). Reports go to stdout,
progress to stderr where a person watches.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data.source import PhotoOptions, choose
from edge.command import Parser, add_megapixels, guard, region
from edge.errors import EdgegraftError
from edge.terminal import Progress
from edge.text import columns, plural, printable

if TYPE_CHECKING:
    from data.audit.audit import Audit
    from data.capture import Session
    from data.photos import PhotoFolder

AddParser = Callable[..., argparse.ArgumentParser]


def main(argv: Sequence[str] | None = None, prog: str = "edgegraft data") -> int:
    """Run a verb; the exit code."""
    args = _parser(prog).parse_args(argv)
    return guard(lambda: int(args.run(args)), debug=args.debug)


def _audit(args: argparse.Namespace, folder: "PhotoFolder") -> "Audit":
    from data.audit.audit import audit
    from data.audit.facts import FactCache
    from data.store import cache_folder

    with Progress(title="reading photos") as bar:
        if args.no_memory:
            return audit(folder, workers=args.workers, progress=bar.update)
        with FactCache(cache_folder() / "audits.sqlite") as fact_cache:
            report = audit(
                folder,
                workers=args.workers,
                fact_cache=fact_cache,
                progress=bar.update,
            )
    if fact_cache.problem:
        problem = printable(fact_cache.problem)
        print(f"warning: not kept for the next audit: {problem}", file=sys.stderr)
    return report


def audit_photos(args: argparse.Namespace) -> int:
    """Print the audit; write it into a folder with --output."""
    from data.audit.report import refuse, write

    options = PhotoOptions.from_args(args)
    if args.output is not None:
        refuse(args.output, args.overwrite)  # before minutes of reading
    started = time.perf_counter()
    source = choose(args.photos, args.exclude_from, options, allow_few=True)
    report = _audit(args, source.folder)
    seconds = time.perf_counter() - started
    exit_code = 1 if report.obstacles else 0
    if args.output is not None:
        page = write(report, args.output, overwrite=args.overwrite)
    if args.json:
        record = {**report.to_dict(), "seconds": round(seconds, 3)}
        if source.exclusion is not None:
            record["excluded"] = source.exclusion.to_dict()
        print(json.dumps(record, indent=2))
        return exit_code
    print("\n".join([*report.lines(), *source.lines(report.digests)]))
    speed = len(report.folder.photos) / seconds
    print(f"took {seconds:.1f} s, {speed:,.0f} photos/s")
    if args.output is not None:
        print(f"written: {printable(page)}, with audit.csv and audit.json beside it")
    elif report.findings:
        print("see them: add -o DIR for a page with thumbnails and an audit.csv")
    return exit_code


def split_photos(args: argparse.Namespace) -> int:
    """Write split.csv, or split-1.csv to split-K.csv with --folds K."""
    from data.split import Split, make_folds, make_split, refuse_existing

    options = PhotoOptions.from_args(args)
    paths: list[Path] = [args.output]
    if args.folds is not None:
        if args.keep is not None:
            raise EdgegraftError("split: expected --folds or --keep, got both")
        stem, suffix = args.output.stem, args.output.suffix
        paths = [
            args.output.with_name(f"{stem}-{fold + 1}{suffix}")
            for fold in range(args.folds)
        ]
    for path in paths:
        refuse_existing(path, args.overwrite)  # before minutes of reading
    source = choose(args.photos, args.exclude_from, options)
    folder, exclusion = source.folder, source.exclusion
    keep = None if args.keep is None else Split.read(args.keep, folder.root)
    report = _audit(args, folder)
    splits: tuple[Split, ...]
    if args.folds is not None:
        splits = make_folds(
            folder.photos,
            report.usable_digests,
            args.folds,
            seed=args.seed,
            near_duplicates=report.near_duplicates,
        )
    else:
        splits = (
            make_split(
                folder.photos,
                report.usable_digests,
                seed=args.seed,
                val=args.val,
                test=args.test,
                near_duplicates=report.near_duplicates,
                previous=keep,
            ),
        )
    written = list(zip(paths, splits, strict=True))
    for path, split in written:
        split.write(path, folder.root, overwrite=args.overwrite)
    left_out = len(folder.photos) - len(report.usable_digests)
    if args.json:
        records = [
            {
                "path": str(path),
                "fingerprint": split.fingerprint,
                "labels": split.counts(),
                "left_out": left_out,
                **({} if exclusion is None else {"excluded": exclusion.to_dict()}),
            }
            for path, split in written
        ]
        print(json.dumps(records[0] if args.folds is None else records, indent=2))
        return 0
    for path, split in written:
        print("\n".join(_split_table(split.counts())))
        print(f"written to {printable(path)}, fingerprint {split.fingerprint[:12]}")
    if report.in_large_groups:
        print(f"warning: {report.warnings[0]}")
    for note in folder.messages:
        print(f"note: {note}")
    if left_out:
        print(f"{plural(left_out, 'photo')} left out (see: edgegraft data audit)")
    for line in source.lines(report.digests):
        print(line)
    return 0


def _split_table(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Photos of each label in each part; of many labels the rarest."""
    from data.audit.audit import ROWS
    from data.photos import PARTS

    labels = list(counts)
    if len(labels) > ROWS:
        labels = sorted(labels, key=lambda label: sum(counts[label].values()))[:ROWS]
    rows = [
        [printable(label), *(f"{counts[label][part]:,}" for part in PARTS)]
        for label in labels
    ]
    lines = columns(rows, ["label", *PARTS])
    more = len(counts) - len(labels)
    if more:
        lines.append(f"and {plural(more, 'label')} with as many photos or more")
    return lines


def draw_sample(args: argparse.Namespace) -> int:
    """Draw the sample set; with --faults, plant faults in it."""
    from data.sample.sample_set import FAULTS_FILE, write_faulty, write_sample

    options = {"count": args.count, "seed": args.seed}
    with Progress(title="drawing", unit="picture") as bar:
        if not args.faults:
            sample = write_sample(args.folder, **options, progress=bar.update)
        else:
            faulty = write_faulty(args.folder, **options, progress=bar.update)
    if not args.faults:
        print(f"drawn, not photographed: {printable(sample.photos)}")
        print(f"next: edgegraft build {printable(sample.photos)}")
        return 0
    planted = ", ".join(f"{len(x):,} {kind}" for kind, x in faulty.faults.items())
    print(f"drawn, with faults on purpose: {printable(faulty.photos)}")
    print(f"planted: {planted}; see {FAULTS_FILE}")
    print(f"next: edgegraft data audit {printable(faulty.photos)}")
    return 0


def capture_photos(args: argparse.Namespace) -> int:
    """Take photos of one label from a camera or a video file."""
    from data.capture import collect, counts, frames, frames_on_key, what_next
    from edge.camera.sources import find

    def report(session: "Session", outcome: str) -> None:
        print(f"{outcome}: {session.kept:,} of {session.label}", flush=True)

    source = find(args.source, None, live=args.keys)
    if args.keys:
        print("press a key for each photo, q to end", flush=True)
        pictures = frames_on_key(source, sys.stdin.fileno())
    else:
        pictures = frames(source, args.every)
    session = collect(
        pictures,
        args.folder,
        args.label,
        max_photos=args.most,
        region=args.region,
        report=report,
    )
    print(f"kept {session.kept:,}, refused {session.blurred:,} blurred")
    if session.kept:
        for name, photos in counts(args.folder).items():
            print(f"{name}: {photos:,} photos")
        print(what_next(args.folder))
    return 0


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
    PhotoOptions.add_to(reading)
    add_megapixels(reading)
    reading.add_argument(
        "--exclude-from",
        type=Path,
        metavar="CSV",
        help="leave out the photos that this audit.csv or label_issues.csv marks with "
        "exclude = yes",
    )
    reading.add_argument(
        "--no-memory",
        action="store_true",
        help="decode all photos, those of an earlier audit too",
    )
    reading.add_argument(
        "--workers", type=int, metavar="N", help="threads (default: one per core)"
    )
    reading.add_argument("--json", action="store_true", help="print one JSON document")
    parser = Parser(prog=prog, description="Look at photos, and split them.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_audit(commands.add_parser, reading)
    _add_split(commands.add_parser, reading)
    _add_sample(commands.add_parser, shared)
    _add_capture(commands.add_parser, shared)
    return parser


def _add_audit(add_parser: AddParser, reading: Parser) -> None:
    verb = add_parser(
        "audit",
        parents=[reading],
        help="say what is wrong with a folder of photos",
        description="Check photos before a network learns from "
        "them: unreadable files, copies and near copies, two labels for one photo, "
        "blur, bad light. Nothing is changed. Of copies the one without another "
        "finding is kept, else the larger or the less compressed one. Exit code 1: "
        "too few photos or labels to train on.",
    )
    verb.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="also write audit.html (thumbnails), audit.csv and audit.json there",
    )
    verb.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an audit that is already there",
    )
    verb.set_defaults(run=audit_photos)


def _add_split(add_parser: AddParser, reading: Parser) -> None:
    verb = add_parser(
        "split",
        parents=[reading],
        help="split photos into train, val and test; write a CSV",
        description="Split photos into train, val and test, label by label, and "
        "record the part of each. Copies, near copies and photos of one group "
        "stay on one side; a seed always gives the same split.",
    )
    verb.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("split.csv"),
        metavar="CSV",
        help="default: split.csv; `build` takes it from inside PHOTOS, where its "
        "paths start",
    )
    verb.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="makes the split repeatable (default: 0)",
    )
    verb.add_argument(
        "--val",
        type=float,
        default=0.15,
        metavar="SHARE",
        help="of each label, to choose by (default: 0.15)",
    )
    verb.add_argument(
        "--test",
        type=float,
        default=0.15,
        metavar="SHARE",
        help="of each label, to measure on (default: 0.15)",
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
    verb.add_argument(
        "--overwrite", action="store_true", help="replace a split of that name"
    )
    verb.set_defaults(run=split_photos)


def _add_sample(add_parser: AddParser, shared: Parser) -> None:
    verb = add_parser(
        "sample",
        parents=[shared],
        help="draw a sample set of cats and dogs",
        description="Draw pictures of cats and dogs to try everything with, offline. "
        "What is measured on them says nothing about real photos.",
    )
    verb.add_argument(
        "folder", type=Path, metavar="DIR", help="a new folder for the set"
    )
    verb.add_argument(
        "--count", type=int, default=120, metavar="N", help="per label (default: 120)"
    )
    verb.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="makes the pictures repeatable (default: 0)",
    )
    verb.add_argument(
        "--faults",
        action="store_true",
        help="plant copies, wrong labels, damage and blur, listed in faults.json",
    )
    verb.set_defaults(run=draw_sample)


def _add_capture(add_parser: AddParser, shared: Parser) -> None:
    verb = add_parser(
        "capture",
        parents=[shared],
        help="take photos from a camera or a video file",
        description="Take photos of one label from a camera or a video, without "
        "blurred ones.",
    )
    verb.add_argument(
        "folder",
        type=Path,
        metavar="DIR",
        help="the folder of the label folders; photos in it are kept",
    )
    verb.add_argument("--label", required=True, help="the label of the photos")
    verb.add_argument(
        "--source",
        help="a camera's number or name, picamera, a video file or a stream's address "
        "(default: the first camera there is)",
    )
    when = verb.add_mutually_exclusive_group()
    when.add_argument(
        "--every",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="between photos (default: 1)",
    )
    when.add_argument(
        "--keys", action="store_true", help="take one when a key is pressed; q ends"
    )
    verb.add_argument(
        "--most",
        type=int,
        metavar="N",
        help="stop after N photos (default: at Ctrl-C or the video's end)",
    )
    verb.add_argument(
        "--region",
        type=region,
        metavar="X,Y,W,H",
        help="the part of the frame that the model is to look at, in shares from 0 to "
        "1 or in pixels; whole frames are kept, build takes it from captured.csv",
    )
    verb.set_defaults(run=capture_photos)
