"""Outlines: ovals, splines, limbs, ears and tufts as rings of points.

An outline is a float array [N, 2] in the drawer's own units (x right, y down). Nothing
here is random but what comes from the generator that the caller hands in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Outline = np.ndarray  # float64 [N, 2]
Point = Sequence[float] | np.ndarray
Points = Sequence[tuple[float, float]] | np.ndarray
STEPS = 6  # samples of a spline for each of its pieces


def oval(
    cx: float, cy: float, rx: float, ry: float, turn: float = 0.0, n: int = 32
) -> Outline:
    """An ellipse with half axes rx, ry, turned by `turn` degrees."""
    t = np.linspace(0.0, 2 * np.pi, n, endpoint=False)
    x, y = rx * np.cos(t), ry * np.sin(t)
    a = np.radians(turn)
    return np.stack(
        [cx + x * np.cos(a) - y * np.sin(a), cy + x * np.sin(a) + y * np.cos(a)], 1
    )


def almond(cx: float, cy: float, rx: float, ry: float, turn: float = 0.0) -> Outline:
    """Two parabolas with corners left and right: an eye, a leaf, a slit pupil."""
    x = np.linspace(-1.0, 1.0, 12)
    upper = np.stack([x, x * x - 1.0], 1)
    shape = np.concatenate([upper, -upper[1:-1]]) * (rx, ry)
    a = np.radians(turn)
    spin = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    placed: Outline = shape @ spin + (cx, cy)
    return placed


def curve(points: Points, closed: bool = False) -> Outline:
    """A Catmull-Rom spline through the points, STEPS samples for each piece."""
    p = np.asarray(points, float)
    if closed:
        p0, p1, p2, p3 = np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0)
    else:
        q = np.concatenate([p[:1] * 2 - p[1:2], p, p[-1:] * 2 - p[-2:-1]])
        p0, p1, p2, p3 = q[:-3], q[1:-2], q[2:-1], q[3:]
    t = np.linspace(0.0, 1.0, STEPS, endpoint=False)[None, :, None]
    a, b, c, d = (v[:, None, :] for v in (p0, p1, p2, p3))
    line = 0.5 * (
        2 * b
        + (c - a) * t
        + (2 * a - 5 * b + 4 * c - d) * t * t
        + (3 * b - a - 3 * c + d) * t**3
    )
    line = line.reshape(-1, 2)
    return line if closed else np.concatenate([line, p[-1:]])


def blob(points: Points) -> Outline:
    """A smooth closed outline through the points."""
    return curve(points, closed=True)


def both(points: Points) -> Outline:
    """A smooth outline from its right half (top to bottom), mirrored at x = 0."""
    p = np.asarray(points, float)
    inner = p[np.abs(p[:, 0]) > 1e-6]
    return blob(np.concatenate([p, inner[::-1] * (-1, 1)]))


def limb(spine: Points, widths: Sequence[float]) -> Outline:
    """A tube around a smooth spine, round at both ends; `widths` are half widths."""
    line = curve(spine)
    at = np.linspace(0, len(widths) - 1, len(line))
    half = np.interp(at, np.arange(len(widths)), widths)[:, None]
    along = np.gradient(line, axis=0)
    along /= np.maximum(np.hypot(along[:, :1], along[:, 1:]), 1e-9)
    side = along[:, ::-1] * (-1, 1)
    t = np.linspace(-1.0, 1.0, 7)[1:-1, None] * np.pi / 2
    end = line[-1] + half[-1] * (-np.sin(t) * side[-1] + np.cos(t) * along[-1])
    start = line[0] + half[0] * (np.sin(t) * side[0] - np.cos(t) * along[0])
    return np.concatenate([line + side * half, end, (line - side * half)[::-1], start])


def wedge(a: Point, tip: Point, b: Point, bulge: float = 0.08) -> Outline:
    """A triangle a-tip-b whose two sides at the tip swell outwards by `bulge`."""
    p, q, r = (np.asarray(v, float) for v in (a, tip, b))
    middle = (p + q + r) / 3
    t = np.linspace(0.0, 1.0, 7)[:, None]
    sides = []
    for start, end in ((p, q), (q, r)):
        half = (start + end) / 2
        out = (half - middle) * bulge * 4
        sides.append(start + (end - start) * t + out * (4 * t * (1 - t)))
    return np.concatenate([sides[0], sides[1][1:]])


def furry(outline: Outline, rng: np.random.Generator, depth: float) -> Outline:
    """The outline with tufts that stand out by up to `depth` (same units)."""
    if depth <= 0:
        return outline
    ring = np.concatenate([outline, outline[:1]])
    length = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(ring, axis=0).T))])
    n = int(np.clip(length[-1] / (depth * 0.9), 24, 160)) // 2 * 2
    at = (np.arange(n) + rng.uniform(-0.3, 0.3, n)) * length[-1] / n
    even = np.stack([np.interp(at % length[-1], length, ring[:, k]) for k in (0, 1)], 1)
    along = np.roll(even, -1, 0) - np.roll(even, 1, 0)
    normal = along[:, ::-1] * (1, -1)
    normal /= np.maximum(np.hypot(normal[:, :1], normal[:, 1:]), 1e-9)
    x, y = even.T
    if np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) < 0:
        normal = -normal
    tuft = rng.uniform(0.3, 1.0, n) * np.where(np.arange(n) % 2, depth, 0.0)
    grown: Outline = even + normal * tuft[:, None]
    return grown
