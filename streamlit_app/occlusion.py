"""Why? Which parts of a photo the answer hangs on: occlusion, on the very file.

A grey patch is laid over one place after another and the model is asked again; where
the answer's probability falls, something mattered (Zeiler and Fergus 2014,
"Visualizing and Understanding Convolutional Networks", arXiv:1311.2901). Patches
overlap by half, and each pixel gets the mean fall of the patches that cover it. All
classifiers of the pool work at once; the number of patches is what fits into
`SECONDS`, so a slow network gets a coarser map, not a longer wait.

It does not know: how a map is shown. It does not say that a part alone is enough for
the answer, and two parts that each suffice both look unimportant.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.preprocess import Pixels
from streamlit_app.model_pool import Pool

SECONDS = 1.2
FULL = 0.1  # of probability: a fall that is shown in the strongest colour
GRIDS = (14, 11, 9, 7, 5, 4, 3)  # places along a side, finest first


@dataclass(frozen=True)
class Falls:
    """`heat` is float32 [H, W] of mean falls in probability, 0 where none.

    `greatest` is the largest fall of a single patch; `places` their number.
    """

    label: str
    probability: float
    heat: npt.NDArray[np.float32]
    greatest: float
    places: int
    seconds: float


def falls(pool: Pool, seen: Pixels, seconds: float = SECONDS) -> Falls:
    """Where the first label's probability falls; `seen` is uint8 [H, W, 3]."""
    start = time.perf_counter()
    with pool.borrow() as classifier:
        chances = classifier.probabilities(seen[None])[0]
        once = time.perf_counter()
        classifier.probabilities(seen[None])
        each = time.perf_counter() - once
    best = int(chances.argmax())
    grid = _grid(each, pool.size, seconds)
    boxes = _boxes(seen.shape[0], seen.shape[1], grid)
    grey = seen.reshape(-1, 3).mean(axis=0).astype(np.uint8)

    def ask(group: list[tuple[int, int, int, int]]) -> list[float]:
        found = []
        covered = seen.copy()
        with pool.borrow() as classifier:
            for top, bottom, left, right in group:
                covered[top:bottom, left:right] = grey
                found.append(float(classifier.probabilities(covered[None])[0, best]))
                covered[top:bottom, left:right] = seen[top:bottom, left:right]
        return found

    groups = [boxes[k :: pool.size] for k in range(pool.size)]
    with ThreadPoolExecutor(pool.size) as threads:
        told = list(threads.map(ask, groups))
    total = np.zeros(seen.shape[:2], np.float32)
    covers = np.zeros(seen.shape[:2], np.float32)
    greatest = 0.0
    for group, probabilities in zip(groups, told, strict=True):
        for (top, bottom, left, right), chance in zip(
            group, probabilities, strict=True
        ):
            fall = max(float(chances[best]) - chance, 0.0)
            greatest = max(greatest, fall)
            total[top:bottom, left:right] += fall
            covers[top:bottom, left:right] += 1
    heat = _smooth(total / np.maximum(covers, 1), min(seen.shape[:2]) / (grid + 1))
    return Falls(
        pool.facts.labels[best],
        float(chances[best]),
        heat,
        greatest,
        len(boxes),
        time.perf_counter() - start,
    )


def _grid(each: float, workers: int, seconds: float) -> int:
    """The finest grid whose patches are asked about within `seconds`."""
    fitting = (grid for grid in GRIDS if grid * grid * each / workers <= seconds)
    return next(fitting, GRIDS[-1])


def _boxes(height: int, width: int, grid: int) -> list[tuple[int, int, int, int]]:
    """(top, bottom, left, right) of patches twice as long as their step."""
    edges = []
    for side in (height, width):
        step = side / (grid + 1)
        starts = [round(k * step) for k in range(grid)]
        edges.append([(s, min(max(s + round(2 * step), s + 1), side)) for s in starts])
    return [(*rows, *columns) for rows in edges[0] for columns in edges[1]]


def _smooth(heat: npt.NDArray[Any], step: float) -> npt.NDArray[np.float32]:
    """Without the patches' edges, which the photo does not have."""
    width = max(round(step), 1) | 1
    kernel = np.ones(width) / width
    for axis in (0, 1):
        wide = [(width // 2, width // 2) if k == axis else (0, 0) for k in (0, 1)]
        padded = np.pad(heat, wide, mode="edge")
        heat = np.apply_along_axis(np.convolve, axis, padded, kernel, "valid")
    return heat.astype(np.float32)


def overlay(seen: Pixels, found: Falls) -> Pixels:
    """The photo in grey, what mattered in colour: uint8 [H, W, 3].

    The colour is full where a patch cost the answer `FULL` or more; a photo whose
    answer hardly moved stays grey.
    """
    heat = found.heat
    grey = seen.mean(axis=2, keepdims=True) * 0.55 + 60
    strength = (heat / max(float(heat.max()), 1e-6))[..., None] ** 0.8
    strength = strength * min(found.greatest / FULL, 1.0)
    warm = np.array([255.0, 96.0, 0.0]) * strength + np.array([255, 214, 90]) * (
        1 - strength
    )
    mixed = grey * (1 - 0.75 * strength) + warm * 0.75 * strength
    return np.asarray(mixed.clip(0, 255), np.uint8)
