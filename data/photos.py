"""Where the photos are and what they are called: a folder of label folders.

Two layouts are understood: ROOT/LABEL/photo.jpg, and ROOT/train/LABEL/photo.jpg with
val/ and test/ beside it (either may be missing). Folders inside a label folder belong
to that label. Linked files are followed; linked folders on request. Hidden files and
what file managers leave behind (.DS_Store, Thumbs.db, ...) are counted and left out.
Lists and archives are handed to `data.manifest` and `data.archive`.

Nothing is opened here: this module does not know whether a file holds a photo.
"""

import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.parts import PARTS, given_parts
from data.scan import Walk, shown
from edge.errors import EdgegraftError

# Lists that `data split`, `capture` and `sample` write beside the label folders.
OWN_LISTS = re.compile(r"(split(-\d+)?|captured|photos)\.csv")
MIN_PHOTOS = 2  # of a label, to be worth calling one; a split wants more


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo file and the label its folder gives it.

    `part` is "train", "val" or "test" where the user laid the folders out so. `group`
    names what photos share that must stay on one side: an animal, a burst, a video.
    """

    path: Path
    label: str
    part: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class PhotoFolder:
    """What `scan` found. `photos` are sorted by path, `labels` by name."""

    root: Path
    labels: tuple[str, ...]
    photos: tuple[Photo, ...]
    ignored: tuple[Path, ...] = ()  # files that are not photos by their ending
    hidden: tuple[Path, ...] = ()  # hidden files and folders, and system litter
    linked: tuple[Path, ...] = ()  # linked folders, not entered
    unlabelled: tuple[Path, ...] = ()  # photos outside every label folder
    nested: tuple[str, ...] = ()  # labels whose photos all lie in inner folders

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that the user made, in the order train, val, test."""
        given = {photo.part for photo in self.photos}
        return tuple(part for part in PARTS if part in given)

    def notes(self) -> list[str]:
        """What was left out or looks odd, a line each."""
        lines = [
            f"the photos of {shown(label)!r} all lie in folders inside it: is "
            f"{shown(self.root / label)} the folder you meant?"
            for label in self.nested
        ]
        for paths, one, more in (
            (
                self.unlabelled,
                "lies outside the label folders and has no label",
                "lie outside the label folders and have no label",
            ),
            (
                self.linked,
                "is a linked folder and was not entered",
                "are linked folders and were not entered",
            ),
            (
                self.ignored,
                "is not a photo by its ending",
                "are not photos by their ending",
            ),
            (self.hidden, "is a hidden or system file", "are hidden or system files"),
        ):
            if paths:
                first = shown(paths[0].relative_to(self.root))
                what = one if len(paths) == 1 else more
                which = first if len(paths) == 1 else f"first: {first}"
                lines.append(f"left out, {len(paths):,} that {what} ({which})")
        return lines


def scan(
    root: str | os.PathLike[str], *, follow_links: bool = False, few: bool = False
) -> PhotoFolder:
    """Find the photos and labels under `root`.

    `root` may also be a manifest (CSV or JSON lines) or an archive (ZIP or tar), which
    is unpacked first. `follow_links` enters linked folders too, each once. `few` also
    takes photos that are too few to train on, which an audit can look at.

    Raises EdgegraftError when there is no such folder, it may not be read, it has
    fewer than two labels, a label has fewer than two photos, or two label folders
    differ only in case, spaces or Unicode form.
    """
    root = Path(root)
    if root.is_file():
        from data import archive, manifest

        if root.suffix.lower() in manifest.SUFFIXES:
            return manifest.read_manifest(root, few=few)
        if root.suffix.lower() in archive.SUFFIXES:
            root = archive.unpack(root)
    _expect_folder(root)
    walk = Walk(follow_links=follow_links)
    tops, unlabelled = walk.enter(root)
    parts = given_parts(root, tops)
    photos: list[Photo] = []
    labelled: list[Path] = []  # the label folders
    nested: set[str] = set()
    for part, top in parts.items() if parts else [(None, root)]:
        if part is not None:
            tops, loose = walk.enter(top)
            unlabelled += loose
        before = len(photos)
        for folder in tops:
            label = _label(folder)
            paths = walk.below(folder)
            if paths and all(path.parent != folder for path in paths):
                nested.add(label)
            photos += [Photo(path, label, part) for path in paths]
        labelled += tops
        if part is not None and len(photos) == before:
            raise EdgegraftError(
                f"{shown(top)}: expected photos in {shown(top / 'LABEL')}, got none; "
                "fill it, or remove it and the part is made from train"
            )
    refuse_twins((folder.name, folder) for folder in labelled)
    found = PhotoFolder(
        root=root,
        labels=tuple(sorted({_label(folder) for folder in labelled})),
        photos=tuple(sorted(photos, key=lambda photo: photo.path.as_posix())),
        ignored=tuple(
            path
            for path in walk.ignored
            if path.parent != root or not OWN_LISTS.fullmatch(path.name)
        ),
        hidden=tuple(walk.hidden),
        linked=tuple(walk.linked),
        unlabelled=tuple(unlabelled),
        nested=tuple(sorted(nested)),
    )
    refuse_too_few(found, shown(root), few=few)
    return found


