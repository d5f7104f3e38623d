"""Listing folders: what is a photo by its content, a folder, or left out.

A file with a photo's suffix counts as one until it is read; any other file if it begins
like one, so that a photo without a suffix is found. Linked files are followed; linked
folders only on request, and then none is entered twice, since they can loop. Hidden
files and those of file managers are listed apart. Nothing recurses, however deep the
folders.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge.errors import EdgegraftError
from edge.photo_kinds import PHOTO_SUFFIXES, begins_well
from edge.text import printable

# Files and folders of operating systems and file managers, in lower case
LITTER = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir"),
    *("$recycle.bin", "system volume information", "lost+found"),
}


@dataclass
class Folder:
    """A folder with its photos; `total` counts those in the folders inside, too."""

    path: Path
    photos: list[Path] = field(default_factory=list)
    folders: list["Folder"] = field(default_factory=list)
    total: int = 0

    @property
    def filled(self) -> list["Folder"]:
        """The folders directly inside that hold photos, at whatever depth."""
        return [folder for folder in self.folders if folder.total]

    def below(self) -> Iterator[Path]:
        """Every photo in it and in the folders inside it."""
        waiting = [self]
        while waiting:
            folder = waiting.pop()
            yield from folder.photos
            waiting += folder.folders


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
        self.special: list[Path] = []  # pipes, sockets, devices, unlistable folders

    def tree(self, top: Path) -> Folder:
        """`top` with all that is below it."""
        root = Folder(top)
        folders = [root]
        for folder in folders:  # grows in the loop
            paths, folder.photos = self._enter(folder.path)
            folder.folders = [Folder(path) for path in paths]
            folders += folder.folders
        for folder in reversed(folders):
            inside = sum(inner.total for inner in folder.folders)
            folder.total = len(folder.photos) + inside
        return root

    def _enter(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """The folders and the photos directly in `folder`, each by name."""
        folders: list[Path] = []
        photos: list[Path] = []
        if self._follow:
            self._entered.add(os.path.realpath(folder))
        for entry in self._listed(folder):
            path = folder / entry.name
            if entry.name.startswith(".") or entry.name.lower() in LITTER:
                self.hidden.append(path)
            elif _is(entry.is_dir):
                (folders if self._enters(entry) else self.linked).append(path)
            elif _is(entry.is_file):
                is_photo = path.suffix.lower() in PHOTO_SUFFIXES or begins_well(path)
                (photos if is_photo else self.ignored).append(path)
            elif entry.is_symlink() and not os.path.exists(path):
                # A link that leads nowhere stays in: reading it will say so.
                if path.suffix.lower() in PHOTO_SUFFIXES:
                    photos.append(path)
            else:  # a pipe, socket or device: opening it could hang
                self.special.append(path)
        return folders, photos

    def _enters(self, entry: os.DirEntry[str]) -> bool:
        if not self._follow:
            return not entry.is_symlink()
        real = os.path.realpath(entry.path)
        new = real not in self._entered
        self._entered.add(real)
        return new

    def _listed(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except PermissionError:
            raise EdgegraftError(
                f"{printable(folder)}: expected a folder that may be read, got no "
                f"permission; mend it with: chmod u+rx {printable(folder)}"
            ) from None
        except OSError:  # its path is too long, or it is gone by now
            self.special.append(folder)
            return []


def _is(kind: Callable[[], bool]) -> bool:
    """The type of an entry, through links; False for a link in a circle."""
    try:
        return kind()
    except OSError:
        return False
