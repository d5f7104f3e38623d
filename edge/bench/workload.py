"""Times under the work a device really does: photos, a camera's pace, hours."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from edge.bench import conditions
from edge.bench.timing import Probe, percentiles
from edge.classifier import Classifier
from edge.classify import workers as batch
from edge.errors import EdgegraftError, PhotoError
from edge.preprocess import fit, open_for
from edge.runtime import cores

_SAMPLE_SECONDS = 10.0  # between two readings of clock and temperature
_PACED_SECONDS = 5.0


def photos(
    classifier: Classifier, paths: list[str], make: Any, *, workers: int | None = None
) -> dict[str, Any]:
    """Decode, resize, inference and the rest apart (ms); then photos a second with
    a worker on every core. `make` opens one more classifier with one thread."""
    recipe = classifier.recipe
    rows = []
    for path in paths:
        marks = [time.perf_counter()]
        try:
            image = open_for(path, recipe)
        except PhotoError:
            continue  # `classify` names them; here only whole photos count
        marks.append(time.perf_counter())
        pixels = fit(image, recipe)
        marks.append(time.perf_counter())
        out = classifier.run(pixels[None])
        marks.append(time.perf_counter())
        classifier.prediction(out["probabilities"][0], None)
        marks.append(time.perf_counter())
        rows.append(np.diff(marks) * 1e3)
    if not rows:
        raise EdgegraftError("--photos: expected photos that can be read, got none")
    table = np.array(rows)
    found: dict[str, Any] = {"photos": len(rows)}
    for name, column in zip(
        ("decode", "resize", "inference", "rest"), table.T, strict=True
    ):
        found[name] = percentiles(column)
    found["total"] = percentiles(table.sum(axis=1))
    count = workers or cores()
    tools = [make() for _ in range(count)]

    def one(tool: Classifier, path: str) -> bool:
        try:
            tool.classify(path)
        except PhotoError:
            return False
        return True

    begin = time.perf_counter()
    done = sum(batch.in_order(paths, one, tools))
    seconds = time.perf_counter() - begin
    found["batched"] = {"workers": count, "photos_per_second": done / seconds}
    return found


def paced(probe: Probe, fps: float, seconds: float = _PACED_SECONDS) -> dict[str, Any]:
    """Inference at a camera's pace: between frames the clock and caches cool down."""
    times: list[float] = []
    late = 0
    start = due = time.perf_counter()
    while due - start < seconds - 0.5 / fps:  # half a frame: `due` is a sum of floats
        time.sleep(max(0.0, due - time.perf_counter()))
        times.append(probe.once())
        due += 1 / fps
        if (now := time.perf_counter()) > due:
            late += 1
            due = now
    took = max(time.perf_counter() - start, seconds)
    return {
        "asked_fps": fps,
        "fps": len(times) / took,
        "late": late,
        **percentiles(np.array(times)),
    }


def sustained(
    probe: Probe, minutes: float, *, every: float = _SAMPLE_SECONDS
) -> dict[str, Any]:
    """Without a pause for `minutes`: does it get slower as the machine gets warm?"""
    samples = []
    count = 0
    start = time.perf_counter()
    while (begun := time.perf_counter() - start) < minutes * 60:
        times = []
        length = min(every, max(minutes * 60 - begun, 0.05))
        while time.perf_counter() - start - begun < length:
            times.append(probe.once())
        count += len(times)
        sample: dict[str, Any] = {"seconds": round(time.perf_counter() - start, 1)}
        samples.append({**sample, **percentiles(np.array(times)), **conditions.now()})
    first, last = samples[0]["p50_ms"], samples[-1]["p50_ms"]
    return {
        "minutes": minutes,
        "photos_per_second": count / (time.perf_counter() - start),
        "slower": last / first,
        "samples": samples,
    }


def paths_of(folder: str, count: int) -> list[str]:
    """The first `count` photos of a folder (or a pattern)."""
    from itertools import islice

    from edge.classify.sources import photos as listed

    if not os.path.exists(folder) and not any(sign in folder for sign in "*?["):
        raise EdgegraftError(f"{folder}: expected a folder of photos, got nothing")
    return list(islice(listed([folder]), count))
