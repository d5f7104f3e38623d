"""What all command lines share: parsing, common options, errors and exit codes.

Exit codes: 0 done, 2 bad input (one line on stderr, the traceback only with --debug),
70 an error of edgegraft itself, 130 stopped by Ctrl-C; verbs may have codes of their
own.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from edge.errors import EdgegraftError

if TYPE_CHECKING:
    from edge.foreign import ForeignOptions
    from edge.region import Region

BAD_INPUT, UNEXPECTED, INTERRUPTED = 2, 70, 130  # 70: sysexits.h's EX_SOFTWARE
RUNTIMES = ("auto", "litert", "tflite-runtime", "tf.lite")
MAX_MEGAPIXELS = 2000  # of --max-megapixels
SMALLEST = sys.float_info.min  # above 0
_MOMENT = 0.01  # seconds


class Parser(argparse.ArgumentParser):
    """Reports a wrong command in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        message += self._suggestion(message)
        print(f"edgegraft: error: {message} (see {self.prog} -h)", file=sys.stderr)
        raise SystemExit(BAD_INPUT)

    def _suggestion(self, message: str) -> str:
        """The existing options that are closest to the unrecognized ones."""
        if not message.startswith("unrecognized arguments"):
            return ""
        import difflib

        parsers: list[argparse.ArgumentParser] = [self]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
        options = [name for parser in parsers for name in parser._option_string_actions]
        unknown = [word.split("=")[0] for word in message.split() if word[:2] == "--"]
        matches = [difflib.get_close_matches(word, options, n=1) for word in unknown]
        names = ", ".join(dict.fromkeys(name for match in matches for name in match))
        return f"; did you mean: {names}?" if names else ""


@dataclass(frozen=True)
class ModelOptions:
    """A model file and how to run it, from a command line.

    `labels`: a file of names. `region`: in place of the card's. The others as
    `edge.classifier.Classifier`.
    """

    model: str
    labels: str | None = None
    runtime: str = "auto"
    threads: int | None = None
    xnnpack: bool = True
    delegate: str | None = None
    foreign: ForeignOptions | None = None
    region: Region | None = None

    @classmethod
    def from_args(
        cls, args: argparse.Namespace, model: str | None = None
    ) -> ModelOptions:
        """From parsed arguments; `model` in place of that of the command line."""
        threads = getattr(args, "threads", None)
        return cls(
            args.model if model is None else model,
            getattr(args, "labels", None),
            args.runtime,
            threads if isinstance(threads, int) else None,
            args.xnnpack,
            args.delegate,
            foreign_options(args),
            getattr(args, "region", None),
        )


class _AllowMegapixels(argparse.Action):
    """Raises the limit for this process and for those it starts."""

    def __call__(self, *args: Any, **_: Any) -> None:
        from edge.preprocess import MEGAPIXELS

        os.environ[MEGAPIXELS] = str(args[2])


def add_megapixels(verb: argparse.ArgumentParser) -> None:
    """The option for photos that take more memory than is allowed by itself."""
    verb.add_argument(
        "--max-megapixels",
        type=_megapixels,
        action=_AllowMegapixels,
        default=argparse.SUPPRESS,
        metavar="N",
        help="decode photos up to this size, whatever memory it takes (default: what "
        "takes 360 MB and half of the free memory: a JPEG of 128, a PNG of 85)",
    )


def _megapixels(text: str) -> float:
    return number(
        text, SMALLEST, MAX_MEGAPIXELS, f"a number above 0, at most {MAX_MEGAPIXELS}"
    )


