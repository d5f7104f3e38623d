"""Photos that exist more than once: which to keep, and findings about the others.

Of photos with the same bytes, or near copies (`data.audit.near_duplicates`), the one to
keep is, in this order: one of a given test part, since what is measured must not
change; one of a given val part; the one with fewer findings of its own; the one with
more pixels, from which the other can have been made; one that is not compressed twice
as much as another copy; the one with the shorter name, as copies get longer ones; the
first one by name.

A photo is proposed for exclusion only if it is a copy of one that is kept, under the
same label: then nothing is lost. Frames of one moment and photos of one thing are kept
on one side of the split, no more.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from data.audit import near_duplicates
from data.audit.facts import FactStore
from data.audit.findings import Finding
from data.audit.near_duplicates import BURST, COPY, Pair
from data.photos import PARTS, Photo
from data.split import connected_components, connected_groups

FRAMES = 8  # photos from the very same view: a camera that does not move, not copies
RUNS = 20  # of photos in a row, that a chain too long for one side is split into
MEASURED = 0.3  # fraction of a label that has to be left for val and test
SEVERITY = ("near-leak", "near-two-labels", "near-duplicate", "burst", "same-thing")
REASONS = {
    COPY: "a near copy of",
    BURST: "the same moment as",
    near_duplicates.OBJECT: "the same thing as",
}
COMPRESSED = 0.5  # of the largest file of a chain: a smaller one is compressed more

Key = tuple[object, ...]


class Twins(NamedTuple):
    """Two photos that show the same and are not the same file."""

    keep: Photo
    copy: Photo
    pair: Pair


def same_files(
    photos: Sequence[Photo],
    digests: Mapping[Path, str],
    faults: Sequence[Finding] = (),
) -> list[list[Photo]]:
    """Photos by their bytes, the one to keep first; most stand alone.

    `faults` are the findings that single photos have by themselves.
    """
    counts = Counter(fault.path for fault in faults)

    def key(photo: Photo) -> Key:  # the same bytes: neither pixels nor blur differ
        return (-_part(photo), counts[photo.path])

    groups: dict[str, list[Photo]] = {}
    for photo in photos:
        if photo.path in digests:
            groups.setdefault(digests[photo.path], []).append(photo)
    return [sorted(group, key=key) for group in groups.values()]


def shared_files(groups: Sequence[Sequence[Photo]]) -> Iterator[Finding]:
    """Leaks, two labels and plain copies in groups of the same bytes.

    Each copy after the first gets one finding, of the gravest kind that applies.
    """
    for group in groups:
        labels = {group[0].label}
        for copy in group[1:]:
            kind = "two-labels" if copy.label != group[0].label else "duplicate"
            if copy.part != group[0].part:
                kind = "leak"
            redundant = copy.label in labels  # another one under that label is kept
            labels.add(copy.label)
            reason = "the same file as"
            yield Finding(kind, copy.path, reason, (group[0].path,), exclude=redundant)


def near_pairs(
    groups: Sequence[Sequence[Photo]],
    fact_store: FactStore,
    faults: Sequence[Finding] = (),
) -> list[Twins]:
    """Near copies among the first ones of groups of the same bytes."""
    firsts = [group[0] for group in groups if group[0].path in fact_store]
    if len(firsts) < 2 or not fact_store.comparable:
        return []
    compared = fact_store.photos([photo.path for photo in firsts])
    pairs = near_duplicates.pairs(compared)
    keys = _keys(firsts, fact_store, faults, pairs)
    # compare each photo of a chain of copies with the one of them to keep
    links = set()
    for chain in _chains(len(firsts), pairs):
        best = min(chain, key=keys.__getitem__)
        links |= {(min(best, k), max(best, k)) for k in chain if k != best}
    links -= {(pair.first, pair.second) for pair in pairs}
    pairs = _frames(pairs + near_duplicates.compare(compared, sorted(links)))
    return [
        Twins(firsts[a], firsts[b], pair)
        for pair in pairs
        for a, b in [sorted((pair.first, pair.second), key=keys.__getitem__)]
    ]


def _keys(
    photos: Sequence[Photo],
    fact_store: FactStore,
    faults: Sequence[Finding],
    pairs: Sequence[Pair],
) -> dict[int, Key]:
    """A sort key for each photo of a pair; the first of a chain of copies is kept."""
    counts = Counter(fault.path for fault in faults)
    largest: dict[int, int] = {}  # file of the photo's chain, in bytes
    for chain in _chains(len(photos), pairs):
        size = max(fact_store[photos[k].path].size for k in chain)
        largest |= dict.fromkeys(chain, size)

    def key(k: int) -> Key:
        photo, facts = photos[k], fact_store[photos[k].path]
        compressed = facts.size < COMPRESSED * largest[k]
        name = (len(photo.path.name), _natural(photo.path))
        area = facts.width * facts.height
        return (-_part(photo), counts[photo.path], -area, compressed, *name)

    return {k: key(k) for k in largest}


def _chains(count: int, pairs: Sequence[Pair]) -> list[list[int]]:
    """The photos of pairs, in chains of copies."""
    links = [(p.first, p.second) for p in pairs if p.kind == COPY]
    roots = connected_components(count, links)
    chains: dict[int, list[int]] = {}
    for k in sorted({k for p in pairs for k in (p.first, p.second)}):
        chains.setdefault(roots[k], []).append(k)
    return list(chains.values())


def _frames(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs, where many photos from the very same view are frames, not copies."""
    count = 1 + max((pair.second for pair in pairs), default=0)
    roots = connected_components(count, [(p.first, p.second) for p in pairs if p.still])
    sizes = Counter(roots)
    return [
        replace(pair, kind=BURST)
        if pair.kind == COPY
        and roots[pair.first] == roots[pair.second]
        and sizes[roots[pair.first]] >= FRAMES
        else pair
        for pair in pairs
    ]


