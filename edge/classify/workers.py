"""Many photos over all cores: each worker decodes and classifies with a classifier
of its own, the answers come in the order of the photos.

Threads, not processes: Pillow's decoders and the interpreters let go of Python's lock
while they work, and a thread costs neither a start nor a second copy of the photos.
At most `AHEAD` photos a worker are pending, so memory does not grow with the folder.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from edge.errors import PhotoError

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
    pending: queue.SimpleQueue[Future[Answer] | BaseException | None]
    pending = queue.SimpleQueue()
    stopped = threading.Event()

    def run(item: Work) -> Answer:
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
                    pending.put(pool.submit(run, item))
            except BaseException as error:  # raised again where the answers are taken
                pending.put(error)
            else:
                pending.put(None)

        threading.Thread(target=feed, name="photo list", daemon=True).start()
        try:
            while (future := pending.get()) is not None:
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

    Read without Python's buffers, so each line is yielded at once and a blocked read
    does not keep the process from ending. PhotoError for a photo in place of a list.
    """
    buffer, separator, begun = b"", b"", False
    while block := os.read(descriptor, _BLOCK):
        if not begun and b"\0\0" in block:  # no list has an empty name
            from edge.photo_kinds import HEAD_BYTES, begins_like_a_photo

            if begins_like_a_photo(block[:HEAD_BYTES]):
                raise PhotoError(
                    "-", "expected a list of photos, got a photo; save it to a file"
                )
        begun = True
        buffer += block
        if not separator:
            separator = next((s for s in (b"\0", b"\n") if s in buffer), b"")
        if separator:
            *names, buffer = buffer.split(separator)
            yield from (os.fsdecode(name) for name in names if name)
    if buffer:
        yield os.fsdecode(buffer)
