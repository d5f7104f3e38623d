"""Open models, shared by all visitors: a bounded number of classifiers for each file.

An interpreter serves one thread at a time and Streamlit serves each visitor in a
thread of its own, so a thread borrows a classifier and waits while all are in use.
Files with the same content share their classifiers; a changed file gets new ones. Each
classifier's interpreter runs in a process of its own (`model_process`).
"""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from edge.classifier import Classifier
from edge.errors import ModelError
from edge.files import read_regular, sha256
from edge.foreign import ForeignOptions, labels_beside
from edge.model_file import ModelFile
from edge.runtime import default_threads
from edge.terminal import without_chatter
from streamlit_app.model_process import ProcessModelFile

MAX_MODELS = 8  # open at once; the least recently used is closed
Stamp = tuple[int, int]  # modification time in ns and size in bytes


@dataclass(frozen=True)
class ForeignSettings:
    """A visitor's settings for a file without a card: labels and preprocessing."""

    labels: tuple[str, ...] = ()
    options: ForeignOptions = field(default_factory=ForeignOptions)


BY_METADATA = ForeignSettings()  # no settings: as the file's own metadata says


class ClassifierPool:
    """At most `size` classifiers of one model's bytes, each with one thread.

    `facts` is a classifier to read labels, recipe and card from; run only what `borrow`
    returns. `labels` is a label file for a model that contains none; `labelled`: the
    model contains labels, or `foreign` has them. ModelError when the model cannot be
    opened.
    """

    def __init__(
        self,
        content: bytes,
        size: int | None = None,
        labels: Path | None = None,
        foreign: ForeignSettings = BY_METADATA,
    ) -> None:
        self._file = ProcessModelFile(content)
        self._file.checked()
        self.foreign = foreign
        has_labels = self._file.labels is not None
        self.labelled = has_labels or bool(foreign.labels)
        self._labels = foreign.labels or (None if has_labels else labels)
        self._foreign_options = foreign.options if foreign != BY_METADATA else None
        self.size = size or default_threads()
        self.digest = digest_of(content, foreign)
        self.bytes = len(content)
        self._free: queue.LifoQueue[Classifier] = queue.LifoQueue()
        self._lock = threading.Lock()  # of `opened`
        self.opened = 1
        self.facts = self._open()
        self._free.put(self.facts)

    @contextmanager
    def borrow(self) -> Iterator[Classifier]:
        """A classifier for this thread alone, until the end of the block."""
        classifier = self._take()
        try:
            yield classifier
        finally:
            self._free.put(classifier)

    def _take(self) -> Classifier:
        with suppress(queue.Empty):
            return self._free.get_nowait()
        with self._lock:
            may_open = self.opened < self.size
            self.opened += may_open
        if not may_open:
            return self._free.get()
        try:
            return self._open()
        except BaseException:
            with self._lock:
                self.opened -= 1
            raise

    def _open(self) -> Classifier:
        with without_chatter():
            return Classifier(
                self._file,
                labels=self._labels,
                threads=1,
                foreign=self._foreign_options,
            )


def digest_of(content: bytes, foreign: ForeignSettings) -> str:
    """The digest of what answers depend on: the file and how it is fed."""
    digest = sha256(content)
    return digest if foreign == BY_METADATA else sha256(f"{digest}{foreign}".encode())


class ModelPool:
    """The open models by path and stamp; the least recently used is closed.

    No lock is held while a file is read or opened: visitors who ask for the same file
    wait for the first of them, others are not delayed.
    """

    def __init__(
        self, labels: Path | None = None, max_models: int = MAX_MODELS
    ) -> None:
        self._labels, self._max_models = labels, max_models
        self._lock = threading.Lock()
        self._pools: OrderedDict[
            tuple[Path, Stamp, ForeignSettings], Future[ClassifierPool]
        ] = OrderedDict()

    def open(
        self,
        path: Path,
        stamp: Stamp,
        inside: Path | None = None,
        foreign: ForeignSettings = BY_METADATA,
    ) -> ClassifierPool:
        """The classifiers of a file as it was at `stamp`; ModelError if it cannot be
        opened. With `inside`, only a regular file in that folder is read."""
        key = (path, stamp, foreign)
        with self._lock:
            is_first = key not in self._pools
            future = self._pools.setdefault(key, Future())
            self._pools.move_to_end(key)
        if is_first:
            try:
                future.set_result(self._load(path, inside, foreign))
            except BaseException as error:
                with self._lock:
                    self._pools.pop(key, None)
                future.set_exception(error)
            with self._lock:
                while len(self._opened()) > self._max_models:
                    self._close_oldest()
        return future.result()

    def _load(
        self, path: Path, inside: Path | None, foreign: ForeignSettings
    ) -> ClassifierPool:
        if inside is None:
            content = ModelFile.read(path).content
        else:
            try:
                content = read_regular(path, inside=inside)
            except OSError as error:
                raise ModelError(f"{path}: {error.strerror or error}") from None
        with self._lock:
            pool = self._opened().get(digest_of(content, foreign))
        if pool is not None:
            return pool
        labels = self._labels
        if labels is None and inside is None and (file := labels_beside(path)):
            labels = Path(file)
        return ClassifierPool(content, labels=labels, foreign=foreign)

    def _opened(self) -> dict[str, ClassifierPool]:
        """The open pools by digest; call with the lock held."""
        done = [f for f in self._pools.values() if f.done() and not f.exception()]
        return {pool.digest: pool for pool in (future.result() for future in done)}

    def _close_oldest(self) -> None:
        """Remove the least recently used pool; call with the lock held."""
        del self._pools[next(key for key, pool in self._pools.items() if pool.done())]

    def __len__(self) -> int:
        with self._lock:
            return len(self._opened())
