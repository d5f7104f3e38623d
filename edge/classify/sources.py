"""Photo files of command-line arguments: paths, folders, glob patterns.

Only files without a photo's suffix are opened here. Paths are yielded while a folder is
walked, so a folder of any size takes the same memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from edge.errors import EdgegraftError, PhotoError
from edge.photo_kinds import PHOTO_SUFFIXES, begins_well

_MAGIC = frozenset("*?[")
_ALSO_READ = "; lists, archives and runs are read by: edgegraft edge evaluate"
Item = str | PhotoError  # a path, or what is wrong with a folder or a pattern
Report = Callable[[PhotoError], None]  # called for a folder that cannot be read


def photos(arguments: Iterable[str], report: Report | None = None) -> Iterator[str]:
    """Photo paths, in the order given; folders recursively and sorted by name.

    A file is passed on whatever it is; in a folder and for a pattern, files count that
    have a photo's suffix or begin like one, and hidden ones are left out. A path that
    does not exist is passed on as well: opening it says so, and the other photos go on.
    PhotoError for a folder without a photo or a pattern that matches none, and
    for a folder that cannot be read; `report` is called for one inside another instead.
    """
    for argument in arguments:
        if os.path.isdir(argument):
            yield from _non_empty(walk(argument, report), argument)
        elif _MAGIC.isdisjoint(argument) or os.path.lexists(argument):
            yield argument
        else:
            from glob import iglob

            paths = sorted(iglob(argument, recursive=True))
            matching = _matching(paths, "**" in argument, report)
            yield from _non_empty(matching, argument)


def _matching(
    paths: list[str], recursive: bool, report: Report | None
) -> Iterator[str]:
    """The photos among a pattern's matches; a `recursive` one (**) has matched what is
    in the folders, too."""
    for path in paths:
        if not os.path.isdir(path):
            if is_photo(path):
                yield path
        elif not recursive:
            yield from walk(path, report)


def photos_or_errors(argument: str) -> Iterator[Item]:
    """Photos of one argument; in place of one, what is wrong with a folder."""
    errors: list[PhotoError] = []
    try:
        for path in photos([argument], errors.append):
            yield from errors
            errors.clear()
            yield path
    except PhotoError as error:
        errors.append(error)
    yield from errors


class Unique:
    """Items as they come, each photo once: a file named itself, by its folder and by
    a pattern is one photo. `repeated` counts what was left out; a set of hashes is
    kept, not the paths."""

    def __init__(self) -> None:
        self.repeated = 0

    def __call__(self, items: Iterable[Item]) -> Iterator[Item]:
        hashes: set[int] = set()
        for item in items:
            if isinstance(item, str):
                path_hash = hash(os.path.realpath(item))
                if path_hash in hashes:
                    self.repeated += 1
                    continue
                hashes.add(path_hash)
            yield item


def is_photo(path: str) -> bool:
    """Has the file a photo's suffix, or does it begin like one?"""
    if os.path.splitext(path)[1].lower() in PHOTO_SUFFIXES:
        return True
    return os.path.isfile(path) and begins_well(path)  # opening a pipe would hang


def walk(folder: str, report: Report | None = None) -> Iterator[str]:
    """Photos below a folder, sorted; links to folders are not followed.

    With `report`, that is called for a folder inside that cannot be read.
    """
    stack = [_entries(folder)]
    while stack:  # folders may lie thousands deep in one another
        path = next(stack[-1], None)
        if path is None:
            stack.pop()
        elif not os.path.isdir(path):
            if is_photo(path):
                yield path
        elif not os.path.islink(path):
            try:
                stack.append(_entries(path))
            except PhotoError as error:
                if report is None:
                    raise
                report(error)


def _entries(folder: str) -> Iterator[str]:
    """The paths directly in a folder, sorted, without hidden ones; PhotoError."""
    try:
        names = sorted(os.listdir(folder))
    except PermissionError:
        raise PhotoError(folder, "permission denied (chmod +rx it)") from None
    except OSError as error:  # gone while we walked, a broken disk, a path too long
        raise PhotoError(folder, error.strerror or str(error)) from None
    return (os.path.join(folder, name) for name in names if name[:1] != ".")


def labelled(root: str, labels: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(path, label) of a class-per-folder tree whose folders are named as labels.

    EdgegraftError when a folder is no label, or there is no photo.
    """
    if not os.path.isdir(root):
        kind = "a file" if os.path.exists(root) else "nothing"
        raise EdgegraftError(
            f"{root}: expected a folder with one folder of photos for each label, got "
            f"{kind}{_ALSO_READ}"
        )
    folders = sorted(
        entry.name
        for entry in os.scandir(root)
        if entry.is_dir() and not entry.name.startswith(".")
    )
    unknown = [name for name in folders if name not in labels]
    if unknown or not folders:
        from edge.text import listed

        got = f"a folder {unknown[0]!r}" if unknown else "no folders"
        raise EdgegraftError(
            f"{root}: expected one folder for each label ({listed(labels)}), got {got}"
            f"{_ALSO_READ}"
        )
    for name in folders:
        for path in walk(os.path.join(root, name)):
            yield path, name


def _non_empty(paths: Iterator[str], argument: str) -> Iterator[str]:
    first = next(paths, None)
    if first is None:
        raise PhotoError(argument, "expected photos here, found none")
    yield first
    yield from paths
