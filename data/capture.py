"""Photos from a webcam, Pi camera or video file, into a folder per label.

A frame is taken every few seconds or when a key is pressed, and kept when it is sharp,
also of a scene that does not change: what differs may be small. All frames of one
session share a group, which `captured.csv` beside the label folders records: give that
list to `data split` or `build`, and a session stays on one side of the split. No file
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

from data.audit.checks import BLURRED
from data.audit.facts import LEAST_SIDE, measure
from data.photos import CAPTURED, PARTS, REGION_COLUMN, clean_label
from edge.camera.sources import Source
from edge.errors import EdgegraftError
from edge.files import write_atomic
from edge.preprocess import open_photo
from edge.region import Region, in_shares, region_text
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
        """Keep a frame, uint8 RGB [H, W, 3], or not: "kept" or "blurred".

        The whole frame is kept; whether it is sharp is judged in the region.
        """
        out = io.BytesIO()
        image = Image.fromarray(frame)
        image.save(out, "JPEG", quality=QUALITY)
        seen = None
        if self.region is not None:
            self.region = in_shares(self.region, image.size)
            least = (LEAST_SIDE, LEAST_SIDE)
            seen = open_photo(out.getvalue(), least=least, region=self.region)
        if not self.kept:
            self._refuse_other_region()
        facts = measure(out.getvalue(), seen, features=False)
        if facts.blur > BLURRED:
            self.blurred += 1
            return "blurred"
        self.kept += 1
        self._write(out.getvalue())
        return "kept"

    def _refuse_other_region(self) -> None:
        """EdgegraftError where photos that are there have another region."""
        listed = self.folder / LIST
        try:
            with open(listed, encoding="utf-8", newline="") as file:
                row = next(csv.DictReader(file), None)
        except OSError:
            return
        before = "" if row is None else row.get(REGION_COLUMN) or ""
        if row is not None and before != self._region_text:
            raise EdgegraftError(
                f"--region: expected {before or 'none'} as for the photos in "
                f"{printable(listed)}, got {self._region_text or 'none'}; capture into "
                "another folder, or give it to build"
            )

    @property
    def _region_text(self) -> str:
        return "" if self.region is None else region_text(self.region)

    def _free(self) -> Path:
        """A name in the label's folder that no file has."""
        number = self.kept
        while True:
            path = self.folder / self.label / f"{self.group}-{number:04}.jpg"
            if not os.path.lexists(path):
                return path
            number += 1

    def _write(self, data: bytes) -> None:
        listed = self.folder / LIST
        try:
            path = self._free()
            write_atomic(path, data)
            new = not listed.exists()
            with open(listed, "a", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                marked = self.region is not None
                if new:
                    writer.writerow((*COLUMNS, *[REGION_COLUMN] * marked))
                inside = path.relative_to(self.folder).as_posix()
                row = (inside, self.label, self.group)
                writer.writerow((*row, *[self._region_text] * marked))
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
    most: int | None = None,
    session: str | None = None,
    region: Region | None = None,
    report: Callable[[Session, str], None] | None = None,
) -> Session:
    """Take frames until there are no more, `most` are kept, or Ctrl-C ends it.

    `session` names the group; by default the label and the time of the start. `region`:
    the part of each frame that the model is to look at; whole frames are kept, and the
    region is noted in the list, from which `build` takes it.
    `report(session, outcome)` is called after each frame.
    """
    label = clean_label(label, "--label")
    if label in (".", "..") or "/" in label or "\\" in label:
        raise EdgegraftError(f"--label: expected a folder's name, got {label!r}")
    group = session or f"{label}-{time.strftime('%Y%m%d-%H%M%S')}"
    taken = Session(Path(folder), label, group, region)
    with suppress(KeyboardInterrupt):
        for frame in frames:
            outcome = taken.take(frame)
            if report is not None:
                report(taken, outcome)
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


def what_next(folder: str | os.PathLike[str]) -> str:
    """The command that comes after, or what is missing for it.

    A session stays on one side of the split, so that each part needs one of its own.
    """
    listed = Path(folder) / LIST
    with open(listed, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        sessions = {(row.get("label") or "", row.get("group")) for row in rows}
    each = Counter(label for label, _ in sessions)
    if len(each) > 1 and min(each.values()) >= len(PARTS):
        return f"next: edgegraft build {printable(listed)}"
    so_far = ", ".join(f"{printable(label)} {each[label]}" for label in sorted(each))
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
        for number in count():
            picture = source.read()
            if picture is None:
                return
            live = source.live or not rate
            now = time.monotonic() - started if live else number / rate
            if now >= due:
                due = now + every
                yield picture


def frames_on_key(source: Source, keys: int) -> Iterator[Frame]:
    """A frame for each key that is pressed; q, or the end of the keys, is the end.

    `keys`: the file descriptor that they come from. A terminal gives every key at once;
    from elsewhere each byte counts as a key. The source is read all the while, so that
    a frame is never older than the key.
    """
    with closing(source), _each_key(keys):
        source.open()
        while (picture := source.read()) is not None:
            if not select.select([keys], [], [], 0)[0]:
                continue
            pressed = os.read(keys, 1)
            if pressed in (b"", b"q", b"Q"):
                return
            yield picture


@contextmanager
def _each_key(keys: int) -> Iterator[None]:
    """Keys without waiting for Enter, where they come from a terminal."""
    if not os.isatty(keys):
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(keys)
    tty.setcbreak(keys)
    try:
        yield
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)
