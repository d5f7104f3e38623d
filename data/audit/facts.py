"""The facts of photos that an audit judges: measured, held in memory, and cached.

Light and blur are measured on the grey picture at `MEASURED` pixels a side at most,
near the size a network sees: a photo is blurred if it would be blurred there.

`FactStore` holds the facts of many photos in few bytes each. Facts are rows of one
array; thumbnails and keypoints, the bulk, of another, which beyond `IN_MEMORY` bytes is
an unnamed file. So an audit of 100,000 photos keeps their paths, digests, 33 bytes of
facts each, and what is being compared.

`FactCache` keeps facts by content: a second audit decodes only new photos. It is one
SQLite file; the key is the sha256 of the photo's bytes, so moving or renaming a photo
does not matter. Several processes may use the file at once: they wait for each other,
and each version of the facts has its own table (an older one is dropped). A damaged
file is replaced by a new one, one that another process has deleted is opened again;
where it cannot be written, `problem` says why and the audit goes on without.
"""

import io
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from data.audit import keypoints
from data.audit.keypoints import ROW
from data.audit.near_duplicates import Photos
from data.store import Rows, make_store, release
from edge.preprocess import open_photo

THUMB = 96  # pixels of a thumbnail, in both directions
MIN_SIDE = 224  # pixels a side that the decoder must give; an input of 224 shares it
MEASURED = 256  # pixels of the longer side
RADIUS = 4  # pixels of the second blur
ORIENTATION = 0x0112  # the EXIF tag
HEADERS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "HEIF")

IN_MEMORY = 1 << 26  # bytes of thumbnails and keypoints: those of 2,200 photos
# in the order of PhotoFacts; format and mode as indices, since there are few names
FACT_ROW = np.dtype(
    [
        *(("format", "u1"), ("mode", "u1"), ("width", "<u4"), ("height", "<u4")),
        *(("turn", "u1"), ("size", "<u4"), ("low", "u1"), ("high", "u1")),
        *(("deviation", "<f8"), ("blur", "<f8")),
    ]
)
BULK = THUMB * THUMB + ROW[0] * ROW[1]  # bytes of a thumbnail and its keypoints

CACHE_VERSION = 4  # of the facts: a new number when `measure` measures anything else
CACHE_BATCH = 500  # photos that are written at once
MAX_CACHED = 50_000  # 1.5 GB; beyond it, the oldest ones are deleted
PATIENCE = 10.0  # seconds for another process to finish writing; 500 rows take 0.01

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """The facts of one decoded photo.

    format, mode: Pillow's names, of the file as it is stored. width, height: pixels,
    upright. turn: the EXIF orientation, 1 to 8. size: bytes of the file. low, high:
    the 5th and 95th percentile of grey, 0..255; deviation: the standard deviation of
    grey. blur: 0 sharp to 1.
    thumb: THUMB x THUMB grey bytes, the whole photo squeezed into a square. features:
    `data.audit.keypoints`, as bytes; none where OpenCV is not installed.
    """

    format: str
    mode: str
    width: int
    height: int
    turn: int
    size: int
    low: int
    high: int
    deviation: float
    blur: float
    thumb: bytes
    features: bytes = b""


@dataclass(frozen=True)
class Header:
    """What a file declares before it is decoded; zeros where it cannot be read."""

    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    turn: int = 1


def header(data: bytes) -> Header:
    """The header of a photo's bytes; an empty one where decoding will refuse it."""
    try:
        formats = [name for name in HEADERS if name in Image.OPEN]
        with Image.open(io.BytesIO(data), formats=formats) as image:
            turn = 1
            if "exif" in image.info or image.format in ("TIFF", "MPO"):
                turn = image.getexif().get(ORIENTATION, 1)
            if not (isinstance(turn, int) and 1 <= turn <= 8):
                turn = 1
            format = "JPEG" if image.format == "MPO" else str(image.format)
            mode = "transparent P" if "transparency" in image.info else str(image.mode)
            return Header(format, mode, image.width, image.height, turn)
    except Exception:  # Pillow's plugins raise whatever they trip over
        return Header()


