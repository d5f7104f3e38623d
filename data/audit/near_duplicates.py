"""Near copies: pairs of photos that show the same, and in which way.

A candidate (`data.audit.candidates`) is confirmed by evidence that plain ground cannot
give: SIFT keypoints that match by Lowe's ratio test and agree on one affine map
(RANSAC). Then one small picture is laid onto the other by that map, and compared block
by block. Three kinds, since a person acts differently on each:

copy     the same picture: re-encoded, resized, cropped, turned, mirrored, brightened,
         with a logo or text laid over, or written by augmentation.
burst    the same moment: frames of one burst, video or camera that does not move.
object   the same thing, photographed again.

A print or logo that two things share is not enough: most of what both photos show must
agree. Photos with fewer than `LEAST` keypoints are never confirmed.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data.audit.candidates import Rows, candidates
from data.audit.local_features import SIDE, Floats, descriptors, mirrored, places

RATIO = 0.75  # nearest over second nearest distance (Lowe 2004)
LEAST = 8  # inliers below which nothing is confirmed; other photos reach 4
SPREAD = 0.015  # share of the photo that inliers enclose: less fixes no map
KNOWN = 256  # photos whose keypoints are held, of 85 KB
CLOSE = 4.0  # pixels of SIDE that an inlier may be off, or of a smaller photo
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
    found: dict[tuple[int, int], Pair] = {}
    matcher = _Matcher(photos)
    with _one_thread():
        for first, second, flip in candidates(photos.features):
            pair = matcher.compare(first, second, flip)
            if pair is not None:
                best = found.get((first, second))
                if best is None or best.agreement < pair.agreement:
                    found[first, second] = pair
    return [found[key] for key in sorted(found)]


def compare(photos: Photos, links: Sequence[tuple[int, int]]) -> list[Pair]:
    """These pairs of photos, where they are confirmed."""
    matcher = _Matcher(photos)
    found = []
    with _one_thread():
        for first, second in links:
            either = [matcher.compare(first, second, flip) for flip in (False, True)]
            some = [pair for pair in either if pair is not None]
            if some:
                found.append(max(some, key=lambda pair: pair.agreement))
    return found


def _one_thread() -> AbstractContextManager[object]:
    """For products of small matrices, whose threads would wait for each other."""
    if find_spec("threadpoolctl") is None:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits


@dataclass(frozen=True)
class _Match:
    """How one photo lies on another, in pixels of SIDE."""

    matrix: Floats  # [2, 3]
    inliers: int
    share: float  # inliers of all matches
    middle: float  # median distance of inliers from where the map puts them, pixels
    most: float  # 80th percentile of it
    hull: float  # share of the photo that inliers enclose, in the photo with less

    @property
    def exact(self) -> bool:
        """Whether pixels may fit, as those of a copy do."""
        return self.share >= 0.5 and self.middle <= 1.1

    def promising(self, flip: bool) -> bool:
        """Whether `_judge` could confirm it, whatever the thumbnails show."""
        same_way = (np.linalg.det(self.matrix[:, :2]) < 0) == flip
        return self.exact or (same_way and self.inliers >= 10)


class _Matcher:
    """Compares pairs; what the last `first` needs is kept, as pairs are sorted."""

    def __init__(self, photos: Photos) -> None:
        self._photos = photos
        self._known: dict[tuple[int, bool], tuple[Floats, Floats]] = {}

    def compare(self, first: int, second: int, flip: bool) -> Pair | None:
        match = self._match(first, second, flip)
        if match is None or not match.promising(flip):
            return None
        thumbs = [
            self._photos.thumbs[[k]][0].astype(np.float32) for k in (first, second)
        ]
        if flip:
            thumbs[0] = thumbs[0][:, ::-1].copy()
        sides = [self._side(k) for k in (first, second)]
        view = _overlay(thumbs[0], thumbs[1], sides[0], sides[1], match.matrix)
        if view is None:
            return None
        sizes = np.asarray(self._photos.sizes)
        alike = bool((sizes[first] == sizes[second]).all())
        return _judge(first, second, flip, alike, match, view)

    def _side(self, photo: int) -> Floats:
        """Width and height of the photo at SIDE pixels."""
        size = np.asarray(self._photos.sizes[photo], np.float32)
        side: Floats = size * (SIDE / size.max())
        return side

    def _grain(self, photo: int) -> float:
        """A pixel of the photo, in pixels of SIDE; 1 where it is larger."""
        return max(1.0, SIDE / float(np.max(self._photos.sizes[photo])))

    def _points(self, photo: int, flip: bool = False) -> tuple[Floats, Floats]:
        """Places [n, 2] in pixels of SIDE and descriptors [n, WIDE]."""
        if (photo, flip) not in self._known:
            if len(self._known) > KNOWN:
                self._known.clear()
            if flip:
                at, points = self._points(photo)
                at = at * (-1, 1) + (self._side(photo)[0], 0)
                points = mirrored(points)
            else:
                row = self._photos.features[[photo]][0]
                row = row[row.any(1)]
                at = places(row) * self._side(photo)
                points = descriptors(row)
            self._known[photo, flip] = at, points
        return self._known[photo, flip]

    def _match(self, first: int, second: int, flip: bool) -> _Match | None:
        import cv2

        at, mine = self._points(first, flip)
        to, theirs = self._points(second)
        if min(len(mine), len(theirs)) < LEAST:
            return None
        likeness = mine @ theirs.T
        rows = np.arange(len(mine))
        best = likeness.argmax(1)
        top = likeness[rows, best]
        likeness[rows, best] = -1
        clear = 2 - 2 * top < RATIO**2 * (2 - 2 * likeness.max(1))
        if np.count_nonzero(clear) < LEAST:
            return None
        ends = np.concatenate([at[clear], to[best[clear]]], axis=1)
        # one place can have several keypoints, in other directions
        ends = ends[np.unique(_numbers(ends), return_index=True)[1]]
        at, to = (
            np.ascontiguousarray(e, np.float32) for e in (ends[:, :2], ends[:, 2:])
        )
        if len(at) < LEAST:
            return None
        grain = max(self._grain(first), self._grain(second))
        matrix, inside = cv2.estimateAffine2D(
            at, to, method=cv2.RANSAC, ransacReprojThreshold=CLOSE * grain, maxIters=500
        )
        if matrix is None:
            return None
        good = inside.ravel() > 0
        inliers = min(len(np.unique(_numbers(end[good]))) for end in (at, to))
        if inliers < LEAST:
            return None
        homogeneous = np.c_[at[good], np.ones(good.sum())]
        matrix = np.linalg.lstsq(homogeneous, to[good], rcond=None)[0].T
        off = np.hypot(*(homogeneous @ matrix.T - to[good]).T)
        hull = min(
            cv2.contourArea(cv2.convexHull(end[good])) / float(np.prod(self._side(k)))
            for end, k in ((at, first), (to, second))
        )
        if hull < SPREAD:
            return None
        return _Match(
            matrix=matrix,
            inliers=inliers,
            share=float(good.mean()),
            middle=float(np.median(off)) / grain,
            most=float(np.percentile(off, 80)) / grain,
            hull=hull,
        )


def _numbers(points: Floats) -> npt.NDArray[np.int64]:
    """One number for each row [N, D] of whole pixels from 0 to SIDE."""
    powers = np.int64(2 * SIDE) ** np.arange(points.shape[1])[::-1]
    numbers: npt.NDArray[np.int64] = points.round().astype(np.int64) @ powers
    return numbers


@dataclass(frozen=True)
class _View:
    """Two thumbnails laid on each other: the share that both show, and of it the
    correlation and the shares of blocks that agree, loosely and closely."""

    cover: float
    correlation: float
    loose: float
    close: float


def _overlay(
    moving: Floats, still: Floats, side: Floats, other: Floats, matrix: Floats
) -> _View | None:
    """Lay thumbnail `moving` of a photo of `side` onto `still` of one of `other`."""
    import cv2

    length = len(still)
    whole = np.vstack([matrix, [0, 0, 1]])
    centre = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    into = np.diag([other[0] / length, other[1] / length, 1]) @ centre
    out_of = np.diag([side[0] / length, side[1] / length, 1]) @ centre
    warp = np.linalg.inv(into) @ whole @ out_of
    if abs(np.linalg.det(warp[:2, :2])) < 1e-3:
        return None
    moving, still = (cv2.GaussianBlur(t, (0, 0), 0.8) for t in (moving, still))
    if abs(np.linalg.det(warp[:2, :2])) > 1:  # never compare with enlarged detail
        moving, still, warp = still, moving, np.linalg.inv(warp)
    shape = (length, length)
    laid = cv2.warpAffine(moving, warp[:2], shape)
    inside = cv2.warpAffine(np.ones(shape, np.float32), warp[:2], shape) > 0.99
    eroded = cv2.erode(inside.astype(np.uint8), np.ones((3, 3)), borderValue=1)
    inside = eroded > 0
    if np.count_nonzero(inside) < 4 * CELL * CELL:
        return None
    laid = _same_light(laid, still, inside)
    correlation = _correlations(laid[None], still[None], inside[None])[0][0]
    loose, close = _blocks(laid, still, inside)
    return _View(float(inside.mean()), float(correlation), loose, close)


def _same_light(laid: Floats, still: Floats, inside: Floats) -> Floats:
    """`laid` with the gain and offset that bring most of it nearest to `still`."""
    fair = inside & (laid < 250) & (still < 250)  # what is blown out has no gain
    x, y = laid[fair], still[fair]
    if len(x) < CELL * CELL or x.std() < 1:
        return laid
    gain, offset = _line(x, y)
    for _ in range(3):  # without what differs most, such as a logo
        off = np.abs(gain * x + offset - y)
        most = np.partition(off, 4 * len(off) // 5)[4 * len(off) // 5]
        kept = off <= max(2.0, float(most))
        if x[kept].std() > 1:
            gain, offset = _line(x[kept], y[kept])
    lit: Floats = (gain * laid + offset).clip(0, 255)
    return lit


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    """Gain and offset of least squares."""
    middle = float(x.mean(dtype=np.float64))
    from_middle = x - np.float32(middle)
    gain = float(from_middle @ y) / float(from_middle @ from_middle)
    return gain, float(y.mean(dtype=np.float64)) - gain * middle


def _blocks(laid: Floats, still: Floats, inside: Floats) -> tuple[float, float]:
    """The shares of blocks that agree loosely and closely."""
    cells = len(still) // CELL

    def cut(picture: Floats) -> Floats:
        grid = picture[: cells * CELL, : cells * CELL].reshape(cells, CELL, cells, CELL)
        out: Floats = grid.swapaxes(1, 2).reshape(-1, CELL * CELL)
        return out

    weight = cut(inside.astype(np.float32))
    full = weight.mean(1) >= 0.75
    if not full.any():
        return 0.0, 0.0
    one, other, weight = cut(laid)[full], cut(still)[full], weight[full]
    correlation, spread = _correlations(one, other, weight)
    off = (np.abs(one - other) * weight).sum(1) / weight.sum(1)
    textured = spread > TEXTURED
    loose = np.where(textured, correlation > 0.8, off < 10)
    near = (correlation > 0.9) & (off < np.maximum(5, spread / 2))
    close = np.where(textured, near, off < 4)
    return float(loose.mean()), float(close.mean())


def _correlations(one: Floats, other: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Of each of n pictures the correlation, and the larger standard deviation."""
    one, other, weight = (a.reshape(len(a), -1) for a in (one, other, weight))
    total = weight.sum(1, keepdims=True)
    a = one - (one * weight).sum(1, keepdims=True) / total
    b = other - (other * weight).sum(1, keepdims=True) / total
    aa, bb, ab = ((weight * p).sum(1) / total[:, 0] for p in (a * a, b * b, a * b))
    spread: Floats = np.sqrt(np.maximum(aa, bb))
    correlation: Floats = ab / np.sqrt(np.maximum(aa * bb, 1e-4))
    return correlation, spread


def _judge(
    first: int, second: int, flip: bool, same_size: bool, match: _Match, view: _View
) -> Pair | None:
    """The kind of pair, or None where the evidence is too thin.

    Set on planted copies of 200 photos and on the pairs of a real set that were looked
    at one by one.
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
    # frames of a video have one size and move a little; a crop changes one or both
    exact = match.exact and view.cover >= 0.3
    same = view.correlation >= 0.97 and view.loose >= 0.93
    sure = match.inliers >= 20 or view.close >= 0.95
    # pixels fit to a fraction, but a part differs: a logo or text was laid over
    part = match.inliers >= 20 and match.share >= 0.8 and view.loose >= 0.84
    part = part and match.middle <= 0.45 and match.most <= 0.8
    near = bool(scales.max() <= 1.25 and scales.min() >= 0.8) and abs(angle) <= 25
    if exact and ((same and sure) or part) and (still or not upright or not same_size):
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
