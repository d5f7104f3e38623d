"""Near-duplicates: the same picture re-encoded, resized, cropped, turned or mirrored.

Three steps, each on fewer pairs than the one before. (1) Each thumbnail's low cosine
frequencies, as in pHash (Zauner 2010): turning or mirroring a picture only swaps and
negates them, so all eight poses come from one transform. The signs are looked up in a
few hash tables, each key also with its least certain bits flipped (multi-probe LSH, Lv
et al. 2007); keys grow with the number of photos, so the time stays nearly linear.
(2) The frequencies themselves must agree. (3) One thumbnail is shifted and stretched
onto the other (Lucas and Kanade 1981) and what is then left over must be little.

It does not know files or labels. Photos without contrast have no twins here, and two
photos of one thing a moment apart count as twins only if little has moved.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data.audit.thumbnails import SIDE, Thumbs

CUT = 8  # frequencies kept in each direction
LOWEST = 24  # of them, the ones that survive cropping best, make the keys
TABLES = 6
FLIPS = 5  # least certain bits of a key, tried both ways
BLOCK = 1024  # photos looked up at a time
FLAT = 4.0  # grey levels of standard deviation: less is a blank wall
AGREE = 0.83  # cosine of the frequencies, before alignment
ALIKE = 0.95  # correlation of the thumbnails, after alignment
HOPEFUL = 0.88  # the same of thumbnails of half the size: worth a closer look
MOST_CROP = 0.25  # of a side that alignment may cut off
STEPS = 6  # of alignment

Floats = npt.NDArray[Any]  # float32, which numpy's own types lose on the way
Ints = npt.NDArray[Any]  # int64

POSES = (
    "as it is",
    "mirrored",
    "upside down and mirrored",
    "turned by 180 degrees",
    "turned and mirrored",
    "turned by 90 degrees",
    "turned by 270 degrees",
    "turned and mirrored the other way",
)
_BACK = {5: 6, 6: 5}  # the pose that undoes a pose, where it is not the same


class Pair(NamedTuple):
    """Photos `first` < `second`; `pose` (of POSES) is how one looks to the other."""

    first: int
    second: int
    similarity: float  # 0..1, of the aligned thumbnails
    pose: str


@dataclass(frozen=True)
class _Hashes:
    values: Floats  # [N, 63] frequencies, of length 1, the lowest first
    scale: Floats  # [63] how large each is, on average
    tables: list[Ints]  # of each, the frequencies that make its key


def pairs(thumbs: "npt.NDArray[np.uint8] | Thumbs") -> list[Pair]:
    """Every pair of near-duplicates in `thumbs`, uint8 grey [N, SIDE, SIDE]."""
    lively = np.flatnonzero(_deviations(thumbs) >= FLAT)
    if len(lively) < 2:
        return []
    some = Thumbs(thumbs, lively)
    found: dict[tuple[int, int], Pair] = {}
    for left, right, pose in _candidates(some):
        close, similarity = _aligned(some, left, right, pose)
        for a, b, p, s in zip(
            left[close], right[close], pose[close], similarity[close], strict=True
        ):
            one, two = sorted((int(lively[a]), int(lively[b])))
            pair = Pair(one, two, round(float(s), 4), POSES[p])
            if (one, two) not in found or found[one, two].similarity < s:
                found[one, two] = pair
    return sorted(found.values())


def undone(pose: str) -> str:
    """How the other one of a pair looks to the one: what undoes `pose` (of POSES)."""
    number = POSES.index(pose)
    return POSES[_BACK.get(number, number)]


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


def posed(thumbs: npt.NDArray[np.generic], pose: int) -> npt.NDArray[np.generic]:
    """[..., SIDE, SIDE] mirrored (bit 0), upside down (bit 1), transposed (bit 2)."""
    if pose & 1:
        thumbs = thumbs[..., :, ::-1]
    if pose & 2:
        thumbs = thumbs[..., ::-1, :]
    return thumbs.swapaxes(-1, -2) if pose & 4 else thumbs


def _deviations(thumbs: "npt.NDArray[np.uint8] | Thumbs") -> Floats:
    found = np.empty(len(thumbs), np.float32)
    for start in range(0, len(thumbs), BLOCK):
        found[start : start + BLOCK] = thumbs[start : start + BLOCK].std((1, 2))
    return found


def _frequencies(block: npt.NDArray[np.uint8]) -> Floats:
    """The low cosine frequencies but the constant, [N, CUT, CUT] with 0 for it."""
    k = np.arange(SIDE)
    cosines = np.cos(np.pi / (2 * SIDE) * (2 * k[None] + 1) * k[:CUT, None])
    cosines = cosines.astype(np.float32)
    out: Floats = cosines @ block.astype(np.float32) @ cosines.T
    out[:, 0, 0] = 0
    out /= np.maximum(np.linalg.norm(out, axis=(1, 2), keepdims=True), 1e-6)
    return out


def _flat(frequencies: Floats, pose: int) -> Floats:
    """[N, 63], the lowest first, of the pictures in that pose."""
    sign = np.where(np.arange(CUT) % 2, -1, 1).astype(np.float32)
    if pose & 1:
        frequencies = frequencies * sign
    if pose & 2:
        frequencies = frequencies * sign[:, None]
    if pose & 4:
        frequencies = frequencies.swapaxes(1, 2)
    u, v = np.divmod(np.arange(CUT * CUT), CUT)
    order = np.argsort(u * u + v * v, kind="stable")[1:]
    flat: Floats = frequencies.reshape(-1, CUT * CUT)[:, order]
    return flat


def _hashes(thumbs: Thumbs) -> _Hashes:
    values = np.empty((len(thumbs), CUT * CUT - 1), np.float32)
    for start in range(0, len(thumbs), BLOCK):
        part = slice(start, start + BLOCK)
        values[part] = _flat(_frequencies(thumbs[part]), 0)
    width = int(np.clip(np.ceil(np.log2(len(values))) + 2, 10, LOWEST - 3))
    rng = np.random.default_rng(0)
    tables = [np.sort(rng.choice(LOWEST, width, False)) for _ in range(TABLES)]
    scale = np.maximum(np.abs(values).mean(0), 1e-6).astype(np.float32)
    return _Hashes(values, scale, tables)


def _candidates(thumbs: Thumbs) -> Iterator[tuple[Ints, Ints, Ints]]:
    """(left, right, pose) of pairs whose frequencies agree; right is seen in pose."""
    hashes = _hashes(thumbs)
    shelves = []
    for table in hashes.tables:
        keys = _keys(hashes.values[:, table])
        shelf = np.argsort(keys, kind="stable")
        starts = np.searchsorted(keys[shelf], np.arange((1 << len(table)) + 1))
        shelves.append((table, shelf.astype(np.int32), starts.astype(np.int32)))
    for begin in range(0, len(thumbs), BLOCK):
        block = _frequencies(thumbs[begin : begin + BLOCK])
        packs: list[Ints] = []
        for pose in range(len(POSES)):
            seen = _flat(block, pose)
            twins = [
                _looked_up(seen, begin, table, shelf, starts, hashes.scale)
                for table, shelf, starts in shelves
            ]
            codes = np.unique(np.concatenate(twins))
            right, left = np.divmod(codes, len(thumbs))
            agree = _dots(hashes.values, seen, left, right - begin) >= AGREE
            packs.append(np.stack([left, right, np.full_like(left, pose)])[:, agree])
        left, right, pose_of = np.concatenate(packs, axis=1)
        yield left, right, pose_of


def _keys(values: Floats) -> Ints:
    bits = (values > 0).astype(np.int64)
    keys: Ints = bits @ (1 << np.arange(values.shape[1], dtype=np.int64))
    return keys


def _looked_up(
    seen: Floats, begin: int, table: Ints, shelf: Ints, starts: Ints, scale: Floats
) -> Ints:
    """Codes (right * N + left) of what shares a probed key, left < right."""
    mine = seen[:, table]
    weight = 1 << np.arange(len(table), dtype=np.int64)
    doubtful = np.argsort(np.abs(mine) / scale[table], axis=1)[:, :FLIPS]
    step = weight[doubtful] * np.where(np.take_along_axis(mine, doubtful, 1) > 0, -1, 1)
    subsets = np.array(list(itertools.product((0, 1), repeat=FLIPS)))
    probes = (_keys(mine)[:, None] + step @ subsets.T).ravel()
    first, count = starts[probes], starts[probes + 1] - starts[probes]
    total = int(count.sum())
    offsets = np.arange(total) - np.repeat(np.cumsum(count) - count, count)
    left = shelf[np.repeat(first, count) + offsets]
    right = np.repeat(np.repeat(np.arange(len(seen)), len(subsets)), count) + begin
    before = left < right
    codes: Ints = right[before] * len(shelf) + left[before]
    return codes


def _dots(values: Floats, seen: Floats, left: Ints, right: Ints) -> Floats:
    out = np.empty(len(left), np.float32)
    step = 1 << 16
    for k in range(0, len(left), step):
        part = slice(k, k + step)
        out[part] = np.einsum("nf,nf->n", values[left[part]], seen[right[part]])
    return out


def _aligned(
    thumbs: Thumbs, left: Ints, right: Ints, pose: Ints
) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Which pairs are alike once `left` is laid onto `right`, and how alike."""
    similarity = np.zeros(len(left), np.float32)
    for start in range(0, len(left), BLOCK):
        part = slice(start, start + BLOCK)
        still = thumbs[right[part]].astype(np.float32)
        for p in range(1, len(POSES)):
            here = pose[part] == p
            still[here] = posed(still[here], p)
        similarity[part] = _similarity(thumbs[left[part]].astype(np.float32), still)
    return similarity >= ALIKE, similarity


