"""Which frames of a source are taken, by its clock and the requested rate.

Of a live source the latest frame is taken, of a video file every frame (or those that
--fps picks, by the video's own clock), so the results of a file are the same on every
machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from edge.camera.latest_frame import BAD_FRAMES, LatestFrameReader
from edge.camera.motion import LOOKS
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

_POLL = 0.25  # seconds: how soon a signal is noticed while no frame comes
_CUT_OFF = 0.95  # of the length that a file states: less was read, it is cut off


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
