"""The pictures of an evaluation: confusion, calibration, mistakes, uncertain photos.

They are drawn for any evaluation, so the same function shows the trained network and
an exported file, whose evaluation comes through the runner that ships.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.evaluate import Evaluation
from edge.text import plural
from finetune.figures import confusion, mistakes, reliability


def draw(
    folder: Path,
    evaluation: Evaluation,
    photos: Sequence[Path],
    pixels: Callable[[int], npt.NDArray[np.uint8]],
    where: str,
    panels: Sequence[tuple[str, npt.NDArray[np.float32]]],
    note: str = "",
) -> None:
    """Write confusion.png, calibration.png, mistakes.png and uncertain.png.

    photos: the path of each evaluated photo; pixels: its number -> uint8 [H, W, 3].
    where: of which photos and which file, as in "test part, int8.tflite". panels: one
    or two of (title, probabilities [N, L]) for calibration.png; note: a line above.
    """
    confusion.draw(folder / "confusion.png", evaluation, where)
    path = folder / "calibration.png"
    part = where.partition(",")[0]  # the panels name the files
    about = f"{plural(len(evaluation.truth), 'photo')} of the {part}. {note}"
    reliability.draw(path, panels, evaluation.truth, about)
    for name, rows, heading in (
        ("mistakes", mistakes.mistakes(evaluation), "Most confident mistakes"),
        ("uncertain", mistakes.least_certain(evaluation), "Least certain predictions"),
    ):
        mistakes.draw(
            folder / f"{name}.png",
            rows,
            evaluation,
            photos,
            [pixels(int(row)) for row in rows],
            f"{heading}, {where}",
        )