def _similarity(moving: Floats, still: Floats) -> Floats:
    moving, still = _smooth(moving), _smooth(still)
    rough = align(_halved(moving), _halved(still), HOPEFUL)
    close = np.flatnonzero(rough >= HOPEFUL)
    out = np.zeros(len(moving), np.float32)
    out[close] = align(moving[close], still[close], ALIKE)
    return out


def _halved(pictures: Floats) -> Floats:
    count, side, _ = pictures.shape
    out: Floats = pictures.reshape(count, side // 2, 2, side // 2, 2).mean((2, 4))
    return out


def _smooth(pictures: Floats) -> Floats:
    """Averaged over 3 x 3 pixels with weights 1 2 1, so that gradients point far."""
    for axis in (1, 2):
        ends = [(0, 0), (0, 0), (0, 0)]
        ends[axis] = (1, 1)
        wide = np.moveaxis(np.pad(pictures, ends, mode="edge"), axis, 1)
        mean = (wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]) / 4
        pictures = np.moveaxis(mean, 1, axis)
    return np.ascontiguousarray(pictures)


def align(moving: Floats, still: Floats, enough: float) -> Floats:
    """Correlation [N], 0..1, of `still` [N, S, S] with `moving` shifted and scaled.

    Gauss-Newton over two scales, two shifts, gain and offset; it ends once a pair
    has `enough`. 0 where more than `MOST_CROP` of a side would have to be cut off.
    """
    best = np.zeros(len(moving), np.float32)
    shape = np.zeros((len(moving), 4), np.float32)  # scale x, y; shift x, y
    slope_y, slope_x = np.gradient(moving, axis=(1, 2))
    todo = np.arange(len(moving))
    for _ in range(STEPS + 1):
        if not len(todo):
            break
        found, move = _fitted(
            moving[todo], slope_x[todo], slope_y[todo], still[todo], shape[todo]
        )
        best[todo] = np.maximum(best[todo], found)
        hopeful = best[todo] < enough
        shape[todo] = np.clip(shape[todo] + move, -0.5, 0.5)
        todo = todo[hopeful]
    return best


