"""The packed folder on an emulated Raspberry Pi: Debian arm64 and armhf under QEMU.

    make device-test
    python tests/device/run.py [arm64|armhf ...] [--count 100] [--model M --photos D]

What a user copies (`edge pack`) runs there with Debian's own python3, numpy and
Pillow and the matching tflite-runtime 2.14: `classify` on photos that the model never
saw, `evaluate` on some of them, `bench`. Every answer is compared with the host's
(LiteRT, its newer Pillow); where the best label differs, the reason is measured: other
pixels (libjpeg and Pillow differ), XNNPACK's rounding on the host, or the processor's
kernels. Fails below 98.5 % of equal labels. Where OpenCV has a wheel for the processor
(64 bits), `camera` watches a region of a video there, looks only where something moves
and publishes to a mosquitto of this machine: the host's labels, frame by frame, and on
the broker what was printed. Both processors run side by side. The photos and the model
are those of tests/legs (real with $EDGEGRAFT_ASSETS, else drawn); all that is
downloaded lies in .legs. Times under emulation mean nothing, and no board is real.

LiteRT 2.3.0's own arm64 wheel ends with SIGSEGV under
QEMU 7.2, so the emulated device has tflite-runtime on both.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from edge import model_file  # noqa: E402
from edge.classify.sources import walk  # noqa: E402
from edge.model_file import ModelFile  # noqa: E402
from edge.pack import MODEL, PROGRAM, pack  # noqa: E402
from tests.device.debian import (  # noqa: E402
    ARCHES,
    CannotRun,
    Device,
    prepare,
)

LEGS = ROOT / ".legs"
CAMERA = ("opencv-python-headless", "paho-mqtt")
WITH_CAMERA = ("arm64",)  # OpenCV publishes no wheel for 32-bit Arm
PACKAGES = {
    "tflite-runtime": ROOT / "requirements" / "tflite-runtime.txt",
    **dict.fromkeys(CAMERA, ROOT / "requirements" / "dev.txt"),
}
WHEELS = ("manylinux_2_34", "manylinux_2_28", "manylinux2014")
OLD = "2.14.0"  # of tflite-runtime, in its requirements
SAME_LABEL = 0.985  # the share of photos with the host's best label
EVALUATED = 16  # photos for `evaluate`: the same code and answers as `classify`
LIMIT_S = 3600  # of one command under emulation
# Pixels as the device makes them, told as a digest: run on both sides.
PIXELS = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from edge.classifier import Classifier
from edge.preprocess import load_pixels
recipe = Classifier(sys.argv[2], threads=1).recipe
for path in sys.argv[3:]:
    print(hashlib.sha256(load_pixels(path, recipe).tobytes()).hexdigest())
"""


class Failed(Exception):
    """The reason, in one line."""


@dataclass(frozen=True)
class Case:
    """What every device is asked: the packed folder, photos, the host's answers."""

    program: Path
    model: Path
    photos: list[Path]
    some: Path  # a folder with a folder for each label, a few photos in each
    host: dict[str, Any]
    plain: dict[str, Any]  # the host's without XNNPACK


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "arch", nargs="*", help=f"of {', '.join(ARCHES)} (default: all)"
    )
    parser.add_argument("--count", type=int, default=100, help="photos (100)")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--photos", type=Path, help="a folder for each label")
    args = parser.parse_args()
    names = args.arch or list(ARCHES)
    if set(names) - set(ARCHES) or (args.model is None) != (args.photos is None):
        parser.error(f"expected {' or '.join(ARCHES)}, --model with --photos")
    try:
        devices = [
            prepare(ARCHES[name], LEGS / f"debian-{name}", wheel(name))
            for name in names
        ]
    except CannotRun as reason:
        print(f"device-test: NOT RUN: {reason}", file=sys.stderr)
        return 2
    case = make_case(args)
    with ThreadPoolExecutor(len(devices)) as pool:
        outcomes = list(pool.map(lambda device: judged(device, case), devices))
    return 0 if all(outcomes) else 1


