"""Train, val and test without leaks, recorded photo by photo.

Within each label the photos are put in an order that depends only on their bytes and
the seed, and the parts are filled in that order: names and folders do not matter.
Files with the same bytes stay together, and so do near-duplicates, photos of one
group, and whatever these chain together. A photo added later moves few of the others,
and none where the earlier split is passed as `previous`. Parts that the user made stay
exactly as they are; missing ones are taken from train.

`split.csv` has a line for each photo: path (from the root, with slashes), label,
split, sha256.
"""

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import NamedTuple, TypeVar

from data.photos import PARTS, Photo
from edge.errors import EdgegraftError, reason_of
from edge.files import write_csv
from edge.text import printable

COLUMNS = ("path", "label", "split", "sha256")
Item = TypeVar("Item")


class Row(NamedTuple):
    photo: Photo
    part: str  # one of PARTS
    sha256: str  # of the file, 64 hexadecimal digits


@dataclass(frozen=True)
class Split:
    """Which photo is in which part. `rows` are in the order of the folder."""

    rows: tuple[Row, ...]

    def part(self, name: str) -> tuple[Photo, ...]:
        """The photos of "train", "val" or "test"."""
        if name not in PARTS:
            raise ValueError(f"expected one of {', '.join(PARTS)}, got {name!r}")
        return tuple(row.photo for row in self.rows if row.part == name)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted({row.photo.label for row in self.rows}))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of what was trained and measured on; names do not matter."""
        lines = sorted(
            f"{row.sha256}\t{row.photo.label}\t{row.part}\n" for row in self.rows
        )
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def counts(self) -> dict[str, dict[str, int]]:
        """Photos of each label in each part."""
        table = {label: dict.fromkeys(PARTS, 0) for label in self.labels}
        for row in self.rows:
            table[row.photo.label][row.part] += 1
        return table

    def write(
        self, path: str | os.PathLike[str], root: Path, *, overwrite: bool = False
    ) -> None:
        """Write split.csv, whole or not at all. `root` is what paths start from.

        EdgegraftError when the file exists and `overwrite` is false, or when it cannot
        be written.
        """
        refuse_existing(Path(path), overwrite)
        rows = (
            (photo.path.relative_to(root).as_posix(), photo.label, part, digest)
            for photo, part, digest in self.rows
        )
        write_csv(path, COLUMNS, rows)

    @classmethod
    def read(cls, path: str | os.PathLike[str], root: Path) -> "Split":
        """Read split.csv; the photos are not opened.

        EdgegraftError, with the line, when it is missing or no split.csv.
        """
        path = Path(path)
        try:
            with open(
                path, encoding="utf-8", errors="surrogateescape", newline=""
            ) as file:
                lines = list(csv.reader(file))
        except (OSError, csv.Error) as error:
            raise EdgegraftError(
                f"{printable(path)}: expected a split.csv, got: {reason_of(error)}"
            ) from None
        if not lines or tuple(lines[0]) != COLUMNS:
            got = ",".join(lines[0]) if lines else ""
            raise EdgegraftError(
                f"{printable(path)}: expected the first line {','.join(COLUMNS)!r}, "
                f"got {got!r:.80}"
            )
        rows = []
        for number, line in enumerate(lines[1:], 2):
            if len(line) != 4 or line[2] not in PARTS or len(line[3]) != 64:
                raise EdgegraftError(
                    f"{printable(path)}, line {number}: expected path, label, one of "
                    f"{'/'.join(PARTS)} and a sha256, got {','.join(line)!r:.80}"
                )
            rows.append(Row(Photo(root / line[0], line[1]), line[2], line[3]))
        return cls(tuple(rows))


def parts_to_make(existing: Collection[str | None]) -> tuple[str, ...]:
    """The parts to take from train, where the user made the `existing` ones."""
    return tuple(part for part in ("val", "test") if part not in existing)


def shortages(
    photos: Sequence[Photo], labels: Sequence[str], digests: Mapping[Path, str]
) -> list[str]:
    """Why these photos cannot be split, a line each; empty when they can.

    `photos` are all of them, `digests` those of the readable ones. Copies of one file
    (same digest) count once, because they have to stay on one side.
    """
    existing = {photo.part for photo in photos} - {None}
    to_make = parts_to_make(existing)
    distinct: dict[str, set[str]] = {}
    for photo in photos:
        if photo.path in digests and photo.part in (None, "train"):
            distinct.setdefault(photo.label, set()).add(digests[photo.path])
    required = 1 + len(to_make)
    readable = {photo.part for photo in photos if photo.path in digests}
    lines = [
        f"{part}: expected photos that can be read, got none; remove the part and it "
        "is made from train"
        for part in PARTS[1:]
        if part in existing - readable
    ]
    for label in labels:
        got = len(distinct.get(label, ()))
        if got < required:
            where = f"the train photos of {label!r}" if existing else f"label {label!r}"
            lines.append(
                f"{where}: expected at least {required} that can be read and differ "
                f"(for {', '.join(('train', *to_make))}), got {got}; add some, or "
                "leave the label out"
            )
    return lines


def make_split(
    photos: Sequence[Photo],
    digests: Mapping[Path, str],
    *,
    seed: int = 0,
    val: float = 0.15,
    test: float = 0.15,
    near_duplicates: Iterable[tuple[Path, Path]] = (),
    previous: Split | None = None,
) -> Split:
    """Split `photos`, stratified by label. `val` and `test` are fractions of a label.

    `digests` (path -> sha256) leaves out the photos it does not name. Where the user
    made a test part, `val` is a fraction of the user's train part, and so on. Each
    label gets one photo or more in every part. `near_duplicates` are pairs that must
    stay on one side; of a chain that reaches a test or val part of the user's, the
    other photos stay in train, where the audit calls them a leak. `previous` is an
    earlier split: photos (by content) stay where they were, unless a new one chains
    photos of two parts.

    EdgegraftError when the fractions leave nothing to train on, or a label has too few
    photos that differ.
    """
    if not (0 < val < 1 and 0 < test < 1 and val + test < 1):
        raise EdgegraftError(
            f"split: expected val and test above 0 and together below 1, got {val} "
            f"and {test}"
        )
    labels = sorted({photo.label for photo in photos})
    for line in shortages(photos, labels, digests):
        raise EdgegraftError(line)
    to_make = parts_to_make({photo.part for photo in photos})
    fractions = {part: {"val": val, "test": test}[part] for part in to_make}
    parts = {p.path: p.part for p in photos if p.part not in (None, "train")}
    earlier = {row.sha256: row.part for row in previous.rows} if previous else {}
    for units in _units(photos, digests, seed, near_duplicates).values():
        for part, unit in _assigned(units, fractions, digests, earlier):
            parts.update((photo.path, part) for photo in unit)
    rows = [
        Row(photo, parts[photo.path], digests[photo.path])
        for photo in photos
        if photo.path in digests
    ]
    split = Split(tuple(rows))
    for label, counts in split.counts().items():
        # it had enough photos, but they went to the parts of other labels' units
        if not all(counts[part] for part in ("train", *to_make)):
            raise EdgegraftError(
                f"label {label!r}: expected photos of it in every part, got too many "
                "that are the same files under another label, look alike, or belong to "
                "one group; see the audit, or add photos"
            )
    return split


def make_folds(
    photos: Sequence[Photo],
    digests: Mapping[Path, str],
    folds: int,
    *,
    seed: int = 0,
    near_duplicates: Iterable[tuple[Path, Path]] = (),
) -> tuple[Split, ...]:
    """Cross-validation: `folds` splits, in each of which another fold is the test part
    and the fold after it val. Every photo is tested on once. A test or val part of the
    user's is refused, since it would have to change.
    """
    if folds < 3:
        raise EdgegraftError(f"split: expected 3 folds or more, got {folds}")
    if {photo.part for photo in photos} - {None, "train"}:
        raise EdgegraftError(
            "split: expected photos without a val or test part to make folds of, got "
            "some; give the train folder alone"
        )
    fold: dict[Path, int] = {}
    for label, units in _units(photos, digests, seed, near_duplicates).items():
        if len(units) < folds:
            raise EdgegraftError(
                f"label {label!r}: expected {folds} photos or more that differ, one "
                f"for each fold, got {len(units)}; add some or take fewer folds"
            )
        sizes = [0] * folds
        for unit in sorted(units, key=len, reverse=True):
            smallest = sizes.index(min(sizes))
            sizes[smallest] += len(unit)
            fold.update((photo.path, smallest) for photo in unit)
    usable = [photo for photo in photos if photo.path in digests]
    return tuple(
        Split(
            tuple(
                Row(p, _role(fold[p.path], k, folds), digests[p.path]) for p in usable
            )
        )
        for k in range(folds)
    )


def _role(fold: int, test: int, folds: int) -> str:
    return {test: "test", (test + 1) % folds: "val"}.get(fold, "train")


def _units(
    photos: Sequence[Photo],
    digests: Mapping[Path, str],
    seed: int,
    near_duplicates: Iterable[tuple[Path, Path]],
) -> dict[str, list[list[Photo]]]:
    """Label -> units to assign to a part: photos that belong together are one unit.

    Single photos come first, ordered by seed and bytes, then units of several: these
    end in train while there are enough others, since a copy adds nothing to a test.
    """
    free = [p for p in photos if p.part in (None, "train") and p.path in digests]
    units: dict[str, list[tuple[int, str, list[Photo]]]] = {}
    for unit in connected_groups(free, digests, near_duplicates):
        digest = min(digests[photo.path] for photo in unit)
        key = hashlib.sha256(f"{seed}:{digest}".encode()).hexdigest()
        counts = Counter(photo.label for photo in unit)
        label = min(counts, key=lambda label: (-counts[label], label))
        units.setdefault(label, []).append((len(unit), key, unit))
    return {
        label: [unit for _, _, unit in sorted(keyed, key=lambda item: item[:2])]
        for label, keyed in units.items()
    }


def connected_groups(
    photos: Sequence[Photo],
    digests: Mapping[Path, str],
    near_duplicates: Iterable[tuple[Path, Path]],
) -> list[list[Photo]]:
    """Photos that share bytes, a group or a link, directly or through others."""
    indices = {photo.path: index for index, photo in enumerate(photos)}
    first: dict[tuple[str, str], int] = {}
    links = [
        (indices[left], indices[right])
        for left, right in near_duplicates
        if left in indices and right in indices
    ]
    for index, photo in enumerate(photos):
        links.append((first.setdefault(("", digests[photo.path]), index), index))
        if photo.group:
            links.append((first.setdefault(("group", photo.group), index), index))
    chains: dict[int, list[Photo]] = {}
    for photo, root in zip(
        photos, connected_components(len(photos), links), strict=True
    ):
        chains.setdefault(root, []).append(photo)
    return list(chains.values())


def connected_components(count: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """For each index below `count` the smallest one that links lead to (union-find)."""
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for left, right in links:
        low, high = sorted((root(left), root(right)))
        parent[high] = low
    return [root(index) for index in range(count)]


def interleaved(queues: Iterable[Iterable[Item]], count: int) -> list[Item]:
    """`count` items: the first of each queue, then the second of each, and so on."""
    turns = chain.from_iterable(zip_longest(*queues))
    return list(islice((item for item in turns if item is not None), count))


def _assigned(
    units: list[list[Photo]],
    fractions: Mapping[str, float],
    digests: Mapping[Path, str],
    earlier: Mapping[str, str],
) -> list[tuple[str, list[Photo]]]:
    """Each unit with its part: val and test get one unit each before any gets more."""
    total = sum(len(unit) for unit in units)
    room = {part: round(fraction * total) for part, fraction in fractions.items()}
    assigned: list[tuple[str, list[Photo]]] = []

    def assign(unit: list[Photo], part: str) -> None:
        assigned.append((part, unit))
        if part != "train":
            room[part] -= len(unit)

    new: list[list[Photo]] = []
    for unit in units:
        parts = (earlier.get(digests[photo.path]) for photo in unit)
        part = next(filter(None, parts), None)
        if part in (*fractions, "train"):
            assign(unit, part)
        else:
            new.append(unit)
    filled = {part for part, _ in assigned}
    for part in [*fractions, "train"]:
        if part not in filled and new:
            assign(new.pop(-1 if part == "train" else 0), part)
    for unit in new:
        assign(unit, next((p for p in fractions if room[p] >= len(unit)), "train"))
    return assigned


def refuse_existing(path: Path, overwrite: bool) -> None:
    """EdgegraftError when the file exists and may not be replaced."""
    if os.path.lexists(path) and not overwrite:
        raise EdgegraftError(
            f"{printable(path)}: expected a new file, got one that is there already; "
            "choose another name or add --overwrite"
        )
