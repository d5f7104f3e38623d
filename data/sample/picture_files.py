"""Drawn pictures as files, and the processes that write many of them.

The files vary as photos do: JPEG qualities, EXIF turns (the stored pixels are turned,
the picture is upright after the turn), grey ones, some PNGs with alpha. A picture
depends only on (seed, stream, index).
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
from PIL import Image, ImageDraw

from data.sample.picture import draw_picture
from edge.runtime import cores

# EXIF orientation -> what was done to the upright picture before it was stored
_T = Image.Transpose
STORED_AS = {3: _T.ROTATE_180, 6: _T.ROTATE_90, 8: _T.ROTATE_270, 2: _T.FLIP_LEFT_RIGHT}
ORIENTATION_TAG, SOFTWARE_TAG = 0x0112, 0x0131

ENOUGH = 12  # pictures that make another process worth its start (about 0.3 s)
MAX_PROCESSES = 8

# path without suffix, subject, stream, index
Job = tuple[str, str, int, int]


def picture(
    subject: str, *, seed: int, stream: int, index: int, plain: bool = False
) -> tuple[str, bytes]:
    """One picture as a file: its suffix (".jpg" or ".png") and its bytes."""
    rng = np.random.default_rng([seed, stream, index])
    image = draw_picture(subject, rng, plain=plain)
    return encode(image, np.random.default_rng([seed, stream, index, 1]), plain=plain)


def encode(
    image: Image.Image, rng: np.random.Generator, *, plain: bool
) -> tuple[str, bytes]:
    """The RGB picture as the bytes of a file such as cameras and phones leave."""
    buffer = io.BytesIO()
    kind, turn, quality = rng.random(), rng.random(), int(rng.integers(75, 96))
    fine, orientation = bool(rng.random() < 0.3), (6, 8, 3, 6, 8, 2)[rng.integers(6)]
    if kind < 0.04 and not plain:
        image.putalpha(_rounded(image.size, float(rng.uniform(0.05, 0.4))))
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


def _rounded(size: tuple[int, int], radius: float) -> Image.Image:
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
            yield _write(folder, job, seed, plain)
        return
    checkout = str(Path(__file__).resolve().parents[2])
    code = (
        f"import sys; sys.path.insert(0, {checkout!r}); "
        "from data.sample.picture_files import work; work()"
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


def work() -> None:
    """Run in a child process: the order on stdin, a JSON line per picture on stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children
    folder, jobs, seed, plain = json.load(sys.stdin)
    for job in jobs:
        line: tuple[str, str, int | None, str | None]
        try:
            name, digest = _write(Path(folder), tuple(job), seed, frozenset(plain))
            line = (name, digest, None, None)
        except OSError as error:
            line = (job[0], "", error.errno or 0, error.strerror or str(error))
        # one short write, so that the lines of several processes never mix
        os.write(1, (json.dumps(line) + "\n").encode())


def _write(folder: Path, job: Job, seed: int, plain: frozenset[int]) -> tuple[str, str]:
    name, subject, stream, index = job
    suffix, data = picture(
        subject, seed=seed, stream=stream, index=index, plain=stream in plain
    )
    (folder / (name + suffix)).write_bytes(data)
    return name + suffix, hashlib.sha256(data).hexdigest()
