"""Photos from a webcam, Pi camera or video file, into a folder per label.

A frame is taken every few seconds or when a key is pressed, and kept when it is sharp,
also of a scene that does not change: the differences may be small. All frames of one
session share a group, which `captured.csv` beside the label folders records: `data
split` and `build` take that list and keep a session on one side of the split. No file
is ever replaced.
"""

import csv
import io
import os
import select
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from data.audit.facts import MIN_SIDE, measure
from data.audit.findings import BLURRED
from data.photos import CAPTURED, PARTS, REGION_COLUMN, clean_label
from edge.camera.sources import Source
from edge.errors import EdgegraftError
from edge.files import write_atomic
from edge.preprocess import open_photo
from edge.region import Region, as_fractions, region_text
from edge.text import printable

LIST = CAPTURED
COLUMNS = ("path", "label", "group")
QUALITY = 92  # of the JPEG files

Frame = npt.NDArray[np.uint8]  # RGB [H, W, 3]


@dataclass
class Session:
    """What was taken under one label in one go."""

    folder: Path
    label: str
    group: str
    region: Region | None = None
    kept: int = 0
    blurred: int = 0

    def take(self, frame: Frame) -> str:
        """Keep a frame, uint8 RGB [H, W, 3], unless it is blurred: "kept" or "blurred".

        The whole frame is kept; sharpness is measured in the region.
        """
        buffer = io.BytesIO()
        image = Image.fromarray(frame)
        image.save(buffer, "JPEG", quality=QUALITY)
        data = buffer.getvalue()
        part = None
        if self.region is not None:
            self.region = as_fractions(self.region, image.size)
            least = (MIN_SIDE, MIN_SIDE)
            part = open_photo(data, min_size=least, region=self.region)
        if not self.kept:
            self._refuse_other_region()
        if measure(data, part, features=False).blur > BLURRED:
            self.blurred += 1
            return "blurred"
        self.kept += 1
        self._write(data)
        return "kept"

    def _refuse_other_region(self) -> None:
        """EdgegraftError where earlier photos in the folder have another region."""
        path = self.folder / LIST
        try:
            with open(path, encoding="utf-8", newline="") as file:
                row = next(csv.DictReader(file), None)
        except OSError:
            return
        if row is None:
            return
        earlier = row.get(REGION_COLUMN) or ""
        if earlier != self._region_text:
            raise EdgegraftError(
                f"--region: expected {earlier or 'none'} as for the photos in "
                f"{printable(path)}, got {self._region_text or 'none'}; capture into "
                "another folder, or give it to build"
            )

    @property
    def _region_text(self) -> str:
        return "" if self.region is None else region_text(self.region)

    def _write(self, data: bytes) -> None:
        """Write the photo under a name that no file has, and add it to the list."""
        manifest = self.folder / LIST
        names = (f"{self.label}/{self.group}-{k:04}.jpg" for k in count(self.kept))
        try:
            name = next(n for n in names if not os.path.lexists(self.folder / n))
            write_atomic(self.folder / name, data)
            columns, row = [*COLUMNS], [name, self.label, self.group]
            if self.region is not None:
                columns.append(REGION_COLUMN)
                row.append(self._region_text)
            new = not manifest.exists()
            with open(manifest, "a", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                if new:
                    writer.writerow(columns)
                writer.writerow(row)
        except OSError as error:
            raise EdgegraftError(
                f"{printable(self.folder)}: expected a place to write photos to, got: "
                f"{error.strerror}"
            ) from None


def collect(
    frames: Iterable[Frame],
    folder: str | os.PathLike[str],
    label: str,
    *,
    max_photos: int | None = None,
    session: str | None = None,
    region: Region | None = None,
    report: Callable[[Session, str], None] | None = None,
) -> Session:
    """Take frames until there are no more, `max_photos` are kept, or Ctrl-C ends it.

    `session` names the group; by default the label and the time of the start. `region`:
    the part of each frame that the model will use; whole frames are kept, and the
    region is recorded in the list, from which `build` takes it.
    `report(session, outcome)` is called after each frame.
    """
    label = clean_label(label, "--label")
    if label in (".", "..") or "/" in label or "\\" in label:
        raise EdgegraftError(f"--label: expected a folder's name, got {label!r}")
    group = session or f"{label}-{time.strftime('%Y%m%d-%H%M%S')}"
    current = Session(Path(folder), label, group, region)
    with suppress(KeyboardInterrupt):
        for frame in frames:
            outcome = current.take(frame)
            if report is not None:
                report(current, outcome)
            if max_photos is not None and current.kept >= max_photos:
                break
    return current


def counts(folder: str | os.PathLike[str]) -> dict[str, int]:
    """Photos in each label folder."""
    return {
        path.name: sum(1 for photo in path.iterdir() if photo.suffix == ".jpg")
        for path in sorted(Path(folder).iterdir())
        if path.is_dir()
    }


def what_next(folder: str | os.PathLike[str]) -> str:
    """The next command, or what is missing for it.

    A session stays on one side of the split, so that each part needs one of its own.
    """
    path = Path(folder) / LIST
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        sessions = {(row.get("label") or "", row.get("group")) for row in rows}
    counts = Counter(label for label, _ in sessions)
    if len(counts) > 1 and min(counts.values()) >= len(PARTS):
        return f"next: edgegraft build {printable(path)}"
    so_far = ", ".join(f"{printable(label)} {n}" for label, n in sorted(counts.items()))
    return (
        f"next: two labels or more, each in {len(PARTS)} sessions or more, at another "
        "time or place, since a session stays on one side of the split; so far "
        f"{so_far}"
    )


def frames(source: Source, every: float) -> Iterator[Frame]:
    """Frames of a camera or a video file, `every` seconds apart.

    EdgegraftError where `every` is not above 0 or the source cannot be opened.
    """
    if not every > 0:
        raise EdgegraftError(f"--every: expected seconds above 0, got {every}")
    with closing(source):
        source.open()
        rate = getattr(source, "rate", 0.0)  # of a video file, which has its own time
        due, started = 0.0, time.monotonic()
        for index in count():
            frame = source.read()
            if frame is None:
                return
            live = source.live or not rate
            now = time.monotonic() - started if live else index / rate
            if now >= due:
                due = now + every
                yield frame


def frames_on_key(source: Source, keys: int) -> Iterator[Frame]:
    """A frame for each key that is pressed, until q or the end of the keys.

    `keys`: a file descriptor, a terminal or any other, of which each byte is a key. The
    source is read continuously, so that a frame is never older than the key.
    """
    with closing(source), _unbuffered(keys):
        source.open()
        while (frame := source.read()) is not None:
            if not select.select([keys], [], [], 0)[0]:
                continue
            if os.read(keys, 1) in (b"", b"q", b"Q"):
                return
            yield frame


@contextmanager
def _unbuffered(keys: int) -> Iterator[None]:
    """Keys without waiting for Enter, where they come from a terminal."""
    if not os.isatty(keys):
        yield
        return
    import termios
    import tty

    attributes = termios.tcgetattr(keys)
    tty.setcbreak(keys)
    try:
        yield
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, attributes)
