"""Which frames of a source are classified: by rate, the latest, those with motion.

Of a live source the latest frame is taken, of a video file every frame (or those that
--fps picks, by the video's own clock), so the results of a file are the same on every
machine. With --motion, `MotionGate` then passes on only those in which something moves.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge.camera.service import Service, notify
from edge.camera.sources import (
    MAX_PAUSE,
    Picture,
    Source,
    SourceError,
    Video,
    WebCamera,
    find,
)
from edge.errors import EdgegraftError

_POLL = 0.25  # seconds: how soon a signal is noticed while no frame comes
_CUT_OFF = 0.95  # of the length that a file states: less was read, it is cut off
RETRY = (0.5, 5.0)  # seconds between attempts to open: the first, the longest
STUCK = 20.0  # seconds without a frame, more than a network stream's own limit
MAX_STUCK = 3  # in a row: then the process should be restarted
BAD_FRAMES = 3  # in a row: a damaged frame or two is no lost source

# Motion
LOOKS = 5.0  # a second, where no --fps is given
HEARTBEAT = 60.0  # seconds: one frame is classified so often, with or without motion
_SAMPLES = 160  # green values that are read along the longer side, about
_CELL = 4  # samples along a cell's side: their mean has half the noise or less
_LEVEL = 10.0  # of 255: a cell differs
_LIGHT = 25.0  # of 255: a change of all cells that is taken for one of the light
_BEGIN, _END = 0.01, 0.004  # of the cells: motion begins, motion may end
_CALM = 2.0  # seconds below _END, then motion has ended
_SETTLE = 10.0  # seconds: time constant of the background

Cells = npt.NDArray[np.float32]


class TimedFrame(NamedTuple):
    """A frame, its number, and its time: seconds in the file or since the start."""

    number: int
    seconds: float
    pixels: Picture


@dataclass(frozen=True)
class Frames:
    """Which frames to take. fps and seconds: None for all; size: what the camera is
    asked for."""

    source: str | None
    fps: float | None
    seconds: float | None
    max_frames: int | None
    size: tuple[int, int] | None
    live: bool
    wait: bool
    stuck: float

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> Frames:
        fps = args.fps if args.every is None else 1 / args.every
        if args.motion and fps is None:
            fps = LOOKS
        return cls(
            args.source,
            fps,
            args.seconds,
            args.max_frames,
            args.size,
            args.live,
            args.wait,
            args.stuck,
        )

    def find(self) -> Source:
        source = find(self.source, self.size, self.live)
        if self.fps and isinstance(source, WebCamera):
            source.pause = min(1 / self.fps, MAX_PAUSE)
        return source


def read_frames(
    frames: Frames,
    service: Service,
    note: Callable[[str], None],
    report_online: Callable[[bool], None],
) -> Iterator[TimedFrame]:
    """The frames, until the source or the service ends. `note` gets messages for a
    person, `report_online` whether a live source sends, again and again."""
    source = frames.find()
    if isinstance(source, Video) and not source.live:
        return _of_file(source, frames, service, note)
    return _of_camera(source, frames, service, note, report_online)


def _of_file(
    video: Video, frames: Frames, service: Service, note: Callable[[str], None]
) -> Iterator[TimedFrame]:
    """Every frame in turn, or those that --fps picks; damaged ones are left out."""
    video.open()
    notify("READY=1")
    try:
        good = damaged = failed = 0
        due = 0.0
        while not service.stopped:
            notify("WATCHDOG=1")
            if not video.grab():
                failed += 1
                if failed > BAD_FRAMES:
                    break
                continue
            damaged, failed, good = damaged + failed, 0, good + 1
            if frames.seconds is not None and video.seconds >= frames.seconds:
                return
            if frames.fps is not None and video.seconds < due - 1e-9:
                continue
            pixels = video.retrieve()
            if pixels is None:
                good, damaged = good - 1, damaged + 1
                continue
            due += 1 / frames.fps if frames.fps else 0.0
            yield TimedFrame(good + damaged, video.seconds, pixels)
        if good == 0:
            raise SourceError(f"{video.name}: {video.why_no_frame()}")
        if service.stopped:
            return
        length = video.frames / video.rate
        if video.seconds + 1 / video.rate < _CUT_OFF * length:
            note(
                f"{video.name}: cut off, ended after frame {good + damaged} of "
                f"{video.frames}"
            )
        if damaged:
            noun = "frame is" if damaged == 1 else "frames are"
            note(f"{video.name}: {damaged} {noun} damaged and left out")
    finally:
        video.close()


def _of_camera(
    first: Source,
    frames: Frames,
    service: Service,
    note: Callable[[str], None],
    report_online: Callable[[bool], None],
) -> Iterator[TimedFrame]:
    """The latest frame, whenever the model is ready and --fps allows."""
    unused = [first]

    def next_source() -> Source:
        return unused.pop() if unused else frames.find()

    reader = LatestFrameReader(
        next_source,
        note,
        stuck=frames.stuck,
        wait=frames.wait,
        on_demand=frames.fps is not None,
    )
    notify("READY=1")
    start = due = time.monotonic()
    try:
        while not service.stopped:
            now = time.monotonic()
            if frames.seconds is not None and now - start >= frames.seconds:
                return
            notify("WATCHDOG=1")
            report_online(not reader.lost)
            if now < due:
                time.sleep(min(due - now, _POLL))
                continue
            if (latest := reader.next(_POLL)) is None:
                continue
            now = time.monotonic()
            if frames.fps:  # a constant rate, counted again after a pause
                due = max(due + 1 / frames.fps, now)
            number, pixels = latest
            yield TimedFrame(number, now - start, pixels)
    finally:
        reader.close()


class LatestFrameReader:
    """The latest frame of a live source, through losses and hangs of the source.

    A thread takes frames as fast as they come and keeps only the last one: a slow model
    skips frames and never lags behind. A lost source is waited for and opened again; a
    stuck one (no frame, no error) is closed and opened again.

    make: makes the source; `note` gets messages for a person.
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


