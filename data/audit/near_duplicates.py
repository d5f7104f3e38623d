"""Near copies: pairs of photos that show the same, and in which way.

A candidate (`data.audit.keypoints`) is confirmed by evidence that plain ground cannot
give: SIFT keypoints that match by Lowe's ratio test and agree on one affine map
(RANSAC). Then one small picture is laid onto the other by that map, and compared block
by block. Three kinds, since a person acts differently on each:

copy     the same picture: re-encoded, resized, cropped, turned, mirrored, brightened,
         with a logo or text laid over, or written by augmentation.
burst    the same moment: frames of one burst, video or camera that does not move.
object   the same thing, photographed again.

A print or logo that two things share is not enough: most of what both photos show must
agree. Photos with fewer than `MIN_INLIERS` keypoints are never confirmed.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data.audit.keypoints import (
    SIDE,
    Floats,
    Rows,
    candidates,
    descriptors,
    mirrored,
    places,
)

RATIO = 0.75  # nearest over second nearest distance (Lowe 2004)
MIN_INLIERS = 8  # inliers below which nothing is confirmed; other photos reach 4
MIN_HULL = 0.015  # fraction of the photo that inliers enclose: less fixes no map
CACHED = 256  # photos whose keypoints are kept, of 85 KB
TOLERANCE = 4.0  # pixels of SIDE that an inlier may be off, or of a smaller photo
CELL = 8  # pixels of a block of the thumbnails that are compared
TEXTURED = 6.0  # grey levels of standard deviation: compared by correlation

COPY, BURST, OBJECT = "copy", "burst", "object"


@dataclass(frozen=True)
class Pair:
    """Photos `first` < `second`.

    kind: COPY, BURST or OBJECT. turned: degrees by which the second is turned, to the
    nearest 90; mirrored: whether one is the mirror image. still: both were seen from
    the same place, so they may be frames of a fixed camera. agreement: 0..1, how much
    of what both show is the same.
    """

    first: int
    second: int
    kind: str
    mirrored: bool = False
    turned: int = 0
    still: bool = False
    agreement: float = 1.0


class Photos(NamedTuple):
    """What is compared, of N photos: keypoints uint8 [N, KEPT, PLACE + WIDE], grey
    thumbnails uint8 [N, S, S] of the whole photo, and its width and height [N, 2]."""

    features: Rows
    thumbs: Rows
    sizes: npt.NDArray[Any]


def pairs(photos: Photos) -> list[Pair]:
    """Every confirmed pair, in order."""
    return _confirmed(photos, candidates(photos.features))


def compare(photos: Photos, links: Sequence[tuple[int, int]]) -> list[Pair]:
    """The confirmed ones of these pairs, in order."""
    return _confirmed(
        photos, [(*link, mirrored) for link in links for mirrored in (False, True)]
    )


def _confirmed(
    photos: Photos, comparisons: Sequence[tuple[int, int, bool]]
) -> list[Pair]:
    """Of each two photos the pair with the most agreement, mirrored or not."""
    best: dict[tuple[int, int], Pair] = {}
    matcher = _Matcher(photos)
    with _one_thread():
        for first, second, flip in comparisons:
            pair = matcher.compare(first, second, flip)
            if pair is not None:
                previous = best.setdefault((first, second), pair)
                if previous.agreement < pair.agreement:
                    best[first, second] = pair
    return [best[key] for key in sorted(best)]


def _one_thread() -> AbstractContextManager[object]:
    """For products of small matrices, whose threads would wait for each other."""
    if find_spec("threadpoolctl") is None:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits


@dataclass(frozen=True)
class _Match:
    """How one photo lies on another; lengths in pixels of SIDE."""

    matrix: Floats  # [2, 3]
    inliers: int
    inlier_ratio: float  # inliers of all matches
    median_error: float  # distance of inliers from where the matrix puts them
    p80_error: float  # its 80th percentile
    hull: float  # fraction of the photo that inliers enclose, the smaller of the two

    @property
    def exact(self) -> bool:
        """Whether pixels may fit, as those of a copy do."""
        return self.inlier_ratio >= 0.5 and self.median_error <= 1.1

    def promising(self, flip: bool) -> bool:
        """Whether `_judge` could confirm it, whatever the thumbnails show."""
        same_handedness = (np.linalg.det(self.matrix[:, :2]) < 0) == flip
        return self.exact or (same_handedness and self.inliers >= 10)


class _Matcher:
    """Compares pairs; keeps the keypoints of recent photos, as pairs are sorted."""

    def __init__(self, photos: Photos) -> None:
        self._photos = photos
        self._keypoints: dict[tuple[int, bool], tuple[Floats, Floats]] = {}

    def compare(self, first: int, second: int, flip: bool) -> Pair | None:
        match = self._match(first, second, flip)
        if match is None or not match.promising(flip):
            return None
        moving, fixed = (
            self._photos.thumbs[[k]][0].astype(np.float32) for k in (first, second)
        )
        if flip:
            moving = moving[:, ::-1].copy()
        sizes = self._scaled(first), self._scaled(second)
        view = _overlay(moving, fixed, *sizes, match.matrix)
        if view is None:
            return None
        pixels = np.asarray(self._photos.sizes)
        same_size = bool((pixels[first] == pixels[second]).all())
        return _judge(first, second, flip, same_size, match, view)

    def _scaled(self, photo: int) -> Floats:
        """Width and height of the photo at SIDE pixels."""
        size = np.asarray(self._photos.sizes[photo], np.float32)
        scaled: Floats = size * (SIDE / size.max())
        return scaled

    def _points(self, photo: int, flip: bool = False) -> tuple[Floats, Floats]:
        """Positions [n, 2] in pixels of SIDE and descriptors [n, WIDE]."""
        if (photo, flip) not in self._keypoints:
            if len(self._keypoints) > CACHED:
                self._keypoints.clear()
            if flip:
                positions, vectors = self._points(photo)
                positions = positions * (-1, 1) + (self._scaled(photo)[0], 0)
                vectors = mirrored(vectors)
            else:
                row = self._photos.features[[photo]][0]
                row = row[row.any(1)]
                positions = places(row) * self._scaled(photo)
                vectors = descriptors(row)
            self._keypoints[photo, flip] = positions, vectors
        return self._keypoints[photo, flip]

    def _match(self, first: int, second: int, flip: bool) -> _Match | None:
        import cv2

        source, vectors = self._points(first, flip)
        target, target_vectors = self._points(second)
        if min(len(vectors), len(target_vectors)) < MIN_INLIERS:
            return None
        similarity = vectors @ target_vectors.T
        rows = np.arange(len(vectors))
        nearest = similarity.argmax(1)
        highest = similarity[rows, nearest]
        similarity[rows, nearest] = -1
        distinct = 2 - 2 * highest < RATIO**2 * (2 - 2 * similarity.max(1))
        if np.count_nonzero(distinct) < MIN_INLIERS:
            return None
        matches = np.concatenate([source[distinct], target[nearest[distinct]]], axis=1)
        # several keypoints can lie at one position, in other directions
        matches = matches[np.unique(_keys(matches), return_index=True)[1]]
        source = np.ascontiguousarray(matches[:, :2], np.float32)
        target = np.ascontiguousarray(matches[:, 2:], np.float32)
        if len(source) < MIN_INLIERS:
            return None
        # a pixel of the smaller photo, in pixels of SIDE; 1 where both are larger
        smaller = float(np.max(self._photos.sizes[[first, second]], axis=1).min())
        pixel = max(1.0, SIDE / smaller)
        matrix, inside = cv2.estimateAffine2D(
            source,
            target,
            method=cv2.RANSAC,
            ransacReprojThreshold=TOLERANCE * pixel,
            maxIters=500,
        )
        if matrix is None:
            return None
        good = inside.ravel() > 0
        inliers = min(
            len(np.unique(_keys(points[good]))) for points in (source, target)
        )
        if inliers < MIN_INLIERS:
            return None
        homogeneous = np.c_[source[good], np.ones(good.sum())]
        matrix = np.linalg.lstsq(homogeneous, target[good], rcond=None)[0].T
        errors = np.hypot(*(homogeneous @ matrix.T - target[good]).T)
        hull = min(
            cv2.contourArea(cv2.convexHull(end[good])) / float(self._scaled(k).prod())
            for end, k in ((source, first), (target, second))
        )
        if hull < MIN_HULL:
            return None
        return _Match(
            matrix=matrix,
            inliers=inliers,
            inlier_ratio=float(good.mean()),
            median_error=float(np.median(errors)) / pixel,
            p80_error=float(np.percentile(errors, 80)) / pixel,
            hull=hull,
        )


def _keys(points: Floats) -> npt.NDArray[np.int64]:
    """One integer for each row [N, D] of whole pixels from 0 to SIDE."""
    powers = np.int64(2 * SIDE) ** np.arange(points.shape[1])[::-1]
    keys: npt.NDArray[np.int64] = points.round().astype(np.int64) @ powers
    return keys


@dataclass(frozen=True)
class _View:
    """Two thumbnails laid on each other: the fraction that both show, and of it the
    correlation and the fractions of blocks that agree, loosely and closely."""

    cover: float
    correlation: float
    loose: float
    close: float


def _overlay(
    moving: Floats,
    fixed: Floats,
    moving_size: Floats,
    fixed_size: Floats,
    matrix: Floats,
) -> _View | None:
    """Lay thumbnail `moving` onto `fixed`, of photos of these sizes."""
    import cv2

    length = len(fixed)
    affine = np.vstack([matrix, [0, 0, 1]])
    pixel_centre = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    to_fixed = np.diag([*(fixed_size / length), 1]) @ pixel_centre
    to_moving = np.diag([*(moving_size / length), 1]) @ pixel_centre
    warp = np.linalg.inv(to_fixed) @ affine @ to_moving
    if abs(np.linalg.det(warp[:2, :2])) < 1e-3:
        return None
    moving, fixed = (cv2.GaussianBlur(t, (0, 0), 0.8) for t in (moving, fixed))
    if abs(np.linalg.det(warp[:2, :2])) > 1:  # never compare with enlarged detail
        moving, fixed, warp = fixed, moving, np.linalg.inv(warp)
    shape = (length, length)
    warped = cv2.warpAffine(moving, warp[:2], shape)
    inside = cv2.warpAffine(np.ones(shape, np.float32), warp[:2], shape) > 0.99
    eroded = cv2.erode(inside.astype(np.uint8), np.ones((3, 3)), borderValue=1)
    inside = eroded > 0
    if np.count_nonzero(inside) < 4 * CELL * CELL:
        return None
    warped = _same_light(warped, fixed, inside)
    correlation = _correlations(warped[None], fixed[None], inside[None])[0][0]
    loose, close = _blocks(warped, fixed, inside)
    return _View(float(inside.mean()), float(correlation), loose, close)


def _same_light(warped: Floats, fixed: Floats, inside: Floats) -> Floats:
    """`warped` with the gain and offset that bring most of it nearest to `fixed`."""
    usable = inside & (warped < 250) & (fixed < 250)  # what is blown out has no gain
    x, y = warped[usable], fixed[usable]
    if len(x) < CELL * CELL or x.std() < 1:
        return warped
    gain, offset = _line(x, y)
    for _ in range(3):  # without what differs most, such as a logo
        errors = np.abs(gain * x + offset - y)
        index = 4 * len(errors) // 5
        inliers = errors <= max(2.0, float(np.partition(errors, index)[index]))
        if x[inliers].std() > 1:
            gain, offset = _line(x[inliers], y[inliers])
    lit: Floats = (gain * warped + offset).clip(0, 255)
    return lit


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    """Gain and offset of least squares."""
    mean = float(x.mean(dtype=np.float64))
    centred = x - np.float32(mean)
    gain = float(centred @ y) / float(centred @ centred)
    return gain, float(y.mean(dtype=np.float64)) - gain * mean


def _blocks(warped: Floats, fixed: Floats, inside: Floats) -> tuple[float, float]:
    """The fractions of blocks that agree loosely and closely."""
    cells = len(fixed) // CELL

    def cut(picture: Floats) -> Floats:
        grid = picture[: cells * CELL, : cells * CELL].reshape(cells, CELL, cells, CELL)
        blocks: Floats = grid.swapaxes(1, 2).reshape(-1, CELL * CELL)
        return blocks

    weight = cut(inside.astype(np.float32))
    full = weight.mean(1) >= 0.75
    if not full.any():
        return 0.0, 0.0
    left, right, weight = cut(warped)[full], cut(fixed)[full], weight[full]
    correlation, deviation = _correlations(left, right, weight)
    error = (np.abs(left - right) * weight).sum(1) / weight.sum(1)
    textured = deviation > TEXTURED
    loose = np.where(textured, correlation > 0.8, error < 10)
    near = (correlation > 0.9) & (error < np.maximum(5, deviation / 2))
    close = np.where(textured, near, error < 4)
    return float(loose.mean()), float(close.mean())


def _correlations(left: Floats, right: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Of each of n pictures the correlation, and the larger standard deviation."""
    left, right, weight = (a.reshape(len(a), -1) for a in (left, right, weight))
    total = weight.sum(1, keepdims=True)
    a = left - (left * weight).sum(1, keepdims=True) / total
    b = right - (right * weight).sum(1, keepdims=True) / total
    aa, bb, ab = ((weight * p).sum(1) / total[:, 0] for p in (a * a, b * b, a * b))
    deviation: Floats = np.sqrt(np.maximum(aa, bb))
    correlation: Floats = ab / np.sqrt(np.maximum(aa * bb, 1e-4))
    return correlation, deviation


