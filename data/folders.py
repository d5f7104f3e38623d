"""Folders of photos: what lies in them, and which are labels, which parts.

`Walk` lists folders. A file with a photo's suffix counts as one until it is read; any
other file if it begins like one, so that a photo without a suffix is found. Linked
files are followed; linked folders only on request, and then none is entered twice,
since they can loop. Hidden files and those of file managers are listed apart. Nothing
recurses, however deep the folders.

`read_layout` reads a tree of folders: ROOT/LABEL, ROOT/PART/LABEL and ROOT/LABEL/PART,
each with one more folder around where an archive or Kaggle has left one. A part's name
(train, val, test) may be spelled training_set, seg_train, TrainData,
asl_alphabet_train, val2017 and the like. What can be read in two ways is refused, with
both readings and the option that settles it.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from string import digits

from data.photos import PARTS
from edge.errors import EdgegraftError
from edge.photo_kinds import PHOTO_SUFFIXES, begins_well
from edge.text import plural, printable

# Files and folders of operating systems and file managers, in lower case
LITTER = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir"),
    *("$recycle.bin", "system volume information", "lost+found"),
}

LAYOUTS = ("auto", "labels", "parts")  # of --layout
PREDICT = "predict"  # photos without labels, so in no part
PART_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("pred", "predict", "prediction", "predictions"), PREDICT),
    **dict.fromkeys(("inference", "unlabeled", "unlabelled"), PREDICT),
}
# Words without meaning beside a part's name: training_set, seg_train, test images.
_FILLER = {
    *("set", "sets", "data", "dataset", "datasets", "image", "images", "img", "imgs"),
    *("photo", "photos", "picture", "pictures", "pics", "split", "splits", "seg"),
    *("folder", "part", "samples"),
}
_JOINED = re.compile(
    rf"({'|'.join(sorted(PART_NAMES, key=len, reverse=True))})"
    r"(set|data|dataset|images|imgs|photos|split)"
)


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
            elif _entry_is(entry.is_dir):
                (folders if self._enters(entry) else self.linked).append(path)
            elif _entry_is(entry.is_file):
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


def _entry_is(kind: Callable[[], bool]) -> bool:
    """The type of an entry, through links; False for a link in a circle."""
    try:
        return kind()
    except OSError:
        return False


def part_of(name: str, prefix: frozenset[str] = frozenset()) -> str | None:
    """The part that a folder's name spells, None where it is another word.

    `prefix`: words that every folder beside it has, too, such as the set's name.
    """
    words = [word for word in _words(name) if word not in _FILLER | prefix]
    return PART_NAMES.get(words[0]) if len(words) == 1 else None


def _words(name: str) -> list[str]:
    """TrainingSet_224x224 -> training, set; trainset -> train, set; val2017 -> val."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words: list[str] = []
    for word in re.split(r"[\W_]+", name.casefold()):
        if word.rstrip(digits) in PART_NAMES:
            word = word.rstrip(digits)
        joined = _JOINED.fullmatch(word)
        if joined:
            words += joined.groups()
        elif word and not re.fullmatch(r"\d+(x\d+)?", word):
            words.append(word)
    return words


@dataclass
class Layout:
    """Where the label folders are. `root` is the folder that holds all of them."""

    root: Folder
    labels: list[tuple[str | None, str, Folder]] = field(default_factory=list)
    unlabelled: list[Path] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


def read_layout(
    top: Folder, layout: str = "auto", *, allow_test_only: bool = False
) -> Layout:
    """The label folders below `top`, each with its part and its name.

    layout: "labels" takes the folders directly inside for labels, whatever their names,
    "parts" for parts. `allow_test_only`: a test part may stand alone, where nothing is
    trained. EdgegraftError where "auto" can be read in two ways.
    """
    result = Layout(top if layout == "labels" else _inner(top, allow_test_only))
    root = result.root
    if root is not top:
        result.messages.append(
            "the label folders are those in "
            f"{printable(root.path.relative_to(top.path))}"
        )
    result.unlabelled += root.photos
    folders = root.filled
    empty = [folder.path.name for folder in root.folders if not folder.total]
    parts = {} if layout == "labels" else _parts(result, folders, layout)
    if parts:
        _add_parts(result, parts)
        empty = []
    elif layout == "auto" and _labels_around_parts(root, folders):
        result.labels += [
            (part_of(inner.path.name), label.path.name, inner)
            for label in folders
            for inner in label.filled
        ]
        result.messages.append("each label folder has its own parts, which are kept")
    else:
        result.labels += [(None, folder.path.name, folder) for folder in folders]
    if empty:
        names = ", ".join(map(printable, empty[:5])) + (", ..." if empty[5:] else "")
        result.messages.append(
            f"left out, {plural(len(empty), 'folder')} without photos: {names}"
        )
    return result


def _inner(top: Folder, allow_test_only: bool) -> Folder:
    """Past folders that hold one folder of folders and nothing else."""
    inner = top
    while not inner.photos and len(inner.filled) == 1:
        inner = inner.filled[0]
        if not allow_test_only and part_of(inner.path.name) not in (None, "train"):
            return top  # a test part alone: there is nothing to train on
    return inner if len(inner.filled) > 1 else top


