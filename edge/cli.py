"""The device's command: classify, camera, info, doctor, bench, evaluate, pack.

Only what one verb needs is imported when that verb runs: a photo's answer should
not wait for modules it does not use. It does not know: how anything is done.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from edge.command import Parser, guard

_MODULES = {
    "bench": "edge.bench.cli",
    "camera": "edge.camera.cli",
    "evaluate": "edge.evaluate_cli",
    "pack": "edge.pack",
}
RUNTIMES = ("auto", "litert", "tflite-runtime", "tf.lite")

_CODES = """exit code: 0 when every photo was classified; 2 for bad input. A photo that
cannot be read costs one line on standard error and the exit code; the others go on."""


def main(argv: Sequence[str] | None = None, prog: str = "python -m edge") -> int:
    """Run one verb; the exit code. `argv` is without the program's name."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parse(words, prog)
    except SystemExit as done:  # --help, or a wrong option
        return int(done.code or 0)
    return guard(lambda: _run(args), debug=args.debug)


def _run(args: argparse.Namespace) -> int:
    if args.verb == "classify":
        from edge.classify.cli import classify

        return classify(args)
    if args.verb in _MODULES:
        return int(import_module(_MODULES[args.verb]).run(args))
    from edge import info as verbs

    return int(getattr(verbs, args.verb)(args))


def _parse(words: list[str], prog: str) -> argparse.Namespace:
    """Only the options of the verb in question are built: the others cost time."""
    if words and words[0] in _VERBS:
        add, _ = _VERBS[words[0]]
        parser = Parser(
            prog=f"{prog} {words[0]}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add(parser)
        parser.add_argument(
            "--debug", action="store_true", help="show where errors arise"
        )
        args = parser.parse_intermixed_args(words[1:])  # options between the paths
        args.verb = words[0]
        return args
    parser = Parser(prog=prog, description="Photos to labels, on the device.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (_, told) in _VERBS.items():
        verbs.add_parser(name, help=told)
    return parser.parse_args(words)


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
        "--top-k", type=_count, default=3, metavar="K", help="labels to show (3)"
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
        "--resume", action="store_true", help="go on with a CSV that is half done"
    )
    verb.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        help="photos at a time, when there are many (as many as cores)",
    )
    verb.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="this machine's cores, or a Ray cluster that sees the same photos (local)",
    )
    _add_running(verb)
    _add_foreign(verb)


def _add_info(verb: argparse.ArgumentParser) -> None:
    _add_model(verb)
    verb.add_argument("--json", action="store_true", help="one JSON document")


def _add_doctor(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="one JSON document")


def _add_bench(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("models", nargs="+", metavar="MODEL")
    verb.add_argument(
        "--runs", type=_count, default=50, metavar="N", help="timed runs (50)"
    )
    verb.add_argument(
        "--photos", metavar="DIR", help="time decoding, resizing and inference apart"
    )
    verb.add_argument(
        "--fps", type=_rate, help="also at this pace, as a camera would (5 s)"
    )
    verb.add_argument(
        "--minutes", type=_rate, help="also without a pause: heat, clock, throttling"
    )
    verb.add_argument("--json", action="store_true", help="one JSON document")
    _add_running(verb, threads=False)
    verb.add_argument(
        "--threads",
        type=counts,
        default=[1],
        metavar="N,...",
        help="threads for one photo: one number, several, or all for 1 to N (1)",
    )


def _add_evaluate(verb: argparse.ArgumentParser) -> None:
    verb.description = "Accuracy on a folder with one folder of photos for each label."
    _add_model(verb)
    verb.add_argument("photos", metavar="PHOTOS")
    verb.add_argument(
        "--unknown",
        metavar="DIR",
        help="photos of none of the labels: how many are called unknown?",
    )
    verb.add_argument("--json", action="store_true", help="one JSON document")
    _add_running(verb)
    _add_foreign(verb)


def _add_camera(verb: argparse.ArgumentParser) -> None:
    from edge.camera.cli import add_options

    add_options(verb)
    _add_running(verb)
    _add_foreign(verb)


def _add_pack(verb: argparse.ArgumentParser) -> None:
    verb.description = "Write a folder to copy to a device: model, program, README."
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


def _add_model(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("model", metavar="MODEL", help="a .tflite file")


def _add_running(verb: argparse.ArgumentParser, threads: bool = True) -> None:
    verb.add_argument(
        "--runtime", choices=RUNTIMES, default="auto", help="which interpreter runs it"
    )
    if threads:
        verb.add_argument(
            "--threads",
            type=_threads,
            metavar="N",
            help="threads for one photo (all cores, at most 4)",
        )
    verb.add_argument(
        "--no-xnnpack",
        dest="xnnpack",
        action="store_false",
        help="TensorFlow Lite's own kernels: slow, the same bits in every runtime",
    )
    verb.add_argument(
        "--delegate",
        metavar="LIB",
        help="an accelerator's library, options after it: libedgetpu.so.1,device=usb",
    )


def _add_foreign(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("for models without a card")
    group.add_argument("--labels", metavar="FILE", help="labels, one on each line")
    group.add_argument(
        "--mean", type=float, help="of a float model's pixels: (pixel - MEAN) / STD"
    )
    group.add_argument("--std", type=float, help="see --mean")


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text!r}")
    return number


def _threads(text: str) -> int:
    from edge.runtime import THREADS_LIMIT

    number = _count(text)
    if number > THREADS_LIMIT:
        raise argparse.ArgumentTypeError(
            f"expected {THREADS_LIMIT} threads at most, got {text!r}"
        )
    return number


def counts(text: str) -> list[int]:
    """Numbers of 1 or more, with commas between, or all: 1 to the cores there are."""
    if text == "all":
        from edge.runtime import cores

        return list(range(1, cores() + 1))
    return [_threads(part) for part in text.split(",")]


def _rate(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected more than 0, got {text!r}")
    return number


_VERBS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], str]] = {
    "classify": (_add_classify, "label photos"),
    "camera": (_add_camera, "label what a camera or a video shows"),
    "info": (_add_info, "what a model file says about itself"),
    "doctor": (_add_doctor, "what is installed here, and what works"),
    "bench": (_add_bench, "how fast models are on this machine"),
    "evaluate": (_add_evaluate, "accuracy on labelled photos"),
    "pack": (_add_pack, "a folder to copy to a device"),
}
