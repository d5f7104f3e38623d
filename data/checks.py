"""The checks of an audit: from facts of photos to findings.

Each check is a generator over all photos. Thresholds were set on two sets, the drawn
one and 2,600 real photos of cats and dogs, so that sharp and well lit photos pass.

It does not know how facts are measured, nor what is done about a finding.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from data import alike
from data.findings import Finding
from data.folder import Photo
from data.look import Look
from data.looks import Looks
from data.parts import PARTS

BLURRED = 0.56  # blur: real photos reach 0.47, the same after a blur of 1 % start here
BLANK = 5.0  # grey levels of standard deviation
BLACK = 1.0  # the same in the dark and in glaring light, where little may still show
DARK = 45  # the 95th percentile of grey
BRIGHT = 215  # the 5th percentile of grey
LONG = 3.0  # long side over short side
SMALL_SIDE = 24  # pixels of the shorter side
SMALL_SHARE = 0.05  # of the pixels of the photo in the middle of the set
ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
}


def shared_files(
    photos: Sequence[Photo], digests: Mapping[Path, str]
) -> Iterator[Finding]:
    """Photos whose bytes are the same: leaks, two labels, and plain copies.

    Each copy after the first gets one finding, of the gravest kind that applies.
    Photos of a given test part come first, so that it is never they that are flagged.
    """
    for first, *copies in _same(photos, digests):
        for copy in copies:
            kind = _kind(first, copy)
            yield Finding(kind, copy.path, "the same file as", (first.path,))


def by_themselves(photos: Sequence[Photo], looks: Looks) -> Iterator[Finding]:
    """Blank, dark, bright, blurred, small, oddly shaped and misnamed photos."""
    middle = float(np.median(looks.areas())) if looks else 0.0
    for path in dict.fromkeys(photo.path for photo in photos):
        if path in looks:
            for kind, reason in _judged(path, looks[path], middle):
                yield Finding(kind, path, reason)


def near_pairs(
    photos: Sequence[Photo], digests: Mapping[Path, str], looks: Looks
) -> list[tuple[Photo, Photo, alike.Pair]]:
    """Photos that look alike and are not the same file; the one to keep comes first."""
    firsts = [same[0] for same in _same(photos, digests) if same[0].path in looks]
    if not firsts:
        return []
    thumbs = looks.thumbs([photo.path for photo in firsts])
    return [(firsts[p.first], firsts[p.second], p) for p in alike.pairs(thumbs)]


def near_duplicates(
    pairs: Sequence[tuple[Photo, Photo, alike.Pair]],
) -> Iterator[Finding]:
    """One finding for each photo that looks like an earlier one."""
    best: dict[Path, tuple[tuple[int, float], Finding]] = {}
    for first, second, pair in pairs:
        kind = {"leak": "near-leak", "two-labels": "near-two-labels"}.get(
            _kind(first, second), "near-duplicate"
        )
        pose = "" if pair.pose == alike.POSES[0] else f", {pair.pose},"
        finding = Finding(kind, second.path, f"looks{pose} like", (first.path,))
        rank = (-("near-leak", "near-two-labels", "near-duplicate").index(kind),)
        key = (rank[0], pair.similarity)
        if second.path not in best or key > best[second.path][0]:
            best[second.path] = (key, finding)
    yield from (finding for _, finding in best.values())


def _judged(path: Path, look: Look, middle: float) -> Iterator[tuple[str, str]]:
    lit = look.high >= DARK and look.low <= BRIGHT
    if look.deviation < (BLANK if lit else BLACK):
        yield "blank", f"all of one grey, within {look.deviation:.1f} of 255 levels"
    elif look.high < DARK:
        yield "dark", f"95 % of it is darker than {look.high} of 255"
    elif look.low > BRIGHT:
        yield "bright", f"95 % of it is brighter than {look.low} of 255"
    elif look.blur > BLURRED:
        yield "blurred", f"blur {look.blur:.2f} on a scale from 0 to 1"
    size = f"{look.width} x {look.height} pixels"
    short, long = sorted((look.width, look.height))
    if short < SMALL_SIDE or short * long < SMALL_SHARE * middle:
        yield "small", size
    if long > LONG * short:
        yield "odd-shape", size
    if path.suffix.lower() not in ENDINGS.get(look.format, (path.suffix.lower(),)):
        yield "wrong-ending", f"is {look.format}"


def _same(photos: Sequence[Photo], digests: Mapping[Path, str]) -> list[list[Photo]]:
    """Photos by their bytes; those of test, then val, come first."""
    groups: dict[str, list[Photo]] = {}
    ranks = {part: -rank for rank, part in enumerate(PARTS)}
    for photo in sorted(photos, key=lambda p: ranks.get(p.part or "train", 0)):
        if photo.path in digests:
            groups.setdefault(digests[photo.path], []).append(photo)
    return list(groups.values())


def _kind(first: Photo, copy: Photo) -> str:
    if copy.part != first.part:
        return "leak"
    return "two-labels" if copy.label != first.label else "duplicate"
