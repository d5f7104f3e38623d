"""Drawn pictures: a subject in a place, under some light, through some lens; as files.

A picture is drawn larger than it is and scaled down; every choice comes out of the
generator handed in, so a file depends only on (seed, stream, index). The files vary as
photos do: JPEG qualities, EXIF turns (the stored pixels are turned, the picture is
upright after the turn), grey ones, some PNGs with alpha. Several processes write many.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data.sample.animals import POSES, draw_animal
from data.sample.scenery import THINGS, backdrop, foreground
from data.sample.sketch import Sketch, oval
from edge.runtime import cores

OVERSAMPLING = 1.6
ASPECTS = ((4, 3), (4, 3), (3, 2), (1, 1), (3, 4), (3, 4), (2, 3))

# EXIF orientation -> what was done to the upright picture before it was stored
_T = Image.Transpose
STORED_AS = {3: _T.ROTATE_180, 6: _T.ROTATE_90, 8: _T.ROTATE_270, 2: _T.FLIP_LEFT_RIGHT}
ORIENTATION_TAG, SOFTWARE_TAG = 0x0112, 0x0131

ENOUGH = 12  # pictures that make another process worth its start (about 0.3 s)
MAX_PROCESSES = 8

# path without suffix, subject, stream, index
Job = tuple[str, str, int, int]


def draw_picture(
    subject: str,
    rng: np.random.Generator,
    *,
    plain: bool = False,
) -> Image.Image:
    """A picture of `subject`: "cat", "dog" or "unknown". RGB, 240 to 400 pixels.

    plain: an easy picture (whole subject, fair light, nothing in front of it).
    """
    across, down = ASPECTS[rng.integers(len(ASPECTS))]
    low, high = (240, 321) if across == down else (280, 401)
    longer = int(rng.integers(low, high))
    w = longer * across // max(across, down)
    h = longer * down // max(across, down)
    behind = backdrop((w, h), rng)
    focus = float(rng.uniform(0.0, 2.2))
    behind = behind.filter(ImageFilter.BoxBlur(focus))
    large = (round(w * OVERSAMPLING), round(h * OVERSAMPLING))
    image = behind.resize(large, Image.Resampling.BILINEAR)
    angle = float(rng.uniform(0, np.pi))
    sk = Sketch(image, light=(np.cos(angle), -np.sin(angle) * 0.8 - 0.2))
    if subject == "unknown":
        _put_thing(sk, rng)
    else:
        _put_animal(sk, subject, rng, plain)
    if not plain and rng.random() < 0.3:
        foreground(image, rng)
    return expose(image.resize((w, h), Image.Resampling.BILINEAR), rng, calm=plain)


def _put_animal(
    sk: Sketch, species: str, rng: np.random.Generator, plain: bool
) -> None:
    w, h = sk.image.size
    poses = [pose for pose in POSES.values() if pose.plain or not plain]
    weights = np.array([pose.weight for pose in poses], float)
    pose = poses[rng.choice(len(poses), p=weights / weights.sum())]
    left, right, tall = pose.extent
    fill = float(rng.uniform(0.75, 0.9) if plain else rng.uniform(0.72, 1.1))
    contain, cover = sorted((w / (left + right), h / tall))
    scale = fill * min(1.3 * contain, (contain * cover) ** 0.5)
    if plain:
        scale = fill * contain
    mirror = bool(rng.random() < 0.5)
    if mirror:
        left, right = right, left
    spare_x, spare_y = w - scale * (left + right), h - scale * tall
    x = left * scale + spare_x * float(rng.uniform(0, 1))
    if spare_x < 0:  # too large for the picture: the tail is cut off, not the head
        x = left * scale if mirror else w - right * scale
    if pose.face:
        y = h if plain else h + scale * float(rng.uniform(-0.1, 0.3))
        y = max(y, 0.96 * tall * scale)  # the ears stay in, the chest is cut off
    else:
        y = tall * scale + max(0.0, spare_y) * float(rng.uniform(0.45, 1.0))
        shadow = oval(x, y - 0.05 * scale, scale * (left + right) * 0.42, 0.3 * scale)
        sk.shade(shadow, 0.6, 0.2 * scale)
    turn = float(rng.normal(0, 4))
    animal = draw_animal(species, rng)
    pose.draw(sk.at(x, y, scale, turn, mirror), animal)


def _put_thing(sk: Sketch, rng: np.random.Generator) -> None:
    w, h = sk.image.size
    thing = THINGS[rng.integers(len(THINGS))]
    scale = float(rng.uniform(0.6, 1.05)) * min(w / 3.0, h / 2.4)
    x = w / 2 + float(rng.uniform(-0.5, 0.5)) * max(0.0, w - 2.6 * scale)
    y = h - float(rng.uniform(0.1, 0.9)) * max(0.0, h - 2.3 * scale)
    sk.shade(oval(x, y, scale * 1.1, 0.2 * scale), 0.6, 0.15 * scale)
    turned = float(rng.normal(0, 6))
    thing(sk.at(x, y, scale, turned, bool(rng.random() < 0.5)), rng)


def expose(
    image: Image.Image, rng: np.random.Generator, *, calm: bool = False
) -> Image.Image:
    """Uneven light, colour cast, contrast, blur and sensor noise. RGB in and out."""
    w, h = image.size
    ease = 0.35 if calm else 1.0
    blur = float(rng.exponential(0.5)) * ease
    if blur > 0.3:
        image = image.filter(ImageFilter.BoxBlur(min(blur, 1.4) * 1.3))
    pixels = np.asarray(image).astype(np.float32)
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.55) * ease
    x = np.linspace(-1, 1, w, dtype=np.float32) * np.float32(np.cos(angle) * slope)
    y = np.linspace(-1, 1, h, dtype=np.float32) * np.float32(np.sin(angle) * slope)
    stops = float(np.clip(rng.normal(0, 0.2), -0.4, 0.3)) * ease
    gain = np.float32(np.exp(stops)) * (1 + x + y[:, None])
    cast = np.exp(rng.normal(0, 0.08, 3) * ease).astype(np.float32)
    contrast = np.float32(np.exp(rng.normal(0, 0.18) * ease))
    lift = np.float32(rng.normal(0, 0.05) * ease)
    # ((p - 1/2) contrast + 1/2 + lift) gain cast, for p in 0..255
    pixels *= contrast
    pixels += 127.5 * (1 - contrast) + 255 * lift
    pixels *= gain[..., None] * cast
    noise = np.float32(rng.uniform(0.005, 0.045) * ease * 12**0.5 * 255)
    grain = rng.random(pixels.shape, np.float32)
    grain -= np.float32(0.5)
    grain *= noise
    pixels += grain
    return Image.fromarray(np.clip(pixels, 0, 255, out=pixels).astype(np.uint8))


def picture_file(
    subject: str, *, seed: int, stream: int, index: int, plain: bool = False
) -> tuple[str, bytes]:
    """One picture as a file: its suffix (".jpg" or ".png") and its bytes."""
    rng = np.random.default_rng([seed, stream, index])
    image = draw_picture(subject, rng, plain=plain)
    return encode_picture(
        image, np.random.default_rng([seed, stream, index, 1]), plain=plain
    )


def encode_picture(
    image: Image.Image, rng: np.random.Generator, *, plain: bool
) -> tuple[str, bytes]:
    """The RGB picture as the bytes of a file such as cameras and phones leave."""
    buffer = io.BytesIO()
    kind, turn, quality = rng.random(), rng.random(), int(rng.integers(75, 96))
    fine, orientation = bool(rng.random() < 0.3), (6, 8, 3, 6, 8, 2)[rng.integers(6)]
    if kind < 0.04 and not plain:
        image.putalpha(_rounded_mask(image.size, float(rng.uniform(0.05, 0.4))))
        image.save(buffer, "PNG", compress_level=4)
        return ".png", buffer.getvalue()
    if kind < 0.1 and not plain:
        image = image.convert("L")
    exif = Image.Exif()
    exif[SOFTWARE_TAG] = "edgegraft, drawn"
    if turn < 0.15 and not plain:
        exif[ORIENTATION_TAG] = orientation
        image = image.transpose(STORED_AS[orientation])
    sampling = 0 if fine else 2  # 4:4:4 or 4:2:0
    if image.mode == "L":
        image.save(buffer, "JPEG", quality=quality, exif=exif)
    else:
        image.save(buffer, "JPEG", quality=quality, exif=exif, subsampling=sampling)
    return ".jpg", buffer.getvalue()


def _rounded_mask(size: tuple[int, int], radius: float) -> Image.Image:
    """An opacity mask with rounded corners; `radius` in shorter sides."""
    mask = Image.new("L", size)
    box = (1, 1, size[0] - 2, size[1] - 2)
    ImageDraw.Draw(mask).rounded_rectangle(box, radius * min(size), fill=255)
    return mask


def write_pictures(
    folder: Path, jobs: Sequence[Job], *, seed: int, plain: frozenset[int] = frozenset()
) -> Generator[tuple[str, str], None, None]:
    """Write the pictures and yield (path in folder, sha256) as each is done.

    plain: the streams whose pictures are easy ones. Works in several processes: the
    interpreter lock would let threads draw hardly faster than one does. Started as
    plain child processes, so that neither an unguarded `__main__` nor TensorFlow's
    threads in this one matter. Raises OSError when a picture cannot be written.
    """
    count = min(cores(), MAX_PROCESSES, len(jobs) // ENOUGH)
    if count < 2 or not sys.executable:
        for job in jobs:
            yield _write_picture(folder, job, seed, plain)
        return
    checkout = str(Path(__file__).resolve().parents[2])
    code = (
        f"import sys; sys.path.insert(0, {checkout!r}); "
        "from data.sample.picture import write_ordered; write_ordered()"
    )
    reading, writing = os.pipe()
    children: list[subprocess.Popen[bytes]] = []
    try:
        with os.fdopen(reading, encoding="utf-8") as source:
            with os.fdopen(writing, "wb") as sink:
                for k in range(count):
                    child = subprocess.Popen(
                        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=sink
                    )
                    children.append(child)
                    order = [str(folder), list(jobs[k::count]), seed, sorted(plain)]
                    with child.stdin as stdin:  # type: ignore[union-attr]
                        stdin.write(json.dumps(order).encode())
            for line in source:
                name, digest, errno, reason = json.loads(line)
                if errno is not None:
                    raise OSError(errno, reason, name)
                yield name, digest
        for child in children:
            if child.wait() != 0:
                raise OSError(f"a drawing process ended with code {child.returncode}")
    finally:
        for child in children:
            if child.poll() is None:
                child.terminate()
        for child in children:
            child.wait()


def write_ordered() -> None:
    """Run in a child process: the order on stdin, a JSON line per picture on stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children
    folder, jobs, seed, plain = json.load(sys.stdin)
    for job in jobs:
        line: tuple[str, str, int | None, str | None]
        try:
            name, digest = _write_picture(
                Path(folder), tuple(job), seed, frozenset(plain)
            )
            line = (name, digest, None, None)
        except OSError as error:
            line = (job[0], "", error.errno or 0, error.strerror or str(error))
        # one short write, so that the lines of several processes never mix
        os.write(1, (json.dumps(line) + "\n").encode())


def _write_picture(
    folder: Path, job: Job, seed: int, plain: frozenset[int]
) -> tuple[str, str]:
    name, subject, stream, index = job
    suffix, data = picture_file(
        subject, seed=seed, stream=stream, index=index, plain=stream in plain
    )
    (folder / (name + suffix)).write_bytes(data)
    return name + suffix, hashlib.sha256(data).hexdigest()
