"""The verb ``camera``: label what a camera, a stream or a video file shows."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from PIL import Image

from edge.camera.frames import (
    HEARTBEAT,
    LOOKS,
    STUCK,
    Frames,
    MotionGate,
    TimedFrame,
    read_frames,
)
from edge.camera.output import (
    CsvWriter,
    FrameResult,
    JsonLinesWriter,
    LineWriter,
    Preview,
    TemporalSmoother,
    UncertainFrames,
)
from edge.camera.service import Service
from edge.camera.sources import INSTALL_OPENCV, Picture, cameras
from edge.classifier import Classifier
from edge.classify.cli import open_classifier
from edge.command import ModelOptions, add_region, count, number, width_and_height
from edge.errors import EdgegraftError
from edge.preprocess import load_pixels
from edge.region import region_box
from edge.text import plural

if TYPE_CHECKING:
    from edge.camera.mqtt import Publisher

_SETTLED = 3.0  # time constants after which the average is all but the new value
_ABOUT = "Label what a camera, a network stream or a video file shows, until stopped."
_MORE = """SOURCE: 0 or /dev/video0 (a webcam), a part of a camera's name, picamera or
picamera:1, rtsp://... or http://..., or a video file. Without it, the first camera.

exit code: 0 at the end of a file, of --seconds or --max-frames, on Ctrl-C or SIGTERM;
2 for bad input. A lost camera is waited for, a lost broker too. Home Assistant shows
what is published with --mqtt; docs/home.md has an example."""


def add_options(verb: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    verb.description, verb.epilog = _ABOUT, _MORE
    verb.add_argument("model", nargs="?", metavar="MODEL", help="a .tflite file")
    verb.add_argument("source", nargs="?", metavar="SOURCE", help="see below")
    verb.add_argument("--list", action="store_true", help="list the cameras")
    group = verb.add_argument_group("which frames")
    rate = group.add_mutually_exclusive_group()
    rate.add_argument("--fps", type=_positive, help="frames per second at most")
    rate.add_argument(
        "--every", type=_positive, metavar="S", help="one frame every S seconds"
    )
    group.add_argument(
        "--motion",
        action="store_true",
        help=f"only while something moves in the region ({LOOKS:g} looks a second "
        "where no --fps is given)",
    )
    group.add_argument(
        "--heartbeat",
        type=_positive,
        default=HEARTBEAT,
        metavar="S",
        help="without motion, classify one frame every S seconds all the same, and "
        f"publish what has not changed ({HEARTBEAT:g})",
    )
    group.add_argument(
        "--max-frames", type=count, metavar="N", help="stop after N frames"
    )
    group.add_argument("--seconds", type=_positive, help="stop after this time")
    add_region(group)
    group.add_argument(
        "--size",
        type=width_and_height,
        metavar="WxH",
        help="frame size to ask the camera for",
    )
    group.add_argument(
        "--live",
        action="store_true",
        help="repeat a video file without end, in real time",
    )
    group.add_argument(
        "--wait",
        action="store_true",
        help="wait for a source that is not available yet",
    )
    group.add_argument(
        "--stuck",
        type=_positive,
        default=STUCK,
        metavar="S",
        help=f"reopen a source that has sent nothing for S seconds ({STUCK:g})",
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
    group.add_argument("--top-k", type=count, default=3, metavar="K", help="labels (3)")
    shape = group.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="JSON lines")
    shape.add_argument(
        "--csv", action="store_true", help="a header, then a row for each frame"
    )
    group.add_argument(
        "--events", action="store_true", help="print only changes of the label"
    )
    group.add_argument(
        "--preview", action="store_true", help="a window with the frames and labels"
    )
    group = verb.add_argument_group("MQTT, shown by Home Assistant")
    group.add_argument(
        "--mqtt",
        metavar="URL",
        help="publish label, probability and familiarity: mqtt://USER@HOST:PORT/TOPIC "
        "(mqtts: with TLS; topic: edgegraft/MODEL)",
    )
    group.add_argument(
        "--mqtt-password-file",
        metavar="FILE",
        help="its first line is the password (or $EDGEGRAFT_MQTT_PASSWORD)",
    )
    group.add_argument(
        "--mqtt-ca",
        metavar="FILE",
        help="CA certificates, for a broker that has its own",
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
        help="delete the oldest ones above this size (100)",
    )


def run(args: argparse.Namespace) -> int:
    """The verb."""
    if args.list:
        return _list(args.json)
    if args.model is None:
        raise EdgegraftError("expected a MODEL (or --list)")
    broker = None
    if args.mqtt:
        from edge.camera.mqtt import Broker

        name = os.path.splitext(os.path.basename(args.model))[0]
        broker = Broker.from_url(
            args.mqtt, f"edgegraft/{name}", args.mqtt_password_file, args.mqtt_ca
        )
    elif args.mqtt_password_file or args.mqtt_ca:
        raise EdgegraftError("expected --mqtt with --mqtt-password-file and --mqtt-ca")
    classifier = open_classifier(ModelOptions.from_args(args))
    frames = Frames.from_args(args)
    with ExitStack() as stack:
        publisher = None
        if broker is not None:
            from edge.camera.mqtt import Publisher

            publisher = Publisher(broker, classifier, _note, args.heartbeat)
            stack.callback(publisher.close)
        processor = _FrameProcessor(args, classifier, publisher)
        if processor.preview is not None:
            stack.callback(processor.preview.close)
        start = time.monotonic()
        service = stack.enter_context(Service())
        online = publisher.set_online if publisher is not None else lambda _: None
        for frame in read_frames(frames, service, _note, online):
            if not processor.process(frame) or processor.count == frames.max_frames:
                break
        processor.writer.end()
    uncertain = processor.uncertain
    saved = f", {uncertain.saved} saved" if uncertain is not None else ""
    seconds = time.monotonic() - start
    total = plural(processor.count, "frame")
    changes = plural(processor.changes, "change")
    _note(f"{total} in {seconds:.1f} s, {changes}{saved}")
    return 0


class _FrameProcessor:
    """What is done with each frame: motion, inference, smoothing, output."""

    def __init__(
        self,
        args: argparse.Namespace,
        classifier: Classifier,
        publisher: Publisher | None,
    ) -> None:
        self._classifier, self._publisher = classifier, publisher
        self._recipe = replace(classifier.recipe, region=None)
        self._region_fits = True
        self.count = self.changes = 0
        self._motion: MotionGate | None = None
        self.uncertain: UncertainFrames | None = None
        self.preview: Preview | None = None
        if args.motion:  # active until a new label has been held
            calm = args.hold + _SETTLED * args.smooth
            self._motion = MotionGate(calm, args.heartbeat)
        if args.save_uncertain:
            limit = int(args.save_limit * 1e6)
            self.uncertain = UncertainFrames(
                args.save_uncertain, args.uncertain_below, limit, _note
            )
        self._smoother = TemporalSmoother(
            lambda probabilities, familiarity: classifier.prediction(
                probabilities, familiarity, args.top_k
            ),
            args.smooth,
            args.hold,
        )
        if args.preview:
            self.preview = Preview(f"edgegraft: {args.source or 'camera'}")
        kind = JsonLinesWriter if args.json else CsvWriter if args.csv else LineWriter
        self.writer: LineWriter = kind(sys.stdout, args.events)

    def process(self, frame: TimedFrame) -> bool:
        """One frame; False when it was the last (its window was closed)."""
        start = time.perf_counter()
        pixels = self._crop(frame.pixels)
        if pixels is None:
            return True
        if self._motion is not None and not self._motion.look(pixels, frame.seconds):
            return True
        prepared = load_pixels(Image.fromarray(pixels), self._recipe)
        inference_start = time.perf_counter()
        outputs = self._classifier.run(prepared[None])
        end = time.perf_counter()
        own = self._classifier.first_prediction(outputs)
        prediction, label, changed = self._smoother.update(outputs, frame.seconds)
        if self._motion is not None and prediction.label != label:
            self._motion.wake(frame.seconds)  # another label has to be held to count
        self.count, self.changes = self.count + 1, self.changes + changed
        result = FrameResult(
            frame.number,
            frame.seconds,
            label,
            changed,
            prediction,
            own,
            (inference_start - start) * 1e3,
            (end - inference_start) * 1e3,
        )
        self.writer.write(result)
        if self._publisher is not None:
            self._publisher.publish(result)
        if self.uncertain is not None:
            # training cuts the model's own region out again
            uncropped = self._classifier.trained_region is not None
            picture = frame.pixels if uncropped else pixels
            self.uncertain.save_if_uncertain(picture, own, frame.seconds)
        if self.preview is None:
            return True
        percent = f"  {prediction.probability:.1%}" if prediction.known else ""
        return self.preview.show(pixels, label + percent)

    def _crop(self, pixels: Picture) -> Picture | None:
        """The region, as load_pixels cuts it out; only this part is converted. None,
        with a line, where the frames have become too small for it."""
        region = self._classifier.recipe.region
        if region is None:
            return pixels
        height, width = pixels.shape[:2]
        try:
            left, top, right, bottom = region_box(region, (width, height))
        except EdgegraftError as error:
            if not self.count:
                raise
            if self._region_fits:
                _note(f"{error}; waiting for larger frames")
            self._region_fits = False
            return None
        self._region_fits = True
        return pixels[top:bottom, left:right]


def _list(as_json: bool) -> int:
    devices = cameras()
    if as_json:
        print(json.dumps([{"path": path, "name": name} for path, name in devices]))
        return 0
    for path, name in devices:
        print(f"{path:14}{name}")
    if not devices:
        print("no webcam found (a Pi camera: picamera, needs python3-picamera2)")
    if find_spec("cv2") is None:
        _note(f"a webcam, a stream and a video need OpenCV: {INSTALL_OPENCV}")
    return 0


def _note(text: str) -> None:
    print(f"edgegraft: {text}", file=sys.stderr, flush=True)


def _positive(text: str) -> float:
    return number(text, 1e-6, float("inf"), "more than 0")


def _not_negative(text: str) -> float:
    return number(text, 0.0, float("inf"), "0 or more")


def _share(text: str) -> float:
    return number(text, 0.0, 1.0, "from 0 to 1")
