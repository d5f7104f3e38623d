"""Which folders are labels, which are parts (train, val, test), whatever the spelling.

`read_layout` reads a tree of folders: ROOT/LABEL, ROOT/PART/LABEL and ROOT/LABEL/PART,
each with one more folder around where an archive or Kaggle has left one. A part's name
may be spelled train, training_set, seg_train, TrainData, asl_alphabet_train and the
like. What can be read in two ways is refused, with both readings and the option that
settles it. A part that the user made is kept as it is; missing ones are made out of
train.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.photos import PARTS, Photo
from data.scan import Folder
from edge.errors import EdgegraftError
from edge.text import plural, printable

LAYOUTS = ("auto", "labels", "parts")  # of --layout
PREDICT = "predict"  # photos to be answered: without labels, so in no part
PART_NAMES: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "validate": "val",
    "test": "test",
    "testing": "test",
    "pred": PREDICT,
    "predict": PREDICT,
    "prediction": PREDICT,
    "predictions": PREDICT,
    "inference": PREDICT,
    "unlabeled": PREDICT,
    "unlabelled": PREDICT,
}
# Words beside a part's name that say nothing: training_set, seg_train, test images.
_FILLER = frozenset(
    (
        *(
            "set",
            "sets",
            "data",
            "dataset",
            "datasets",
            "image",
            "images",
            "img",
            "imgs",
        ),
        *("photo", "photos", "picture", "pictures", "pics", "split", "splits", "seg"),
        *("folder", "part", "samples"),
    )
)
_JOINED = re.compile(
    rf"({'|'.join(sorted(PART_NAMES, key=len, reverse=True))})"
    r"(set|data|dataset|images|imgs|photos|split)"
)


def part_of(name: str, prefix: frozenset[str] = frozenset()) -> str | None:
    """The part that a folder's name spells, None where it is another word.

    `prefix`: words that every folder beside it has, too, such as the set's name.
    """
    words = [word for word in _words(name) if word not in _FILLER | prefix]
    return PART_NAMES.get(words[0]) if len(words) == 1 else None


def _words(name: str) -> list[str]:
    """TrainingSet_224x224 -> training, set; trainset -> train, set."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words: list[str] = []
    for word in re.split(r"[\W_]+", name.casefold()):
        joined = _JOINED.fullmatch(word)
        if joined:
            words += joined.groups()
        elif word and not re.fullmatch(r"\d+(x\d+)?", word):
            words.append(word)
    return words


def parts_to_make(given: Iterable[str | None]) -> tuple[str, ...]:
    """The parts that have to come out of train, given those the user made."""
    there = set(given)
    return tuple(part for part in ("val", "test") if part not in there)


def shortages(
    photos: Sequence[Photo], labels: Sequence[str], digests: Mapping[Path, str]
) -> list[str]:
    """Why these photos cannot be split, a line each; empty when they can.

    `photos` are all that were found, `digests` are of those that can be read. Copies
    of one file (same digest) count once, because they have to stay on one side.
    """
    given = {photo.part for photo in photos} - {None}
    to_make = parts_to_make(given)
    different: dict[str, set[str]] = {}
    for photo in photos:
        if photo.path in digests and photo.part in (None, "train"):
            different.setdefault(photo.label, set()).add(digests[photo.path])
    need = 1 + len(to_make)
    readable = {photo.part for photo in photos if photo.path in digests}
    lines = [
        f"{part}: expected photos that can be read, got none; remove the part and it "
        "is made from train"
        for part in PARTS[1:]
        if part in given - readable
    ]
    for label in labels:
        got = len(different.get(label, ()))
        if got < need:
            where = f"the train photos of {label!r}" if given else f"label {label!r}"
            lines.append(
                f"{where}: expected at least {need} that can be read and differ "
                f"(for {', '.join(('train', *to_make))}), got {got}; add some, or "
                "leave the label out"
            )
    return lines


@dataclass
class Layout:
    """Where the label folders are. `root` is the folder that holds all of them."""

    root: Folder
    labels: list[tuple[str | None, str, Folder]] = field(default_factory=list)
    unlabelled: list[Path] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


def read_layout(top: Folder, layout: str = "auto", *, alone: bool = False) -> Layout:
    """The label folders below `top`, each with its part and its name.

    layout: "labels" takes the folders directly inside for labels, whatever they are
    called, "parts" for parts. `alone`: a test part may stand alone, for those that only
    look at photos. EdgegraftError where "auto" can be read in two ways.
    """
    found = Layout(top if layout == "labels" else _inner(top, alone))
    root = found.root
    if root is not top:
        found.messages.append(
            "the label folders are those in "
            f"{printable(root.path.relative_to(top.path))}"
        )
    found.unlabelled += root.photos
    tops = root.filled
    empty = [folder.path.name for folder in root.folders if not folder.total]
    if layout == "labels":
        parts: dict[str, Folder] = {}
    else:
        parts = _parts(found, tops, layout)
    if parts:
        _add_parts(found, parts)
        empty = []
    elif layout == "auto" and _labels_around_parts(root, tops):
        for label in tops:
            for inner in label.filled:
                part = part_of(inner.path.name)
                found.labels.append((part, label.path.name, inner))
        found.messages.append("each label folder has its own parts, which are kept")
    else:
        found.labels += [(None, folder.path.name, folder) for folder in tops]
    if empty:
        names = ", ".join(map(printable, empty[:5])) + (", ..." if empty[5:] else "")
        found.messages.append(
            f"left out, {plural(len(empty), 'folder')} without photos: {names}"
        )
    return found


