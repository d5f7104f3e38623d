"""Why? Which parts of a photo the answer depends on: occlusion of the exported file.

A grey patch covers one region after another and the model runs again; regions where the
answer's probability drops matter (Zeiler and Fergus 2014, "Visualizing and
Understanding Convolutional Networks", arXiv:1311.2901). Patches overlap by half, and
each pixel gets the mean drop of the patches that cover it. All classifiers of the pool
run at once; as many patches are run as fit into `SECONDS`, so a slow network gets a
coarser map.

The map does not show that a region alone is enough for the answer; two regions that
each suffice both look unimportant.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.preprocess import Pixels
from streamlit_app.model_pool import ClassifierPool

SECONDS = 1.2
FULL = 0.1  # drop of probability that gets the strongest colour
GRIDS = (14, 11, 9, 7, 5, 4, 3)  # patches along a side, finest first


@dataclass(frozen=True)
class OcclusionMap:
    """`heat` is float32 [H, W] of mean drops in probability, else 0.

    `max_drop` is the largest drop of a single patch; `patches` the number of patches.
    """

    label: str
    probability: float
    heat: npt.NDArray[np.float32]
    max_drop: float
    patches: int
    seconds: float


def occlude(
    pool: ClassifierPool, pixels: Pixels, seconds: float = SECONDS
) -> OcclusionMap:
    """Where the best label's probability drops; `pixels` is uint8 [H, W, 3]."""
    start = time.perf_counter()
    with pool.borrow() as classifier:
        probabilities = classifier.probabilities(pixels[None])[0]
        warm_start = time.perf_counter()
        classifier.probabilities(pixels[None])
        run_s = time.perf_counter() - warm_start
    best = int(probabilities.argmax())
    probability = float(probabilities[best])
    grid = _grid(run_s, pool.size, seconds)
    boxes = _boxes(pixels.shape[0], pixels.shape[1], grid)
    grey = pixels.reshape(-1, 3).mean(axis=0).astype(np.uint8)

    def covered_probability(box: tuple[int, int, int, int]) -> float:
        top, bottom, left, right = box
        covered = pixels.copy()
        covered[top:bottom, left:right] = grey
        with pool.borrow() as classifier:
            return float(classifier.probabilities(covered[None])[0, best])

    with ThreadPoolExecutor(pool.size) as threads:
        covered_probabilities = list(threads.map(covered_probability, boxes))
    drops = [max(probability - covered, 0.0) for covered in covered_probabilities]
    total = np.zeros(pixels.shape[:2], np.float32)
    covers = np.zeros(pixels.shape[:2], np.float32)
    for (top, bottom, left, right), drop in zip(boxes, drops, strict=True):
        total[top:bottom, left:right] += drop
        covers[top:bottom, left:right] += 1
    heat = _smooth(total / np.maximum(covers, 1), min(pixels.shape[:2]) / (grid + 1))
    return OcclusionMap(
        pool.facts.labels[best],
        probability,
        heat,
        max(drops),
        len(boxes),
        time.perf_counter() - start,
    )


def _grid(run_s: float, workers: int, seconds: float) -> int:
    """The finest grid whose patches `workers` can run within `seconds`."""
    fitting = (grid for grid in GRIDS if grid * grid * run_s / workers <= seconds)
    return next(fitting, GRIDS[-1])


def _boxes(height: int, width: int, grid: int) -> list[tuple[int, int, int, int]]:
    """(top, bottom, left, right) of patches, each twice as long as their step."""
    edges = []
    for side in (height, width):
        step = side / (grid + 1)
        starts = [round(k * step) for k in range(grid)]
        edges.append([(s, min(max(s + round(2 * step), s + 1), side)) for s in starts])
    return [(*rows, *columns) for rows in edges[0] for columns in edges[1]]


def _smooth(heat: npt.NDArray[Any], step: float) -> npt.NDArray[np.float32]:
    """A box filter of one step's width, which removes the edges of the patches."""
    width = max(round(step), 1) | 1
    kernel = np.ones(width) / width
    heat = np.pad(heat, width // 2, mode="edge")
    for axis in (0, 1):
        heat = np.apply_along_axis(np.convolve, axis, heat, kernel, "valid")
    return heat.astype(np.float32)


def overlay(pixels: Pixels, drops: OcclusionMap) -> Pixels:
    """The photo in grey, the parts that matter in colour: uint8 [H, W, 3].

    The colour is strongest where a patch lowers the probability by `FULL` or more; a
    photo whose answer hardly changes stays grey.
    """
    heat = drops.heat
    grey = pixels.mean(axis=2, keepdims=True) * 0.55 + 60
    strength = (heat / max(float(heat.max()), 1e-6))[..., None] ** 0.8
    strength = strength * min(drops.max_drop / FULL, 1.0)
    yellow, orange = np.array([255, 214, 90]), np.array([255.0, 96.0, 0.0])
    colour = orange * strength + yellow * (1 - strength)
    mixed = grey * (1 - 0.75 * strength) + colour * 0.75 * strength
    return np.asarray(mixed.clip(0, 255), np.uint8)
