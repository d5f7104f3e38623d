"""Photos, their labels and parts.

A folder of label folders, a list or an archive becomes a `PhotoFolder`
(`data.source.scan`). No file is opened here.
"""

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge.errors import EdgegraftError
from edge.preprocess import FULL
from edge.text import plural, printable

PARTS = ("train", "val", "test")
# Lists that `data split`, `capture` and `sample` write beside the label folders.
CAPTURED = "captured.csv"
REGION_COLUMN = "camera_region"  # of `CAPTURED`
OWN_LISTS = re.compile(r"(split(-\d+)?|captured|photos)\.csv")
RESERVED = "unknown"  # edge.classifier.UNKNOWN, what a model answers by itself
MIN_PHOTOS = 2  # of a label; a split needs more


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo file and its label.

    `part` is "train", "val" or "test" where the user made parts. Photos of one `group`
    (an animal, a burst, a video) must stay on one side of the split.
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
    ignored: tuple[Path, ...] = ()  # files whose content is no photo
    hidden: tuple[Path, ...] = ()  # hidden files and folders, and system litter
    linked: tuple[Path, ...] = ()  # linked folders, not entered
    special: tuple[Path, ...] = ()  # pipes, sockets, devices and unlistable folders
    unlabelled: tuple[Path, ...] = ()  # photos outside every label folder
    nested: tuple[str, ...] = ()  # labels whose photos all lie in inner folders
    messages: tuple[str, ...] = ()  # how the photos were read, a line each
    regions: tuple[str, ...] = ()  # that `data capture` recorded, each once
    white: int = FULL  # the level of 16-bit channels that is white
    source: str = ""  # the list or archive they are from, as the user named it

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that the user made, in the order train, val, test."""
        existing = {photo.part for photo in self.photos}
        return tuple(part for part in PARTS if part in existing)

    def notes(self) -> list[str]:
        """How the photos were read and what was left out, a line each."""
        lines = [*self.messages]
        lines += [
            f"the photos of {printable(label)!r} all lie in folders inside it: is "
            f"{printable(self.root / label)} the folder you meant?"
            for label in self.nested
        ]
        for paths, description in (
            (self.unlabelled, "outside the label folders"),
            (self.linked, "in linked folders (--follow-links enters them)"),
            (self.special, "that cannot be opened as files or folders"),
            (self.ignored, f"that are not photos: {self._kinds()}"),
            (self.hidden, "hidden or of the system"),
        ):
            if paths:
                first = paths[0]
                if first.is_relative_to(self.root):
                    first = first.relative_to(self.root)
                lines.append(
                    f"left out, {len(paths):,} {description} "
                    f"(first: {printable(first)})"
                )
        return lines

    def _kinds(self) -> str:
        """The other files by suffix, the most common first: 10 .txt, 2 .mp4."""
        suffixes = Counter(path.suffix.lower() for path in self.ignored)
        kinds = [
            f"{count:,} {printable(suffix) or 'without ending'}"
            for suffix, count in suffixes.most_common(5)
        ]
        return ", ".join([*kinds, "..."] if len(suffixes) > 5 else kinds)


def count(photos: Iterable[Photo], labels: Sequence[str]) -> dict[str, int]:
    """Photos per label, in the order of `labels`, zeros included."""
    counts = dict.fromkeys(labels, 0)
    for photo in photos:
        counts[photo.label] += 1
    return counts


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
    """EdgegraftError for names that a person or a file system would take for one."""
    first: dict[str, str] = {}
    for name, path in names:
        label = unicodedata.normalize("NFC", name).strip()
        other = first.setdefault(label.casefold(), name)
        if other != name:
            raise EdgegraftError(
                f"{printable(path)}: expected labels that differ in more than case, "
                f"spaces or Unicode form, got {other!a} and {name!a}; "
                "rename one or put their photos together"
            )


def refuse_too_few(folder: PhotoFolder, root: str, *, allow_few: bool = False) -> None:
    """EdgegraftError without two labels of `MIN_PHOTOS` photos, with `allow_few` only
    where there is no photo at all; `root` is the source's name in messages."""
    labels = folder.labels
    linked = ""
    if folder.linked:
        linked = f" (linked folders are not entered: {printable(folder.linked[0])})"
    if not folder.photos:
        got = "no photos"
        if folder.unlabelled:
            got = f"{plural(len(folder.unlabelled), 'photo')} outside any label folder"
        elif folder.ignored:
            ending = folder.ignored[0].suffix or "no ending"
            files = plural(len(folder.ignored), "other file")
            got = f"{files} ({printable(ending)}, ...)"
        raise EdgegraftError(
            f"{root}: expected photos in {root}/LABEL, got {got}{linked}; put them "
            f"into one folder per label, for example {root}/cat and {root}/dog"
        )
    if allow_few:
        return
    if len(labels) < 2:
        raise EdgegraftError(
            f"{root}: expected two labels or more, got only {labels[0]!r}{linked}; "
            "add a second folder with photos of something else"
        )
    for label, photos in count(folder.photos, labels).items():
        if photos < MIN_PHOTOS:
            raise EdgegraftError(
                f"{root}: expected at least {MIN_PHOTOS} photos of {label!r}, got "
                f"{photos}{linked}; add some, or move its folder away"
            )


def renamed(
    photos: Iterable[Photo], names: Mapping[str, str], where: str
) -> tuple[Photo, ...]:
    """The photos under their new labels, `names` old -> new (``--rename``).

    EdgegraftError for a label that does not exist, and for one that ends up as
    `unknown`, which a model answers when no label fits.
    """
    photos = tuple(photos)
    labels = {photo.label for photo in photos}
    for old, new in names.items():
        if old not in labels:
            raise EdgegraftError(
                f"--rename {old}={new}: expected a label of {where}, got "
                f"{old!r}; there are {', '.join(sorted(labels)):.200}"
            )
    if names:
        photos = tuple(replace(p, label=names.get(p.label, p.label)) for p in photos)
    for label in {photo.label for photo in photos}:
        if label.casefold() == RESERVED:
            raise EdgegraftError(
                f"{where}: expected labels other than {label!r}, which a model answers "
                f"when no label fits; rename it, or add: --rename {label}=other"
            )
    return photos