def count(photos: Iterable[Photo], labels: Sequence[str]) -> dict[str, int]:
    """Photos per label, in the order of `labels`, zeros included."""
    counts = dict.fromkeys(labels, 0)
    for photo in photos:
        counts[photo.label] += 1
    return counts


def _expect_folder(root: Path) -> None:
    if os.path.isdir(root):
        return
    got = "another file" if os.path.exists(root) else "nothing there"
    raise EdgegraftError(
        f"{shown(root)}: expected a folder with one folder of photos per label, a list "
        f"(.csv, .jsonl) or an archive (.zip, .tar, .tar.gz), got {got}"
    )


def _label(folder: Path) -> str:
    return clean_label(folder.name, shown(folder))


def clean_label(name: str, where: str) -> str:
    """A label as it is used: Unicode form C, no spaces around it."""
    label = sys.intern(unicodedata.normalize("NFC", name).strip())
    if not label.isprintable() or not label:
        raise EdgegraftError(
            f"{where}: expected a label that can be printed on one line, got {name!r}; "
            "rename it"
        )
    return label


def refuse_twins(names: Iterable[tuple[str, Path]]) -> None:
    """Two names that a person, or another file system, would take for one."""
    first: dict[str, str] = {}
    for name, path in names:
        label = unicodedata.normalize("NFC", name).strip()
        other = first.setdefault(label.casefold(), name)
        if other != name:
            raise EdgegraftError(
                f"{shown(path)}: expected labels that differ in more than case, "
                f"spaces or Unicode form, got {other!a} and {name!a}; "
                "rename one or put their photos together"
            )


def refuse_too_few(folder: PhotoFolder, root: str, *, few: bool = False) -> None:
    """EdgegraftError without two labels of `MIN_PHOTOS` photos, with `few` only where
    there is no photo at all; `root` is what to call the place they came from."""
    labels = folder.labels
    if folder.linked:
        linked = f" (linked folders are not entered: {shown(folder.linked[0])})"
    else:
        linked = ""
    if not folder.photos:
        got = "no photos"
        if folder.unlabelled:
            got = f"{len(folder.unlabelled):,} photos outside any label folder"
        elif folder.ignored:
            ending = folder.ignored[0].suffix or "no ending"
            got = f"{len(folder.ignored):,} other files ({shown(ending)}, ...)"
        raise EdgegraftError(
            f"{root}: expected photos in {root}/LABEL, got {got}{linked}; put them "
            f"into one folder per label, for example {root}/cat and {root}/dog"
        )
    if few:
        return
    if len(labels) < 2:
        raise EdgegraftError(
            f"{root}: expected two labels or more, got only {labels[0]!r}{linked}; "
            "add a second folder with photos of something else"
        )
    counts = count(folder.photos, labels)
    for label, photos in counts.items():
        if photos < MIN_PHOTOS:
            raise EdgegraftError(
                f"{root}: expected at least {MIN_PHOTOS} photos of {label!r}, got "
                f"{photos}{linked}; add some, or move its folder away"
            )
