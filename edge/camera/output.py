"""What becomes of each frame's prediction: smoothed, then written, shown or saved.

Predictions are written as one updating line, lines of changes, JSON lines or CSV; a
window shows them beside the frames; uncertain frames are kept in a folder.
"""

from __future__ import annotations

import math
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TextIO

import numpy as np
from PIL import Image

from edge.camera.sources import Picture
from edge.classifier import FAMILIARITY, PROBABILITIES, Floats, Prediction
from edge.errors import EdgegraftError
from edge.text import csv_cell, json_text

_LARGEST = (960, 720)  # pixels of the picture in the window
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")
_SAVE_EVERY = 1.0  # seconds between two saved frames
_AFTER_ERROR = 60.0  # seconds until a full disk is tried again
_SAVED = re.compile(r"uncertain-\d{8}-\d{6}-\d{3}-.*\.jpg")
_QUALITY = 90  # of a saved JPEG


class TemporalSmoother:
    """One prediction from many frames: averaged over time, held against flicker.

    The outputs of `Classifier.run` go through an exponential moving average whose
    weight follows from the time between frames, w = 1 - exp(-dt / seconds), so the
    result does not depend on the frame rate. The label changes only after another one
    has been first for `hold` seconds.

    to_prediction: makes a `Prediction` of probabilities, float32 [L], and familiarity.
    seconds: time constant of the average; 0 switches it off. hold: seconds.
    """

    def __init__(
        self,
        to_prediction: Callable[[Floats, float | None], Prediction],
        seconds: float = 0.0,
        hold: float = 0.0,
    ) -> None:
        self._to_prediction = to_prediction
        self._seconds, self._hold = seconds, hold
        self._average: Floats | None = None
        self._last = 0.0
        self._label: str | None = None
        self._candidate: str | None = None
        self._candidate_since = 0.0

    def update(
        self, outputs: dict[str, Floats], now: float
    ) -> tuple[Prediction, str, bool]:
        """One frame at `now` (seconds): the averaged prediction, the label that is
        held, and whether that label has just changed."""
        values = outputs[PROBABILITIES][0]
        if FAMILIARITY in outputs:
            values = np.append(values, outputs[FAMILIARITY][0])
        if self._average is None or self._seconds <= 0:
            self._average = values.astype(np.float32)
        else:
            elapsed = max(now - self._last, 0.0)
            weight = np.float32(-math.expm1(-elapsed / self._seconds))
            self._average = self._average + weight * (values - self._average)
        self._last = now
        probabilities, familiarity = self._average, None
        if FAMILIARITY in outputs:
            probabilities, familiarity = self._average[:-1], float(self._average[-1])
        prediction = self._to_prediction(probabilities, familiarity)
        return prediction, *self._held(prediction.label, now)

    def _held(self, label: str, now: float) -> tuple[str, bool]:
        if label == self._label:
            self._candidate = None
            return label, False
        if label != self._candidate:
            self._candidate, self._candidate_since = label, now
        if self._label is None or now - self._candidate_since >= self._hold:
            self._label, self._candidate = label, None
            return label, True
        return self._label, False


class FrameResult(NamedTuple):
    """One frame's result: `label` is the one held, `prediction` the averaged one, `own`
    this frame's alone.

    seconds: position in a video file, or time since the start.
    """

    number: int
    seconds: float
    label: str
    changed: bool
    prediction: Prediction
    own: Prediction
    prepare_ms: float
    inference_ms: float

    @property
    def reported(self) -> Prediction:
        """The prediction for readers of changes alone. At a change the average has only
        just turned, so the frame's own is reported."""
        turned = self.changed and self.own.label == self.label
        return self.own if turned else self.prediction


