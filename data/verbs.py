"""What the verbs for photos do: each takes the parsed options, returns an exit code.

Reports go to stdout, progress to stderr and only where a person watches.

It does not know what an audit looks for or how a split is dealt.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge.errors import EdgegraftError

if TYPE_CHECKING:
    from data.audit.audit import Audit
    from data.photos import PhotoFolder
    from data.source import Source
    from data.split import Split


def audit_photos(args: argparse.Namespace) -> int:
    from data.audit.report import refuse, write
    from data.scan import shown

    if args.output is not None:
        refuse(args.output, args.overwrite)  # before minutes of reading
    started = time.perf_counter()
    source = _chosen(args, few=True)
    report = _audited(source.folder, args)
    seconds = time.perf_counter() - started
    if args.output is not None:
        page = write(report, args.output, overwrite=args.overwrite)
    if args.json:
        record = {**report.to_dict(), "seconds": round(seconds, 3)}
        if source.exclusion is not None:
            record["excluded"] = source.exclusion.to_dict()
        print(json.dumps(record, indent=2))
        return 1 if report.obstacles else 0
    print("\n".join([*report.lines(), *source.lines(report.digests)]))
    speed = len(report.folder.photos) / seconds
    print(f"took {seconds:.1f} s, {speed:,.0f} photos/s")
    if args.output is not None:
        print(f"written: {shown(page)}, with audit.csv and audit.json beside it")
    elif report.findings:
        print("see them: add -o DIR for a page with thumbnails and an audit.csv")
    return 1 if report.obstacles else 0


def _audited(folder: "PhotoFolder", args: argparse.Namespace) -> "Audit":
    from data.archive import cache_folder
    from data.audit.audit import audit
    from data.audit.memory import Memory
    from data.scan import shown

    progress = _progress("reading photos")
    if args.no_memory:
        return audit(folder, workers=args.workers, progress=progress)
    with Memory(cache_folder() / "audits.sqlite") as memory:
        report = audit(folder, workers=args.workers, memory=memory, progress=progress)
    if memory.problem:
        print(f"warning: not remembered: {shown(memory.problem)}", file=sys.stderr)
    return report


def _chosen(args: argparse.Namespace, *, few: bool = False) -> "Source":
    from data.source import choose

    return choose(
        args.photos, args.exclude_from, follow_links=args.follow_links, few=few
    )


def split_photos(args: argparse.Namespace) -> int:
    from data.scan import shown
    from data.split import Split, make_folds, make_split, refuse_existing
    from edge.text import plural

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
    source = _chosen(args)
    folder, exclusion = source.folder, source.exclusion
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
        print(f"{plural(left_out, 'photo')} left out (see: edgegraft data audit)")
    for line in source.lines(report.digests):
        print(line)
    return 0


def _print_counts(split: "Split") -> None:
    from data.parts import PARTS

    counts = split.counts()
    wide = max(len("label"), *(len(label) for label in counts))
    print("label".ljust(wide) + "".join(f"{part:>9}" for part in PARTS))
    for label, row in counts.items():
        print(label.ljust(wide) + "".join(f"{row[part]:>9,}" for part in PARTS))


def draw_sample(args: argparse.Namespace) -> int:
    from data.sample.sample_set import write_sample
    from data.scan import shown

    if args.faults:
        return _faulty(args)
    sample = write_sample(
        args.folder,
        count=args.count,
        seed=args.seed,
        progress=_progress("drawing pictures"),
    )
    print(f"drawn, not photographed: {shown(sample.photos)}")
    print(f"next: edgegraft build {shown(sample.photos)}")
    return 0


def capture_photos(args: argparse.Namespace) -> int:
    from data.capture import (
        Session,
        collect,
        counts,
        frames,
        frames_on_key,
        what_next,
    )
    from edge.camera.sources import find

    def told(session: Session, what: str) -> None:
        print(f"{what}: {session.kept:,} of {session.label}", flush=True)

    source = find(args.source, None, live=args.keys)
    if args.keys:
        print("press a key for each photo, q to end", flush=True)
        taking = frames_on_key(source, sys.stdin.fileno())
    else:
        taking = frames(source, args.every)
    taken = collect(
        taking,
        args.folder,
        args.label,
        most=args.most,
        told=told,
    )
    print(
        f"kept {taken.kept:,}, refused {taken.blurred:,} blurred and "
        f"{taken.alike:,} that look like one kept before"
    )
    if taken.kept:
        for label, photos in counts(args.folder).items():
            print(f"{label}: {photos:,} photos")
        print(what_next(args.folder))
    return 0


def _faulty(args: argparse.Namespace) -> int:
    from data.sample.faults import TRUTH, write_faulty
    from data.scan import shown

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
