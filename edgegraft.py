"""edgegraft: your photos in, a measured model file (.tflite) for a Raspberry Pi out.

To begin:
    edgegraft build                       try it on drawn cats and dogs, in a minute
    edgegraft build PHOTOS --run first    with your photos: a folder for each label
    edgegraft edge classify FILE PHOTO    what does a model file say of a photo?
    edgegraft app                         the same in the browser

All commands (edgegraft COMMAND -h tells the options of one):
    edgegraft build PHOTOS      everything in one go: look at the photos, train, write
                                the model files, measure them, say which one to ship
    edgegraft data              photos: find bad ones (audit), split, capture, draw some
    edgegraft backbones         the pretrained networks to start from
    edgegraft finetune PHOTOS   the training alone; leaves a run: a folder in artifacts/
    edgegraft quantize RUN      the model files of a run alone: float32 and int8, which
                                is a quarter of the size and faster on small processors
    edgegraft compare RUN...    accuracy, speed and size of files; which one to ship
    edgegraft robustness RUN    accuracy on blurred, dark, noisy and turned photos
    edgegraft edge              on the device: classify, camera, info, doctor, bench,
                                evaluate, pack
    edgegraft app               the page: drop photos, see answers

Exit codes: 0 done; 1 an audit found too few photos to train on; 2 bad input, or
a photo that cannot be read (one line on stderr says what and where, --debug shows the
traceback); 3 a file lost more accuracy than --max-drop allows, --target refuses it, or
none fits the budget; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

BUILD = "Photos in, a verified int8 .tflite out: every step in one command."
SAMPLE_COUNT = 250  # drawn photos of each label, when no photos are given
# verb -> (module with the command's main, name of that function)
VERBS = {
    "build": (__name__, "build_main"),
    "data": ("data.cli", "main"),
    "backbones": ("backbones.cli", "main"),
    "finetune": ("finetune.cli", "main"),
    "quantize": ("quantize.cli", "main"),
    "compare": ("quantize.cli", "compare_main"),
    "robustness": ("finetune.robustness_cli", "main"),
    "edge": ("edge.cli", "main"),
    "app": ("streamlit_app.cli", "main"),
}
# What stands below a verb, for those who leave it out
BELOW = {
    "edge": ("classify", "camera", "info", "doctor", "bench", "evaluate", "pack"),
    "data": ("audit", "split", "sample", "capture"),
}


def _add_build(parser: argparse.ArgumentParser) -> None:
    from finetune.cli import add_options
    from quantize.cli import add_compare_options, add_export_options

    parser.add_argument(
        "photos",
        type=Path,
        nargs="?",
        metavar="PHOTOS",
        help="a folder with one folder per label, a list (.csv, .jsonl: path, label, "
        "and split, group if wanted) or an archive (.zip, .tar, .tar.gz); without it "
        "a sample set of cats and dogs is drawn and used (custom_cnn from scratch)",
    )
    add_options(parser)
    add_export_options(parser)
    add_compare_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _draw_sample(args: argparse.Namespace, console: Any) -> list[Path]:
    """Make the built-in set the input; the two pictures to try at the end."""
    from data.sample.sample_set import write_sample

    console.stage("no photos given: drawing the sample set of cats and dogs")
    sample = write_sample(args.artifacts / "sample", count=SAMPLE_COUNT)
    args.photos = _from_here(sample.photos)
    args.run = args.run or "quickstart"
    if args.backbone is None:
        args.backbone = "custom_cnn"
    return [_from_here(picture) for picture in sample.tests]


def _from_here(path: Path) -> Path:
    """The path as a person types it, who stands in the folder above."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _try(model: Path, pictures: Sequence[Path], console: Any) -> None:
    from edge.classifier import Classifier
    from edge.quiet import without_chatter

    with without_chatter():
        classifier = Classifier(model)
    for picture in pictures:
        found = classifier.classify(picture)
        console.say(f"{picture}: {found.label} {found.probability:.1%}")


def _build(args: argparse.Namespace) -> int:
    """Every step; Ctrl-C prints the command that resumes it."""
    from backbones.keras import require_packages
    from finetune import negatives
    from finetune.cli import job_from, resumable
    from finetune.console import Console
    from quantize import recipes
    from quantize.cli import compare_options
    from quantize.comparison import unknown

    require_packages("build")
    recipes.variants(args.variants.split(","))  # refused before any work
    compare_options(args)
    if args.unknown:  # refused before training, not after
        negatives.refuse_missing(args.negatives)
        seen = negatives.digests(args.negatives) if args.negatives else ()
        unknown.unknown_photos(args.unknown, {}, seen)
    console = Console(json=args.json)
    pictures = []
    if args.photos is None and not args.resume:
        pictures = _draw_sample(args, console)
    job = job_from(args)
    with resumable(job, "build"):
        return _steps(args, job, pictures, console)


def _steps(
    args: argparse.Namespace, job: Any, pictures: Sequence[Path], console: Any
) -> int:
    """Photos decoded once, the network in memory from the first step to the last."""
    from finetune.job import run_job
    from finetune.run import locked
    from quantize import recipes
    from quantize.cli import compare_options
    from quantize.comparison.compare import compare
    from quantize.export import EXIT_REJECTED, export
    from quantize.reporting import text

    variants = recipes.variants(args.variants.split(","))
    trained = run_job(job, console)
    run, model = trained.run, trained.network
    if model is None:
        trained.prepared.pixels.close()
        return 0  # one of several workers: the chief has the run
    with locked(run.folder), trained.prepared.pixels as pixels:
        results = export(
            run,
            [variant.name for variant in variants],
            calibration_count=args.calibration,
            max_drop=args.max_drop / 100,
            target=args.target,
            climb=args.ladder,
            overwrite=True,  # the run itself was new, or --overwrite was given
            model=model,
            pixels=pixels,
            console=console,
        )
        comparison = compare(run, compare_options(args), pixels=pixels, console=console)
    if args.json:
        json.dump({"run": str(run.folder), **comparison.to_dict()}, sys.stdout)
        print()
    else:
        for line in ("", *text.summary(comparison)):
            console.say(line)
    shipped = [result for result in results.values() if not result.rejected]
    if shipped:
        chosen = comparison.choice.file
        _try(chosen.path if chosen else shipped[-1].path, pictures, console)
    return EXIT_REJECTED if len(shipped) < len(results) else 0


def build_main(argv: Sequence[str] | None, prog: str) -> int:
    """`edgegraft build`; 3 when int8 was rejected (all else is written then, too)."""
    from edge.command import run_command

    return run_command(_add_build, _build, argv, prog, BUILD)


def _unknown(verb: str) -> str:
    """The one line for a verb that does not exist."""
    full = {name: name for name in VERBS}
    full |= {
        name: f"{above} {name}" for above, names in BELOW.items() for name in names
    }
    close = difflib.get_close_matches(verb, full, n=1)
    meant = f"; did you mean: edgegraft {full[close[0]]}?" if close else ""
    return (
        f"edgegraft: error: expected a verb out of {', '.join(VERBS)}, got {verb!r}"
        f"{meant} (see edgegraft --help)"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(__doc__, end="")
        return 0 if words else 2
    if words[0] == "--version":
        print(f"edgegraft {__version__}")
        return 0
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        print(_unknown(verb), file=sys.stderr)
        return 2
    module, function = VERBS[verb]
    code: int = getattr(import_module(module), function)(rest, f"edgegraft {verb}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