def near_copies(pairs: Sequence[Twins]) -> Iterator[Finding]:
    """One finding for each photo that shows the same as one that is better to keep."""
    redundant = _redundant(pairs)
    best: dict[Path, tuple[tuple[int, bool, float], Finding]] = {}
    for keep, copy, pair in pairs:
        kind = {COPY: "near-duplicate", BURST: "burst"}.get(pair.kind, "same-thing")
        if pair.kind == COPY and keep.label != copy.label:
            kind = "near-two-labels"
        if pair.kind != near_duplicates.OBJECT and keep.part != copy.part:
            kind = "near-leak"
        poses = ["mirrored"] if pair.mirrored else []
        poses += [f"turned by {pair.turned} degrees"] if pair.turned else []
        reason = ", ".join([*poses, REASONS[pair.kind]])
        exclude = copy.path in redundant
        finding = Finding(kind, copy.path, reason, (keep.path,), exclude=exclude)
        key = (-SEVERITY.index(kind), keep.path not in redundant, pair.agreement)
        if copy.path not in best or key > best[copy.path][0]:
            best[copy.path] = (key, finding)
    yield from (finding for _, finding in best.values())


def _redundant(pairs: Sequence[Twins]) -> set[Path]:
    """Copies of photos that are kept, under the same label."""
    better: dict[Path, list[Path]] = {}
    for keep, copy, pair in pairs:
        if pair.kind == COPY and keep.label == copy.label:
            better.setdefault(copy.path, []).append(keep.path)
    redundant: set[Path] = set()
    done: set[Path] = set()
    stack = list(better)
    while stack:  # the better ones first, since they may be redundant themselves
        path = stack[-1]
        todo = [keep for keep in better.get(path, ()) if keep not in done]
        if todo:
            stack += todo
            continue
        if any(keep not in redundant for keep in better.get(path, ())):
            redundant.add(path)
        done.add(path)
        stack.pop()
    return redundant


def split_links(
    photos: Sequence[Photo], digests: Mapping[Path, str], pairs: Sequence[Twins]
) -> tuple[tuple[tuple[Path, Path], ...], frozenset[Path]]:
    """Links between photos that show the same, for `make_split`, as long as that leaves
    enough of each label to measure on; and the photos of longer chains, as of a fixed
    camera. These are linked in runs by name: neighbours in time mostly stay together.
    """
    usable = [photo for photo in photos if photo.path in digests]
    links = [(twins.keep.path, twins.copy.path) for twins in pairs]
    broken: set[Path] = set()
    while True:
        chain = _too_long(usable, digests, links, broken)
        if chain is None:
            return tuple(links), frozenset(broken)
        members = {photo.path for photo in chain}
        links = [link for link in links if link[0] not in members]
        links += _runs(chain)
        broken |= members


def _too_long(
    photos: Sequence[Photo],
    digests: Mapping[Path, str],
    links: Sequence[tuple[Path, Path]],
    broken: set[Path],
) -> list[Photo] | None:
    """A chain that leaves too little of one of its labels, the longest first."""
    linked = {path for link in links for path in link}
    chains = connected_groups(photos, digests, links)
    totals: Counter[str] = Counter()
    units: Counter[str] = Counter()
    for chain in chains:
        counts = Counter(photo.label for photo in chain)
        totals.update(counts)
        units[counts.most_common(1)[0][0]] += 1
    for chain in sorted(chains, key=len, reverse=True):
        paths = {photo.path for photo in chain}
        if len(chain) < 2 or not paths & linked or paths & broken:
            continue
        for label, count in Counter(photo.label for photo in chain).items():
            required = max(len(PARTS) - 1, MEASURED * totals[label])
            if totals[label] - count < required or units[label] < len(PARTS):
                return chain
    return None


def _runs(chain: Sequence[Photo]) -> Iterator[tuple[Path, Path]]:
    """Links between neighbours by name, label by label, in `RUNS` runs each."""
    for label in sorted({photo.label for photo in chain}):
        paths = [photo.path for photo in chain if photo.label == label]
        paths.sort(key=_natural)
        length = -(-len(paths) // RUNS)
        for k in range(1, len(paths)):
            if k % length:
                yield paths[k - 1], paths[k]


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """frame9 before frame10."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [
        (1, int(part), "") if part.isdecimal() else (0, 0, part.casefold())
        for part in parts
    ]


def _part(photo: Photo) -> int:
    return PARTS.index(photo.part or "train")
