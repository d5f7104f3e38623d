"""From what was typed to photo files: paths, folders, globs.

Only files whose suffix is no photo's are opened here, and nothing is kept: a folder of
any size is walked while it is read.
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

            found = sorted(iglob(argument, recursive=True))
            matching = _matching(found, "**" in argument, report)
            yield from _non_empty(matching, argument)


def _matching(found: list[str], deep: bool, report: Report | None) -> Iterator[str]:
    """The photos a pattern found; a `deep` one (**) has been in the folders itself."""
    for match in found:
        if not os.path.isdir(match):
            if is_photo(match):
                yield match
        elif not deep:
            yield from walk(match, report)


def photos_or_errors(argument: str) -> Iterator[Item]:
    """Photos of one argument; in place of one, what is wrong with a folder."""
    wrong: list[PhotoError] = []
    try:
        for path in photos([argument], wrong.append):
            yield from wrong
            wrong.clear()
            yield path
    except PhotoError as error:
        wrong.append(error)
    yield from wrong


class Unique:
    """Items as they come, each photo once: a file named itself, by its folder and by
    a pattern is one photo. `repeated` counts what was left out; a set of hashes is
    kept, not the paths."""

    def __init__(self) -> None:
        self.repeated = 0

    def __call__(self, items: Iterable[Item]) -> Iterator[Item]:
        seen: set[int] = set()
        for item in items:
            if isinstance(item, str):
                place = hash(os.path.realpath(item))
                if place in seen:
                    self.repeated += 1
                    continue
                seen.add(place)
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
    waiting = [_entries(folder)]
    while waiting:  # folders may lie thousands deep in one another
        path = next(waiting[-1], None)
        if path is None:
            waiting.pop()
        elif not os.path.isdir(path):
            if is_photo(path):
                yield path
        elif not os.path.islink(path):
            try:
                waiting.append(_entries(path))
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
        what = "a file" if os.path.exists(root) else "nothing"
        raise EdgegraftError(
            f"{root}: expected a folder with one folder of photos for each label, got "
            f"{what}{_ALSO_READ}"
        )
    folders = sorted(
        entry.name
        for entry in os.scandir(root)
        if entry.is_dir() and not entry.name.startswith(".")
    )
    foreign = [name for name in folders if name not in labels]
    if foreign or not folders:
        from edge.text import listed

        got = f"a folder {foreign[0]!r}" if foreign else "no folders"
        raise EdgegraftError(
            f"{root}: expected one folder for each label ({listed(labels)}), got {got}"
            f"{_ALSO_READ}"
        )
    for name in folders:
        for path in walk(os.path.join(root, name)):
            yield path, name


def _non_empty(found: Iterator[str], argument: str) -> Iterator[str]:
    first = next(found, None)
    if first is None:
        raise PhotoError(argument, "expected photos here, found none")
    yield first
    yield from found