def wheel(name: str) -> Path:
    """tflite-runtime for that processor, unpacked, and OpenCV and paho-mqtt where there
    is an OpenCV; by the digests that are pinned."""
    target = LEGS / f"wheel-{name}"
    if (target / "complete").exists():
        return target
    shutil.rmtree(target, ignore_errors=True)
    for package, pins in PACKAGES.items():
        if package in CAMERA and name not in WITH_CAMERA:
            continue
        _download(package, pins, ARCHES[name].wheel, target)
    (target / "complete").touch()
    return target


def _download(package: str, pins: Path, processor: str, target: Path) -> None:
    text = pins.read_text("utf-8")
    pin = re.search(rf"^{package}==.*?(?=^\S|\Z)", text, re.M | re.S)
    assert pin is not None, f"{pins}: expected {package} in it"
    into = target / "wheels" / package
    into.mkdir(parents=True)
    wanted = into / "requirements.txt"
    wanted.write_text(re.sub(r" ;[^\\\n]*", "", pin[0]), "utf-8")
    platforms = [("--platform", f"{form}_{processor}") for form in WHEELS]
    done = subprocess.run(
        [
            *pip(),
            *("download", "--quiet", "--no-deps", "--only-binary=:all:"),
            *("--require-hashes", "-r", str(wanted), "--dest", str(into)),
            *("--python-version", "3.11", "--implementation", "cp"),
            *("--abi", "cp311", "--abi", "abi3", "--abi", "none"),
            *itertools.chain(*platforms),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    found = list(into.glob("*.whl"))
    if done.returncode or len(found) != 1:
        raise CannotRun(f"pip download {package}: {last_line(done.stderr)}")
    with zipfile.ZipFile(found[0]) as archive:
        archive.extractall(target)


def pip() -> list[str]:
    """A pip that can download for other processors (uv knows no armv7l)."""
    own = [sys.executable, "-m", "pip"]
    if not subprocess.run([*own, "--version"], capture_output=True).returncode:
        return own
    python = LEGS / "pip" / "bin" / "python"
    if not python.exists():
        import venv

        try:
            venv.create(python.parents[1], with_pip=True, symlinks=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise CannotRun(f"expected pip or venv in this Python ({error})") from None
    return [str(python), "-m", "pip"]


def make_case(args: argparse.Namespace) -> Case:
    """Pack the model, choose the photos, ask the host."""
    if args.model is None:
        from tests.legs.run import build

        model, folder = build()
    else:
        model, folder = args.model, args.photos
    packed = LEGS / "packed"
    pack(model, packed, overwrite=True)
    everything = list(map(Path, walk(str(folder))))
    step = max(len(everything) // args.count, 1)
    photos = everything[::step][: args.count]
    if not photos:
        raise SystemExit(f"{folder}: expected photos, found none")
    some = LEGS / "some"
    shutil.rmtree(some, ignore_errors=True)  # links only
    for photo in photos[:: max(len(photos) // EVALUATED, 1)]:
        place = some / photo.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(photo.resolve())
    host = [sys.executable, str(packed / PROGRAM)]
    ask = [str(packed / MODEL), *map(str, photos)]
    return Case(
        packed / PROGRAM,
        packed / MODEL,
        photos,
        some,
        answers([*host, "classify", *ask, "--json"]),
        answers([*host, "classify", *ask, "--json", "--no-xnnpack"]),
    )


def judged(device: Device, case: Case) -> bool:
    """Ask the device, tell how it differs; was it the same?"""
    name, start = device.arch.debian, time.monotonic()
    try:
        told = compare(device, case)
    except Failed as reason:
        print(f"device {name}: FAILED ({time.monotonic() - start:.0f} s): {reason}")
        return False
    print(
        f"device {name}: passed ({time.monotonic() - start:.0f} s): {told}", flush=True
    )
    return True


def compare(device: Device, case: Case) -> str:
    program, model = str(case.program), str(case.model)
    # Without binfmt_misc an emulated Python cannot start the child process that tries
    # a file: the host has tried this one.
    model_file._remember(f"{ModelFile.read(model).digest}-tflite-runtime-{OLD}")
    bench = document(device.command(program, "bench", model, "--runs", "3", "--json"))[
        "models"
    ][0]
    if bench["runtime"] != "tflite-runtime" or not bench["p50_ms"] > 0:
        raise Failed(f"bench: expected tflite-runtime and times, got {bench}")
    ask = ["classify", model, *map(str, case.photos), "--json", "--workers", "1"]
    there = answers(device.command(program, *ask))
    if list(there) != list(case.host):
        raise Failed("classify: expected an answer to every photo, in order")
    other = [p for p in there if label(there[p]) != label(case.host[p])]
    reasons = [
        f"{Path(p).name}: {label(there[p])} {chance(there[p]):.1%}, host "
        f"{label(case.host[p])} {chance(case.host[p]):.1%}, {reason}"
        for p, reason in zip(other, why(device, case, there, other), strict=True)
    ]
    for line in reasons:
        print(f"device {device.arch.debian}: {line}")
    checked = check_evaluate(device, case, there)
    furthest = max(
        abs(
            there[p]["ranking"][0]["probability"]
            - case.host[p]["ranking"][0]["probability"]
        )
        for p in there
    )
    same = len(there) - len(other)
    if device.arch.debian in WITH_CAMERA:
        checked += f"; {check_camera(device, case)}"
    told = (
        f"{bench['runtime']} {bench['runtime_version']}, {device.arch.cpu}: the host's "
        f"best label on {same} of {len(there)} photos, probabilities at most "
        f"{furthest:.3f} apart; {checked}"
    )
    if same / len(there) < SAME_LABEL:
        raise Failed(f"{told}; expected {SAME_LABEL:.1%}")
    return told


def why(
    device: Device, case: Case, there: dict[str, Any], photos: Sequence[str]
) -> list[str]:
    """For each photo with another label: what makes the difference."""
    if not photos:
        return []
    ask = ["-c", PIXELS, str(case.program), str(case.model), *photos]
    ours = run([sys.executable, *ask]).split()
    theirs = run(device.command(*ask)).split()
    reasons = []
    for photo, mine, yours in zip(photos, ours, theirs, strict=True):
        if mine != yours:
            reasons.append("other pixels: its libjpeg or Pillow decodes differently")
        elif label(there[photo]) == label(case.plain[photo]):
            reasons.append("XNNPACK rounds differently on the host")
        else:
            reasons.append("the processor's kernels round differently")
    return reasons


def check_evaluate(device: Device, case: Case, there: dict[str, Any]) -> str:
    """`evaluate` on some photos must count what `classify` said of them."""
    found = document(
        device.command(
            str(case.program), "evaluate", str(case.model), str(case.some), "--json"
        )
    )
    names = {str(link.resolve()): link.parent.name for link in case.some.rglob("*.*")}
    right = sum(
        there[photo]["ranking"][0]["label"] == names[str(Path(photo).resolve())]
        for photo in there
        if str(Path(photo).resolve()) in names
    )
    if (found["photos"], round(found["accuracy"] * found["photos"])) != (
        len(names),
        right,
    ):
        raise Failed(
            f"evaluate: expected {right} right of {len(names)}, got "
            f"{found['accuracy']:.1%} of {found['photos']}"
        )
    return f"evaluate {right} of {len(names)} right, calibration error told"


def check_camera(device: Device, case: Case) -> str:
    """`camera` on a film, there and here: the same frames, labels and changes; what a
    subscriber of this machine's broker gets is what was printed."""
    film, region = draw_film(case)
    look = ["camera", str(case.model), str(film), "--json", "--motion"]
    look += ["--region", region, "--smooth", "0"]
    here = lines([sys.executable, str(case.program), *look])
    with broker() as (port, states):
        there = lines(
            device.command(
                str(case.program), *look, "--mqtt", f"mqtt://127.0.0.1:{port}/device"
            )
        )
        changes = [row["label"] for row in there if row["changed"]]
        end = time.monotonic() + 30
        while len(states()) < len(changes) and time.monotonic() < end:
            time.sleep(0.1)
        published = states()
    keys = ("frame", "label", "changed")
    if [[row[k] for k in keys] for row in there] != [
        [r[k] for k in keys] for r in here
    ]:
        raise Failed(f"camera: expected the host's frames and labels, got {there}")
    if not changes or len(there) == FILM_FRAMES:
        raise Failed(f"camera: expected few looks and a change, got {there}")
    if [state["label"] for state in published] != changes:
        raise Failed(f"camera: expected {changes} on the broker, got {published}")
    return (
        f"camera looked at {len(there)} of {FILM_FRAMES} frames, as the host, "
        f"and published {len(changes)} changes"
    )


FILM_FRAMES, FILM_FPS, FILM_SIZE = 90, 10, (320, 240)


def draw_film(case: Case) -> tuple[Path, str]:
    """Two photos in turn in the right half, which is the region, the left one dark."""
    import cv2
    import numpy as np
    from PIL import Image

    path = LEGS / "film.avi"
    coder = cv2.VideoWriter_fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), coder, FILM_FPS, FILM_SIZE)
    wide, high = FILM_SIZE
    # the surest photo of each label: squeezed, it is still no tie
    surest = sorted(case.photos, key=lambda p: chance(case.host[str(p)]))
    by_label = {label(case.host[str(p)]): p for p in surest}
    for number in range(FILM_FRAMES):
        turn = number * 3 // FILM_FRAMES % len(by_label)
        frame = np.full((high, wide, 3), 40, np.uint8)
        with Image.open(list(by_label.values())[turn]) as photo:
            half = photo.convert("RGB").resize((wide // 2, high))
        frame[:, wide // 2 :] = np.asarray(half)[..., ::-1]
        writer.write(frame)
    writer.release()
    return path, "0.5,0,0.5,1"


@contextmanager
def broker() -> Iterator[tuple[int, Callable[[], list[dict[str, Any]]]]]:
    """The port of a mosquitto of this machine, and what gives the states of `device`
    that have come to it."""
    from tests.camera_room import MOSQUITTO, Mosquitto

    if MOSQUITTO is None:
        raise Failed("camera: expected mosquitto; run: apt install mosquitto")
    with tempfile.TemporaryDirectory() as folder:
        made = Mosquitto(Path(folder), "allow_anonymous true")
        made.start()
        client = made.listen()
        try:
            yield (
                made.port,
                lambda: [
                    json.loads(text)
                    for topic, text in made.messages
                    if topic == "device/state"
                ],
            )
        finally:
            client.disconnect()
            client.loop_stop()
            made.kill()


def lines(command: Sequence[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(command).splitlines()]


def answers(command: Sequence[str]) -> dict[str, Any]:
    """Photo to answer, of `classify --json`."""
    return {answer["photo"]: answer for answer in document(command)["photos"]}


def label(answer: dict[str, Any]) -> str:
    # The ranking, not the label: it is there also where a photo is refused as unknown.
    return str(answer["ranking"][0]["label"])


def chance(answer: dict[str, Any]) -> float:
    return float(answer["ranking"][0]["probability"])


def document(command: Sequence[str]) -> Any:
    return json.loads(run(command))


def run(command: Sequence[str]) -> str:
    """Standard output; Failed where the command fails."""
    done = subprocess.run(
        command,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    if done.returncode:
        verb = next(
            (w for w in command if w in ("bench", "camera", "classify", "evaluate")), ""
        )
        raise Failed(f"{verb} ended with {done.returncode}: {last_line(done.stderr)}")
    return done.stdout


def last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no output"


if __name__ == "__main__":
    sys.exit(main())
