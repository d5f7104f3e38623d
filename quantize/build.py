"""`edgegraft build PHOTOS`: audit, split, fine-tune, export, compare, in one command.

The photos are decoded once and the network stays in memory from the first step to the
last; each step is the verb of the same name and leaves the same files.

It does not know: how any of the steps works.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.command import run_command

DESCRIPTION = "Photos in, a verified int8 .tflite out: every step in one command."
SAMPLE_COUNT = 250  # drawn photos of each label, when no photos are given


def add_parser(parser: argparse.ArgumentParser) -> None:
    """`edgegraft build`."""
    from finetune.cli import add_options
    from quantize.cli import add_compare_options, add_export_options

    parser.add_argument(
        "photos",
        type=Path,
        nargs="?",
        metavar="PHOTOS",
        help="a folder with one folder per label; without it, a drawn sample set of "
        "cats and dogs is made and used (custom_cnn from scratch)",
    )
    add_options(parser)
    add_export_options(parser)
    add_compare_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _draw_sample(args: argparse.Namespace, console: Any) -> list[Path]:
    """Make the built-in set the input; the two pictures to try at the end."""
    from data.sample import write_sample

    console.stage("no photos given: drawing the sample set of cats and dogs")
    sample = write_sample(args.artifacts / "sample", count=SAMPLE_COUNT)
    args.photos = sample.photos
    args.run = args.run or "sample"
    if args.backbone is None:
        args.backbone = "custom_cnn"
    return [sample.test_cat, sample.test_dog]


def _try(model: Path, pictures: Sequence[Path], console: Any) -> None:
    from edge.classifier import Classifier
    from edge.quiet import without_chatter

    with without_chatter():
        classifier = Classifier(model)
    for picture in pictures:
        found = classifier.classify(picture)
        console.say(f"{picture}: {found.label} {found.probability:.1%}")


def run(args: argparse.Namespace) -> int:
    """Build; 3 when int8 was rejected (everything else is written then, too)."""
    from finetune.cli import train
    from finetune.console import Console
    from quantize import report
    from quantize.compare import compare
    from quantize.export import EXIT_REJECTED, export

    console = Console(json=args.json)
    pictures = []
    if args.photos is None and not args.resume:
        pictures = _draw_sample(args, console)
    run, prepared, model = train(args, console)
    with prepared.pixels as pixels:
        results = export(
            run,
            args.variants.split(","),
            calibration_count=args.calibration,
            max_drop=args.max_drop / 100,
            overwrite=True,  # the run itself was new, or --overwrite was given
            model=model,
            pixels=pixels,
            console=console,
        )
        comparison = compare(
            run,
            runtime=args.runtime,
            threads=args.threads,
            pixels=pixels,
            console=console,
        )
    if args.json:
        json.dump({"run": str(run.folder), **comparison.to_dict()}, sys.stdout)
        print()
    else:
        for line in ("", *report.table(comparison), ""):
            console.say(line)
    shipped = [result for result in results.values() if not result.rejected]
    if shipped:
        best = shipped[-1].path
        _try(best, pictures, console)
        console.say(f"run folder: {run.folder}")
        console.say(f"next: edgegraft edge classify {best} PHOTO...")
    return EXIT_REJECTED if len(shipped) < len(results) else 0


def main(argv: Sequence[str] | None = None, prog: str = "edgegraft build") -> int:
    """`edgegraft build`; the exit code."""
    return run_command(add_parser, run, argv, prog, DESCRIPTION)
