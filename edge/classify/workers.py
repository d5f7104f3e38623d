"""Many photos over all cores: each worker decodes and classifies with a classifier
of its own, the answers come in the order of the photos.

Threads, not processes: Pillow's decoders and the interpreters let go of Python's lock
while they work, and a thread costs neither a start nor a second copy of the photos.
At most `AHEAD` photos a worker are under way, so memory does not grow with the
folder.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Work = TypeVar("Work")
Answer = TypeVar("Answer")
Tool = TypeVar("Tool")

AHEAD = 4  # photos under way for each worker: a slow one does not hold the others up
_BLOCK = 65536


def in_order(
    items: Iterable[Work],
    work: Callable[[Tool, Work], Answer],
    tools: Sequence[Tool],
) -> Iterator[Answer]:
    """work(tool, item) of every item, in order; one thread for each tool.

    `items` is read in a thread of its own, so an endless list (a pipe) is answered
    item by item. An error of `items` or of `work` is raised here, after the answers
    before it. When the caller stops early, what is under way is finished first.
    """
    free: queue.SimpleQueue[Tool] = queue.SimpleQueue()
    for tool in tools:
        free.put(tool)
    slots = threading.Semaphore(AHEAD * len(tools))
    under_way: queue.SimpleQueue[Future[Answer] | BaseException | None]
    under_way = queue.SimpleQueue()
    stopped = threading.Event()

    def one(item: Work) -> Answer:
        tool = free.get()  # never waits: as many threads as tools
        try:
            return work(tool, item)
        finally:
            free.put(tool)

    with ThreadPoolExecutor(len(tools), "photos") as pool:

        def feed() -> None:
            try:
                for item in items:
                    slots.acquire()
                    if stopped.is_set():
                        return
                    under_way.put(pool.submit(one, item))
            except BaseException as error:  # raised again where the answers are taken
                under_way.put(error)
            else:
                under_way.put(None)

        threading.Thread(target=feed, name="photo list", daemon=True).start()
        try:
            while (future := under_way.get()) is not None:
                if isinstance(future, BaseException):
                    raise future
                answer = future.result()
                slots.release()
                yield answer
        finally:
            stopped.set()
            slots.release()
            pool.shutdown(cancel_futures=True)


def lines(descriptor: int = 0) -> Iterator[str]:
    """Paths from a pipe, one a line (or with NUL between: ``find -print0``).

    Read without Python's buffers, so each line is passed on as soon as it is there
    and a reader that waits does not hinder the end of the process.
    """
    rest, end = b"", b""
    while block := os.read(descriptor, _BLOCK):
        rest += block
        if not end:
            end = b"\0" if b"\0" in rest else b"\n" if b"\n" in rest else b""
        if end:
            *whole, rest = rest.split(end)
            yield from (os.fsdecode(name) for name in whole if name)
    if rest:
        yield os.fsdecode(rest)
