"""Which photos may show the same: the nearest in a summary of their keypoints.

Each photo's descriptors are summed up as differences to the nearest of a few words
(VLAD, Jegou et al. 2010), reduced to `DIMENSIONS`; the `NEIGHBOURS` nearest photos, as
they are and mirrored, are candidates. Turns and changes of size leave SIFT as it is,
so one summary serves them all. Time grows with the square of the number of photos,
but little: 100,000 photos take minutes.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from data.audit.local_features import Bytes, Floats, descriptors, mirrored

NEIGHBOURS = 8  # of each photo, of as many mirrored
WORDS = 64
REDUCED = 64  # dimensions of a descriptor, of 128
DIMENSIONS = 256  # of a summary
WHOLE = 500  # photos up to which summaries are not reduced
SAMPLE = 1000  # photos that words are fitted to
FITTED = 400  # photos, and as many mirrored, that dimensions are fitted to
DRAWN = 40  # descriptors of each of them
ROUNDS = 10  # of k-means
BLOCK = 64  # photos summed up at a time
QUERIES = 1024  # photos looked up at a time


class Rows(Protocol):
    """Rows of bytes by number, copied as they are needed."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: Any) -> Bytes: ...


class Candidate(NamedTuple):
    """Photos `first` < `second`; whether `first` has to be mirrored."""

    first: int
    second: int
    mirrored: bool


def candidates(rows: Rows) -> list[Candidate]:
    """Pairs that are worth a closer look. `rows`: uint8 [N, KEPT, PLACE + WIDE]."""
    count = len(rows)
    if count < 2:
        return []
    words = _words(rows)
    plain, flipped = _summaries(rows, words)
    near = min(NEIGHBOURS, count - 1)
    found: list[npt.NDArray[np.int64]] = []
    for flip, queries in enumerate((plain, flipped)):
        for start in range(0, count, QUERIES):
            likeness = queries[start : start + QUERIES] @ plain.T
            asking = np.arange(start, start + len(likeness))
            likeness[asking - start, asking] = -np.inf
            nearest = np.argpartition(likeness, -near, axis=1)[:, -near:]
            left = np.repeat(asking, near)
            right = nearest.ravel()
            pair = np.stack([np.minimum(left, right), np.maximum(left, right)])
            found.append(np.vstack([pair, np.full_like(left, flip)]).T)
    unique = np.unique(np.concatenate(found), axis=0)
    return [Candidate(int(a), int(b), bool(flip)) for a, b, flip in unique]


class _Words(NamedTuple):
    mean: Floats  # [128]
    axes: Floats  # [128, REDUCED]
    centres: Floats  # [WORDS, REDUCED]


def _words(rows: Rows) -> _Words:
    """Words fitted to some descriptors, as they are and mirrored."""
    rng = np.random.default_rng(0)
    some = np.sort(rng.choice(len(rows), min(SAMPLE, len(rows)), False))
    drawn = []
    for row in some:
        all_of_it = descriptors(rows[row : row + 1])[0]
        there = np.flatnonzero(all_of_it.any(1))
        drawn.append(all_of_it[rng.permutation(there)[:DRAWN]])
    points = np.concatenate(drawn)
    spare = np.eye(WORDS, 128, dtype=np.float32)  # so that there are enough
    points = np.concatenate([points, mirrored(points), spare])
    mean = points.mean(0)
    middle = points - mean
    _, axes = np.linalg.eigh(middle.T @ middle)
    axes = np.ascontiguousarray(axes[:, ::-1][:, :REDUCED])
    reduced = middle @ axes
    centres = reduced[rng.choice(len(reduced), WORDS, False)]
    for _ in range(ROUNDS):
        nearest = _nearest(reduced, centres)
        member = np.equal(nearest, np.arange(WORDS)[:, None]).astype(np.float32)
        count = member.sum(1, keepdims=True)
        means = member @ reduced / np.maximum(count, 1)
        centres = np.where(count > 0, means, centres)
    return _Words(mean, axes, centres)


def _nearest(points: Floats, centres: Floats) -> npt.NDArray[np.int64]:
    nearness = points @ centres.T - np.square(centres).sum(1) / 2
    found: npt.NDArray[np.int64] = nearness.argmax(-1)
    return found


def _summaries(rows: Rows, words: _Words) -> tuple[Floats, Floats]:
    """[N, dimensions] of length 1, of the photos and of the mirrored photos."""
    count = len(rows)
    reduce = None
    if count > WHOLE:
        rng = np.random.default_rng(0)
        some = np.sort(rng.choice(count, min(FITTED, count), False))
        reduce = _reduction(np.concatenate(_blocks(rows, words, some, None)))
    plain, flipped = _blocks(rows, words, np.arange(count), reduce)
    return plain, flipped


def _blocks(
    rows: Rows,
    words: _Words,
    which: npt.NDArray[np.int64],
    reduce: tuple[Floats, Floats] | None,
) -> tuple[Floats, Floats]:
    both: tuple[list[Floats], list[Floats]] = ([], [])
    # mirroring the axes once is mirroring every descriptor
    both_ways = (words.axes, mirrored(words.axes.T).T)
    middle = words.mean @ words.axes
    for start in range(0, len(which), BLOCK):
        block = descriptors(rows[which[start : start + BLOCK]])
        there = np.any(block != 0, axis=-1)
        for out, onto in zip(both, both_ways, strict=True):
            summary = _summary(block @ onto - middle, there, words)
            if reduce is not None:
                mean, axes = reduce
                summary = _normal((summary - mean) @ axes)
            out.append(summary)
    return np.concatenate(both[0]), np.concatenate(both[1])


def _summary(reduced: Floats, there: npt.NDArray[np.bool_], words: _Words) -> Floats:
    """[n, WORDS * REDUCED] of length 1, of descriptors [n, KEPT, REDUCED] that are
    `there` [n, KEPT]."""
    nearest = _nearest(reduced, words.centres)
    rest = _normal(reduced - words.centres[nearest])
    member = np.equal(nearest[:, None], np.arange(WORDS)[:, None]) & there[:, None]
    sums = member.astype(np.float32) @ rest
    # a word that occurs often counts less: burstiness (Jegou et al. 2009)
    sums /= np.sqrt(np.maximum(np.linalg.norm(sums, axis=2, keepdims=True), 1e-6))
    return _normal(sums.reshape(len(reduced), -1))


def _reduction(summaries: Floats) -> tuple[Floats, Floats]:
    """Mean and axes of the most variance, in half a step towards equal weight."""
    mean = summaries.mean(0)
    middle = summaries - mean
    weights, axes = np.linalg.eigh(middle @ middle.T)
    weights, axes = weights[::-1][:DIMENSIONS], axes[:, ::-1][:, :DIMENSIONS]
    real = weights > 1e-4 * weights[0]
    weights, axes = weights[real], axes[:, real]
    return mean, (middle.T @ axes) / weights**0.75


def _normal(values: Floats) -> Floats:
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    out: Floats = values / np.maximum(length, 1e-6)
    return out