def add_runtime_options(verb: argparse.ArgumentParser, *, threads: bool = True) -> None:
    """Options that say which interpreter runs a model, and how."""
    verb.add_argument(
        "--runtime", choices=RUNTIMES, default="auto", help="which interpreter runs it"
    )
    if threads:
        verb.add_argument(
            "--threads",
            type=thread_count,
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


def add_region(verb: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """The option for the part of a photo that the model looks at."""
    verb.add_argument(
        "--region",
        type=region,
        metavar="X,Y,W,H",
        help="the part of the photo to look at, in shares from 0 to 1 or in pixels "
        "(default: as the model was trained)",
    )


def region(text: str) -> Region:
    """The argparse type of X,Y,W,H."""
    from edge.region import parse_region

    try:
        return parse_region(text)
    except EdgegraftError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_foreign(verb: argparse.ArgumentParser) -> None:
    """Options for a file without a card: its preprocessing and its labels."""
    group = verb.add_argument_group(
        "for models without a card",
        "In place of what the file's TFLite Metadata says, or of the default for "
        "published classifiers; edge info shows what is in force.",
    )
    group.add_argument(
        "--labels", metavar="FILE", help="labels, one on each line (labels.txt beside)"
    )
    group.add_argument(
        "--resize",
        choices=("stretch", "crop", "pad"),
        help="to the shape of the input: both sides alone, the middle, or with black "
        "beside (crop)",
    )
    group.add_argument(
        "--crop",
        type=_fraction,
        metavar="SHARE",
        help="the middle share of the photo that is used (0.875)",
    )
    group.add_argument(
        "--filter",
        choices=("bilinear", "bicubic", "lanczos", "box", "nearest", "bilinear-plain"),
        help="of resizing; bilinear-plain is without antialiasing (bilinear-plain)",
    )
    group.add_argument(
        "--mean",
        type=numbers,
        metavar="M",
        help="pixels are scaled to (pixel - M) / S: one number, or R,G,B",
    )
    group.add_argument("--std", type=numbers, metavar="S", help="see --mean")
    group.add_argument(
        "--input-size",
        type=width_and_height,
        metavar="WxH",
        help="of a network that leaves height and width open",
    )
    group.add_argument(
        "--output-name", metavar="NAME", help="the output that holds the scores"
    )


def foreign_options(args: argparse.Namespace) -> ForeignOptions | None:
    """The options of `add_foreign` that were given; None where none was."""
    values = {
        "size": getattr(args, "input_size", None),
        "output": getattr(args, "output_name", None),
        **{
            name: getattr(args, name, None)
            for name in ("resize", "crop", "filter", "mean", "std")
        },
    }
    if all(value is None for value in values.values()):
        return None
    from edge.foreign import ForeignOptions

    return ForeignOptions(**values)


def count(text: str) -> int:
    """A whole number of 1 or more."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text!r}")
    return number


def thread_count(text: str) -> int:
    """A number of threads that an interpreter can take."""
    from edge.runtime import THREADS_LIMIT

    number = count(text)
    if number > THREADS_LIMIT:
        raise argparse.ArgumentTypeError(
            f"expected {THREADS_LIMIT} threads at most, got {text!r}"
        )
    return number


def rate(text: str) -> float:
    """A number above 0."""
    return number(text, SMALLEST, sys.float_info.max, "more than 0")


def _fraction(text: str) -> float:
    return number(text, SMALLEST, 1.0, "a share above 0, at most 1")


def number(text: str, low: float, high: float, expected: str) -> float:
    """A number from `low` to `high`, else an error with what was `expected`."""
    value = number_or_nan(text)
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r:.40}")
    return value


def number_or_nan(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def numbers(text: str) -> tuple[float, ...]:
    """One number, or three with commas between."""
    values = tuple(number_or_nan(part) for part in text.split(","))
    if len(values) not in (1, 3) or not all(abs(n) < float("inf") for n in values):
        raise argparse.ArgumentTypeError(
            f"expected one number, or three with commas between, got {text!r}"
        )
    return values


def width_and_height(text: str) -> tuple[int, int]:
    """The argparse type of a text like 224x224."""
    width, _, height = text.lower().partition("x")
    try:
        return count(width), count(height)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"expected WIDTHxHEIGHT, got {text!r}"
        ) from None


def guard(verb: Callable[[], int], *, debug: bool = False) -> int:
    """Run a verb; its exit code, or that of the error it raised."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a label in any script, on any terminal
            stream.reconfigure(errors="backslashreplace")
    original, sys.unraisablehook = sys.unraisablehook, _raise_interrupt_again
    try:
        return verb()
    except KeyboardInterrupt as interrupt:
        hints = "".join(f"; {hint}" for hint in interrupt.args)
        print(
            f"edgegraft: stopped; no half-written file is left{hints}", file=sys.stderr
        )
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_gone():
            return 0  # `| head` has read enough
        if debug:
            raise
        message, exit_code = _message(error)
        print(f"edgegraft: error: {message}", file=sys.stderr)
        return exit_code
    finally:
        sys.unraisablehook = original


def _message(error: Exception) -> tuple[str, int]:
    """One line about an error, and the exit code."""
    from edge.text import printable

    if isinstance(error, EdgegraftError):
        return printable(str(error)), error.exit_code
    if isinstance(error, ImportError):  # a package is missing, or one of its libraries
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else type(error).__name__
        if isinstance(error, ModuleNotFoundError) and error.name in ("numpy", "PIL"):
            package = "Pillow" if error.name == "PIL" else error.name
            return (
                f"{package} is not installed for {sys.executable}; run it with the "
                "python that has it (venv/bin/python), or: pip install numpy pillow "
                "ai-edge-litert"
            ), BAD_INPUT
        return (
            f"a package cannot be loaded ({reason:.300}); install it again (pip "
            "install --force-reinstall); photos and training need: pip install -e "
            "'.[train]'"
        ), BAD_INPUT
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        text = str(error)
        if error.strerror and error.filename is not None:
            text = f"{os.fsdecode(error.filename)}: {error.strerror}"
        return printable(text), BAD_INPUT
    # a bug: exit code 1 would say that an audit has findings
    reason = printable(f"{type(error).__name__}: {error}")
    return (
        f"unexpected {reason:.300}; please report it with what --debug shows"
    ), UNEXPECTED


def _reader_gone() -> bool:
    """True if the other end of stdout or stderr is closed, as `| head` does; the rest
    of our output is then discarded. False if it was another pipe that broke."""
    import select

    if not hasattr(select, "poll"):  # Windows
        return True
    closed = False
    for stream in (sys.stdout, sys.stderr):
        try:
            poll = select.poll()
            poll.register(stream.fileno(), 0)  # POLLERR and POLLHUP are always reported
            if poll.poll(0):
                closed = True
                with open(os.devnull, "wb") as nothing:
                    os.dup2(nothing.fileno(), stream.fileno())
        except (AttributeError, OSError, ValueError):  # no stream, or no file behind it
            continue
    return closed


def _raise_interrupt_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Python drops a Ctrl-C that comes inside a destructor: send it again, a moment
    later."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    import signal
    from threading import Timer, main_thread

    # a real signal wakes a main thread that waits
    timer = Timer(_MOMENT, signal.pthread_kill, (main_thread().ident, signal.SIGINT))
    timer.daemon = True  # the end of the program does not wait for it
    timer.start()


def run_command(
    add_parser: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None,
    prog: str,
    description: str | None,
) -> int:
    """A command of one verb: parse, run, exit code."""
    first_paragraph = (description or "").strip().split("\n\n")[0]
    parser = Parser(prog=prog, description=first_paragraph)
    add_parser(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback")
    args = parser.parse_args(argv)
    return guard(lambda: run(args), debug=args.debug)
