"""metrics.json and the pictures of a run, for the file to ship.

Training writes them for the Keras network; the comparison replaces them. The network's
figures stay in metrics.json under `keras`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import EdgegraftError
from edge.preprocess import load_pixels
from finetune.figures import evaluation as pictures
from finetune.figures import mistakes, reliability
from finetune.run import Run
from quantize import recipes

if TYPE_CHECKING:
    from quantize.comparison.records import Comparison, MeasuredFile

METRICS = "metrics.json"
KERAS = "keras"  # figures of the trained network, before export
_MOVED = ("measured_on", "test", "mistakes", "uncertain")


def write(comparison: Comparison, run: Run, file: MeasuredFile) -> None:
    """Replace the figures of the test part and their pictures by those of `file`."""
    evaluation = file.evaluation
    photos = [photo.path for photo in run.part("test")]
    worst, uncertain = mistakes.mistakes(evaluation), mistakes.least_certain(evaluation)
    metrics = _read(run)
    calibration = dict(metrics.get("calibration") or {})
    before = dict(calibration.get("test") or {})
    if KERAS not in metrics:
        keras = {name: metrics[name] for name in _MOVED if name in metrics}
        metrics[KERAS] = {**keras, "calibration": before}
    calibration["test"] = {
        **before,
        "photos": evaluation.photos,
        "error_after": evaluation.calibration_error,
        "bins_after": [
            asdict(row)
            for row in reliability.bins(evaluation.probabilities, evaluation.truth)
        ],
    }
    metrics |= {
        "measured_on": f"exports/{file.path.name}, the file to ship, through "
        f"{file.accuracy_runtime}",
        "test": evaluation.to_dict(),
        "headline": comparison.headline.to_dict() if comparison.headline else None,
        "calibration": calibration,
        "mistakes": mistakes.listed(worst, evaluation, photos, run.photos_root),
        "uncertain": mistakes.listed(uncertain, evaluation, photos, run.photos_root),
    }
    metrics.pop("least_sure", None)  # its name in runs of schema 1
    run.write_json(METRICS, metrics)
    _draw(comparison, run, file, photos)


def _draw(
    comparison: Comparison, run: Run, file: MeasuredFile, photos: list[Path]
) -> None:
    """The pictures; calibration.png shows the float32 file beside this one."""
    evaluation = file.evaluation
    panels = [(file.path.name, evaluation.probabilities)]
    reference = next(
        (f for f in comparison.files if f.variant == recipes.REFERENCE), None
    )
    if reference is not None and reference is not file:
        panels.insert(0, (reference.path.name, reference.evaluation.probabilities))
    temperature = (run.config.get("calibration") or {}).get("temperature")
    pictures.draw(
        run.folder,
        evaluation,
        photos,
        lambda row: load_pixels(photos[row], file.recipe),
        f"test part, {file.path.name}",
        panels,
        f"Temperature {temperature:.2f} in every file" if temperature else "",
    )


def _read(run: Run) -> dict[str, Any]:
    """The figures of training; {} where there are none."""
    try:
        return run.metrics
    except EdgegraftError as error:
        raise EdgegraftError(f"{error}; remove it and compare again") from None
