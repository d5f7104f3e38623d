"""Open models, shared by all visitors: a bounded number of classifiers for each file.

An interpreter serves one thread at a time and Streamlit serves each visitor in a
thread of its own, so a thread borrows a classifier and waits while all are lent.
Files with the same content share their classifiers; a file that changes gets new ones.
Each classifier's interpreter runs in a process of its own (`model_process`).
"""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edge.classifier import Classifier
from edge.errors import ModelError
from edge.files import read_regular, sha256
from edge.foreign import ForeignOptions, labels_beside
from edge.model_file import ModelFile
from edge.quiet import without_chatter
from edge.runtime import default_threads
from streamlit_app.model_process import ProcessModelFile

MOST_MODELS = 8  # open at once; the least recently used is closed
Stamp = tuple[int, int]  # modification time in ns and size in bytes


@dataclass(frozen=True)
class Feeding:
    """What a visitor says of a file without a card: its labels, how it is fed."""

    labels: tuple[str, ...] = ()
    options: ForeignOptions = field(default_factory=ForeignOptions)


AS_IT_SAYS = Feeding()


class ClassifierPool:
    """At most `size` classifiers of one model's bytes, each with one thread.

    `facts` is a classifier to read labels, recipe and card from, never to run.
    `labels` is a label file for a model that contains none; `labelled` says whether
    the model contains labels, or `feeding` has them. ModelError when the model cannot
    be opened.
    """

    def __init__(
        self,
        content: bytes,
        size: int | None = None,
        labels: Path | None = None,
        feeding: Feeding = AS_IT_SAYS,
    ) -> None:
        self._file = ProcessModelFile(content)
        self._file.checked()
        self.feeding = feeding
        inside = self._file.labels is not None
        self.labelled = inside or bool(feeding.labels)
        self._labels = feeding.labels or (None if inside else labels)
        self._foreign = feeding.options if feeding != AS_IT_SAYS else None
        self.size = size or default_threads()
        self.digest = digest_of(content, feeding)
        self.bytes = len(content)
        self._free: queue.LifoQueue[Classifier] = queue.LifoQueue()
        self._counting = threading.Lock()
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
        try:
            return self._free.get_nowait()
        except queue.Empty:
            pass
        with self._counting:
            more = self.opened < self.size
            self.opened += more
        if not more:
            return self._free.get()
        try:
            return self._open()
        except BaseException:
            with self._counting:
                self.opened -= 1
            raise

    def _open(self) -> Classifier:
        with without_chatter():
            return Classifier(
                self._file, labels=self._labels, threads=1, foreign=self._foreign
            )


def digest_of(content: bytes, feeding: Feeding) -> str:
    """What answers depend on: the file and how it is fed."""
    digest = sha256(content)
    return digest if feeding == AS_IT_SAYS else sha256(f"{digest}{feeding}".encode())


class ModelPool:
    """The open models by path and stamp; the least recently used is closed.

    No lock is held while a file is read or opened: visitors who ask for the same file
    wait for the first of them, others are not delayed.
    """

    def __init__(self, labels: Path | None = None, most: int = MOST_MODELS) -> None:
        self._labels, self._most = labels, most
        self._lock = threading.Lock()
        self._files: OrderedDict[
            tuple[Path, Stamp, Feeding], Future[ClassifierPool]
        ] = OrderedDict()

    def open(
        self,
        path: Path,
        stamp: Stamp,
        inside: Path | None = None,
        feeding: Feeding = AS_IT_SAYS,
    ) -> ClassifierPool:
        """The classifiers of a file as it was at `stamp`; ModelError if it cannot be
        opened. With `inside`, only a regular file in that folder is read."""
        key = (path, stamp, feeding)
        with self._lock:
            result = self._files.get(key)
            first = result is None
            if result is None:
                result = self._files[key] = Future()
            self._files.move_to_end(key)
        if first:
            try:
                result.set_result(self._load(path, inside, feeding))
            except BaseException as error:
                with self._lock:
                    self._files.pop(key, None)
                result.set_exception(error)
            with self._lock:
                while len(self._opened()) > self._most:
                    self._close_oldest()
        return result.result()

    def _load(
        self, path: Path, inside: Path | None, feeding: Feeding
    ) -> ClassifierPool:
        if inside is None:
            content = ModelFile.read(path).content
        else:
            try:
                content = read_regular(path, inside=inside)
            except OSError as error:
                raise ModelError(f"{path}: {error.strerror or error}") from None
        with self._lock:
            same = self._opened().get(digest_of(content, feeding))
        if same is not None:
            return same
        labels: Path | None = self._labels
        if labels is None and inside is None and (beside := labels_beside(path)):
            labels = Path(beside)
        return ClassifierPool(content, labels=labels, feeding=feeding)

    def _opened(self) -> dict[str, ClassifierPool]:
        """By digest; call with the lock held."""
        done = [f for f in self._files.values() if f.done() and not f.exception()]
        return {pool.digest: pool for pool in (future.result() for future in done)}

    def _close_oldest(self) -> None:
        """Forget the least recently used of the opened files; with the lock held."""
        for key, future in self._files.items():
            if future.done():
                del self._files[key]
                return

    def __len__(self) -> int:
        with self._lock:
            return len(self._opened())