def measure(
    data: bytes, image: Image.Image | None = None, *, features: bool = True
) -> PhotoFacts:
    """The facts of a photo's bytes. `image`: the same photo, opened by
    `edge.preprocess`, at least MIN_SIDE a side. PhotoError as `open_photo`."""
    if image is None:
        image = open_photo(data, min_size=(MIN_SIDE, MIN_SIDE))
    head = header(data)
    width, height = head.width or image.width, head.height or image.height
    if head.turn >= 5:
        width, height = height, width
    full = image.convert("L")
    grey = full
    scale = MEASURED / max(full.size)
    if scale < 1:
        size = max(1, round(full.width * scale)), max(1, round(full.height * scale))
        grey = full.resize(size, Image.Resampling.BOX)
    features = features and keypoints.available()
    counts = np.array(grey.histogram(), np.int64)
    cumulative = np.cumsum(counts) / counts.sum()
    levels = np.arange(256)
    mean = float(counts @ levels) / float(counts.sum())
    variance = float(counts @ np.square(levels - mean)) / float(counts.sum())
    return PhotoFacts(
        format=head.format,
        mode=head.mode or "RGB",
        width=width,
        height=height,
        turn=head.turn,
        size=len(data),
        low=int(np.searchsorted(cumulative, 0.05)),
        high=int(np.searchsorted(cumulative, 0.95)),
        deviation=round(variance**0.5, 2),
        blur=round(blur(np.asarray(grey)), 3),
        thumb=full.resize((THUMB, THUMB), Image.Resampling.BOX).tobytes(),
        features=keypoints.detect(full).tobytes() if features else b"",
    )


def blur(grey: np.ndarray) -> float:
    """0 sharp to 1 blurred: how little a second blur would change (Crete et al. 2007,
    "The blur effect"). `grey` is uint8 [H, W]; 0 where it is too small to say."""
    if min(grey.shape) < 4 * RADIUS:
        return 0.0
    blurs = []
    values = grey.astype(np.int16)
    window = 2 * RADIUS + 1
    for lines in (values, values.T):
        steps = np.abs(lines[:, RADIUS + 1 : -RADIUS] - lines[:, RADIUS : -RADIUS - 1])
        # a step of the mean over a window is the step of its ends over its length
        blurred = np.abs(lines[:, window:] - lines[:, :-window])
        lost = steps - blurred.astype(np.float32) / window
        total = float(steps.sum(dtype=np.int64))
        if total > 0:
            blurs.append(1 - float(np.maximum(lost, 0).sum()) / total)
    return max(blurs, default=0.0)


class FactStore(Mapping[Path, PhotoFacts]):
    """At most `capacity` photos; none can be added after the first was read."""

    def __init__(self, capacity: int = 0) -> None:
        self._rows: dict[Path, int] = {}
        self._facts = np.zeros(capacity, FACT_ROW)
        self._names: list[str] = []
        self._store = make_store((capacity, BULK), IN_MEMORY, None)
        self._all: Rows | None = None
        self.comparable = True  # every photo has keypoints, if only none of them

    def add(self, path: Path, facts: PhotoFacts) -> None:
        if self._all is not None:
            raise ValueError("these facts are being read; nothing can be added")
        row = self._rows.setdefault(path, len(self._rows))
        format, mode, *numbers, thumb, features = astuple(facts)
        self._facts[row] = (self._index(format), self._index(mode), *numbers)
        self.comparable = self.comparable and bool(features)
        bulk = thumb + (features or bytes(BULK - THUMB * THUMB))
        self._store.put(row, np.frombuffer(bulk, np.uint8))

    def photos(self, paths: list[Path]) -> Photos:
        """The data to compare these photos by, in this order."""
        rows = np.array([self._rows[path] for path in paths], np.int64)
        facts = self._facts[rows]
        return Photos(
            _Columns(self._bulk(), rows, slice(THUMB * THUMB, None), ROW),
            _Columns(self._bulk(), rows, slice(THUMB * THUMB), (THUMB, THUMB)),
            np.stack([facts["width"], facts["height"]], axis=1),
        )

    def areas(self) -> npt.NDArray[Any]:
        """Pixels of each photo, int64 [N]."""
        facts = self._facts[: len(self._rows)]
        areas: npt.NDArray[Any] = facts["width"].astype(np.int64) * facts["height"]
        return areas

    def __getitem__(self, path: Path) -> PhotoFacts:
        row = self._rows[path]
        format, mode, *numbers = self._facts[row].item()
        bulk = self._bulk()[row].tobytes()
        release(self._all)
        thumb, features = bulk[: THUMB * THUMB], bulk[THUMB * THUMB :]
        numbers += [thumb, features if self.comparable else b""]
        return PhotoFacts(self._names[format], self._names[mode], *numbers)

    def __contains__(self, path: object) -> bool:
        return path in self._rows

    def __iter__(self) -> Iterator[Path]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def _index(self, name: str) -> int:
        if name not in self._names:
            self._names.append(name)
        return self._names.index(name)

    def _bulk(self) -> Rows:
        if self._all is None:
            self._all = self._store.finish(range(len(self._rows)))
        return self._all


