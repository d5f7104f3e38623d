"""Timings of realistic work: decoding photos, a camera's frame rate, sustained load."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
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
    classifier: Classifier, paths: list[str], build: Callable[[], Classifier]
) -> dict[str, Any]:
    """Decode, resize, inference and the rest apart (ms); then photos a second with
    a worker on every core. `build` opens one more classifier with one thread."""
    recipe = classifier.recipe
    rows = []
    for path in paths:
        times = [time.perf_counter()]
        try:
            image = open_for(path, recipe)
        except PhotoError:
            continue  # `classify` names them; here only whole photos count
        times.append(time.perf_counter())
        pixels = fit(image, recipe)
        times.append(time.perf_counter())
        outputs = classifier.run(pixels[None])
        times.append(time.perf_counter())
        classifier.prediction(outputs["probabilities"][0], None)
        times.append(time.perf_counter())
        rows.append(np.diff(times) * 1e3)
    if not rows:
        raise EdgegraftError("--photos: expected photos that can be read, got none")
    table = np.array(rows)
    record: dict[str, Any] = {"photos": len(rows)}
    for name, column in zip(
        ("decode", "resize", "inference", "rest"), table.T, strict=True
    ):
        record[name] = percentiles(column)
    record["total"] = percentiles(table.sum(axis=1))
    classifiers = [build() for _ in range(cores())]

    def classify(worker: Classifier, path: str) -> bool:
        try:
            worker.classify(path)
        except PhotoError:
            return False
        return True

    start = time.perf_counter()
    count = sum(batch.in_order(paths, classify, classifiers))
    per_second = count / (time.perf_counter() - start)
    record["batched"] = {"workers": len(classifiers), "photos_per_second": per_second}
    return record


def paced(probe: Probe, fps: float, seconds: float = _PACED_SECONDS) -> dict[str, Any]:
    """Inference at a camera's frame rate: clock and caches cool down between frames."""
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
    return {
        "asked_fps": fps,
        "fps": len(times) / max(time.perf_counter() - start, seconds),
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
    while (elapsed := time.perf_counter() - start) < minutes * 60:
        times = []
        length = min(every, max(minutes * 60 - elapsed, 0.05))
        while time.perf_counter() - start - elapsed < length:
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

    if not os.path.exists(folder) and not any(char in folder for char in "*?["):
        raise EdgegraftError(f"{folder}: expected a folder of photos, got nothing")
    return list(islice(listed([folder]), count))