def _inner(top: Folder, alone: bool) -> Folder:
    """Past folders that hold one folder of folders and nothing else."""
    inner = top
    while not inner.photos and len(inner.filled) == 1:
        inner = inner.filled[0]
        if not alone and part_of(inner.path.name) not in (None, "train"):
            return top  # a test part alone: there is nothing to train on
    return inner if len(inner.filled) > 1 else top


def _parts(found: Layout, tops: list[Folder], layout: str) -> dict[str, Folder]:
    """Part -> the folder that holds its label folders; empty where there are none."""
    where = printable(found.root.path)
    prefix = frozenset[str]()
    if len(tops) > 1:
        prefix = frozenset.intersection(
            *(frozenset(_words(folder.path.name)) for folder in tops)
        )
    named: dict[str, list[Folder]] = {}
    others: list[Folder] = []
    for folder in tops:
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
    inner = {
        part: [_unwrapped(folder) for folder in folders]
        for part, folders in named.items()
    }
    nested = {part for part, folders in inner.items() if any(f.filled for f in folders)}
    every = [folder for folders in named.values() for folder in folders]
    if not nested and others and len(every) == 1 and layout == "auto":
        return {}  # photos lie in it as in the others: a label that is called train
    if not nested and not others:
        raise EdgegraftError(
            f"{where}: expected label folders inside {_names(every)}, got none; put "
            f"the photos into {printable(every[-1].path / 'LABEL')}, or take the "
            "folders as labels with --layout labels"
        )
    twice = [part for part, folders in named.items() if len(folders) > 1]
    sure = layout == "parts" or (not twice and _leftovers(others, inner))
    if twice or (others and not sure):
        raise _unclear(where, every, others)
    if "train" not in nested:
        raise EdgegraftError(
            f"{where}: expected a train folder beside {_names(every)} with label "
            "folders inside, got none; val and test may be missing, train may not"
        )
    if others:
        found.messages.append(f"left out, beside the parts: {_names(others)}")
    for part in named.keys() - nested | named.keys() & {PREDICT}:
        loose = list(inner[part][0].below())
        found.messages.append(
            f"left out, {plural(len(loose), 'photo')} in "
            f"{printable(named[part][0].path.name)}: they have no label"
        )
    return {part: inner[part][0] for part in PARTS if part in nested}


def _leftovers(others: list[Folder], parts: Mapping[str, list[Folder]]) -> bool:
    """Whether `others` are clearly no labels: train and another part have labels in
    common, and those are called otherwise."""
    inside = {
        part: {label.path.name.casefold() for label in folders[0].filled}
        for part, folders in parts.items()
    }
    train = inside.pop("train", set())
    names = {folder.path.name.casefold() for folder in others}
    common = any(len(train & labels) > 1 for labels in inside.values())
    return common and not names & train


def _add_parts(found: Layout, parts: Mapping[str, Folder]) -> None:
    root = found.root.path
    spelled = ", ".join(
        f"{part} from {printable(folder.path.relative_to(root))}"
        for part, folder in parts.items()
    )
    if any(part != folder.path.name for part, folder in parts.items()):
        found.messages.append(f"the folders are parts, not labels: {spelled}")
    for part, folder in parts.items():
        found.unlabelled += folder.photos
        found.labels += [(part, f.path.name, f) for f in folder.filled]


def _unwrapped(folder: Folder) -> Folder:
    """Past a second folder of that name, or one such as images, around the labels."""
    while not folder.photos and len(folder.filled) == 1:
        inner = folder.filled[0]
        name = inner.path.name
        again = part_of(name) is not None and part_of(name) == part_of(folder.path.name)
        if not (
            again
            or name.casefold() == folder.path.name.casefold()
            or set(_words(name)) <= _FILLER
        ):
            return folder
        folder = inner
    return folder


def _labels_around_parts(root: Folder, tops: list[Folder]) -> bool:
    """Whether each label has its own parts: cat/train, cat/test. EdgegraftError where
    some have and others have not."""
    divided = []
    for label in tops:
        parts = [part_of(inner.path.name) for inner in label.filled]
        if "train" in parts and len(set(parts)) > 1 and None not in parts:
            if PREDICT in parts or len(set(parts)) < len(parts):
                return False
            divided.append(label)
    if divided and (len(divided) < len(tops) or any(f.photos for f in divided)):
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
    every = _names(sorted([*named, *others], key=lambda folder: folder.path.name))
    if named and others:
        why = (
            f"expected folders of labels or of parts, got {every}; take all as labels "
            f"with --layout labels, or only {_names(named)} as parts with --layout "
            "parts"
        )
    elif named:
        why = (
            f"expected one folder for each part, got {every}; put those of one part "
            "together, or take all as labels with --layout labels"
        )
    else:
        why = (
            f"expected labels, got names that look like the parts of labels: {every}; "
            "sort the photos into PART/LABEL, or take all as labels with --layout "
            "labels"
        )
    return EdgegraftError(f"{where}: {why}")


def _names(folders: Sequence[Folder]) -> str:
    names = [printable(folder.path.name) for folder in folders[:8]]
    return ", ".join([*names, "..."] if len(folders) > 8 else names)
