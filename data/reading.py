"""One parallel pass over photo files: bytes, digest, pixels, or the reason why not.

Each file is read once, so the sha256 is of the very bytes that were decoded. Threads
do it, because Pillow and hashlib release Python's lock. Each takes the next photo,
passes its pixels on itself and reports a few times a second: a task for each photo,
with the caller's thread woken for each, took a tenth longer. Readings are yielded in
the order of the paths. Pixels are never queued, so memory stays bounded; photos of more
than `LARGE_PIXELS` are decoded one at a time.
"""

import hashlib
import os
import stat
import warnings
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from data.audit.facts import MIN_SIDE, FactCache, PhotoFacts, header, measure
from edge.errors import EdgegraftError, PhotoError
from edge.preprocess import (
    FULL,
    InputRecipe,
    deep_white,
    fit,
    load_pixels,
    open_for,
    open_photo,
)
from edge.runtime import cores

if TYPE_CHECKING:
    from data.cache import PixelCache

MAX_BYTES = 1 << 30  # beyond what edge's limit of pixels takes uncompressed, 16 bits
LARGE_PIXELS = 24_000_000  # about 100 MB while it is decoded
SMALL_BYTES = 1 << 16  # a smaller file with so many pixels is all but blank
JPEG_TAIL = 1 << 16  # bytes in which a JPEG's end is looked for; cameras add to it
EIGHT_BIT = (".jpg", ".jpeg")  # files that hold 8 bits a channel
DEPTH_BATCH = 64  # photos after which the highest level is checked
TIME_SLICE = 0.05  # seconds that a worker reads before it reports

OnPixels = Callable[[int, npt.NDArray[np.uint8]], None]

_large = Lock()


@dataclass(frozen=True)
class Reading:
    """One file: what was read from it, or the `reason` why not.

    `sha256` is empty where the file could not be read at all. `facts`: with
    `with_facts`. `is_cached`: it has nothing new for the fact cache. `missing`: the
    fraction of rows that a cut off JPEG lacks.
    """

    path: Path
    sha256: str = ""
    reason: str = ""
    facts: PhotoFacts | None = None
    is_cached: bool = False
    missing: float | None = None

    @property
    def cacheable(self) -> bool:
        """New, and a property of the bytes, not of the machine's free memory."""
        return bool(self.sha256 and not self.is_cached and "memory" not in self.reason)


