"""Photos from a webcam or a video file, into a folder per label.

A frame is kept when it is sharp and looks unlike the last ones kept. All frames of one
session share a group, which `captured.csv` beside the label folders records: give that
list to `data split` or `build`, and a session stays on one side of the split.

It does not know labels beyond the one it is given, and nothing of Pi cameras.
"""

import csv
import io
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from data import alike
from data.checks import BLURRED
from data.folder import clean_label
from data.look import look_at
from data.walk import shown
from edge.errors import EdgegraftError

LIST = "captured.csv"
COLUMNS = ("path", "label", "group")
REMEMBERED = 20  # kept frames that a new one must differ from
QUALITY = 92  # of the JPEG files

Frame = npt.NDArray[np.uint8]  # RGB [H, W, 3]


@dataclass
class Session:
    """What was taken under one label in one go."""

    folder: Path
    label: str
    group: str
    kept: int = 0
    blurred: int = 0
    alike: int = 0
    last: deque[bytes] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def take(self, frame: Frame) -> str:
        """Keep a frame, uint8 RGB [H, W, 3], or not: "kept", "blurred" or "alike"."""
        out = io.BytesIO()
        Image.fromarray(frame).save(out, "JPEG", quality=QUALITY)
        look = look_at(out.getvalue())
        if look.blur > BLURRED:
            self.blurred += 1
            return "blurred"
        if self._seen(look.thumb):
            self.alike += 1
            return "alike"
        self.last.append(look.thumb)
        self.kept += 1
        self._write(out.getvalue())
        return "kept"

    def _seen(self, thumb: bytes) -> bool:
        side = (alike.SIDE, alike.SIDE)
        thumbs = [np.frombuffer(t, np.uint8).reshape(side) for t in (thumb, *self.last)]
        return any(pair.first == 0 for pair in alike.pairs(np.stack(thumbs)))

    def _write(self, data: bytes) -> None:
        path = self.folder / self.label / f"{self.group}-{self.kept:04}.jpg"
        listed = self.folder / LIST
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.part")
            temporary.write_bytes(data)
            os.replace(temporary, path)
            new = not listed.exists()
            with open(listed, "a", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                if new:
                    writer.writerow(COLUMNS)
                inside = path.relative_to(self.folder).as_posix()
                writer.writerow((inside, self.label, self.group))
        except OSError as error:
            raise EdgegraftError(
                f"{shown(self.folder)}: expected a place to write photos to, got: "
                f"{error.strerror}"
            ) from None


def collect(
    frames: Iterable[Frame],
    folder: str | os.PathLike[str],
    label: str,
    *,
    most: int | None = None,
    session: str | None = None,
    told: Callable[[Session, str], None] | None = None,
) -> Session:
    """Take frames until there are no more, or `most` are kept.

    `session` names the group; by default the label and the time of the start.
    `told(session, what)` is called after each frame.
    """
    label = clean_label(label, "--label")
    if label in (".", "..") or "/" in label or "\\" in label:
        raise EdgegraftError(f"--label: expected a folder's name, got {label!r}")
    group = session or f"{label}-{time.strftime('%Y%m%d-%H%M%S')}"
    taken = Session(Path(folder), label, group)
    for frame in frames:
        what = taken.take(frame)
        if told is not None:
            told(taken, what)
        if most is not None and taken.kept >= most:
            break
    return taken


def counts(folder: str | os.PathLike[str]) -> dict[str, int]:
    """Photos in each label folder."""
    return {
        path.name: sum(1 for photo in path.iterdir() if photo.suffix == ".jpg")
        for path in sorted(Path(folder).iterdir())
        if path.is_dir()
    }


def frames(source: str, every: float) -> Iterator[Frame]:
    """Frames of a webcam ("0", "1", ...) or a video file, `every` seconds apart.

    EdgegraftError where OpenCV is not installed or the source cannot be opened.
    """
    if not every > 0:
        raise EdgegraftError(f"--every: expected seconds above 0, got {every}")
    try:
        import cv2
    except ImportError:
        raise EdgegraftError(
            "expected OpenCV to read a camera, got none; "
            "pip install 'edgegraft[camera]'"
        ) from None
    camera = source.isdecimal()
    video = cv2.VideoCapture(int(source) if camera else source)
    try:
        if not video.isOpened():
            raise EdgegraftError(
                f"{shown(source)}: expected a camera's number or a video file, got "
                "nothing that can be opened"
            )
        due = 0.0
        started = time.monotonic()
        while True:
            whole, picture = video.read()
            if not whole:
                return
            now = (
                time.monotonic() - started
                if camera
                else video.get(cv2.CAP_PROP_POS_MSEC) / 1000
            )
            if now >= due:
                due = now + every
                yield np.ascontiguousarray(picture[:, :, ::-1])
    finally:
        video.release()
