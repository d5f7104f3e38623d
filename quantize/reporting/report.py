"""The files of a comparison: JSON, CSV, plot and HTML.

Of a single run also its model card, and for the file to ship metrics.json and the
pictures of the run. Training writes these for the Keras network; the comparison
replaces them. The network's figures stay in metrics.json under `keras`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import EdgegraftError
from edge.files import write_atomic, write_csv
from edge.preprocess import load_pixels
from edge.text import csv_cell
from finetune import evaluate
from finetune.run import Run
from quantize import recipes
from quantize.reporting import columns, html, model_card, plot
from quantize.reporting.text import times

if TYPE_CHECKING:
    from quantize.comparison.records import Comparison, MeasuredFile

METRICS = "metrics.json"
KERAS = "keras"  # figures of the trained network, before export
_MOVED = ("measured_on", "test", "mistakes", "uncertain")


def write(comparison: Comparison, run: Run | None) -> None:
    """Write comparison.json, .csv, .png, .html into its folder.

    `run`: of a comparison of a single run on its test part; its model card,
    metrics.json and pictures are written for the file to ship.
    """
    folder = comparison.folder
    write_atomic(folder / "comparison.json", document(comparison))
    _write_csv(comparison)
    plot.write_png(folder / "comparison.png", comparison)
    html.write(comparison, run)
    if run is not None:
        model_card.write(comparison, run)
    if run is not None and comparison.choice.file is not None:
        _replace_figures(comparison, run, comparison.choice.file)


def document(comparison: Comparison) -> str:
    """The comparison as JSON, with the columns of its tables."""
    shown = dict.fromkeys(
        (*columns.QUALITY, *columns.EXPORT, *columns.FILES, *columns.TIMES)
    )
    record = comparison.to_dict([column.to_dict() for column in shown])
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def _write_csv(comparison: Comparison) -> None:
    """A row for each file, device, runtime and number of threads."""
    rows = times(comparison.files)
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = ([row.get(name, "") for name in names] for row in rows)
    write_csv(
        comparison.folder / "comparison.csv",
        names,
        (map(_cell, row) for row in cells),
    )


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.6g}"
    return csv_cell(value) if isinstance(value, str) else value


def _replace_figures(comparison: Comparison, run: Run, file: MeasuredFile) -> None:
    """Replace the figures of the test part and their pictures by those of `file`."""
    evaluation = file.evaluation
    photos = [photo.path for photo in run.part("test")]
    worst, uncertain = evaluate.mistakes(evaluation), evaluate.least_certain(evaluation)
    metrics = _trained_metrics(run)
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
            for row in evaluate.confidence_bins(
                evaluation.probabilities, evaluation.truth
            )
        ],
    }
    metrics |= {
        "measured_on": f"exports/{file.path.name}, the file to ship, through "
        f"{file.accuracy_runtime}",
        "test": evaluation.to_dict(),
        "headline": comparison.headline.to_dict() if comparison.headline else None,
        "calibration": calibration,
        "mistakes": evaluate.photo_records(worst, evaluation, photos, run.photos_root),
        "uncertain": evaluate.photo_records(
            uncertain, evaluation, photos, run.photos_root
        ),
    }
    metrics.pop("least_sure", None)  # its name in runs of schema 1
    run.write_json(METRICS, metrics)
    _draw_pictures(comparison, run, file, photos)


def _draw_pictures(
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
    evaluate.draw_evaluation(
        run.folder,
        evaluation,
        photos,
        lambda row: load_pixels(photos[row], file.recipe),
        f"test part, {file.path.name}",
        panels,
        f"Temperature {temperature:.2f} in every file" if temperature else "",
    )


def _trained_metrics(run: Run) -> dict[str, Any]:
    """The figures of training; {} where there are none."""
    try:
        return run.metrics
    except EdgegraftError as error:
        raise EdgegraftError(f"{error}; remove it and compare again") from None
