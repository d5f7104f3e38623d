"""`edgegraft quantize RUN` and `edgegraft compare RUN`: options and what they print."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.command import add_foreign, foreign_options, run_command
from edge.model_file import ModelFile

if TYPE_CHECKING:
    from quantize.comparison.compare import CompareOptions

QUANTIZE = "Export a run's network as verified TFLite files."
CHECK = "List the targets that run a model file, and why others do not."
SEARCH = (
    "Find the best network for these photos within a budget: time every network that "
    "is ready, rank them by cross-validation, train and compare the best."
)
COMPARE = "Measure model files on test photos and this machine; recommend one to ship."


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """The options of an export; `build` has them too."""
    from quantize.conversion.calibration import COUNT
    from quantize.gate import MAX_DROP
    from quantize.recipes import VARIANTS
    from quantize.tflite.targets import GENERIC, TARGETS

    add = parser.add_argument
    add(
        "--variants",
        default="float32,int8",
        metavar="LIST",
        help=f"out of {', '.join(VARIANTS)} (default: float32,int8)",
    )
    add(
        "--target",
        choices=tuple(TARGETS),
        default=GENERIC,
        help="where the files must run; decides operators, tensor types, size "
        f"(default: {GENERIC})",
    )
    add(
        "--calibration",
        type=int,
        default=COUNT,
        metavar="N",
        help=f"training photos that set the integer ranges (default: {COUNT})",
    )
    add(
        "--max-drop",
        type=float,
        default=100 * MAX_DROP,
        metavar="POINTS",
        help="accuracy a file may lose on validation photos and crops of them, in "
        f"points (default: {100 * MAX_DROP:g}); one that loses more beyond chance is "
        "kept aside, exit code 3",
    )
    add(
        "--ladder",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="repair int8 files: ranges, weights and biases are corrected; where the "
        "file still loses accuracy, slower repairs follow (default: yes)",
    )


def add_compare_options(parser: argparse.ArgumentParser) -> None:
    """The options of a comparison that `build` has, too; see `compare_options`."""
    from edge.cli import counts
    from edge.command import RUNTIMES
    from edge.runtime import default_threads

    add = parser.add_argument
    add("--runtime", choices=RUNTIMES, default="auto", help="which interpreter")
    add(
        "--threads",
        type=counts,
        default=sorted({1, default_threads()}),
        metavar="N,...",
        help="threads to time with, one number or several; the first decides which "
        "file to ship (default: 1 and all cores, at most 4)",
    )
    add(
        "--unknown",
        type=Path,
        metavar="DIR",
        help="photos that show none of the labels: how many does each file refuse?",
    )
    _add_budget(parser)


def _add_budget(parser: argparse.ArgumentParser) -> None:
    for name, unit, what in (
        ("ms", "ms", "median latency"),
        ("mb", "MB", "file size"),
    ):
        parser.add_argument(
            f"--budget-{name}",
            type=float,
            metavar=name.upper(),
            help=f"highest {what} of the file to ship, in {unit}",
        )


def compare_options(args: argparse.Namespace) -> CompareOptions:
    """The options of `compare` or `build`; EdgegraftError for those out of range."""
    from data.source import PhotoOptions
    from quantize.comparison.compare import CompareOptions
    from quantize.comparison.records import MARGIN, Budget
    from quantize.comparison.timing import Effort
    from quantize.conversion.scoring import Foreign

    values = vars(args)  # `build` lacks some of them
    effort = {k: values[k] for k in ("rounds", "runs", "seconds") if k in values}
    return CompareOptions(
        runtime=args.runtime,
        effort=Effort(tuple(args.threads), **effort),
        budget=Budget(args.budget_ms, args.budget_mb),
        devices=tuple(values.get("devices", ())),
        unknown=args.unknown,
        out=values.get("out"),
        margin=values.get("margin", 100 * MARGIN) / 100,
        any_variant=values.get("any_variant", False),
        foreign=Foreign(values.get("labels"), foreign_options(args))
        if "input_size" in values
        else None,
        photos=values.get("judged_on"),
        photo_options=PhotoOptions.from_args(args)
        if "judged_on" in values
        else PhotoOptions(),
    )


def add_parser(parser: argparse.ArgumentParser) -> None:
    """`edgegraft quantize`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    add_export_options(parser)
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the files of --variants; others stay, and are listed",
    )
    parser.add_argument(
        "--layer-report",
        action="store_true",
        help="write layers.json and layers.png: the noise of each int8 layer, and what "
        "the worst cost in accuracy",
    )
    parser.add_argument(
        "--tflite-runtime",
        type=Path,
        metavar="PYTHON",
        help="a Python with tflite-runtime, in which each file is really run (default: "
        "this one, where it is installed)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Export; 3 when a file was rejected."""
    from backbones.keras import require_packages
    from finetune.console import Console
    from finetune.run import Run
    from quantize.export import EXIT_REJECTED, export

    require_packages("quantize")
    console = Console(json=args.json)
    opened = Run.open(args.run)
    results = export(
        opened,
        args.variants,
        calibration_count=args.calibration,
        max_drop=args.max_drop / 100,
        target=args.target,
        overwrite=args.overwrite,
        repair=args.ladder,
        with_layers=args.layer_report,
        old_python=args.tflite_runtime,
        console=console,
    )
    if args.json:
        record = {name: result.to_dict() for name, result in results.items()}
        json.dump({"run": str(opened.folder), "files": record}, sys.stdout)
        print()
    for result in results.values():
        console.say(f"{result.path}")
    console.say(f"next: edgegraft compare {opened.folder}")
    return EXIT_REJECTED if any(r.rejected for r in results.values()) else 0


def add_check_parser(parser: argparse.ArgumentParser) -> None:
    """`edgegraft quantize check`."""
    from quantize.tflite.targets import TARGETS

    parser.add_argument(
        "models", nargs="+", type=Path, metavar="MODEL", help="a .tflite file"
    )
    parser.add_argument("--target", choices=tuple(TARGETS), help="only this one")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run_check(args: argparse.Namespace) -> int:
    """One line for each file and target; 3 when --target does not run one of them."""
    from quantize.tflite import flatbuffer, metadata, targets

    names = [args.target] if args.target else list(targets.TARGETS)
    records: dict[str, dict[str, Any]] = {}
    for path in args.models:
        flat, _ = metadata.split(ModelFile.read(path).checked().content)
        tree = flatbuffer.parse(flat)
        records[str(path)] = {
            "oldest_runtime": targets.oldest_runtime(tree),
            "targets": {n: targets.refusals(tree, len(flat), n) for n in names},
        }
    if args.json:
        json.dump(records, sys.stdout)
        print()
    for path, record in () if args.json else records.items():
        print(f"{path}: TensorFlow Lite {record['oldest_runtime'] or '(newest)'} on")
        for name, reasons in record["targets"].items():
            print(f"  {name}: {'runs it' if not reasons else '; '.join(reasons)}")
    refused = any(any(record["targets"].values()) for record in records.values())
    return 3 if args.target and refused else 0


def add_compare_parser(parser: argparse.ArgumentParser) -> None:
    """`edgegraft compare`."""
    from data.source import PhotoOptions
    from quantize.comparison.records import MARGIN
    from quantize.comparison.timing import ROUNDS, RUNS, SECONDS

    add = parser.add_argument
    add(
        "things",
        nargs="+",
        type=Path,
        metavar="RUN_OR_MODEL",
        help="run folders and other .tflite files; the test photos of the first run "
        "judge all, unless --photos says which do",
    )
    add(
        "--photos",
        dest="judged_on",
        type=Path,
        metavar="PHOTOS",
        help="judge by these labelled photos: a folder, a list or an archive (its test "
        "part, if it has one), or a run's test photos; those that a run here was "
        "trained on are left out",
    )
    PhotoOptions.add_to(parser)
    add_compare_options(parser)
    add_foreign(parser)
    add(
        "--margin",
        type=float,
        default=100 * MARGIN,
        metavar="POINTS",
        help="difference in balanced accuracy that does not matter: a faster file is "
        f"preferred when shown to be within it (default: {100 * MARGIN:g})",
    )
    add(
        "--any-variant",
        action="store_true",
        help="consider a run's other files, too, where its int8 passed the gate",
    )
    add(
        "--with",
        dest="devices",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="what edge bench --json printed for these files on another device; its "
        "times decide",
    )
    add(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where the comparison is written (default: the run; of several things "
        "the folder comparison beside the first)",
    )
    add(
        "--rounds",
        type=int,
        default=ROUNDS,
        help=f"rounds of timing (default: {ROUNDS})",
    )
    add(
        "--runs",
        type=int,
        default=RUNS,
        help=f"timed inferences of a file in a round (default: {RUNS})",
    )
    add(
        "--seconds",
        type=float,
        default=SECONDS,
        help="of continuous inference in a round, for photos per second (default: "
        f"{SECONDS:g})",
    )
    add("--verbose", action="store_true", help="print all tables")
    add("--json", action="store_true", help="print one JSON document")


def run_compare(args: argparse.Namespace) -> int:
    """Measure and choose; 3 when no file is within the budget."""
    from backbones.keras import require_packages
    from finetune.console import Console

    require_packages("compare")

    from quantize.comparison.compare import compare
    from quantize.export import EXIT_REJECTED
    from quantize.reporting import report, text

    console = Console(json=args.json)
    options = compare_options(args)
    comparison = compare(args.things, options, console=console)
    if args.json:
        sys.stdout.write(report.document(comparison))
    else:
        lines = text.details(comparison) if args.verbose else []
        for line in (*lines, "", *text.summary(comparison)):
            console.say(line)
    return 0 if comparison.choice.file else EXIT_REJECTED


def add_search_parser(parser: argparse.ArgumentParser) -> None:
    """`edgegraft search`."""
    from data.source import PhotoOptions
    from edge.command import RUNTIMES, add_megapixels
    from finetune.cli import add_folder

    add = parser.add_argument
    add(
        "photos",
        type=Path,
        metavar="PHOTOS",
        help="a folder per label, a list (.csv, .jsonl) or an archive (.zip, .tar)",
    )
    _add_budget(parser)
    add(
        "--backbones",
        metavar="NAME,...",
        help="search only these (default: every one whose weights are here, and the "
        "custom CNN)",
    )
    add(
        "--time-limit",
        type=float,
        metavar="MINUTES",
        help="about how long the search may take; what that leaves out is printed",
    )
    add(
        "--device",
        type=Path,
        metavar="FILE",
        help="what edge bench --json printed on a device for the files of --pack-probe",
    )
    add(
        "--pack-probe",
        type=Path,
        metavar="DIR",
        help="only write the untrained networks into DIR, to be timed on a device",
    )
    add_folder(parser, "search-PHOTOS")
    add("--runtime", choices=RUNTIMES, default="auto", help="which interpreter")
    add("--seed", type=int, default=0, help="makes a search repeatable (default: 0)")
    add("--overwrite", action="store_true", help="replace a search of that name")
    add("--resume", action="store_true", help="go on with an interrupted search")
    add("--json", action="store_true", help="print one JSON document")
    PhotoOptions.add_to(parser)
    add_megapixels(parser)


def run_search(args: argparse.Namespace) -> int:
    """Search; 3 when no trained file is within the budget."""
    from backbones.keras import require_packages
    from data.source import PhotoOptions
    from finetune.console import Console

    require_packages("search")

    from quantize.comparison.records import Budget
    from quantize.export import EXIT_REJECTED
    from quantize.search import report
    from quantize.search.records import SearchOptions
    from quantize.search.search import pack_probe, search

    console = Console(json=args.json, verbose=False)
    names = (args.backbones or "").split(",")
    options = SearchOptions(
        photos=args.photos,
        folder=SearchOptions.folder_for(args.photos, args.artifacts, args.run),
        budget=Budget(args.budget_ms, args.budget_mb),
        device=args.device,
        backbones=tuple(name.strip() for name in names if name.strip()),
        time_limit=args.time_limit,
        runtime=args.runtime,
        seed=args.seed,
        photo_options=PhotoOptions.from_args(args),
        overwrite=args.overwrite,
        resume=args.resume,
    )
    if args.pack_probe is not None:
        pack_probe(options, args.pack_probe, console)
        return 0
    result = search(options, console)
    if args.json:
        json.dump(result.to_dict(), sys.stdout)
        print()
    for line in () if args.json else ("", *report.answer(result)):
        console.say(line)
    return 0 if result.best else EXIT_REJECTED


def search_main(
    argv: Sequence[str] | None = None, prog: str = "edgegraft search"
) -> int:
    """`edgegraft search`; the exit code."""
    return run_command(add_search_parser, run_search, argv, prog, SEARCH)


def main(argv: Sequence[str] | None = None, prog: str = "edgegraft quantize") -> int:
    """`edgegraft quantize`, ``compare`` or ``check`` by the first word; exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command, rest = arguments[:1], arguments[1:]
    if command == ["compare"]:
        return compare_main(rest, f"{prog} compare")
    if command == ["check"]:
        return run_command(add_check_parser, run_check, rest, f"{prog} check", CHECK)
    return run_command(add_parser, run, arguments, prog, QUANTIZE)


def compare_main(
    argv: Sequence[str] | None = None, prog: str = "edgegraft compare"
) -> int:
    """`edgegraft compare`; the exit code."""
    return run_command(add_compare_parser, run_compare, argv, prog, COMPARE)
