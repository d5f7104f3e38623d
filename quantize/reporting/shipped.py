"""metrics.json and the pictures of a run, of the file that is recommended.

Training leaves them with the figures of the Keras network; after the comparison they
show what ships. The network's figures stay in metrics.json under `keras`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edge.errors import EdgegraftError
from edge.preprocess import load_pixels
from finetune.figures import mistakes, reliability, training
from finetune.run import Run
from quantize import recipes

if TYPE_CHECKING:
    from quantize.comparison.records import Comparison, MeasuredFile

METRICS = "metrics.json"
KERAS = "keras"  # figures of the trained network, before export
_MOVED = ("measured_on", "test", "mistakes", "least_sure")


def write(comparison: Comparison, run: Run, file: MeasuredFile) -> None:
    """Replace the figures of the test part and their pictures by those of `file`."""
    evaluation = file.evaluation
    photos = [photo.path for photo in run.part("test")]
    worst, unsure = mistakes.mistakes(evaluation), mistakes.least_sure(evaluation)
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
            asdict(one)
            for one in reliability.bins(evaluation.probabilities, evaluation.truth)
        ],
    }
    metrics |= {
        "measured_on": f"exports/{file.path.name}, the file to ship, through "
        f"{file.accuracy_runtime}",
        "test": evaluation.to_dict(),
        "headline": comparison.headline.to_dict() if comparison.headline else None,
        "calibration": calibration,
        "mistakes": mistakes.listed(worst, evaluation, photos, run.photos_root),
        "least_sure": mistakes.listed(unsure, evaluation, photos, run.photos_root),
    }
    run.write_json(METRICS, metrics)
    _draw(comparison, run, file)
    for name, rows, heading in (
        ("mistakes", worst, f"Most confident mistakes of {file.path.name}, test part"),
        ("unsure", unsure, f"Least certain answers of {file.path.name}, test part"),
    ):
        pixels = [load_pixels(photos[row], file.recipe) for row in rows]
        path = run.folder / f"{name}.png"
        mistakes.draw(path, rows, evaluation, photos, pixels, heading)


def _draw(comparison: Comparison, run: Run, file: MeasuredFile) -> None:
    """confusion.png and calibration.png, the second beside the float32 file."""
    evaluation = file.evaluation
    title = f"test part, {file.path.name}"
    training.draw_confusion(run.folder / "confusion.png", evaluation, title)
    panels = [(file.path.name, evaluation.probabilities)]
    reference = next(
        (f for f in comparison.files if f.variant == recipes.REFERENCE), None
    )
    if reference is not None and reference is not file:
        panels.insert(0, (reference.path.name, reference.evaluation.probabilities))
    temperature = (run.config.get("calibration") or {}).get("temperature")
    note = f"Temperature {temperature:.2f} in every file" if temperature else ""
    reliability.draw(
        run.folder / "calibration.png", panels, evaluation.truth, "test part", note
    )


def _read(run: Run) -> dict[str, Any]:
    """The figures that training left; {} where there are none."""
    path = run.folder / METRICS
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise EdgegraftError(
            f"expected the figures of a training in {path}, got a damaged file "
            f"({error}); remove it and compare again"
        ) from error
    return metrics if isinstance(metrics, dict) else {}
