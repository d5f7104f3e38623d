"""The pictures of an evaluation: confusion, calibration, mistakes, uncertain photos.

The evaluation is that of the trained network or of an exported file.
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

    photos: the path of each evaluated photo; pixels: its index -> uint8 [H, W, 3].
    where: of which photos and which file, as in "test part, int8.tflite". panels: one
    or two of (title, probabilities [N, L]) for calibration.png; note: a line above.
    """
    confusion.draw(folder / "confusion.png", evaluation, where)
    part = where.partition(",")[0]  # the panels name the files
    note = f"{plural(len(evaluation.truth), 'photo')} of the {part}. {note}"
    reliability.draw(folder / "calibration.png", panels, evaluation.truth, note)
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
