"""Train, val and test: which the user made, and what each label needs for them.

A part that the user made is kept as it is. Missing ones are made out of train, so a
label must have a photo there for each part that is still to be made.

It does not know which photo goes where: that is `data.split`.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data.scan import Walk, shown
from edge.errors import EdgegraftError

if TYPE_CHECKING:
    from data.photos import Photo

PARTS = ("train", "val", "test")
PART_NAMES: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def parts_to_make(given: Iterable[str | None]) -> tuple[str, ...]:
    """The parts that have to come out of train, given those the user made."""
    there = set(given)
    return tuple(part for part in ("val", "test") if part not in there)


def shortages(
    photos: Sequence["Photo"], labels: Sequence[str], digests: Mapping[Path, str]
) -> list[str]:
    """Why these photos cannot be split, a line each; empty when they can.

    `photos` are all that were found, `digests` are of those that can be read. Copies
    of one file (same digest) count once, because they have to stay on one side.
    """
    given = {photo.part for photo in photos} - {None}
    to_make = parts_to_make(given)
    different: dict[tuple[str, str], set[str]] = {}
    for photo in photos:
        if photo.path in digests:
            place = (photo.part or "train", photo.label)
            different.setdefault(place, set()).add(digests[photo.path])
    lines = []
    for label in labels:
        needed = {"train": 1 + len(to_make)}
        needed |= {part: 1 for part in ("val", "test") if part in given}
        for part, need in needed.items():
            got = len(different.get((part, label), ()))
            if got >= need:
                continue
            where = f"the {part} photos of {label!r}" if given else f"label {label!r}"
            each = ", ".join(("train", *to_make)) if part == "train" else part
            lines.append(
                f"{where}: expected at least {need} that can be read and differ "
                f"(for {each}), got {got}; add some, or leave the label out"
            )
    return lines


def given_parts(root: Path, tops: list[Path]) -> dict[str, Path]:
    """Part -> its folder, empty where the folders under `root` are the labels."""
    named = [top for top in tops if top.name.lower() in PART_NAMES]
    split = [top for top in named if Walk().enter(top)[0]]
    if not named or (not split and len(named) < len(tops)):
        return {}
    names = ", ".join(shown(top.name) for top in tops)
    if not split:
        raise EdgegraftError(
            f"{shown(root)}: expected label folders inside {names}, got none; put the "
            f"photos into {shown(named[0] / 'LABEL')}"
        )
    parts: dict[str, Path] = {}
    for top in named:
        parts.setdefault(PART_NAMES[top.name.lower()], top)
    if len(parts) < len(tops):
        raise EdgegraftError(
            f"{shown(root)}: expected either label folders or one each of train, val "
            f"and test, got {names}; move the others away"
        )
    if "train" not in parts:
        raise EdgegraftError(
            f"{shown(root)}: expected a train folder beside {names}, got none; val and "
            "test may be missing, train may not"
        )
    return {part: parts[part] for part in PARTS if part in parts}