def _fitted(
    moving: Floats, slope_x: Floats, slope_y: Floats, still: Floats, shape: Floats
) -> tuple[Floats, Floats]:
    """The correlation [N] at `shape` [N, 4], and the step that should raise it."""
    side = moving.shape[1]
    grid = np.linspace(-1, 1, side, dtype=np.float32)
    x = grid * (1 + shape[:, :1]) + shape[:, 2:3]
    y = grid * (1 + shape[:, 1:2]) + shape[:, 3:4]
    inside = (np.abs(y) <= 1.02)[:, :, None] & (np.abs(x) <= 1.02)[:, None, :]
    weight = inside.astype(np.float32)
    area = np.maximum(weight.sum((1, 2)), 1.0)
    sample = _Sampler(x, y, side)
    a = _centred(sample(moving), weight, area)
    b = _centred(still, weight, area)
    aa, bb = np.square(a).sum((1, 2)) + 1e-3, np.square(b).sum((1, 2)) + 1e-3
    ab = (a * b).sum((1, 2))
    fair = (np.abs(shape).max(1) <= MOST_CROP) & (area >= 0.6 * side * side)
    found = np.where(fair, ab / np.sqrt(aa * bb), 0).astype(np.float32)
    gain = (ab / aa)[:, None, None]
    rest = b - a * gain
    gain = gain * weight * (side - 1) / 2
    dx, dy = sample(slope_x) * gain, sample(slope_y) * gain
    along = np.stack([dx * grid, dy * grid[:, None], dx, dy], 1)
    along = along.reshape(len(moving), 4, -1)
    normal = along @ along.swapaxes(1, 2) + np.eye(4, dtype=np.float32)
    move = np.linalg.solve(normal, along @ rest.reshape(len(moving), -1, 1))[..., 0]
    return found, move.clip(-0.1, 0.1)


def _centred(pictures: Floats, weight: Floats, area: Floats) -> Floats:
    mean = (pictures * weight).sum((1, 2)) / area
    out: Floats = (pictures - mean[:, None, None]) * weight
    return out


class _Sampler:
    """Bilinear samples at rows y [N, S] and columns x [N, S], both in -1..1."""

    def __init__(self, x: Floats, y: Floats, side: int) -> None:
        self._columns, self._rows = _matrix(x, side), _matrix(y, side)

    def __call__(self, pictures: Floats) -> Floats:
        out: Floats = self._rows @ pictures @ self._columns.swapaxes(1, 2)
        return out


def _matrix(at: Floats, side: int) -> Floats:
    """The weights [N, S, side] of pixels: two in each row, so that products sample."""
    pixel = np.clip((at + 1) * (side - 1) / 2, 0, side - 1)
    away = np.abs(pixel[:, :, None] - np.arange(side, dtype=np.float32))
    weights: Floats = np.maximum(1 - away, 0)
    return weights
