"""The files of a comparison: JSON, CSV, plot, HTML; model card and pictures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edge.files import write_atomic, write_csv
from edge.text import csv_cell
from finetune.run import Run
from quantize.reporting import columns, html, model_card, plot, shipped
from quantize.reporting.text import times

if TYPE_CHECKING:
    from quantize.comparison.records import Comparison


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
        shipped.write(comparison, run, comparison.choice.file)


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
