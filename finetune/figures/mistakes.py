"""The photos that say most about a network: confident mistakes, uncertain predictions.

Contact sheets to look at, and the same photos with their paths for JSON. They are drawn
for any evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.evaluate import Evaluation
from finetune.figures.contact_sheet import draw_sheet

SHOWN = 24
_NAME = 22  # characters of a file's name under a photo

Order = npt.NDArray[np.int64]


def mistakes(evaluation: Evaluation) -> Order:
    """Rows with a wrong prediction, the most confident first."""
    guess = evaluation.probabilities.argmax(axis=1)
    wrong = np.flatnonzero(guess != evaluation.truth)
    confidence = evaluation.probabilities.max(axis=1)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:SHOWN]


def least_certain(evaluation: Evaluation) -> Order:
    """Rows by the distance between the best two labels, the smallest first."""
    best = np.sort(evaluation.probabilities, axis=1)
    return np.argsort(best[:, -1] - best[:, -2], kind="stable")[:SHOWN]


def listed(
    rows: Order, evaluation: Evaluation, paths: Sequence[Path], root: Path
) -> list[dict[str, Any]]:
    """For JSON: path (below `root`), truth, answer and its probability."""
    found = []
    for row in rows:
        answer = int(evaluation.probabilities[row].argmax())
        found.append(
            {
                "photo": paths[row].relative_to(root).as_posix(),
                "truth": evaluation.labels[evaluation.truth[row]],
                "answer": evaluation.labels[answer],
                "probability": float(evaluation.probabilities[row, answer]),
            }
        )
    return found


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
        answer = int(evaluation.probabilities[row].argmax())
        confidence = evaluation.probabilities[row, answer]
        label, truth = evaluation.labels[answer], evaluation.truth[row]
        verdict = "right" if answer == truth else f"is {evaluation.labels[truth]}"
        name = paths[row].name
        if len(name) > _NAME:
            name = f"{name[: _NAME // 2 - 2]}...{name[-_NAME // 2 :]}"
        captions.append(f"{label} {confidence:.0%}, {verdict}\n{name}")
    none = f"all {len(evaluation.truth):,} photos are right"
    draw_sheet(
        path,
        pixels,
        captions,
        heading if len(rows) else f"{heading}: none",
        "as the network sees them; the paths are in metrics.json"
        if len(rows)
        else none,
    )
