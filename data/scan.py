"""Listing folders: what is a photo by its ending, a folder, or left out.

Linked files are followed; linked folders only on request, and then none is entered
twice, since they can loop. Hidden files and what file managers leave behind are
remembered apart. Nothing is opened.

It does not know what a folder's name means.
"""

import os
from collections.abc import Callable
from pathlib import Path

from edge.errors import EdgegraftError
from edge.preprocess import PHOTO_SUFFIXES
from edge.text import printable

# What systems put beside photos without being asked, in lower case.
LITTER = frozenset(
    {
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "__macosx",
        "@eadir",
        "$recycle.bin",
        "system volume information",
        "lost+found",
    }
)
shown = printable  # a path as it can be printed anywhere


class Walk:
    """Lists folders and remembers what it left out.

    follow_links: linked folders are entered as well, each real folder once.
    """

    def __init__(self, *, follow_links: bool = False) -> None:
        self._follow = follow_links
        self._entered: set[str] = set()
        self.ignored: list[Path] = []
        self.hidden: list[Path] = []
        self.linked: list[Path] = []

    def enter(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """The folders and the photos directly in `folder`, each by name."""
        folders: list[Path] = []
        photos: list[Path] = []
        if self._follow:
            self._entered.add(os.path.realpath(folder))
        for entry in _listed(folder):
            path = folder / entry.name
            if entry.name.startswith(".") or entry.name.lower() in LITTER:
                self.hidden.append(path)
            elif _is(entry.is_dir):
                (folders if self._enters(entry) else self.linked).append(path)
            elif path.suffix.lower() not in PHOTO_SUFFIXES:
                self.ignored.append(path)
            elif _is(entry.is_file) or entry.is_symlink():
                # A link that leads nowhere stays in: reading it will say so.
                photos.append(path)
            else:  # a pipe, socket or device: opening it could hang
                self.ignored.append(path)
        return folders, photos

    def _enters(self, entry: os.DirEntry[str]) -> bool:
        if not self._follow:
            return not entry.is_symlink()
        real = os.path.realpath(entry.path)
        new = real not in self._entered
        self._entered.add(real)
        return new

    def below(self, folder: Path) -> list[Path]:
        """Every photo in `folder` and the folders inside it."""
        waiting, found = [folder], []
        while waiting:
            folders, photos = self.enter(waiting.pop())
            waiting += folders
            found += photos
        return found


def _is(kind: Callable[[], bool]) -> bool:
    """What an entry is, through links; a link in a circle is nothing."""
    try:
        return kind()
    except OSError:
        return False


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        raise EdgegraftError(
            f"{shown(folder)}: expected a folder that may be read, got no permission; "
            f"mend it with: chmod u+rx {shown(folder)}"
        ) from None
    except OSError as error:
        raise EdgegraftError(
            f"{shown(folder)}: expected a folder that can be listed, got: "
            f"{error.strerror}"
        ) from None
