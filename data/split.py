"""Train, val and test, without leaks, written down photo by photo.

Within each label the photos are put in an order that depends on nothing but their
bytes and the seed, and the parts are dealt out along it: names and folders do not
matter. Files with the same bytes go together, and so do near-duplicates, photos of
one group, and whatever these chain together. A photo added later moves few of the
others, and none where the split before is given as `keep`. Parts that the user made
are kept exactly; missing ones come out of train.

`split.csv` has a line for each photo: path (from the root, with slashes), label,
split, sha256.
"""

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from data.parts import parts_to_make, shortages
from data.photos import PARTS, Photo
from edge.errors import EdgegraftError
from edge.files import write_csv
from edge.text import printable

COLUMNS = ("path", "label", "split", "sha256")


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

        EdgegraftError when there is such a file and `overwrite` is not asked for, or
        when it cannot be written.
        """
        refuse_existing(Path(path), overwrite)
        rows = (
            (photo.path.relative_to(root).as_posix(), photo.label, part, digest)
            for photo, part, digest in self.rows
        )
        write_csv(path, COLUMNS, rows)

    @classmethod
    def read(cls, path: str | os.PathLike[str], root: Path) -> "Split":
        """Read split.csv. The photos themselves are not looked at.

        EdgegraftError, with the line, when it is missing or not such a file.
        """
        path = Path(path)
        try:
            with open(
                path, encoding="utf-8", errors="surrogateescape", newline=""
            ) as file:
                lines = list(csv.reader(file))
        except (OSError, csv.Error) as error:
            got = getattr(error, "strerror", None) or str(error)
            raise EdgegraftError(
                f"{printable(path)}: expected a split.csv, got: {got}"
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


def make_split(
    photos: Sequence[Photo],
    digests: Mapping[Path, str],
    *,
    seed: int = 0,
    val: float = 0.15,
    test: float = 0.15,
    together: Iterable[tuple[Path, Path]] = (),
    keep: Split | None = None,
) -> Split:
    """Split `photos`, stratified by label. `val` and `test` are shares of each label.

    `digests` (path -> sha256) leaves out the photos it does not name. With a given
    test part, `val` is a share of the given train part, and so on. Each label gets one
    photo or more in every part. `together` are pairs that must not be parted; of a
    chain that reaches a given test or val part, the rest stays in train, where the
    audit calls it a leak. `keep` is an earlier split: photos (by content) stay where
    they were, unless a new one chains photos of two parts.

    EdgegraftError when the shares leave nothing to train on, or a label has too few
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
    given = {photo.part for photo in photos} - {None}
    shares = {"val": val, "test": test}
    wanted = {part: shares[part] for part in parts_to_make(given)}
    parts = {p.path: p.part for p in photos if p.part not in (None, "train")}
    before = {row.sha256: row.part for row in keep.rows} if keep else {}
    for units in _units(photos, digests, seed, together).values():
        for part, unit in _dealt(units, wanted, digests, before):
            parts.update((photo.path, part) for photo in unit)
    rows = [
        Row(photo, parts[photo.path], digests[photo.path])
        for photo in photos
        if photo.path in digests
    ]
    split = Split(tuple(rows))
    for label, counts in split.counts().items():
        # its own photos were enough, but went to others' parts
        if not all(counts[part] for part in ("train", *wanted)):
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
    together: Iterable[tuple[Path, Path]] = (),
) -> tuple[Split, ...]:
    """Cross-validation: `folds` splits, in each of which another fold is the test part
    and the fold after it val. Every photo is tested on once. A given test or val part
    is refused, since it would have to be touched.
    """
    if folds < 3:
        raise EdgegraftError(f"split: expected 3 folds or more, got {folds}")
    if {photo.part for photo in photos} - {None, "train"}:
        raise EdgegraftError(
            "split: expected photos without a val or test part to make folds of, got "
            "some; give the train folder alone"
        )
    fold: dict[Path, int] = {}
    for label, units in _units(photos, digests, seed, together).items():
        if len(units) < folds:
            raise EdgegraftError(
                f"label {label!r}: expected {folds} photos or more that differ, one "
                f"for each fold, got {len(units)}; add some or take fewer folds"
            )
        sizes = [0] * folds
        for unit in sorted(units, key=len, reverse=True):  # keeps the order of equals
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
    together: Iterable[tuple[Path, Path]],
) -> dict[str, list[list[Photo]]]:
    """Label -> what may be dealt out: photos that belong together are one unit.

    Single photos come first, ordered by seed and bytes, then units of several: these
    end in train while there are enough others, since a copy adds nothing to a test.
    """
    free = [p for p in photos if p.part in (None, "train") and p.path in digests]
    units: dict[str, list[tuple[int, str, list[Photo]]]] = {}
    for unit in chained(free, digests, together):
        digest = min(digests[photo.path] for photo in unit)
        key = hashlib.sha256(f"{seed}:{digest}".encode()).hexdigest()
        counts = Counter(photo.label for photo in unit)
        label = min(counts, key=lambda label: (-counts[label], label))
        units.setdefault(label, []).append((len(unit), key, unit))
    return {
        label: [unit for _, _, unit in sorted(keyed, key=lambda item: item[:2])]
        for label, keyed in units.items()
    }


