"""The verb ``camera``: label what a camera, a stream or a video shows.

Of a live source the newest frame is taken, of a video file every frame (or those
that --fps picks, by the video's own clock), so the answers to a file are the same
on every machine.

It does not know: where frames come from, how they are told.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

from edge.camera.latest_frame import STUCK, Newest
from edge.camera.output import Seen, teller
from edge.camera.service import Service
from edge.camera.smoothing import Steady
from edge.camera.sources import Picture, Source, SourceError, Video, cameras, find
from edge.camera.uncertain import Unsure
from edge.classifier import Prediction
from edge.classify.cli import open_classifier
from edge.errors import EdgegraftError
from edge.preprocess import load_pixels

_POLL = 0.25  # seconds: how soon a signal is noticed while no frame comes
_ABOUT = "Label what a camera, a network stream or a video file shows, until stopped."
_MORE = """SOURCE: 0 or /dev/video0 (a webcam), a part of a camera's name, picamera or
picamera:1, rtsp://... or http://..., or a video file. Without it, the first camera.

exit code: 0 at the end of a file, of --seconds or --max-frames, on Ctrl-C or SIGTERM;
2 for bad input. A lost camera is waited for. Publish each change over MQTT:
  ... camera model.tflite 0 --json --events | mosquitto_pub -l -t door/camera"""


class Shot(NamedTuple):
    """A frame and when it was seen: its number, seconds since the start."""

    number: int
    seconds: float
    frame: Picture


def add_options(verb: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    verb.description, verb.epilog = _ABOUT, _MORE
    verb.add_argument("model", nargs="?", metavar="MODEL", help="a .tflite file")
    verb.add_argument("source", nargs="?", metavar="SOURCE", help="see below")
    verb.add_argument("--list", action="store_true", help="the cameras there are")
    group = verb.add_argument_group("which frames")
    group.add_argument("--fps", type=_positive, help="at most so many a second")
    group.add_argument("--max-frames", type=int, metavar="N", help="stop after N")
    group.add_argument("--seconds", type=_positive, help="stop after this time")
    group.add_argument(
        "--region",
        type=_region,
        metavar="X,Y,W,H",
        help="only this part: pixels, or shares of the frame from 0 to 1",
    )
    group.add_argument("--size", type=_size, metavar="WxH", help="ask the camera for")
    group.add_argument(
        "--live", action="store_true", help="play a video file as an endless camera"
    )
    group.add_argument(
        "--wait", action="store_true", help="wait for a source that is not there yet"
    )
    group.add_argument(
        "--stuck",
        type=_positive,
        default=STUCK,
        metavar="S",
        help=f"open a source anew that sent nothing for S seconds ({STUCK:g})",
    )
    group = verb.add_argument_group("answers")
    group.add_argument(
        "--smooth",
        type=_not_negative,
        default=0.5,
        metavar="S",
        help="time constant of the average over frames (0.5 s, 0: none)",
    )
    group.add_argument(
        "--hold",
        type=_not_negative,
        default=0.0,
        metavar="S",
        help="change the answer only when another was first for S seconds (0)",
    )
    group.add_argument("--top-k", type=int, default=3, metavar="K", help="labels (3)")
    shape = group.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="JSON lines")
    shape.add_argument("--csv", action="store_true", help="a header, a row a frame")
    group.add_argument(
        "--events", action="store_true", help="tell only changes of the answer"
    )
    group.add_argument(
        "--preview", action="store_true", help="a window with the frames and answers"
    )
    group = verb.add_argument_group("frames worth labelling")
    group.add_argument("--save-unsure", metavar="DIR", help="keep unsure frames here")
    group.add_argument(
        "--unsure-below",
        type=_share,
        default=0.6,
        metavar="P",
        help="unsure: unknown, or less probable than P (0.6)",
    )
    group.add_argument(
        "--save-limit",
        type=_positive,
        default=100.0,
        metavar="MB",
        help="delete the oldest of them beyond this (100)",
    )


def run(args: argparse.Namespace) -> int:
    """The verb."""
    if args.list:
        return _list(args.json)
    if args.model is None:
        raise EdgegraftError("expected a MODEL (or --list)")
    classifier = open_classifier(args)
    unsure = None
    if args.save_unsure:
        limit = int(args.save_limit * 1e6)
        unsure = Unsure(args.save_unsure, args.unsure_below, limit, _note)
    steady = Steady(
        lambda chances, familiarity: classifier.answer(
            chances, familiarity, args.top_k
        ),
        args.smooth,
        args.hold,
    )
    preview = None
    if args.preview:
        from edge.camera.preview import Preview

        preview = Preview(f"edgegraft: {args.source or 'camera'}")
    tell = teller(sys.stdout, args)
    start, count, changes = time.monotonic(), 0, 0
    with Service() as service:
        for shot in _shots(args, service):
            frame = shot.frame
            if args.region is not None:
                frame = _cut(frame, args.region)
            begin = time.perf_counter()
            pixels = load_pixels(Image.fromarray(frame), classifier.recipe)
            ready = time.perf_counter()
            out = classifier.run(pixels[None])
            done = time.perf_counter()
            told, label, changed = steady.update(out, shot.seconds)
            count, changes = count + 1, changes + changed
            seen = Seen(
                shot.number,
                shot.seconds,
                label,
                changed,
                told,
                (ready - begin) * 1e3,
                (done - ready) * 1e3,
            )
            tell.frame(seen)
            if unsure is not None:
                unsure.offer(frame, told, shot.seconds)
            if preview is not None and not preview.show(frame, _line(label, told)):
                break
            if args.max_frames is not None and count >= args.max_frames:
                break
    tell.end()
    if preview is not None:
        preview.close()
    saved = f", {unsure.saved} saved" if unsure is not None else ""
    took = time.monotonic() - start
    _note(f"{count} frames in {took:.1f} s, {changes} changes{saved}")
    return 0


def _line(label: str, told: Prediction) -> str:
    return f"{label}  {told.probability:.1%}" if told.known else label


def _shots(args: argparse.Namespace, service: Service) -> Iterator[Shot]:
    source = find(args.source, args.size, args.live)
    if isinstance(source, Video) and not source.live:
        return _of_file(source, args, service)
    return _of_camera(source, args, service)


def _of_file(
    video: Video, args: argparse.Namespace, service: Service
) -> Iterator[Shot]:
    """Every frame in turn, or those that --fps picks."""
    video.open()
    service.tell("READY=1")
    try:
        number, due = 0, 0.0
        while not service.stopped and (frame := video.read()) is not None:
            seconds, number = number / video.rate, number + 1
            if args.seconds is not None and seconds >= args.seconds:
                return
            if args.fps is None or seconds >= due - 1e-9:
                due += 1 / args.fps if args.fps else 0.0
                yield Shot(number, seconds, frame)
            service.tell("WATCHDOG=1")
        if number == 0:
            raise SourceError(f"{video.name}: expected a video, no frame can be read")
        if not service.stopped and number < video.frames:
            _note(
                f"{video.name}: damaged or cut off, ended after frame {number} of "
                f"{video.frames}"
            )
    finally:
        video.close()


def _of_camera(
    first: Source, args: argparse.Namespace, service: Service
) -> Iterator[Shot]:
    """The newest frame, whenever the model is ready and --fps allows."""
    unused = [first]

    def make() -> Source:
        return unused.pop() if unused else find(args.source, args.size, args.live)

    newest = Newest(make, _note, stuck=args.stuck, wait=args.wait)
    service.tell("READY=1")
    start = due = time.monotonic()
    try:
        while not service.stopped:
            now = time.monotonic()
            if args.seconds is not None and now - start >= args.seconds:
                return
            service.tell("WATCHDOG=1")
            if now < due:
                time.sleep(min(due - now, _POLL))
                continue
            if (got := newest.next(_POLL)) is None:
                continue
            now = time.monotonic()
            if args.fps:  # keep the beat; after a pause, begin a new one
                due = max(due + 1 / args.fps, now)
            yield Shot(got[0], now - start, got[1])
    finally:
        newest.close()


def _cut(frame: Picture, region: tuple[float, float, float, float]) -> Picture:
    high, wide = frame.shape[:2]
    left, top, width, height = region
    if max(region) <= 1:
        left, width = left * wide, width * wide
        top, height = top * high, height * high
    x, y, right, bottom = (
        round(left),
        round(top),
        round(left + width),
        round(top + height),
    )
    if not (0 <= x < right <= wide and 0 <= y < bottom <= high):
        raise EdgegraftError(
            f"--region: expected a part of the frame of {wide} x {high} pixels, got "
            f"{','.join(f'{value:g}' for value in region)}"
        )
    return frame[y:bottom, x:right]


def _list(as_json: bool) -> int:
    found = cameras()
    if as_json:
        print(json.dumps([{"path": path, "name": name} for path, name in found]))
        return 0
    for path, name in found:
        print(f"{path:14}{name}")
    if not found:
        print("no webcam found (a Pi camera: picamera, needs python3-picamera2)")
    return 0


def _note(text: str) -> None:
    print(f"edgegraft: {text}", file=sys.stderr, flush=True)


def _positive(text: str) -> float:
    return _number(text, 1e-6, float("inf"), "more than 0")


def _not_negative(text: str) -> float:
    return _number(text, 0.0, float("inf"), "0 or more")


def _share(text: str) -> float:
    return _number(text, 0.0, 1.0, "from 0 to 1")


def _number(text: str, low: float, high: float, wanted: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}")
    return value


def _region(text: str) -> tuple[float, float, float, float]:
    try:
        x, y, width, height = (float(part) for part in text.split(","))
        if min(x, y) >= 0 and min(width, height) > 0:
            return (x, y, width, height)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected X,Y,WIDTH,HEIGHT, got {text!r}")


def _size(text: str) -> tuple[int, int]:
    wide, _, high = text.lower().partition("x")
    if wide.isdigit() and high.isdigit() and int(wide) and int(high):
        return (int(wide), int(high))
    raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, got {text!r}")
