"""The device's command: classify, camera, info, doctor, bench, evaluate, serve,
pack.

Only what one verb needs is imported when that verb runs: a photo's label should not
wait for modules it does not use.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from edge.command import (
    Parser,
    add_foreign,
    add_megapixels,
    add_region,
    add_runtime_options,
    count,
    guard,
    rate,
    thread_count,
)

if TYPE_CHECKING:
    from edge.evaluate_cli import PhotoReader

_CODES = """exit code: 0 when every photo was classified; 2 for bad input. A photo that
cannot be read costs one line on standard error and the exit code; the others go on."""


def main(
    argv: Sequence[str] | None = None,
    prog: str = "python -m edge",
    reader: PhotoReader | None = None,
) -> int:
    """Run one verb; the exit code. `argv` is without the program's name; `reader` reads
    the photos of evaluate, in place of `edge.classify.sources.labelled`."""
    arguments = list(sys.argv[1:] if argv is None else argv)

    def run() -> int:
        args = _parse(arguments, prog, reader)  # imports what some options need
        module, _, _ = _VERBS[args.verb]
        return int(import_module(module).run(args))

    try:
        return guard(run, debug="--debug" in arguments)
    except SystemExit as exit_:  # --help, or a wrong option
        return int(exit_.code or 0)


def _parse(
    arguments: list[str], prog: str, reader: PhotoReader | None
) -> argparse.Namespace:
    """Only the options of the verb in question are built: the others cost time."""
    if arguments and arguments[0] in _VERBS:
        verb = arguments[0]
        parser = Parser(
            prog=f"{prog} {verb}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _, add_options, _ = _VERBS[verb]
        add_options(parser)
        if verb == "evaluate":
            parser.set_defaults(reader=reader)
            _add_photos(parser, reader)
        parser.add_argument(
            "--debug", action="store_true", help="show where errors arise"
        )
        args = parser.parse_intermixed_args(arguments[1:])  # options between the paths
        args.verb = verb
        return args
    parser = Parser(prog=prog, description="Photos to labels, on the device.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    for name, (_, _, text) in _VERBS.items():
        verbs.add_parser(name, help=text)
    if not arguments:
        parser.print_help()
        raise SystemExit(2)
    return parser.parse_args(arguments)


def _add_classify(verb: argparse.ArgumentParser) -> None:
    verb.description = "Label photos with a .tflite model."
    verb.epilog = _CODES
    _add_model(verb)
    verb.add_argument(
        "photos",
        nargs="+",
        metavar="PATH",
        help="photos, folders (searched recursively), quoted patterns, or - for a "
        "list on standard input",
    )
    verb.add_argument(
        "--top-k", type=count, default=3, metavar="K", help="labels to show (3)"
    )
    shape = verb.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="one JSON document")
    shape.add_argument("--csv", action="store_true", help="one line for each photo")
    verb.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write the answers here; a name in .csv or .json gets that format",
    )
    verb.add_argument(
        "--raw",
        action="store_true",
        help="CSV: write names unchanged; by default control characters are escaped "
        "and what a spreadsheet takes for a formula gets a leading quote",
    )
    verb.add_argument(
        "--resume", action="store_true", help="continue an unfinished CSV"
    )
    verb.add_argument(
        "--workers",
        type=count,
        metavar="N",
        help="photos at a time, when there are many (as many as cores)",
    )
    verb.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="this machine's cores, or a Ray cluster that sees the same photos (local)",
    )
    add_region(verb)
    add_megapixels(verb)
    add_runtime_options(verb)
    add_foreign(verb)


def _add_info(verb: argparse.ArgumentParser) -> None:
    verb.description = (
        "Show a model file: labels, inputs, outputs, how photos are resized."
    )
    _add_model(verb)
    verb.add_argument("--json", action="store_true", help="one JSON document")
    add_runtime_options(verb, threads=False)
    add_foreign(verb)


def _add_doctor(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="one JSON document")


def _add_bench(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("models", nargs="+", metavar="MODEL")
    verb.add_argument(
        "--runs", type=count, default=50, metavar="N", help="timed runs (50)"
    )
    verb.add_argument(
        "--photos", metavar="DIR", help="time decoding, resizing and inference apart"
    )
    verb.add_argument(
        "--fps", type=rate, help="also at this rate, as from a camera (for 5 s)"
    )
    verb.add_argument(
        "--minutes", type=rate, help="also under constant load: heat, clock, throttling"
    )
    verb.add_argument("--json", action="store_true", help="one JSON document")
    add_runtime_options(verb, threads=False)
    verb.add_argument(
        "--threads",
        type=counts,
        default=[1],
        metavar="N,...",
        help="threads for one photo: one number, several, or all for 1 to N (1)",
    )
    add_foreign(verb)


def _add_evaluate(verb: argparse.ArgumentParser) -> None:
    verb.description = "Accuracy on labelled photos."
    _add_model(verb)
    verb.add_argument(
        "--unknown",
        metavar="DIR",
        help="photos of none of the labels: how many are called unknown?",
    )
    verb.add_argument("--json", action="store_true", help="one JSON document")
    add_megapixels(verb)
    add_runtime_options(verb)
    add_foreign(verb)


def _add_photos(verb: argparse.ArgumentParser, reader: PhotoReader | None) -> None:
    text = "a folder with one folder of photos for each label, named after it"
    if reader is not None:
        text = reader.help
        reader.add_to(verb)
    verb.add_argument("photos", metavar="PHOTOS", help=text)


def _add_camera(verb: argparse.ArgumentParser) -> None:
    from edge.camera.cli import add_options

    add_options(verb)
    add_runtime_options(verb)
    add_foreign(verb)


def _add_serve(verb: argparse.ArgumentParser) -> None:
    from edge.serve import add_options

    add_options(verb)
    add_region(verb)
    add_megapixels(verb)
    add_runtime_options(verb)
    add_foreign(verb)


def _add_pack(verb: argparse.ArgumentParser) -> None:
    from edge.pack import TARGETS

    verb.description = "Write a folder to copy to a device: model, program, README."
    verb.add_argument(
        "--for",
        dest="target",
        choices=TARGETS,
        default=TARGETS[0],
        help="a device, or Frigate's custom classification: the model, its label map "
        "and what to add to the configuration (device)",
    )
    verb.add_argument(
        "model", metavar="RUN", help="a run folder, or a .tflite file that has labels"
    )
    verb.add_argument(
        "--variant",
        metavar="NAME",
        help="which file of the run (the one its comparison recommends, else int8)",
    )
    verb.add_argument(
        "-o", "--output", required=True, metavar="DIR", help="the folder to write"
    )
    verb.add_argument(
        "--overwrite", action="store_true", help="replace the files in DIR"
    )
    add_region(verb)
    add_foreign(verb)


def _add_model(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("model", metavar="MODEL", help="a .tflite file")


def counts(text: str) -> list[int]:
    """Numbers of 1 or more, with commas between, or all: 1 to the cores there are."""
    if text == "all":
        from edge.runtime import cores

        return list(range(1, cores() + 1))
    return [thread_count(part) for part in text.split(",")]


# Verb: module, adder of its options, help
_VERBS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], str]] = {
    "classify": ("edge.classify.cli", _add_classify, "label photos"),
    "camera": (
        "edge.camera.cli",
        _add_camera,
        "label what a camera or a video shows",
    ),
    "info": ("edge.info", _add_info, "labels, inputs and outputs of a model file"),
    "doctor": ("edge.machine", _add_doctor, "what is installed here, and what works"),
    "bench": ("edge.bench", _add_bench, "how fast models are on this machine"),
    "evaluate": ("edge.evaluate_cli", _add_evaluate, "accuracy on labelled photos"),
    "serve": ("edge.serve", _add_serve, "answer over HTTP"),
    "pack": ("edge.pack", _add_pack, "a folder to copy to a device"),
}