def read(
    paths: Sequence[Path],
    recipe: InputRecipe | None = None,
    on_pixels: OnPixels | None = None,
    *,
    with_facts: bool = False,
    white: int = FULL,
    fact_cache: FactCache | None = None,
    cache: "PixelCache | None" = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Generator[Reading, None, None]:
    """Read and decode `paths`, in that order. A file that fails never raises.

    With a `recipe`, `on_pixels(index in paths, uint8 [H, W, 3])` is called with each
    photo's pixels, in any order and from many threads; what it raises ends the pass.
    `with_facts` returns facts as well, with `white` as that of 16-bit photos. Facts in
    `fact_cache` are not measured again, pixels in `cache` not decoded again; new ones
    are added.

    `progress(done, total)` is called in the caller's thread.
    """
    workers = cores() if workers is None else workers
    if workers < 1:
        raise EdgegraftError(f"workers: expected 1 or more, got {workers}")
    if (white if recipe is None else recipe.white) != FULL:
        fact_cache = None  # its facts are those of the usual white
    # Pillow warns of damaged tags and of sizes well within edge's own limit.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    indices, indices_lock = iter(range(len(paths))), Lock()

    def read_some() -> list[tuple[int, Reading]]:
        deadline = monotonic() + TIME_SLICE
        readings: list[tuple[int, Reading]] = []
        while True:
            with indices_lock:
                index = next(indices, None)
            if index is None:
                return readings
            put = None if on_pixels is None else partial(on_pixels, index)
            reading = _read_one(
                paths[index], recipe, put, with_facts, white, fact_cache, cache
            )
            readings.append((index, reading))
            if monotonic() > deadline:
                return readings

    pool = ThreadPoolExecutor(workers, thread_name_prefix="photos")
    ready: dict[int, Reading] = {}
    done = 0
    try:
        running = {pool.submit(read_some) for _ in range(workers)}
        while done < len(paths):
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for readings in [future.result() for future in finished]:
                ready.update(readings)
                if readings:
                    running.add(pool.submit(read_some))
            while done in ready:
                reading = ready.pop(done)
                facts = reading.facts or reading.reason
                if fact_cache is not None and facts and reading.cacheable:
                    fact_cache.put(reading.sha256, facts)
                yield reading
                done += 1
                if progress is not None:
                    progress(done, len(paths))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read_one(
    path: Path,
    recipe: InputRecipe | None,
    put: Callable[[npt.NDArray[np.uint8]], None] | None,
    with_facts: bool,
    white: int,
    fact_cache: FactCache | None,
    cache: "PixelCache | None",
) -> Reading:
    digest, cached = "", None
    try:
        data = _bytes(path)
        digest = hashlib.sha256(data).hexdigest()
        if fact_cache is not None:
            cached = fact_cache.get(digest)
        missing = _missing(data)
        if isinstance(cached, str):
            return Reading(path, digest, reason=cached, is_cached=True)
        known = cached is not None or not with_facts
        pixels = None
        if known and recipe is not None and cache is not None:
            pixels = cache.get(digest)
        if pixels is not None and put is not None:
            put(pixels)
        if pixels is not None or (known and recipe is None):
            facts = cached if with_facts else None
            return Reading(path, digest, "", facts, True, missing)
        large = False
        if len(data) > SMALL_BYTES:
            head = header(data)
            large = head.width * head.height > LARGE_PIXELS
        with _large if large else nullcontext():
            pixels, facts = _decoded(data, recipe, not known, white)
        if with_facts and known:
            facts = cached
        if pixels is not None:
            if cache is not None:
                cache.put(digest, pixels)
            if put is not None:
                put(pixels)
    except PhotoError as error:
        return Reading(path, digest, error.reason, is_cached=cached is not None)
    except FileNotFoundError:
        gone = "a link that points nowhere" if path.is_symlink() else "no such file"
        return Reading(path, reason=gone)
    except PermissionError:
        return Reading(path, reason="no permission to read it (chmod u+r)")
    except OSError as error:
        return Reading(path, reason=error.strerror or str(error))
    except MemoryError:
        return Reading(path, reason="not enough memory to decode it")
    return Reading(path, digest, "", facts, cached is not None, missing)


def _decoded(
    data: bytes, recipe: InputRecipe | None, with_facts: bool, white: int
) -> tuple[npt.NDArray[np.uint8] | None, PhotoFacts | None]:
    """Decoded once where one decoding serves both: `load_pixels` is `fit` of it."""
    side = (MIN_SIDE, MIN_SIDE)
    if recipe is None:
        return None, measure(data, open_photo(data, min_size=side, white=white))
    if not with_facts:
        return load_pixels(data, recipe), None
    image = open_for(data, recipe)
    enough = recipe.region is None and min(recipe.min_size) >= MIN_SIDE
    measured = image if enough else open_photo(data, min_size=side, white=recipe.white)
    return fit(image, recipe), measure(data, measured)


def _missing(data: bytes) -> float | None:
    """The fraction of a JPEG's rows that is cut off; None for a whole photo."""
    if not data.startswith(b"\xff\xd8") or b"\xff\xd9" in data[-JPEG_TAIL:]:
        return None
    missing: float | None = open_photo(data, min_size=(1, 1)).info.get("missing")
    return missing


def white_level(paths: Sequence[Path]) -> int:
    """The white of the 16-bit photos among `paths`: the lowest level of 10, 12, 14 or
    16 bits that none of them exceeds, as cameras leave the upper bits empty."""
    deep = [path for path in paths if path.suffix.lower() not in EIGHT_BIT]
    levels = [0]
    with ThreadPoolExecutor(cores(), thread_name_prefix="depth") as pool:
        for start in range(0, len(deep), DEPTH_BATCH):
            levels += pool.map(deep_white, deep[start : start + DEPTH_BATCH])
            if max(levels) == FULL:
                break
    return max(levels) or FULL


def _bytes(path: Path) -> bytes:
    state = os.stat(path)
    if not stat.S_ISREG(state.st_mode):  # opening a pipe would wait for a writer
        raise PhotoError(str(path), "not an ordinary file")
    if state.st_size > MAX_BYTES:
        raise PhotoError(
            str(path), f"more than {MAX_BYTES:,} bytes ({state.st_size:,})"
        )
    with open(path, "rb", buffering=0) as file:
        return file.read(state.st_size + 1) or b""
