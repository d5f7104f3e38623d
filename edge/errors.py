"""The errors of edgegraft: one line each, for a person who can act on it.

A message says what was expected, what came, where, and how to mend it. Every
other folder raises these or a subclass; the command lines print them and return
``exit_code``.
"""

from __future__ import annotations


class EdgegraftError(Exception):
    """Bad input or a bad environment; the message is one line."""

    exit_code = 2

    def _render_traceback_(self) -> list[str]:
        """In a notebook: the line alone, without the calls that led to it."""
        return [f"{type(self).__name__}: {self}"]


class PhotoError(EdgegraftError):
    """One photo that cannot be used; the others can."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)  # both, for pickling
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class ModelError(EdgegraftError):
    """A model file that is damaged, foreign, or does not fit what was asked."""


class RuntimeMissing(EdgegraftError):
    """No TFLite interpreter can be used; the message says what to install."""


def reason_of(error: BaseException) -> str:
    """What went wrong, without the name of the file."""
    if isinstance(error, PhotoError):
        return error.reason
    return getattr(error, "strerror", None) or str(error)


def one_line(error: BaseException) -> str:
    """An exception's message without line breaks; its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
