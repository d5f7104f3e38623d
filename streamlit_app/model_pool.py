"""Classifiers that many visitors share: a bounded number for each model file.

An interpreter serves one thread at a time and Streamlit serves each visitor in a
thread of its own. So a thread borrows a classifier, and waits when all are lent.
Files with the same content share a pool, whatever they are called; a file that
changes gets a new one.

It does not know: Streamlit, photos.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.card import read_card, read_labels
from edge.classifier import Classifier
from edge.quiet import without_chatter
from edge.runtime import default_threads, read_model

MOST_MODELS = 8  # open at once; the one not asked for longest is closed


class Pool:
    """At most `size` classifiers of one model's bytes, each with one thread.

    ModelError when it cannot be opened. `facts` is a classifier to read labels,
    recipe and card from, never to run. `labels` is a file of names, for a model that
    holds none; `named` says that it holds some.
    """

    def __init__(
        self, content: bytes, size: int | None = None, labels: Path | None = None
    ) -> None:
        self._content = content
        self.named = read_card(content) is not None or read_labels(content) is not None
        self._labels = None if self.named else labels
        self.size = size or default_threads()
        self.digest = hashlib.sha256(content).hexdigest()
        self.bytes = len(content)
        self._free: queue.LifoQueue[Classifier] = queue.LifoQueue()
        self._opening = threading.Lock()
        self.opened = 1
        self.facts = self._open()
        self._free.put(self.facts)

    @contextmanager
    def borrow(self) -> Iterator[Classifier]:
        """A classifier that nobody else has, until the end of the block."""
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
        with self._opening:
            more = self.opened < self.size
            self.opened += more
        if not more:
            return self._free.get()
        try:
            return self._open()
        except BaseException:
            with self._opening:
                self.opened -= 1
            raise

    def _open(self) -> Classifier:
        with without_chatter():
            return Classifier(self._content, labels=self._labels, threads=1)


class Shelf:
    """The pools in use, by content; the least recently asked for is given up."""

    def __init__(self, labels: Path | None = None, most: int = MOST_MODELS) -> None:
        self._labels, self._most = labels, most
        self._lock = threading.Lock()
        self._pools: OrderedDict[str, Pool] = OrderedDict()
        self._digests: OrderedDict[tuple[Path, tuple[int, int]], str] = OrderedDict()

    def pool(self, path: Path, stamp: tuple[int, int]) -> Pool:
        """The pool of a file as it was at `stamp`; opened when it is new."""
        with self._lock:
            digest = self._digests.get((path, stamp))
            if digest is not None and digest in self._pools:
                self._pools.move_to_end(digest)
                return self._pools[digest]
            content = read_model(path)
            digest = hashlib.sha256(content).hexdigest()
            found = self._pools.get(digest) or Pool(content, labels=self._labels)
            self._pools[digest] = found
            self._pools.move_to_end(digest)
            self._digests[(path, stamp)] = digest
            while len(self._pools) > self._most:
                self._pools.popitem(last=False)
            while len(self._digests) > 8 * self._most:
                self._digests.popitem(last=False)
            return found

    def __len__(self) -> int:
        return len(self._pools)