def chained(
    photos: Sequence[Photo],
    digests: Mapping[Path, str],
    together: Iterable[tuple[Path, Path]],
) -> list[list[Photo]]:
    """Photos that share bytes, a group or a link, directly or through others."""
    numbers = {photo.path: number for number, photo in enumerate(photos)}
    first: dict[tuple[str, str], int] = {}
    links = [
        (numbers[one], numbers[two])
        for one, two in together
        if one in numbers and two in numbers
    ]
    for number, photo in enumerate(photos):
        links.append((first.setdefault(("", digests[photo.path]), number), number))
        if photo.group:
            links.append((first.setdefault(("group", photo.group), number), number))
    chains: dict[int, list[Photo]] = {}
    for photo, top in zip(photos, clusters(len(photos), links), strict=True):
        chains.setdefault(top, []).append(photo)
    return list(chains.values())


def clusters(count: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """For each of `count` things the smallest one that links lead to."""
    root = list(range(count))

    def top(one: int) -> int:
        while root[one] != one:
            root[one] = root[root[one]]
            one = root[one]
        return one

    for one, other in links:
        low, high = sorted((top(one), top(other)))
        root[high] = low
    return [top(one) for one in range(count)]


def _dealt(
    units: list[list[Photo]],
    wanted: Mapping[str, float],
    digests: Mapping[Path, str],
    before: Mapping[str, str],
) -> list[tuple[str, list[Photo]]]:
    """Each unit with its part. The first units are one each for the parts wanted."""
    total = sum(len(unit) for unit in units)
    room = {part: round(share * total) for part, share in wanted.items()}
    dealt: list[tuple[str, list[Photo]]] = []
    new: list[list[Photo]] = []
    for unit in units:
        part = next((before[d] for p in unit if (d := digests[p.path]) in before), None)
        if part is None or part not in (*wanted, "train"):
            new.append(unit)
        else:
            dealt.append((part, unit))
            if part != "train":
                room[part] -= len(unit)
    there = {part for part, _ in dealt}
    for part in [*wanted, "train"]:
        if part not in there and new:
            unit = new.pop(-1 if part == "train" else 0)
            dealt.append((part, unit))
            if part != "train":
                room[part] -= len(unit)
    for unit in new:
        part = next((p for p in wanted if room[p] >= len(unit)), "train")
        if part != "train":
            room[part] -= len(unit)
        dealt.append((part, unit))
    return dealt


def refuse_existing(path: Path, overwrite: bool) -> None:
    """EdgegraftError when there is such a file and it may not be replaced."""
    if os.path.lexists(path) and not overwrite:
        raise EdgegraftError(
            f"{printable(path)}: expected a new file, got one that is there already; "
            "choose another name or add --overwrite"
        )