class MotionGate:
    """Decides for each frame whether to classify it: only while something moves.

    A frame is read at a coarse grid of its green values and compared with a background
    that follows slowly. A change of light changes all cells alike and is taken off
    first, unless it is large: then a look costs little. Motion begins when many cells
    differ and ends only when few have differed for a while (hysteresis), so that noise
    near the limit does not switch it on and off. What comes and stays becomes
    background; it has been classified by then. A slow change, such as a shadow that
    wanders, is no motion.

    calm: seconds without motion until it has ended, 2 at least. heartbeat: seconds
    after which a frame is looked at all the same.
    """

    def __init__(self, calm: float = _CALM, heartbeat: float = HEARTBEAT) -> None:
        self._calm, self._heartbeat = max(calm, _CALM), heartbeat
        self._background: Cells | None = None
        # Times of the last frame, motion and classification
        self._last_frame = 0.0
        self._last_motion = float("-inf")
        self._last_look = float("-inf")
        self.moving = False

    def look(self, frame: Picture, now: float) -> bool:
        """Whether to classify this frame, uint8 RGB [height, width, 3], at `now`
        seconds: the first, those with motion, and one each heartbeat."""
        cells = _cells(frame)
        if self._background is None or self._background.shape != cells.shape:
            self._background = cells
            self.wake(now)
        else:
            change = cells - self._background
            change -= float(np.median(change).clip(-_LIGHT, _LIGHT))
            moved = float((np.abs(change) > _LEVEL).mean())  # fraction of the cells
            if moved >= (_END if self.moving else _BEGIN):
                self.wake(now)
            elif now - self._last_motion > self._calm:
                self.moving = False
            weight = -np.expm1(-max(now - self._last_frame, 0.0) / _SETTLE)
            self._background += np.float32(weight) * (cells - self._background)
        self._last_frame = now
        if self.moving or now - self._last_look >= self._heartbeat:
            self._last_look = now
            return True
        return False

    def wake(self, now: float) -> None:
        """Classify for a while: something moves, or the label is about to change."""
        self.moving, self._last_motion = True, now


def _cells(frame: Picture) -> Cells:
    """Mean green of each cell, float32 [rows, columns]."""
    step = max(round(max(frame.shape[:2]) / _SAMPLES), 1)
    green = frame[::step, ::step, 1]
    height, width = min(_CELL, green.shape[0]), min(_CELL, green.shape[1])  # of a cell
    rows, columns = green.shape[0] // height, green.shape[1] // width
    cells = green[: rows * height, : columns * width]
    cells = cells.reshape(rows, height, columns, width)
    means: Cells = cells.mean((1, 3), dtype=np.float32)
    return means
