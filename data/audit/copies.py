"""Photos that are there more than once: which to keep, and what is said of the others.

Two photos are copies if their bytes are the same, or if they look alike
(`data.audit.near_duplicates`). Of each two the one to keep is, in this order: one of a
given test part, since what is measured must not change; one that nothing else would
leave out; one of a given val part; the one with fewer findings of its own; the one
with more pixels, from which the other can have been made; the sharper one; the first
one in the folder. So of a group of copies one is always left, unless each is flagged
for something else as well.

Sharpness comes after size, as blur is measured on small pictures: a thumbnail passes
for sharp there. It does not know an enlarged copy from an original.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from data.audit import near_duplicates as alike
from data.audit.fact_store import Looks
from data.audit.findings import KINDS, Finding
from data.photos import PARTS, Photo

NEAR = {"leak": "near-leak", "two-labels": "near-two-labels"}
GRAVEST = ("near-leak", "near-two-labels", "near-duplicate")
_LEAVES_OUT = frozenset(kind.name for kind in KINDS if kind.exclude or kind.leaves_out)

Key = tuple[float, ...]


class Twins(NamedTuple):
    """Two photos that look alike and are not the same file."""

    keep: Photo
    copy: Photo
    similarity: float  # 0..1
    pose: str  # of alike.POSES: how `copy` looks like `keep`


def same_files(
    photos: Sequence[Photo],
    digests: Mapping[Path, str],
    faults: Sequence[Finding] = (),
) -> list[list[Photo]]:
    """Photos by their bytes, the one to keep first; most stand alone.

    `faults` are the findings that single photos have by themselves.
    """
    counts = _counts(faults)

    def key(photo: Photo) -> Key:  # the same bytes: neither pixels nor blur differ
        return (photo.part != "test", -_part(photo), counts.get(photo.path, 0))

    groups: dict[str, list[Photo]] = {}
    for photo in photos:
        if photo.path in digests:
            groups.setdefault(digests[photo.path], []).append(photo)
    return [sorted(group, key=key) for group in groups.values()]


def shared_files(groups: Sequence[Sequence[Photo]]) -> Iterator[Finding]:
    """Leaks, two labels and plain copies in groups of the same bytes.

    Each copy after the first gets one finding, of the gravest kind that applies.
    """
    for keep, *copies in groups:
        for copy in copies:
            kind = _kind(keep, copy)
            yield Finding(kind, copy.path, "the same file as", (keep.path,))


def near_pairs(
    groups: Sequence[Sequence[Photo]], looks: Looks, faults: Sequence[Finding] = ()
) -> list[Twins]:
    """Photos that look alike, among the first ones of groups of the same bytes."""
    firsts = [group[0] for group in groups if group[0].path in looks]
    if not firsts:
        return []
    pairs = alike.pairs(looks.thumbs([photo.path for photo in firsts]))
    sides = [(firsts[pair.first], firsts[pair.second]) for pair in pairs]
    condemned = {f.path for f in faults if f.kind in _LEAVES_OUT}
    condemned |= {g[0].path for g in groups if len({photo.label for photo in g}) > 1}
    for one, other in sides:
        condemned |= _condemned(one, other)
    key = _worth(looks, condemned, _counts(faults))
    return [
        Twins(one, other, pair.similarity, pair.pose)
        if key(one) <= key(other)  # equals keep the order of the folder
        else Twins(other, one, pair.similarity, alike.undone(pair.pose))
        for (one, other), pair in zip(sides, pairs, strict=True)
    ]


def near_duplicates(pairs: Sequence[Twins]) -> Iterator[Finding]:
    """One finding for each photo that looks like one that is rather kept."""
    best: dict[Path, tuple[tuple[int, float], Finding]] = {}
    for keep, copy, similarity, pose in pairs:
        kind = NEAR.get(_kind(keep, copy), "near-duplicate")
        turned = "" if pose == alike.POSES[0] else f", {pose},"
        finding = Finding(kind, copy.path, f"looks{turned} like", (keep.path,))
        key = (-GRAVEST.index(kind), similarity)
        if copy.path not in best or key > best[copy.path][0]:
            best[copy.path] = (key, finding)
    yield from (finding for _, finding in best.values())


def _worth(
    looks: Looks, condemned: set[Path], counts: Mapping[Path, int]
) -> Callable[[Photo], Key]:
    """The key by which photos that look alike are sorted, the one to keep first."""

    def key(photo: Photo) -> Key:
        look = looks[photo.path]
        return (
            photo.part != "test",
            photo.path in condemned,
            -_part(photo),
            counts.get(photo.path, 0),
            -look.width * look.height,
            look.blur,
        )

    return key


def _condemned(one: Photo, other: Photo) -> set[Path]:
    """Which of two that look alike are flagged whichever of them is kept."""
    kind = _kind(one, other)
    if kind == "two-labels":
        return {one.path, other.path}
    if kind == "leak" and "test" in (one.part, other.part):
        return {photo.path for photo in (one, other) if photo.part != "test"}
    return set()


def _counts(faults: Sequence[Finding]) -> dict[Path, int]:
    counts: dict[Path, int] = {}
    for finding in faults:
        counts[finding.path] = counts.get(finding.path, 0) + 1
    return counts


def _part(photo: Photo) -> int:
    return PARTS.index(photo.part or "train")


def _kind(keep: Photo, copy: Photo) -> str:
    if copy.part != keep.part:
        return "leak"
    return "two-labels" if copy.label != keep.label else "duplicate"
