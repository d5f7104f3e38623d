"""The latest frame of a live source, through losses and hangs of the source.

A thread takes frames as fast as they come and keeps only the last one: a slow model
skips frames and never lags behind. A lost source is waited for and opened again; a
stuck one (no frame, no error) is closed and opened again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from edge.camera.sources import Picture, Source, SourceError
from edge.errors import EdgegraftError

RETRY = (0.5, 5.0)  # seconds between attempts to open: the first, the longest
STUCK = 20.0  # seconds without a frame, more than a network stream's own limit
MAX_STUCK = 3  # in a row: then the process should be restarted
BAD_FRAMES = 3  # in a row: a damaged frame or two is no lost source


class LatestFrameReader:
    """Frames of a source made by `make`; `note` gets messages for a person.

    on_demand: convert a frame to pixels only when `next` waits for one, for sources
    that are looked at much more rarely than frames come. SourceError when the source
    cannot be opened at first, unless `wait`.
    """

    def __init__(
        self,
        make: Callable[[], Source],
        note: Callable[[str], None],
        *,
        stuck: float = STUCK,
        retry: tuple[float, float] = RETRY,
        wait: bool = False,
        on_demand: bool = False,
    ) -> None:
        self._make, self._note = make, note
        self._stuck_after, self._retry = stuck, retry
        self._on_demand = on_demand
        self._convert = not on_demand  # the next frame to pixels
        self._change = threading.Condition()
        self._frame: Picture | None = None
        self._number = 0  # frames passed so far
        self._last_activity = time.monotonic()  # of the thread
        self._thread_id = 0  # which thread may write; the others have been given up
        self._stuck_count = 0
        self._lost = False
        source = make()
        self.name = source.name
        try:
            source.open()
        except SourceError as error:
            if not wait:
                raise
            note(f"{error}; waiting for it")
            self._lost = True
        self._start(None if self._lost else source)

    def next(self, timeout: float) -> tuple[int, Picture] | None:
        """(number, frame) newer than the last one taken; None when none came.

        EdgegraftError when the source was stuck `MAX_STUCK` times in a row.
        """
        with self._change:
            self._convert = True
            if self._frame is None:
                self._change.wait(timeout)
            frame, self._frame = self._frame, None
            if frame is not None:
                return self._number, frame
            idle = time.monotonic() - self._last_activity
        if idle > self._stuck_after:
            self._stuck_count += 1
            if self._stuck_count >= MAX_STUCK:
                raise EdgegraftError(
                    f"{self.name}: stuck {self._stuck_count} times in a row; start "
                    "again"
                )
            self._note(f"{self.name}: no frame for {idle:.0f} s, opening it again")
            self._start(None)
        return None

    @property
    def lost(self) -> bool:
        """Whether the source is lost and waited for."""
        return self._lost

    def close(self) -> None:
        """Stop reading; a thread that hangs in its source is left behind."""
        with self._change:
            self._thread_id += 1
            thread = self._thread
            self._change.notify_all()
        thread.join(1.0)

    def _start(self, source: Source | None) -> None:
        with self._change:
            self._thread_id += 1
            self._last_activity = time.monotonic()
            self._thread = threading.Thread(
                target=self._read,
                args=(source, self._thread_id),
                name="latest frame",
                daemon=True,
            )
        self._thread.start()

    def _read(self, source: Source | None, thread_id: int) -> None:
        lost_at = time.monotonic()
        is_lost = source is None  # and that was said already
        opened = source is not None
        source = source or self._make()
        pause, failures = self._retry[0], 0
        while self._is_current(thread_id):
            if opened and self._try_take(source, thread_id):
                if is_lost:
                    seconds = time.monotonic() - lost_at
                    self._note(f"{self.name}: back after {seconds:.1f} s")
                    is_lost, pause = False, self._retry[0]
                    self._lost = False
                failures = 0
                continue
            failures += 1
            if opened and not is_lost and failures < BAD_FRAMES:
                continue
            source.close()
            if not self._is_current(thread_id):
                return
            if not is_lost:
                is_lost, lost_at = True, time.monotonic()
                self._lost = True
                self._note(f"{self.name}: lost; waiting for it")
            self._sleep(pause, thread_id)
            pause = min(2 * pause, self._retry[1])
            opened = self._is_current(thread_id) and self._try_open(source)
        source.close()

    def _try_open(self, source: Source) -> bool:
        try:
            source.open()
        except SourceError:
            return False
        return True

    def _try_take(self, source: Source, thread_id: int) -> bool:
        """Take the next frame; False when none came or it is damaged."""
        try:
            if not source.grab():
                return False
            with self._change:
                convert = self._convert
            frame = source.retrieve() if convert else None
        except Exception:  # a camera that is pulled out fails in many ways
            return False
        if convert and frame is None:
            return False
        with self._change:
            if thread_id == self._thread_id:
                self._number += 1
                self._last_activity = time.monotonic()
                self._stuck_count = 0
                if frame is not None:
                    self._frame, self._convert = frame, not self._on_demand
                    self._change.notify_all()
        return True

    def _sleep(self, seconds: float, thread_id: int) -> None:
        with self._change:
            end = time.monotonic() + seconds
            self._last_activity = end  # waiting is not being stuck
            while (
                thread_id == self._thread_id
                and (remaining := end - time.monotonic()) > 0
            ):
                self._change.wait(remaining)

    def _is_current(self, thread_id: int) -> bool:
        with self._change:
            return thread_id == self._thread_id
