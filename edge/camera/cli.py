"""The verb ``camera``: label what a camera, a stream or a video file shows.

Of a live source the latest frame is taken, of a video file every frame (or those that
--fps picks, by the video's own clock), so the results of a file are the same on every
machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from PIL import Image

from edge.camera.latest_frame import BAD_FRAMES, STUCK, LatestFrameReader
from edge.camera.output import CsvWriter, FrameResult, JsonLinesWriter, LineWriter
from edge.camera.service import Service
from edge.camera.smoothing import TemporalSmoother
from edge.camera.sources import Picture, Source, SourceError, Video, cameras, find
from edge.camera.uncertain import UncertainFrames
from edge.classifier import Prediction
from edge.classify.cli import open_classifier
from edge.command import ModelOptions, add_region
from edge.errors import EdgegraftError
from edge.preprocess import load_pixels, region_box

_POLL = 0.25  # seconds: how soon a signal is noticed while no frame comes
_CUT_OFF = 0.95  # of the length that a file states: less was read, it is cut off
_ABOUT = "Label what a camera, a network stream or a video file shows, until stopped."
_MORE = """SOURCE: 0 or /dev/video0 (a webcam), a part of a camera's name, picamera or
picamera:1, rtsp://... or http://..., or a video file. Without it, the first camera.

