"""Which photos may show the same: the nearest by a summary of their keypoints.

Each photo's descriptors are summed up as differences to the nearest of a few visual
words (VLAD, Jegou et al. 2010), reduced to `DIMENSIONS`; the `NEIGHBOURS` nearest
photos, as they are and mirrored, are candidates. SIFT is invariant to rotation and
scale, so one summary is enough. Time grows with the square of the number of photos, but
slowly: 100,000 photos take minutes.
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
DRAWN = 40  # descriptors drawn from a photo
ROUNDS = 10  # of k-means
BLOCK = 64  # photos summed up at a time
QUERIES = 1024  # photos looked up at a time


class Rows(Protocol):
    """Rows of bytes by index, copied as they are needed."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: Any) -> Bytes: ...


class Candidate(NamedTuple):
    """Photos `first` < `second`; whether `first` is compared mirrored."""

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
    neighbours = min(NEIGHBOURS, count - 1)
    links: list[npt.NDArray[np.int64]] = []
    for flip, queries in enumerate((plain, flipped)):
        for start in range(0, count, QUERIES):
            similarity = queries[start : start + QUERIES] @ plain.T
            indices = np.arange(start, start + len(similarity))
            similarity[indices - start, indices] = -np.inf
            nearest = np.argpartition(similarity, -neighbours, axis=1)[:, -neighbours:]
            left, right = np.repeat(indices, neighbours), nearest.ravel()
            ends = np.minimum(left, right), np.maximum(left, right)
            links.append(np.stack([*ends, np.full_like(left, flip)], axis=1))
    unique = np.unique(np.concatenate(links), axis=0)
    return [Candidate(int(a), int(b), bool(flip)) for a, b, flip in unique]


class _Words(NamedTuple):
    mean: Floats  # [128]
    axes: Floats  # [128, REDUCED]
    centres: Floats  # [WORDS, REDUCED]


def _words(rows: Rows) -> _Words:
    """Words fitted to a sample of descriptors, as they are and mirrored (k-means)."""
    rng = np.random.default_rng(0)
    sample = np.sort(rng.choice(len(rows), min(SAMPLE, len(rows)), False))
    drawn = []
    for row in sample:
        vectors = descriptors(rows[row : row + 1])[0]
        present = np.flatnonzero(vectors.any(1))
        drawn.append(vectors[rng.permutation(present)[:DRAWN]])
    points = np.concatenate(drawn)
    padding = np.eye(WORDS, 128, dtype=np.float32)  # so that there are enough
    points = np.concatenate([points, mirrored(points), padding])
    mean = points.mean(0)
    centred = points - mean
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = np.ascontiguousarray(axes[:, ::-1][:, :REDUCED])
    reduced = centred @ axes
    centres = reduced[rng.choice(len(reduced), WORDS, False)]
    for _ in range(ROUNDS):
        nearest = _nearest(reduced, centres)
        member = np.equal(nearest, np.arange(WORDS)[:, None]).astype(np.float32)
        count = member.sum(1, keepdims=True)
        means = member @ reduced / np.maximum(count, 1)
        centres = np.where(count > 0, means, centres)
    return _Words(mean, axes, centres)


def _nearest(points: Floats, centres: Floats) -> npt.NDArray[np.int64]:
    closeness = points @ centres.T - np.square(centres).sum(1) / 2
    nearest: npt.NDArray[np.int64] = closeness.argmax(-1)
    return nearest


def _summaries(rows: Rows, words: _Words) -> tuple[Floats, Floats]:
    """[N, dimensions] of length 1, of the photos and of the mirrored photos."""
    count = len(rows)
    reduce = None
    if count > WHOLE:
        rng = np.random.default_rng(0)
        sample = np.sort(rng.choice(count, min(FITTED, count), False))
        reduce = _reduction(np.concatenate(_blocks(rows, words, sample, None)))
    return _blocks(rows, words, np.arange(count), reduce)


def _blocks(
    rows: Rows,
    words: _Words,
    indices: npt.NDArray[np.int64],
    reduce: tuple[Floats, Floats] | None,
) -> tuple[Floats, Floats]:
    summaries: tuple[list[Floats], list[Floats]] = ([], [])
    # mirroring the axes once is mirroring every descriptor
    orientations = (words.axes, mirrored(words.axes.T).T)
    offset = words.mean @ words.axes
    for start in range(0, len(indices), BLOCK):
        block = descriptors(rows[indices[start : start + BLOCK]])
        present = np.any(block != 0, axis=-1)
        for blocks, axes in zip(summaries, orientations, strict=True):
            summary = _summary(block @ axes - offset, present, words)
            if reduce is not None:
                mean, reduced_axes = reduce
                summary = _normal((summary - mean) @ reduced_axes)
            blocks.append(summary)
    return np.concatenate(summaries[0]), np.concatenate(summaries[1])


def _summary(reduced: Floats, present: npt.NDArray[np.bool_], words: _Words) -> Floats:
    """[n, WORDS * REDUCED] of length 1, of the descriptors [n, KEPT, REDUCED] that are
    `present` [n, KEPT]."""
    nearest = _nearest(reduced, words.centres)
    residuals = _normal(reduced - words.centres[nearest])
    member = np.equal(nearest[:, None], np.arange(WORDS)[:, None]) & present[:, None]
    sums = member.astype(np.float32) @ residuals
    # a word that occurs often counts less: burstiness (Jegou et al. 2009)
    sums /= np.sqrt(np.maximum(np.linalg.norm(sums, axis=2, keepdims=True), 1e-6))
    return _normal(sums.reshape(len(reduced), -1))


def _reduction(summaries: Floats) -> tuple[Floats, Floats]:
    """Mean and principal axes, half whitened."""
    mean = summaries.mean(0)
    centred = summaries - mean
    variances, axes = np.linalg.eigh(centred @ centred.T)
    variances, axes = variances[::-1][:DIMENSIONS], axes[:, ::-1][:, :DIMENSIONS]
    real = variances > 1e-4 * variances[0]
    variances, axes = variances[real], axes[:, real]
    return mean, (centred.T @ axes) / variances**0.75


def _normal(values: Floats) -> Floats:
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    unit: Floats = values / np.maximum(length, 1e-6)
    return unit