@dataclass(frozen=True)
class _Columns:
    """Columns of some rows of an array, copied as needed: uint8 [n, *shape]."""

    array: Rows
    rows: npt.NDArray[np.int64]
    columns: slice
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: Any) -> Rows:
        copied = np.ascontiguousarray(self.array[self.rows[which]][:, self.columns])
        release(self.array)
        return copied.reshape(-1, *self.shape)


class FactCache:
    """Facts, and reasons why there are none. Use it as a context manager.

    `get` may be called from any thread.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.problem = ""
        self._lock = Lock()
        self._new: dict[str, tuple[str, bytes, bytes]] = {}
        self._file: sqlite3.Connection | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._opened()
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def get(self, sha256: str) -> PhotoFacts | str | None:
        """The cached facts of a photo, the reason why there are none, or None."""

        def query(file: sqlite3.Connection) -> PhotoFacts | str | None:
            row = file.execute(
                f"select facts, thumb, features from {_cache_table()} where sha256 = ?",
                (sha256,),
            ).fetchone()
            if row is None:
                return None
            facts = json.loads(row[0])
            if isinstance(facts, str):
                return facts
            if keypoints.available() and not row[2]:
                return None  # cached when OpenCV was not installed
            return PhotoFacts(**facts, thumb=row[1], features=row[2])

        with self._lock:
            return self._tried(query)

    def put(self, sha256: str, facts: PhotoFacts | str) -> None:
        """Cache facts, or the reason why there are none."""
        if isinstance(facts, str):
            self._new[sha256] = (json.dumps(facts), b"", b"")
        else:
            record = asdict(facts)
            thumb, features = record.pop("thumb"), record.pop("features")
            self._new[sha256] = (json.dumps(record), thumb, features)
        if len(self._new) >= CACHE_BATCH:
            self._write()

    def _write(self) -> None:
        rows = [(sha256, *row) for sha256, row in self._new.items()]
        self._new.clear()

        def insert(file: sqlite3.Connection) -> None:
            with file:
                file.executemany(
                    f"insert or replace into {_cache_table()} values (?, ?, ?, ?)", rows
                )
                file.execute(
                    f"delete from {_cache_table()} where rowid <= "
                    f"(select max(rowid) from {_cache_table()}) - {MAX_CACHED}"
                )

        with self._lock:
            self._tried(insert)

    def _tried(self, work: Callable[[sqlite3.Connection], Result]) -> Result | None:
        """work(file), and once more with the file opened again, since another process
        may have deleted it or its table; None after the second failure."""
        for last in (False, True):
            if self._file is None:
                return None
            try:
                return work(self._file)
            except (sqlite3.Error, ValueError, TypeError) as error:
                if last or "locked" in str(error):
                    self._give_up(error)
                    return None
            try:
                self._file.close()
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._opened()
            except (OSError, sqlite3.Error) as error:
                self._give_up(error)
        return None

    def _opened(self) -> sqlite3.Connection:
        try:
            return self._connected()
        except sqlite3.OperationalError:  # locked, read only, no space
            raise
        except sqlite3.DatabaseError:  # not such a file
            # A journal left behind would be played back into the new file
            Path(f"{self.path}-journal").unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
            return self._connected()

    def _connected(self) -> sqlite3.Connection:
        file = sqlite3.connect(self.path, timeout=PATIENCE, check_same_thread=False)
        try:
            tables = file.execute(
                "select name from sqlite_master where type = 'table'"
            ).fetchall()
            older = set(map(_cache_table, range(CACHE_VERSION)))
            for old in {name for (name,) in tables} & older:
                file.execute(f"drop table if exists {old}")
            file.execute(
                f"create table if not exists {_cache_table()} "
                "(sha256 text primary key, facts text, thumb blob, features blob)"
            )
            file.execute(
                f"select sha256, facts, thumb, features from {_cache_table()}"
            ).fetchone()
        except sqlite3.Error:
            file.close()
            raise
        return file

    def _give_up(self, error: Exception) -> None:
        self.problem = f"{self.path}: {getattr(error, 'strerror', None) or error}"
        if self._file is not None:
            with suppress(sqlite3.Error):
                self._file.close()
        self._file = None

    def close(self) -> None:
        """Write what is new and close the file."""
        self._write()
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = None

    def __enter__(self) -> "FactCache":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _cache_table(version: int | None = None) -> str:
    return f"looks_{CACHE_VERSION if version is None else version}"