exit code: 0 at the end of a file, of --seconds or --max-frames, on Ctrl-C or SIGTERM;
2 for bad input. A lost camera is waited for. Publish each change over MQTT:
  ... camera model.tflite 0 --json --events | mosquitto_pub -l -t door/camera"""


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
    most: int | None
    size: tuple[int, int] | None
    live: bool
    wait: bool
    stuck: float

    @classmethod
    def of(cls, args: argparse.Namespace) -> Frames:
        fps = args.fps if args.every is None else 1 / args.every
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
        return find(self.source, self.size, self.live)


def add_options(verb: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    verb.description, verb.epilog = _ABOUT, _MORE
    verb.add_argument("model", nargs="?", metavar="MODEL", help="a .tflite file")
    verb.add_argument("source", nargs="?", metavar="SOURCE", help="see below")
    verb.add_argument("--list", action="store_true", help="the cameras there are")
    group = verb.add_argument_group("which frames")
    rate = group.add_mutually_exclusive_group()
    rate.add_argument("--fps", type=_positive, help="at most this many a second")
    rate.add_argument(
        "--every", type=_positive, metavar="S", help="one every S seconds"
    )
    group.add_argument("--max-frames", type=int, metavar="N", help="stop after N")
    group.add_argument("--seconds", type=_positive, help="stop after this time")
    add_region(group)
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
        help=f"open a source again that sent nothing for S seconds ({STUCK:g})",
    )
    group = verb.add_argument_group("results")
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
        help="change the label only after another was first for S seconds (0)",
    )
    group.add_argument("--top-k", type=int, default=3, metavar="K", help="labels (3)")
    shape = group.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="JSON lines")
    shape.add_argument("--csv", action="store_true", help="a header, a row a frame")
    group.add_argument(
        "--events", action="store_true", help="print only changes of the label"
    )
    group.add_argument(
        "--preview", action="store_true", help="a window with the frames and labels"
    )
    group = verb.add_argument_group("frames worth labelling")
    group.add_argument(
        "--save-uncertain", metavar="DIR", help="keep uncertain frames here"
    )
    group.add_argument(
        "--uncertain-below",
        type=_share,
        default=0.6,
        metavar="P",
        help="uncertain: unknown, or less probable than P (0.6)",
    )
    group.add_argument(
        "--save-limit",
        type=_positive,
        default=100.0,
        metavar="MB",
        help="delete the oldest of them above this (100)",
    )


def run(args: argparse.Namespace) -> int:
    """The verb."""
    if args.list:
        return _list(args.json)
    if args.model is None:
        raise EdgegraftError("expected a MODEL (or --list)")
    classifier = open_classifier(ModelOptions.of(args))
    frames = Frames.of(args)
    uncertain = None
    if args.save_uncertain:
        limit = int(args.save_limit * 1e6)
        uncertain = UncertainFrames(
            args.save_uncertain, args.uncertain_below, limit, _note
        )
    smoother = TemporalSmoother(
        lambda probabilities, familiarity: classifier.prediction(
            probabilities, familiarity, args.top_k
        ),
        args.smooth,
        args.hold,
    )
    preview = None
    if args.preview:
        from edge.camera.preview import Preview

        preview = Preview(f"edgegraft: {frames.source or 'camera'}")
    kind = JsonLinesWriter if args.json else CsvWriter if args.csv else LineWriter
    writer = kind(sys.stdout, args.events)
    region, trained = classifier.recipe.region, classifier.trained_region
    recipe = replace(classifier.recipe, region=None)
    start, count, changes = time.monotonic(), 0, 0
    with Service() as service:
        for shot in _frames(frames, service):
            pixels = shot.pixels
            begin = time.perf_counter()
            if region is not None:  # as load_pixels does; only this part is converted
                high, wide = pixels.shape[:2]
                left, top, right, bottom = region_box(region, (wide, high))
                pixels = pixels[top:bottom, left:right]
            prepared = load_pixels(Image.fromarray(pixels), recipe)
            ready = time.perf_counter()
            outputs = classifier.run(prepared[None])
            done = time.perf_counter()
            prediction, label, changed = smoother.update(outputs, shot.seconds)
            count, changes = count + 1, changes + changed
            writer.write(
                FrameResult(
                    shot.number,
                    shot.seconds,
                    label,
                    changed,
                    prediction,
                    (ready - begin) * 1e3,
                    (done - ready) * 1e3,
                )
            )
            if uncertain is not None:
                # training cuts the model's own region out again
                kept = pixels if trained is None else shot.pixels
                uncertain.offer(kept, prediction, shot.seconds)
            if preview is not None and not preview.show(
                pixels, _caption(label, prediction)
            ):
                break
            if frames.most is not None and count >= frames.most:
                break
    writer.end()
    if preview is not None:
        preview.close()
    saved = f", {uncertain.saved} saved" if uncertain is not None else ""
    took = time.monotonic() - start
    _note(f"{count} frames in {took:.1f} s, {changes} changes{saved}")
    return 0


def _caption(label: str, prediction: Prediction) -> str:
    return f"{label}  {prediction.probability:.1%}" if prediction.known else label


def _frames(frames: Frames, service: Service) -> Iterator[TimedFrame]:
    source = frames.find()
    if isinstance(source, Video) and not source.live:
        return _of_file(source, frames, service)
    return _of_camera(source, frames, service)


def _of_file(video: Video, frames: Frames, service: Service) -> Iterator[TimedFrame]:
    """Every frame in turn, or those that --fps picks; damaged ones are left out."""
    video.open()
    service.notify("READY=1")
    try:
        number = damaged = failed = 0
        due = 0.0
        while not service.stopped:
            service.notify("WATCHDOG=1")
            if not video.grab():
                failed += 1
                if failed > BAD_FRAMES:
                    break
                continue
            damaged, failed, number = damaged + failed, 0, number + 1
            if frames.seconds is not None and video.seconds >= frames.seconds:
                return
            if frames.fps is not None and video.seconds < due - 1e-9:
                continue
            pixels = video.retrieve()
            if pixels is None:
                damaged += 1
                continue
            due += 1 / frames.fps if frames.fps else 0.0
            yield TimedFrame(number + damaged, video.seconds, pixels)
        if number == 0:
            raise SourceError(f"{video.name}: expected a video, no frame can be read")
        if service.stopped:
            return
        length = video.frames / video.rate
        if video.seconds + 1 / video.rate < _CUT_OFF * length:
            _note(
                f"{video.name}: cut off, ended after frame {number + damaged} of "
                f"{video.frames}"
            )
        if damaged:
            frames_are = "frame is" if damaged == 1 else "frames are"
            _note(f"{video.name}: {damaged} {frames_are} damaged and left out")
    finally:
        video.close()


def _of_camera(first: Source, frames: Frames, service: Service) -> Iterator[TimedFrame]:
    """The latest frame, whenever the model is ready and --fps allows."""
    unused = [first]

    def make() -> Source:
        return unused.pop() if unused else frames.find()

    reader = LatestFrameReader(
        make,
        _note,
        stuck=frames.stuck,
        wait=frames.wait,
        on_demand=frames.fps is not None,
    )
    service.notify("READY=1")
    start = due = time.monotonic()
    try:
        while not service.stopped:
            now = time.monotonic()
            if frames.seconds is not None and now - start >= frames.seconds:
                return
            service.notify("WATCHDOG=1")
            if now < due:
                time.sleep(min(due - now, _POLL))
                continue
            if (got := reader.next(_POLL)) is None:
                continue
            now = time.monotonic()
            if frames.fps:  # keep the beat; after a pause, begin a new one
                due = max(due + 1 / frames.fps, now)
            yield TimedFrame(got[0], now - start, got[1])
    finally:
        reader.close()


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


def _size(text: str) -> tuple[int, int]:
    wide, _, high = text.lower().partition("x")
    if wide.isdigit() and high.isdigit() and int(wide) and int(high):
        return (int(wide), int(high))
    raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, got {text!r}")