def _judge(
    first: int, second: int, flip: bool, same_size: bool, match: _Match, view: _View
) -> Pair | None:
    """The kind of pair, or None where the evidence is too thin.

    Thresholds were set on planted copies of 200 photos and on the pairs of a real set
    that were looked at one by one.
    """
    linear = match.matrix[:, :2]
    if np.linalg.det(linear) < 0:  # symmetric corners match their mirror image
        linear, flip = linear * (-1, 1), not flip
    scales = np.linalg.svd(linear, compute_uv=False)
    angle = float(np.degrees(np.arctan2(linear[1, 0] - linear[0, 1], np.trace(linear))))
    centre = np.array([SIDE / 2, SIDE / 2, 1])
    shift = float(np.linalg.norm(match.matrix @ centre - centre[:2]))
    upright = not flip and bool(abs(scales - 1).max() < 0.03) and abs(angle) < 3
    still = upright and shift < 0.007 * SIDE
    exact = match.exact and view.cover >= 0.3
    same = view.correlation >= 0.97 and view.loose >= 0.93
    many_matches = match.inliers >= 20 or view.close >= 0.95
    # pixels fit to a fraction, but a part differs: a logo or text was laid over
    overlaid = (
        match.inliers >= 20
        and match.inlier_ratio >= 0.8
        and view.loose >= 0.84
        and match.median_error <= 0.45
        and match.p80_error <= 0.8
    )
    near = bool(scales.max() <= 1.25 and scales.min() >= 0.8) and abs(angle) <= 25
    # frames of a video have one size and move a little; a crop changes one or both
    moved = upright and not still and same_size
    if exact and ((same and many_matches) or overlaid) and not moved:
        kind = COPY
    elif (exact and same) or (
        near
        and not flip
        and view.cover >= 0.6
        and view.loose >= 0.6
        and match.inliers >= 10
    ):
        kind = BURST
    elif not flip and match.inliers >= 12 and match.hull >= 0.08 and view.loose >= 0.6:
        kind = OBJECT
    else:
        return None
    return Pair(
        first,
        second,
        kind,
        mirrored=flip,
        turned=round(angle / 90) % 4 * 90,
        still=still,
        agreement=round(view.loose, 3),
    )
