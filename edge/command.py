"""How every verb of edgegraft ends: an exit code, and one line when input was bad.

0 done, 2 bad input (one line on stderr, the traceback only with --debug), 130 stopped
by Ctrl-C; verbs may have codes of their own.

It does not know any verb.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from edge.errors import EdgegraftError

BAD_INPUT, INTERRUPTED = 2, 130
_MOMENT = 0.01  # seconds


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command in one line, as every other error."""

    def error(self, message: str) -> NoReturn:
        message += self._meant(message)
        print(f"edgegraft: error: {message} (see {self.prog} -h)", file=sys.stderr)
        raise SystemExit(BAD_INPUT)

    def _meant(self, message: str) -> str:
        """A guess at each option that does not exist, as is made for verbs."""
        if not message.startswith("unrecognized arguments"):
            return ""
        import difflib

        parsers: list[argparse.ArgumentParser] = [self]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
        known = [name for one in parsers for name in one._option_string_actions]
        wrong = [word.split("=")[0] for word in message.split() if word[:2] == "--"]
        close = [difflib.get_close_matches(word, known, n=1) for word in wrong]
        meant = ", ".join(dict.fromkeys(name for names in close for name in names))
        return f"; did you mean: {meant}?" if meant else ""


def guard(verb: Callable[[], int], *, debug: bool = False) -> int:
    """Run a verb; its exit code, or that of the error it ended with."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a label in any script, on any terminal
            stream.reconfigure(errors="backslashreplace")
    before, sys.unraisablehook = sys.unraisablehook, _not_swallowed
    try:
        return verb()
    except EdgegraftError as error:
        if debug:
            raise
        print(f"edgegraft: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stopped:
        hint = "".join(f"; {more}" for more in stopped.args)
        print(
            f"edgegraft: stopped; no half-written file is left{hint}", file=sys.stderr
        )
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has read enough
        sys.stderr.close()
        return 0
    except ImportError as error:  # a package is missing, or one of its libraries is
        if debug:
            raise
        told = [line for line in str(error).splitlines() if line.strip()]
        reason = told[-1].strip() if told else type(error).__name__
        print(
            f"edgegraft: error: a package cannot be loaded ({reason:.300}); install "
            "what it names, or: pip install --force-reinstall numpy pillow",
            file=sys.stderr,
        )
        return BAD_INPUT
    except OSError as error:
        if debug:
            raise
        text = str(error)
        if error.strerror and error.filename is not None:
            text = f"{error.filename}: {error.strerror}"
        print(f"edgegraft: error: {text}", file=sys.stderr)
        return BAD_INPUT
    finally:
        sys.unraisablehook = before


def _not_swallowed(found: sys.UnraisableHookArgs) -> None:
    """Python drops a Ctrl-C that comes while it tidies an object up: once more, then,
    a moment later."""
    if not issubclass(found.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(found)
        return
    import signal
    from threading import Timer, main_thread

    again = main_thread().ident, signal.SIGINT  # a real signal wakes it from waiting
    timer = Timer(_MOMENT, signal.pthread_kill, again)
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
    first = (description or "").strip().split("\n\n")[0]
    parser = Parser(prog=prog, description=first)
    add_parser(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback")
    args = parser.parse_args(argv)
    return guard(lambda: run(args), debug=args.debug)
