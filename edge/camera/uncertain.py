"""Frames with an uncertain prediction, kept in a folder of bounded size.

They are the photos worth labelling next. Only files that this module wrote
(``uncertain-*.jpg``) are ever counted or deleted, the oldest first.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from PIL import Image

from edge.camera.sources import Picture
from edge.classifier import Prediction
from edge.errors import EdgegraftError

EVERY = 1.0  # seconds between two saved frames
AFTER_ERROR = 60.0  # seconds until a full disk is tried again
_SAVED = re.compile(r"uncertain-\d{8}-\d{6}-\d{3}-.*\.jpg")
_QUALITY = 90


class UncertainFrames:
    """Saves a frame that is unknown or less probable than `below`.

    `limit` is in bytes. EdgegraftError when the folder cannot be written to.
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
        self._not_before = now + EVERY
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
            self._not_before = now + AFTER_ERROR
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
