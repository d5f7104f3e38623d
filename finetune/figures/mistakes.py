"""Confident mistakes and uncertain predictions: contact sheets, records for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.evaluate import Evaluation
from finetune.figures.contact_sheet import draw_sheet
from finetune.figures.style import shortened

SHOWN = 24
NAME = 22  # characters of a file's name under a photo

Order = npt.NDArray[np.int64]


def mistakes(evaluation: Evaluation) -> Order:
    """Rows with a wrong prediction, the most confident first."""
    wrong = np.flatnonzero(~evaluation.right)
    confidence = evaluation.probabilities.max(axis=1)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:SHOWN]


def least_certain(evaluation: Evaluation) -> Order:
    """Rows by the margin between the best two labels, the smallest first."""
    ordered = np.sort(evaluation.probabilities, axis=1)
    return np.argsort(ordered[:, -1] - ordered[:, -2], kind="stable")[:SHOWN]


def listed(
    rows: Order, evaluation: Evaluation, paths: Sequence[Path], root: Path
) -> list[dict[str, Any]]:
    """For JSON: path (below `root`), truth, answer and its probability."""
    predicted = evaluation.probabilities.argmax(axis=1)
    return [
        {
            "photo": paths[row].relative_to(root).as_posix(),
            "truth": evaluation.labels[evaluation.truth[row]],
            "answer": evaluation.labels[predicted[row]],
            "probability": float(evaluation.probabilities[row].max()),
        }
        for row in rows
    ]


def draw(
    path: Path,
    rows: Order,
    evaluation: Evaluation,
    paths: Sequence[Path],
    pixels: Sequence[npt.NDArray[np.uint8]],
    heading: str,
) -> None:
    """A sheet of these rows' photos, uint8 [H, W, 3] each, as the network saw them."""
    captions = []
    for row in rows:
        predicted = int(evaluation.probabilities[row].argmax())
        confidence = evaluation.probabilities[row, predicted]
        label, truth = evaluation.labels[predicted], evaluation.truth[row]
        verdict = "right" if predicted == truth else f"is {evaluation.labels[truth]}"
        name = shortened(paths[row].name, NAME)
        captions.append(f"{label} {confidence:.0%}, {verdict}\n{name}")
    note = "as the network sees them; the paths are in metrics.json"
    if not len(rows):
        heading += ": none"
        note = f"all {len(evaluation.truth):,} photos are right"
    draw_sheet(path, pixels, captions, heading, note)
