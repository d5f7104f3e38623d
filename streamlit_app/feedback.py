"""The review queue on disk: photos to label, and labelled ones.

    FOLDER/
        .queue/<digest>.jpg, .json    waiting, with the prediction and the reason
        <label>/<digest>.jpg          labelled: a photo folder to train with
        .none/<digest>.jpg            shows none of the labels
        .labelled/<digest>.json       the record of a labelled photo

Files are the visitor's bytes unchanged (EXIF included) and named after their content,
so each photo is saved once. Only files of this module are ever moved or removed.
Files have mode 0600, folders 0700: only the server's account can read them.
"""

from __future__ import annotations

import io
import json
import os
import re
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from edge.classifier import Prediction
from edge.errors import EdgegraftError, reason_of
from edge.files import sha256, write_atomic
from edge.preprocess import open_photo

MAX_WAITING = 2000
MAX_BYTES = 2 << 30
MAX_NAME = 200  # bytes of a label or run name; file systems allow 255
# Why a photo is in the queue
UNCERTAIN, UNKNOWN, WRONG = "uncertain", "unknown", "marked wrong"
DEVICE, SENT = "from a device", "sent from Batch"
NONE = ".none"  # in place of a label: the photo shows none of them
# Suffixes of Pillow's formats; the others are named like their format
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "HEIF": ".heic"}
_DIGEST = re.compile(r"[0-9a-f]{24}")


@dataclass(frozen=True)
class Waiting:
    """A photo in the queue. `suggested` is the preselected label."""

    digest: str
    ending: str
    name: str
    why: str
    model: str
    suggested: str | None
    probability: float | None
    ranking: tuple[tuple[str, float], ...]
    added: float


class Feedback:
    """A folder of photos to review; several visitors may use it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._queue = folder / ".queue"
        self._labelled = folder / ".labelled"

    def waiting(self) -> list[Waiting]:
        """The queue, oldest first; damaged records are left out."""
        queue = []
        for path in sorted(self._queue.glob("*.json")):
            with suppress(OSError, ValueError, TypeError, KeyError):
                record = json.loads(path.read_text("utf-8"))
                ranking = tuple((str(k), float(p)) for k, p in record["ranking"])
                waiting = Waiting(**{**record, "ranking": ranking})
                if self.path(waiting).is_file():
                    queue.append(waiting)
        return sorted(queue, key=lambda photo: (photo.added, photo.digest))

    def path(self, waiting: Waiting) -> Path:
        return self._queue / (waiting.digest + waiting.ending)

    def add(
        self,
        content: bytes,
        name: str,
        why: str,
        model: str,
        prediction: Prediction,
        suggested: str | None = None,
    ) -> str | None:
        """Save a photo; its digest, or None when it is here already.

        PhotoError when it cannot be read, EdgegraftError when the queue is full or the
        folder cannot be written.
        """
        digest = sha256(content)[:24]
        if self._is_saved(digest, why):
            return None
        open_photo(content, min_size=(128, 128))  # save only what training can read
        if len(list(self._queue.glob("*.json"))) >= MAX_WAITING:
            raise EdgegraftError(
                f"{self.folder}: the queue is full ({MAX_WAITING:,} photos); label "
                "some first"
            )
        label, probability = prediction.ranking[0]
        record = Waiting(
            digest,
            photo_ending(content),
            name[:200],
            why,
            model,
            suggested or label,
            probability,
            prediction.ranking[:5],
            time.time(),
        )
        new = not (self._queue / f"{digest}.json").exists()
        try:
            private_folder(self._queue)
            full = _size(self._queue) + len(content) > MAX_BYTES
            if not full:
                write_private(self.path(record), content)
                text = json.dumps(asdict(record), ensure_ascii=False)
                write_private(self._queue / f"{digest}.json", text.encode())
        except (OSError, EdgegraftError) as error:
            if new and self._queue.is_dir():
                self.discard(record)  # no photo without its record
            raise EdgegraftError(f"{self.folder}: {reason_of(error)}") from None
        if full:
            raise EdgegraftError(
                f"{self.folder}: the queue is full ({MAX_BYTES >> 30} GB); label "
                "some first"
            )
        return digest

    def label(self, waiting: Waiting, label: str) -> Path:
        """Move a photo to its label's folder; returns its new path."""
        folder = self._of(label)
        target = folder / (waiting.digest + waiting.ending)
        try:
            if not self.path(waiting).is_file():
                raise FileNotFoundError
            private_folder(folder)
            private_folder(self._labelled)
            os.replace(self.path(waiting), target)
            record = self._queue / f"{waiting.digest}.json"
            os.replace(record, self._labelled / record.name)
        except FileNotFoundError:
            raise EdgegraftError(
                f"{waiting.name}: already labelled or removed by another visitor"
            ) from None
        except OSError as error:
            raise EdgegraftError(f"{folder}: {error.strerror or error}") from None
        return target

    def undo(self, waiting: Waiting, label: str) -> None:
        """Move a labelled photo back into the queue."""
        labelled = self._of(label) / (waiting.digest + waiting.ending)
        record = f"{waiting.digest}.json"
        try:
            os.replace(self._labelled / record, self._queue / record)
            os.replace(labelled, self.path(waiting))
        except OSError as error:
            raise EdgegraftError(f"{labelled}: {error.strerror or error}") from None

    def discard(self, *photos: Waiting) -> None:
        """Delete the copies in the queue."""
        for waiting in photos:
            self.path(waiting).unlink(missing_ok=True)
            (self._queue / f"{waiting.digest}.json").unlink(missing_ok=True)

    def labelled(self) -> dict[str, int]:
        """Label to the number of its labelled photos."""
        folders = (path for path in sorted(self.folder.glob("[!.]*")) if path.is_dir())
        counts = {folder.name: _photo_count(folder) for folder in folders}
        return {label: count for label, count in counts.items() if count}

    def negatives(self) -> int:
        """The number of photos that show none of the labels."""
        return _photo_count(self.folder / NONE)

    def _of(self, label: str) -> Path:
        return self.folder / (NONE if label == NONE else folder_name(label))

    def _is_saved(self, digest: str, why: str) -> bool:
        """Here already? A photo marked wrong replaces its record in the queue."""
        name = f"{digest}.json"
        if (self._labelled / name).exists():
            return True
        return why != WRONG and (self._queue / name).exists()


def reason(prediction: Prediction, threshold: float) -> str | None:
    """Why a photo with this answer is worth labelling; None when it is not."""
    if not prediction.known:
        return UNKNOWN
    return UNCERTAIN if prediction.probability < threshold else None


def folder_name(label: str) -> str:
    if not label.strip() or label.startswith(".") or re.search(r"[/\\:\0]", label):
        raise EdgegraftError(
            f"expected a label that can name a folder, got {label!r:.60}"
        )
    if (size := len(label.encode())) > MAX_NAME:
        raise EdgegraftError(
            f"expected a label of at most {MAX_NAME} bytes, got {size}: {label!r:.60}"
        )
    return label


def photo_ending(content: bytes) -> str:
    with Image.open(io.BytesIO(content)) as image:
        kind = image.format or "JPEG"
    return _SUFFIXES.get(kind, f".{kind.lower()}")


def _photo_count(folder: Path) -> int:
    return sum(_DIGEST.fullmatch(path.stem) is not None for path in folder.glob("*"))


def _size(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())


def private_folder(path: Path) -> None:
    """Create a folder and its missing parents, for this account alone."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)


def write_private(path: Path, content: bytes) -> None:
    """Write a file atomically, for this account alone."""

    def write(temporary: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(content)

    write_atomic(path, write)
