"""Photos read and decoded in one parallel pass, and all of them as one uint8 array.

`read_photos` reads each file once, so the sha256 is of the very bytes that were
decoded. Threads do it, because Pillow and hashlib release Python's lock. Each takes the
next photo, passes its pixels on itself and reports a few times a second: a task for
each photo, with the caller's thread woken for each, took a tenth longer. Readings are
yielded in the order of the paths. Pixels are never queued, so memory stays bounded;
photos of more than `LARGE_PIXELS` are decoded one at a time.

`load` keeps the pixels at the size of the network's input; later epochs only index. Up
to `memory_limit` bytes the array is in memory, beyond it in an unnamed temporary file,
so nothing is left behind when the process is killed: see `data.store`. There is no
margin for crops: augmentation zooms into the photos, 1.25 times at most in the standard
recipe. Photos stored 1.25 times as large (a probe with MobileNetV2 0.35 at 224 that
also learns from such zooms, 1,000 training photos, 3 times 5 folds) gave an accuracy of
96.47 instead of 96.37 % and a log loss of 0.0903 instead of 0.0912: within chance, for
1.6 times the memory and a second resize.
"""

import hashlib
import os
import stat
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import IO

import numpy as np
import numpy.typing as npt

from data.audit.facts import (
    MIN_SIDE,
    FactCache,
    FactStore,
    PhotoFacts,
    header,
    measure,
)
from data.photos import Photo
from data.store import PixelCache, cache_folder, make_store
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
from edge.text import printable

MAX_BYTES = 1 << 30  # beyond what edge's limit of pixels takes uncompressed, 16 bits
LARGE_PIXELS = 24_000_000  # about 100 MB while it is decoded
SMALL_BYTES = 1 << 16  # a smaller file with so many pixels is all but blank
JPEG_TAIL = 1 << 16  # bytes in which a JPEG's end is looked for; cameras add to it
EIGHT_BIT = (".jpg", ".jpeg")  # files that hold 8 bits a channel
DEPTH_BATCH = 64  # photos after which the highest level is checked
TIME_SLICE = 0.05  # seconds that a worker reads before it reports
MEMORY_LIMIT = 1 << 28

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


def read_photos(
    paths: Sequence[Path],
    recipe: InputRecipe | None = None,
    on_pixels: OnPixels | None = None,
    *,
    with_facts: bool = False,
    white: int = FULL,
    fact_cache: FactCache | None = None,
    cache: PixelCache | None = None,
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
    cache: PixelCache | None,
) -> Reading:
    digest, cached = "", None
    try:
        data = _content(path)
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


def _content(path: Path) -> bytes:
    state = os.stat(path)
    if not stat.S_ISREG(state.st_mode):  # opening a pipe would wait for a writer
        raise PhotoError(str(path), "not an ordinary file")
    if state.st_size > MAX_BYTES:
        raise PhotoError(
            str(path), f"more than {MAX_BYTES:,} bytes ({state.st_size:,})"
        )
    with open(path, "rb", buffering=0) as file:
        return file.read(state.st_size + 1) or b""


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


class Pixels:
    """The decoded photos. Use it as a context manager, or call `close`.

    `array` is uint8 [N, H, W, 3], read only: an ndarray or an np.memmap. `rows` maps a
    path to its row and `digests` to its sha256; `failures` are the photos that could
    not be decoded, with the reason. `fact_store`: for an audit. `missing`: the fraction
    of rows that cut off JPEGs lack. `from_cache`: photos from an earlier run's cache.
    """

    def __init__(
        self,
        array: npt.NDArray[np.uint8],
        digests: dict[Path, str],
        failures: tuple[tuple[Path, str], ...] = (),
        file: IO[bytes] | None = None,
        fact_store: FactStore | None = None,
        from_cache: int = 0,
        missing: Mapping[Path, float] | None = None,
    ) -> None:
        self._array: npt.NDArray[np.uint8] | None = array
        self._file = file
        self.digests = digests
        self.rows = {path: row for row, path in enumerate(digests)}
        self.failures = failures
        self.fact_store = FactStore() if fact_store is None else fact_store
        self.from_cache = from_cache
        self.missing = dict(missing or {})

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        if self._array is None:
            raise ValueError("these pixels are closed")
        return self._array

    def of(self, photos: Sequence[Photo]) -> npt.NDArray[np.uint8]:
        """A copy of these photos' pixels, uint8 [len(photos), H, W, 3]."""
        return self.array[[self.rows[photo.path] for photo in photos]]

    def close(self) -> None:
        """Release the pixels and the file behind them."""
        self._array = None
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> "Pixels":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def load(
    photos: Sequence[Photo],
    recipe: InputRecipe,
    *,
    with_facts: bool = True,
    workers: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
    fact_cache: FactCache | None = None,
    cache: PixelCache | None = None,
    cache_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pixels:
    """Decode every photo in one parallel pass; rows keep the order of `photos`.

    Photos that fail are in `failures` and never raise. `with_facts` also measures the
    facts for an audit, in the same pass. Facts in `fact_cache` are not measured again,
    pixels in `cache` not decoded again. EdgegraftError when the array has to go to disk
    (in `cache_dir`, by default the system's temporary folder) and does not fit there.
    """
    paths = list(dict.fromkeys(photo.path for photo in photos))
    shape = (len(paths), recipe.height, recipe.width, 3)
    store = make_store(shape, memory_limit, cache_dir)
    filled: list[int] = []
    digests: dict[Path, str] = {}
    fact_store = FactStore(len(paths) if with_facts else 0)
    failures: list[tuple[Path, str]] = []
    missing: dict[Path, float] = {}
    try:
        with closing(
            read_photos(
                paths,
                recipe,
                store.put,
                with_facts=with_facts,
                fact_cache=fact_cache,
                cache=cache,
                workers=workers,
                progress=progress,
            )
        ) as readings:
            for row, reading in enumerate(readings):
                if reading.reason:
                    failures.append((reading.path, reading.reason))
                    continue
                filled.append(row)
                digests[reading.path] = reading.sha256
                if reading.missing is not None:
                    missing[reading.path] = reading.missing
                if reading.facts is not None:
                    fact_store.add(reading.path, reading.facts)
        array = store.finish(filled)
    except BaseException:
        store.discard()
        raise
    array.flags.writeable = False
    from_cache = cache.hits if cache is not None else 0
    return Pixels(
        array, digests, tuple(failures), store.file, fact_store, from_cache, missing
    )


def load_through_cache(
    photos: Sequence[Photo],
    recipe: InputRecipe,
    *,
    with_facts: bool = True,
    memory_limit: int = MEMORY_LIMIT,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Pixels:
    """`load`, with the caches of earlier audits and runs of this user.

    `warn` is called with a line where something could not be cached.
    """
    folder = cache_folder()
    cache = PixelCache(folder / "pixels", recipe)
    with FactCache(folder / "audits.sqlite") as fact_cache:
        pixels = load(
            photos,
            recipe,
            with_facts=with_facts,
            memory_limit=memory_limit,
            fact_cache=fact_cache,
            cache=cache,
            progress=progress,
        )
    for problem in dict.fromkeys((cache.problem, fact_cache.problem)):
        if problem and warn is not None:
            warn(f"warning: not kept for the next run: {printable(problem)}")
    return pixels