def _parts(result: Layout, folders: list[Folder], layout: str) -> dict[str, Folder]:
    """Part -> the folder that holds its label folders; empty where there are none."""
    where = printable(result.root.path)
    prefix = frozenset[str]()
    if len(folders) > 1:
        prefix = frozenset.intersection(
            *(frozenset(_words(folder.path.name)) for folder in folders)
        )
    named: dict[str, list[Folder]] = {}
    others: list[Folder] = []
    for folder in folders:
        part = part_of(folder.path.name, prefix - PART_NAMES.keys())
        named.setdefault(part, []).append(folder) if part else others.append(folder)
    spelled = {
        PART_NAMES[word]
        for folder in others
        for word in _words(folder.path.name)
        if word in PART_NAMES
    }
    if not named and len(spelled) > 1 and layout == "auto":
        raise _unclear(where, [], others)
    if not named and layout == "parts":
        raise EdgegraftError(
            f"{where}: expected folders named train, val or test with --layout parts, "
            f"got {_names(others)}"
        )
    if not named:
        return {}
    inner = {part: list(map(_unwrapped, named[part])) for part in named}
    nested = {part for part, inside in inner.items() if any(f.filled for f in inside)}
    parts = [*chain.from_iterable(named.values())]
    if not nested and others and len(parts) == 1 and layout == "auto":
        return {}  # photos lie in it as in the others: a label that is called train
    if not nested and not others:
        raise EdgegraftError(
            f"{where}: expected label folders inside {_names(parts)}, got none; "
            f"put the photos into {printable(parts[-1].path / 'LABEL')}, or take the "
            "folders as labels with --layout labels"
        )
    repeated = any(len(folders) > 1 for folders in named.values())
    if repeated or (others and layout != "parts" and not _leftovers(others, inner)):
        raise _unclear(where, parts, others)
    if "train" not in nested:
        raise EdgegraftError(
            f"{where}: expected a train folder beside {_names(parts)} with label "
            "folders inside, got none; val and test may be missing, train may not"
        )
    if others:
        result.messages.append(f"left out, beside the parts: {_names(others)}")
    for part in named.keys() - nested | named.keys() & {PREDICT}:
        result.messages.append(
            f"left out, {plural(inner[part][0].total, 'photo')} in "
            f"{printable(named[part][0].path.name)}: they have no label"
        )
    return {part: inner[part][0] for part in PARTS if part in nested}


def _leftovers(others: list[Folder], parts: Mapping[str, list[Folder]]) -> bool:
    """Whether `others` are clearly no labels: train and another part have labels in
    common, and none of `others` has a label's name."""
    labels = {
        part: {label.path.name.casefold() for label in folders[0].filled}
        for part, folders in parts.items()
    }
    train = labels.pop("train", set())
    if {folder.path.name.casefold() for folder in others} & train:
        return False
    return any(len(train & names) > 1 for names in labels.values())


def _add_parts(result: Layout, parts: Mapping[str, Folder]) -> None:
    if any(part != folder.path.name for part, folder in parts.items()):
        root = result.root.path
        spelled = ", ".join(
            f"{part} from {printable(folder.path.relative_to(root))}"
            for part, folder in parts.items()
        )
        result.messages.append(f"the folders are parts, not labels: {spelled}")
    for part, folder in parts.items():
        result.unlabelled += folder.photos
        result.labels += [(part, f.path.name, f) for f in folder.filled]


def _unwrapped(folder: Folder) -> Folder:
    """Past a second folder of that name, or one such as images, around the labels."""
    while not folder.photos and len(folder.filled) == 1:
        inner = folder.filled[0]
        name, outer_name = inner.path.name, folder.path.name
        same_part = part_of(name) is not None and part_of(name) == part_of(outer_name)
        same_name = name.casefold() == outer_name.casefold()
        if not (same_part or same_name or set(_words(name)) <= _FILLER):
            return folder
        folder = inner
    return folder


def _labels_around_parts(root: Folder, labels: list[Folder]) -> bool:
    """Whether each label has its own parts: cat/train, cat/test. EdgegraftError where
    only some have."""
    divided = []
    for label in labels:
        parts = [part_of(inner.path.name) for inner in label.filled]
        if "train" in parts and len(set(parts)) > 1 and None not in parts:
            if PREDICT in parts or len(set(parts)) < len(parts):
                return False
            divided.append(label)
    if divided and (len(divided) < len(labels) or any(f.photos for f in divided)):
        raise EdgegraftError(
            f"{printable(root.path)}: expected parts in every label folder or in none, "
            f"got parts in {_names(divided)} only; move them, or add --layout labels "
            "to take all photos of a label together"
        )
    return bool(divided)


def _unclear(
    where: str, named: Sequence[Folder], others: Sequence[Folder]
) -> EdgegraftError:
    """Both readings of the folders, and how to settle which."""
    names = _names(sorted([*named, *others], key=lambda folder: folder.path.name))
    if named and others:
        why = (
            f"expected folders of labels or of parts, got {names}; take all as labels "
            f"with --layout labels, or only {_names(named)} as parts with --layout "
            "parts"
        )
    elif named:
        why = (
            f"expected one folder for each part, got {names}; put those of one part "
            "together, or take all as labels with --layout labels"
        )
    else:
        why = (
            f"expected labels, got names that look like the parts of labels: {names}; "
            "sort the photos into PART/LABEL, or take all as labels with --layout "
            "labels"
        )
    return EdgegraftError(f"{where}: {why}")


def _names(folders: Sequence[Folder]) -> str:
    names = [printable(folder.path.name) for folder in folders[:8]]
    return ", ".join([*names, "..."] if len(folders) > 8 else names)
