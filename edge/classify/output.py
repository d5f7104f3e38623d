"""The output file of ``classify``: written atomically, or a CSV that can be resumed."""

from __future__ import annotations

import csv
import errno
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO

from edge.errors import EdgegraftError
from edge.text import plural

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Done:
    """The photos that a CSV holds already; eight bytes each, not their paths."""

    def __init__(self) -> None:
        self.headed = False
        self._hashes: set[int] = set()

    def add(self, photo: str) -> None:
        self._hashes.add(hash(photo))

    def __contains__(self, photo: object) -> bool:
        return isinstance(photo, str) and hash(photo) in self._hashes

    def __len__(self) -> int:
        return len(self._hashes)


def summary(path: str, answered: int, failed: int, earlier: int = 0) -> str:
    """The last line, when the file is whole; `earlier` photos were in it."""
    text = f"{path}: {plural(answered, 'photo')} classified"
    if earlier:
        text += f", {earlier} before"
    return f"{text}, {failed} not (named above)" if failed else text


@contextmanager
def output(
    path: str, header: Sequence[str] | None, *, resume: bool = False
) -> Iterator[tuple[TextIO, Done]]:
    """A file to write answers to, and the photos it holds already.

    With a `header` it is a CSV: row after row is written to its place, so that a run
    that was stopped can be resumed (a row cut in the middle is taken away first).
    Anything else is written beside and renamed at the end. EdgegraftError when the
    file is there and not resumed, is not such a CSV, cannot be written, or finds no
    room on the disk.
    """
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise EdgegraftError(
            f"-o {path}: expected a folder {folder} to write to, got none; make it: "
            f"mkdir -p {shlex.quote(folder)}"
        )
    try:
        with _written(path, header, resume) as opened:
            yield opened
    except OSError as error:
        if error.errno not in _FULL:
            if str(error.filename).startswith(path):
                raise EdgegraftError(
                    f"-o {path}: cannot be written: {error.strerror}"
                ) from None
            raise
        hint = "; make room, and go on with --resume" if header else "; make room"
        raise EdgegraftError(f"{path}: {error.strerror}{hint}") from None


@contextmanager
def _written(
    path: str, header: Sequence[str] | None, resume: bool
) -> Iterator[tuple[TextIO, Done]]:
    done = Done()
    if os.path.exists(path) and not resume:
        hint = "continue it with --resume" if header else "remove it"
        raise EdgegraftError(f"{path} exists; {hint}, or give another -o FILE")
    if header is None:
        partial = f"{path}.{os.getpid()}.part"
        try:
            with open(partial, "x", encoding="utf-8", errors="surrogateescape") as file:
                yield file, done
            os.replace(partial, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(partial)
        return
    if os.path.exists(path):
        _read(path, list(header), done)
    with open(
        path, "a", encoding="utf-8", errors="surrogateescape", newline="", buffering=1
    ) as file:
        yield file, done


def _read(path: str, header: list[str], done: Done) -> None:
    """Cut off a half-written last row; note the photos of all others."""
    with open(path, "rb+") as raw:
        size = raw.seek(0, os.SEEK_END)
        while size:
            step = min(size, 65536)
            raw.seek(size - step)
            newline = raw.read(step).rfind(b"\n")
            size = size - step + newline + 1 if newline >= 0 else size - step
            if newline >= 0:
                break
        raw.truncate(size)
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file)
        first = next(rows, None)
        if first is None:
            return
        if first != header:
            raise EdgegraftError(
                f"{path}: expected a CSV with the columns {','.join(header)}, "
                f"got {','.join(first)!r:.80}; use the same --top-k and model"
            )
        done.headed = True
        for row in rows:
            if len(row) != len(header):
                raise EdgegraftError(
                    f"{path}:{rows.line_num}: expected {len(header)} columns, got "
                    f"{len(row)}; remove this row"
                )
            done.add(row[0])
