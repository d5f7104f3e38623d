"""Reading a file of labels, for models that do not carry their own.

It does not know: which model the labels are for.
"""

from __future__ import annotations

import os
import re

from edge.errors import ModelError

_NUMBERED = re.compile(r"\s*(\d+)\s*[:,\s]\s*(\S.*)")


def read_label_file(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The labels of a text file: one a line, or ``number name`` on every line.

    Numbers count only when every line has one and together they are 0 to n-1 in
    any order. ModelError for a file that is missing, empty or not text.
    """
    where = os.fspath(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file.read().splitlines()]
    except UnicodeDecodeError:
        raise ModelError(f"{where}: expected a text file of labels (UTF-8)") from None
    except OSError as error:
        raise ModelError(f"{where}: {error.strerror or error}") from None
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise ModelError(f"{where}: expected one label on each line, got none")
    matches = [_NUMBERED.fullmatch(line) for line in lines]
    pairs = {int(m[1]): m[2] for m in matches if m}
    if len(pairs) == len(lines) and sorted(pairs) == list(range(len(lines))):
        return tuple(pairs[number] for number in range(len(lines)))
    return tuple(lines)
