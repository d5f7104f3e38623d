"""`edgegraft robustness RUN`: a run's file on corrupted test photos.

Writes robustness.json and robustness.png into the run, and `robustness` into its
metrics.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from edge.command import run_command
from edge.errors import EdgegraftError

ROBUSTNESS = (
    "Measure a run's file on corrupted test photos: blur, noise, darkness, JPEG, "
    "rotation and small size, each at three strengths, through the runner that "
    "ships. Writes robustness.json and robustness.png into the run."
)


def add_parser(parser: argparse.ArgumentParser) -> None:
    from finetune.robustness import PHOTOS

    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="a run folder with exported files")
    add("--variant", default="int8", metavar="NAME", help="which file (default: int8)")
    add(
        "--photos",
        type=int,
        default=PHOTOS,
        metavar="N",
        help=f"test photos to corrupt (default: {PHOTOS})",
    )
    add("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    from backbones.keras import require_packages
    from finetune import robustness
    from finetune.console import Console
    from finetune.run import Run

    if args.photos < 1:
        raise EdgegraftError(f"expected --photos to be 1 or more, got {args.photos}")
    require_packages("robustness")
    opened = Run.open(args.run)
    if not opened.trained:
        raise opened.unfinished()
    model = opened.exports / f"{args.variant}.tflite"
    if not model.is_file():
        files = ", ".join(sorted(path.stem for path in opened.exports.glob("*.tflite")))
        raise EdgegraftError(
            f"expected --variant to be one of the files in {opened.exports} "
            f"({files or 'none yet'}), got {args.variant!r}; make others with: "
            f"edgegraft quantize {opened.folder} --variants NAME,... (its -h lists "
            "the names)"
        )
    console = Console(json=args.json)
    record = robustness.measure(opened, model, console, count=args.photos)
    opened.write_json("robustness.json", record)
    if metrics := opened.metrics:
        opened.write_json("metrics.json", {**metrics, "robustness": record})
    picture = opened.folder / "robustness.png"
    robustness.draw(picture, record, opened.part("test")[0].path)
    if args.json:
        json.dump({"run": str(opened.folder), **record}, sys.stdout)
        print()
        return 0
    for line in robustness.lines(record):
        console.say(line)
    console.say(f"picture: {picture}")
    return 0


def main(argv: Sequence[str] | None = None, prog: str = "edgegraft robustness") -> int:
    """`edgegraft robustness`; returns the exit code."""
    return run_command(add_parser, run, argv, prog, ROBUSTNESS)
