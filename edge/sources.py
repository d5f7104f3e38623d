"""From what was typed to photo files: paths, folders, globs.

Nothing is opened here and nothing is kept: a folder of any size is walked while
it is read. It does not know: what is in a photo, or models.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from edge.errors import EdgegraftError
from edge.preprocess import PHOTO_SUFFIXES

_MAGIC = frozenset("*?[")


def photos(arguments: Iterable[str]) -> Iterator[str]:
    """Photo paths, in the order given; folders recursively and sorted by name.

    A file is passed on whatever its name; in a folder and for a pattern, only files
    with a photo's suffix count and hidden ones are left out. A path that does not
    exist is passed on as well: opening it says so, and the other photos go on.
    EdgegraftError for a folder without a photo or a pattern that matches none.
    """
    for argument in arguments:
        if os.path.isdir(argument):
            yield from _non_empty(walk(argument), argument)
        elif _MAGIC.isdisjoint(argument) or os.path.lexists(argument):
            yield argument
        else:
            from glob import iglob

            found = sorted(iglob(argument, recursive=True))
            yield from _non_empty(_matching(found, "**" in argument), argument)


def _matching(found: list[str], deep: bool) -> Iterator[str]:
    """The photos a pattern found; a `deep` one (**) has been in the folders itself."""
    for match in found:
        if not os.path.isdir(match):
            if is_photo(match):
                yield match
        elif not deep:
            yield from walk(match)


def is_photo(name: str) -> bool:
    """Has the file a photo's suffix?"""
    return os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES


def walk(folder: str) -> Iterator[str]:
    """Photos below a folder, sorted; links to folders are not followed."""
    try:
        names = sorted(os.listdir(folder))
    except PermissionError:
        raise EdgegraftError(f"{folder}: permission denied (chmod +rx it)") from None
    except OSError as error:  # gone while we walked, a broken disk
        raise EdgegraftError(f"{folder}: {error.strerror or error}") from None
    for name in names:
        if name.startswith("."):
            continue
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            if not os.path.islink(path):
                yield from walk(path)
        elif is_photo(name):
            yield path


def labelled(root: str, labels: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(path, label) of a class-per-folder tree whose folders are named as labels.

    EdgegraftError when a folder is no label, or there is no photo.
    """
    if not os.path.isdir(root):
        what = "a file" if os.path.exists(root) else "nothing"
        raise EdgegraftError(f"{root}: expected a folder of photos, got {what}")
    folders = sorted(
        entry.name
        for entry in os.scandir(root)
        if entry.is_dir() and not entry.name.startswith(".")
    )
    foreign = [name for name in folders if name not in labels]
    if foreign or not folders:
        got = f"a folder {foreign[0]!r}" if foreign else "no folders"
        known = ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")
        raise EdgegraftError(
            f"{root}: expected one folder for each label ({known}), got {got}"
        )
    for name in folders:
        for path in walk(os.path.join(root, name)):
            yield path, name


def _non_empty(found: Iterator[str], argument: str) -> Iterator[str]:
    first = next(found, None)
    if first is None:
        raise EdgegraftError(f"{argument}: expected photos here, found none")
    yield first
    yield from found
