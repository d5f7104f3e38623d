"""Motion detection: the model runs only when something moves in the region.

The region is read at a coarse grid of its green values and compared with a background
that follows slowly. A change of light changes all cells alike and is taken off first,
unless it is large: then a look costs little.
Motion begins when many cells differ and ends only when few have differed for a while
(hysteresis), so that noise near the limit does not switch it on and off. What comes and
stays becomes background; it has been classified by then. A slow change, such as a
shadow that wanders, is no motion.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge.camera.sources import Picture

LOOKS = 5.0  # a second, where no --fps is given
HEARTBEAT = 60.0  # seconds: one frame is classified so often, with or without motion
_SAMPLES = 160  # green values that are read along the longer side, about
_CELL = 4  # samples along a cell's side: their mean has half the noise or less
_LEVEL = 10.0  # of 255: a cell differs
_LIGHT = 25.0  # of 255: a change of all cells that is taken for one of the light
_BEGIN, _END = 0.01, 0.004  # of the cells: motion begins, motion may end
_CALM = 2.0  # seconds below _END, then motion has ended
_SETTLE = 10.0  # seconds: time constant of the background

Cells = npt.NDArray[np.float32]


class MotionGate:
    """Decides for each frame whether to classify it.

    calm: seconds without motion until it has ended, 2 at least. heartbeat: seconds
    after which a frame is looked at all the same.
    """

    def __init__(self, calm: float = _CALM, heartbeat: float = HEARTBEAT) -> None:
        self._calm, self._heartbeat = max(calm, _CALM), heartbeat
        self._background: Cells | None = None
        # Times of the last frame, motion and classification
        self._last_frame = 0.0
        self._last_motion = float("-inf")
        self._last_look = float("-inf")
        self.moving = False

    def look(self, frame: Picture, now: float) -> bool:
        """Whether to classify this frame, uint8 RGB [height, width, 3], at `now`
        seconds: the first, those with motion, and one each heartbeat."""
        cells = _cells(frame)
        if self._background is None or self._background.shape != cells.shape:
            self._background = cells
            self.wake(now)
        else:
            change = cells - self._background
            change -= float(np.median(change).clip(-_LIGHT, _LIGHT))
            moved = float((np.abs(change) > _LEVEL).mean())  # fraction of the cells
            if moved >= (_END if self.moving else _BEGIN):
                self.wake(now)
            elif now - self._last_motion > self._calm:
                self.moving = False
            weight = -np.expm1(-max(now - self._last_frame, 0.0) / _SETTLE)
            self._background += np.float32(weight) * (cells - self._background)
        self._last_frame = now
        if self.moving or now - self._last_look >= self._heartbeat:
            self._last_look = now
            return True
        return False

    def wake(self, now: float) -> None:
        """Classify for a while: something moves, or the label is about to change."""
        self.moving, self._last_motion = True, now


def _cells(frame: Picture) -> Cells:
    """Mean green of each cell, float32 [rows, columns]."""
    step = max(round(max(frame.shape[:2]) / _SAMPLES), 1)
    green = frame[::step, ::step, 1]
    height, width = min(_CELL, green.shape[0]), min(_CELL, green.shape[1])  # of a cell
    rows, columns = green.shape[0] // height, green.shape[1] // width
    cells = green[: rows * height, : columns * width]
    cells = cells.reshape(rows, height, columns, width)
    means: Cells = cells.mean((1, 3), dtype=np.float32)
    return means
