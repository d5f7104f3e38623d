"""The verbs for photos: audit, split, sample, capture, and their options.

Every verb returns an exit code: 0 done, 1 the audit found too few photos of a label,
or too few labels, to train on, 2 bad input (one line on stderr).

It does not know what a verb does: that is `data.verbs`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from data import verbs
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
    commands = parser.add_subparsers(required=True, metavar="VERB")

    verb = commands.add_parser(
        "audit",
        parents=[reading],
        help="say what is wrong with a folder of photos",
        description="Says what is wrong with photos before a network learns from "
        "them: unreadable files, copies and near-copies, two labels for one photo, "
        "blur, bad light. Nothing is changed. Of copies the one without another "
        "finding is kept, else the larger or the sharper one. Exit code 1: too few "
        "photos or labels to train on.",
    )
    verb.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="also write audit.html (thumbnails), audit.csv and audit.json there",
    )
    verb.add_argument(
        "--overwrite", action="store_true", help="replace an audit that lies there"
    )
    _add_exclusion(verb)
    verb.set_defaults(run=verbs.audit_photos)

    verb = commands.add_parser(
        "split",
        parents=[reading],
        help="write train, val and test down as a CSV",
        description="Deals photos out to train, val and test, label by label, and "
        "writes down which went where. Copies, near-copies and photos of one group "
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
        help="another seed, another split (default: 0)",
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
    _add_exclusion(verb)
    verb.set_defaults(run=verbs.split_photos)

    verb = commands.add_parser(
        "sample",
        parents=[shared],
        help="draw a set of cats and dogs to try things on",
        description="Draws pictures of cats and dogs to try everything with, offline. "
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
        help="another seed, other pictures (default: 0)",
    )
    verb.add_argument(
        "--faults",
        action="store_true",
        help="plant copies, wrong labels, damage and blur, listed in faults.json",
    )
    verb.set_defaults(run=verbs.draw_sample)

    verb = commands.add_parser(
        "capture",
        parents=[shared],
        help="take photos from a camera or a video file",
        description="Takes photos of one label from a camera or a video, leaving out "
        "blurred ones and those that look like one kept before.",
    )
    verb.add_argument(
        "folder",
        type=Path,
        metavar="DIR",
        help="where the label folders lie; photos there are kept",
    )
    verb.add_argument("--label", required=True, help="what is to be seen")
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
    verb.set_defaults(run=verbs.capture_photos)
    return parser


def _add_exclusion(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--exclude-from",
        type=Path,
        metavar="CSV",
        help="leave out the photos that this audit.csv or doubts.csv marks with "
        "exclude = yes",
    )