class LineWriter:
    """One line that is written over on a terminal; in a pipe a line for each change."""

    def __init__(self, out: TextIO, events: bool) -> None:
        self._out, self._events = out, events
        self._live = out.isatty() and not events
        self._last = -1.0
        self._rate = 0.0

    def write(self, result: FrameResult) -> None:
        prediction = result.prediction if self._live else result.reported
        percent = f"{prediction.probability:6.1%}" if prediction.known else "     -"
        if self._live:
            interval = result.seconds - self._last
            if self._last >= 0 and interval > 0:
                self._rate += 0.1 * (1 / interval - self._rate)
            self._last = result.seconds
            self._print(f"\r\033[K{result.label}  {percent}  {self._rate:.1f} fps")
        elif result.changed:
            self._print(f"{clock()}  {result.label}  {percent}\n")

    def end(self) -> None:
        if self._live and self._last >= 0:
            self._print("\n")

    def _print(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()  # a pipe's reader should not wait for a full block


class JsonLinesWriter(LineWriter):
    """One JSON object a line."""

    def write(self, result: FrameResult) -> None:
        if self._events and not result.changed:
            return
        prediction = result.reported if self._events else result.prediction
        familiarity = prediction.familiarity
        record = {
            "time": clock(),
            "seconds": round(result.seconds, 3),
            "frame": result.number,
            "label": result.label,
            "changed": result.changed,
            "probability": round(prediction.probability, 6),
            "known": prediction.known,
            "familiarity": None if familiarity is None else round(familiarity, 6),
            "ranking": [
                {"label": label, "probability": round(probability, 6)}
                for label, probability in prediction.ranking
            ],
            "prepare_ms": round(result.prepare_ms, 3),
            "inference_ms": round(result.inference_ms, 3),
        }
        self._print(json_text(record) + "\n")

    def end(self) -> None:
        pass


class CsvWriter(JsonLinesWriter):
    """A header, then one row a frame."""

    def __init__(self, out: TextIO, events: bool) -> None:
        import csv

        super().__init__(out, events)
        self._rows = csv.writer(out, lineterminator="\n")
        names = ["time", "seconds", "frame", "label", "changed", "probability"]
        names += ["known", "familiarity", "prepare_ms", "inference_ms"]
        self._rows.writerow(names)

    def write(self, result: FrameResult) -> None:
        if self._events and not result.changed:
            return
        prediction = result.reported if self._events else result.prediction
        familiarity = prediction.familiarity
        self._rows.writerow(
            (
                clock(),
                f"{result.seconds:.3f}",
                result.number,
                csv_cell(result.label),
                str(result.changed).lower(),
                f"{prediction.probability:.6f}",
                str(prediction.known).lower(),
                "" if familiarity is None else f"{familiarity:.6g}",
                f"{result.prepare_ms:.3f}",
                f"{result.inference_ms:.3f}",
            )
        )
        self._out.flush()


def clock() -> str:
    """Now, UTC, to the millisecond (RFC 3339)."""
    now = time.time()
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    return f"{seconds}.{int(now % 1 * 1000):03}Z"


class Preview:
    """A window: the frames as the model gets them, not mirrored, and a line below.

    Tk, which comes with Python, so OpenCV's headless build is enough for the rest.
    EdgegraftError where there is no display.
    """

    def __init__(self, title: str) -> None:
        if sys.platform == "linux" and not any(map(os.environ.get, _DISPLAYS)):
            raise EdgegraftError(
                "--preview: expected a display, found none ($DISPLAY is empty); run it "
                "on the desktop (over the network: ssh -X), or leave --preview out"
            )
        try:
            import tkinter

            from PIL import ImageTk
        except ImportError as error:
            raise EdgegraftError(
                f"--preview: no window can be made ({error}); run: sudo apt install "
                "python3-tk python3-pil.imagetk"
            ) from None
        try:
            self._window = tkinter.Tk()
        except tkinter.TclError as error:
            raise EdgegraftError(f"--preview: {error}") from None
        self._photo_of = ImageTk.PhotoImage
        self._photo: Any = None  # Tk does not keep it
        self._open = True
        self._window.title(title)
        self._window.protocol("WM_DELETE_WINDOW", self._stop)
        self._label = tkinter.Label(
            self._window, compound="top", font=("TkDefaultFont", 20)
        )
        self._label.pack()

    def show(self, frame: Picture, text: str) -> bool:
        """A frame, uint8 RGB [height, width, 3], and a line; False once closed."""
        if self._open:
            image = Image.fromarray(frame)
            image.thumbnail(_LARGEST)
            self._photo = self._photo_of(image, master=self._window)
            self._label.configure(image=self._photo, text=text)
            self._window.update()
        return self._open

    def close(self) -> None:
        self._open = False
        self._window.destroy()

    def _stop(self) -> None:
        self._open = False


class UncertainFrames:
    """Keeps frames that are unknown or less probable than `below`: the photos worth
    labelling next.

    The folder takes `limit` bytes at most. Only files that this class wrote
    (``uncertain-*.jpg``) are ever counted or deleted, the oldest first.
    EdgegraftError when the folder cannot be written to.
    """

    def __init__(
        self, folder: str, below: float, limit: int, note: Callable[[str], None]
    ) -> None:
        self._folder, self._below, self._limit, self._note = folder, below, limit, note
        try:
            os.makedirs(folder, exist_ok=True)
            names = sorted(filter(_SAVED.fullmatch, os.listdir(folder)))
            sizes = [os.path.getsize(os.path.join(folder, name)) for name in names]
        except FileExistsError:
            raise EdgegraftError(f"{folder}: expected a folder, got a file") from None
        except OSError as error:
            raise EdgegraftError(f"{folder}: {error.strerror or error}") from None
        if not os.access(folder, os.W_OK):
            raise EdgegraftError(f"{folder}: permission denied, cannot save frames")
        self._files = deque(zip(names, sizes, strict=True))
        self._bytes = sum(sizes)
        self._not_before = -1.0
        self.saved = 0
        self._make_room(0)

    def save_if_uncertain(
        self, frame: Picture, prediction: Prediction, now: float
    ) -> None:
        """Keep the frame if its own prediction is uncertain and none was kept just
        now."""
        certain = prediction.known and prediction.probability >= self._below
        if certain or now < self._not_before:
            return
        self._not_before = now + _SAVE_EVERY
        label = re.sub(r"[^\w-]+", "_", prediction.ranking[0][0])[:40]
        seconds = time.time()
        timestamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(seconds))
        timestamp += f"-{int(seconds * 1000) % 1000:03}"
        name = f"uncertain-{timestamp}-{label}-{prediction.probability:.2f}.jpg"
        path = os.path.join(self._folder, name)
        partial = path + ".part"
        try:
            with open(partial, "wb") as file:
                Image.fromarray(frame).save(file, "JPEG", quality=_QUALITY)
            size = os.path.getsize(partial)
            self._make_room(size)
            os.replace(partial, path)
        except OSError as error:  # a full disk must not end the classifier
            self._not_before = now + _AFTER_ERROR
            self._note(f"{self._folder}: {error.strerror or error}; frame not saved")
            with suppress(OSError):
                os.unlink(partial)
            return
        self._files.append((name, size))
        self._bytes += size
        self.saved += 1

    def _make_room(self, size: int) -> None:
        while self._files and self._bytes + size > self._limit:
            name, old_size = self._files.popleft()
            self._bytes -= old_size
            with suppress(FileNotFoundError):  # already taken away
                os.unlink(os.path.join(self._folder, name))
