"""SIFT keypoints of photos, and which photos may show the same by them.

Up to `KEPT` keypoints (Lowe 2004; OpenCV's, the strongest first) of the grey picture
at `SIDE` pixels, each with its position and its RootSIFT descriptor (Arandjelovic and
Zisserman 2012), in a row of bytes of fixed size. Photos of plain ground need the low
contrast threshold; a photo of one colour has no keypoints, so no near copies of it are
found.

To find candidates, each photo's descriptors are summed up as differences to the nearest
of a few visual words (VLAD, Jegou et al. 2010), reduced to `DIMENSIONS`; the
`NEIGHBOURS` nearest photos, as they are and mirrored, are candidates. SIFT is invariant
to rotation and scale, so one summary is enough. Time grows with the square of the
number of photos, but slowly: 100,000 photos take minutes.
"""

import threading
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 224  # pixels of the longer side that keypoints are detected at: at 320 it takes
# twice as long and finds no more copies
MIN_SIDE = 160  # pixels of the longer side that smaller photos are enlarged to
KEPT = 160  # keypoints of a photo: 21 KB; 250 find no more copies
PLACE = 4  # bytes of x and y, each 0..65535 of the width and height
WIDE = 128  # bytes of a descriptor
ROW = (KEPT, PLACE + WIDE)
CONTRAST = 0.01  # OpenCV's default 0.04 leaves a sheet of paper without keypoints
UNIT = 512.0  # a descriptor of length 1 in steps of a byte; 255 is 0.5

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

Floats = npt.NDArray[Any]  # float32
Bytes = npt.NDArray[np.uint8]

_local = threading.local()  # OpenCV's detectors are not for several threads


@cache
def available() -> bool:
    """Whether OpenCV is installed."""
    return find_spec("cv2") is not None


def detect(grey: Image.Image) -> Bytes:
    """Keypoints of a grey picture: uint8 `ROW`, zeros where there are no more."""
    import cv2

    cv: Any = cv2  # its types do not name every detector
    scale = min(1.0, SIDE / max(grey.size)) if max(grey.size) >= MIN_SIDE else 0.0
    scale = scale or MIN_SIDE / max(grey.size)
    size = (max(8, round(grey.width * scale)), max(8, round(grey.height * scale)))
    if size != grey.size:
        resampling = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
        grey = grey.resize(size, resampling)
    if not hasattr(_local, "sift"):
        _local.sift = cv.SIFT_create(nfeatures=KEPT, contrastThreshold=CONTRAST)
    points, descriptors = _local.sift.detectAndCompute(np.asarray(grey), None)
    row = np.zeros(ROW, np.uint8)
    if descriptors is None:
        return row
    count = min(KEPT, len(points))
    root = np.sqrt(descriptors[:count])
    root /= np.maximum(np.linalg.norm(root, axis=1, keepdims=True), 1e-6)
    positions = np.array([point.pt for point in points[:count]]) / size
    positions = (positions.clip(0, 1) * 65535).round().astype("<u2")
    row[:count, :PLACE] = positions.view(np.uint8)
    row[:count, PLACE:] = (root * UNIT).round().clip(0, 255)
    return row


def places(rows: Bytes) -> Floats:
    """x and y [..., KEPT, 2] of keypoints, 0..1 of the width and the height."""
    integers = np.ascontiguousarray(rows[..., :PLACE]).view("<u2")
    positions: Floats = integers.astype(np.float32) / 65535
    return positions


def descriptors(rows: Bytes) -> Floats:
    """Descriptors [..., KEPT, WIDE] of length 1, or 0 where there is no keypoint."""
    vectors: Floats = rows[..., PLACE:].astype(np.float32) / UNIT
    return vectors


def mirrored(descriptors: Floats) -> Floats:
    """The descriptors that the mirrored photo has: 4 x 4 cells of 8 directions each,
    with the rows of cells and the directions in reverse."""
    cells = np.arange(WIDE).reshape(4, 4, 8)[::-1]
    return np.take(descriptors, cells[..., -np.arange(8) % 8].ravel(), axis=-1)


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
