"""The built-in sample set: drawn cats and dogs, as files that look like photos.

`write_sample` draws a folder of labelled pictures out of a seed. Each picture depends
only on (seed, group, number), so a larger set begins with the smaller one. The files
vary as photos do: JPEG qualities, EXIF turns (stored pixels turned, upright after the
turn), grey ones, some PNGs with alpha. One seed gives the same bytes with the same
Pillow; another Pillow may encode the same pixels differently.

This module does not know how a picture is drawn, nor what the set is used for.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data.picture import draw_picture
from edge.errors import EdgegraftError
from edge.preprocess import open_photo

VERSION = 1  # of the drawings: a new number for every change that moves a pixel
MARKER = "sample.json"
MOST = 100_000  # pictures per group; beyond it a typing error is likelier

# group -> (folder, subject, number of its stream of random numbers)
GROUPS: dict[str, tuple[str, str, int]] = {
    "cat": ("photos/cat", "cat", 0),
    "dog": ("photos/dog", "dog", 1),
    "unknown": ("unknown", "unknown", 2),
}
TEST_STREAMS = {"cat": 100, "dog": 101}

# EXIF orientation -> what was done to the upright picture before it was stored
_T = Image.Transpose
STORED_AS = {3: _T.ROTATE_180, 6: _T.ROTATE_90, 8: _T.ROTATE_270, 2: _T.FLIP_LEFT_RIGHT}
ORIENTATION_TAG, SOFTWARE_TAG = 0x0112, 0x0131


@dataclass(frozen=True)
class SampleSet:
    """Where things are: `photos` holds one folder per label, `unknown` neither."""

    root: Path
    photos: Path
    unknown: Path
    test_cat: Path
    test_dog: Path


def write_sample(
    folder: str | os.PathLike[str],
    *,
    count: int = 120,
    seed: int = 0,
    unknown: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SampleSet:
    """Draw `count` cats and as many dogs into `folder`, or find the same set there.

    unknown: pictures of other things (default: a third of count). progress is called
    with (done, total). The folder appears at once and complete, or not at all.

    Raises EdgegraftError for numbers out of range, a folder that holds something else,
    and a disk that cannot be written.
    """
    unknown = count // 3 if unknown is None else unknown
    for name, value, least in (
        ("count", count, 1),
        ("unknown", unknown, 0),
        ("seed", seed, 0),
    ):
        most = MOST if name != "seed" else 2**63 - 1
        if isinstance(value, bool) or not isinstance(value, int):
            raise EdgegraftError(
                f"sample: expected {name} as an integer, got {value!r}"
            )
        if not least <= value <= most:
            raise EdgegraftError(
                f"sample: expected {name} from {least} to {most}, got {value}"
            )
    root = Path(folder).absolute()
    facts = {"version": VERSION, "seed": seed, "count": count, "unknown": unknown}
    found = SampleSet(
        root, root / "photos", root / "unknown", root / "test_cat.jpg",
        root / "test_dog.jpg",
    )  # fmt: skip
    try:
        if _already_there(root, facts):
            return found
        root.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
        try:
            stage = temporary / "set"
            _draw_into(stage, facts, progress)
            if root.exists():
                root.rmdir()  # empty, as was checked
            os.replace(stage, root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise EdgegraftError(
            f"could not write the sample set to {root}: {reason}; "
            "choose a folder on a disk with room that you may write to"
        ) from error
    return found


def picture(subject: str, *, seed: int, stream: int, index: int) -> tuple[str, bytes]:
    """One picture as a file: its suffix (".jpg" or ".png") and its bytes."""
    rng = np.random.default_rng([seed, stream, index])
    plain = stream in TEST_STREAMS.values()
    image = draw_picture(subject, rng, plain=plain)
    return _encode(image, np.random.default_rng([seed, stream, index, 1]), plain=plain)


def contact_sheet(
    paths: Sequence[str | os.PathLike[str]], columns: int = 8, side: int = 160
) -> Image.Image:
    """The photos, upright and cut to squares of `side` pixels, in rows: RGB."""
    if not paths or columns < 1:
        raise EdgegraftError("contact sheet: expected photos and at least one column")
    gap = max(1, side // 40)
    across = min(columns, len(paths))
    rows = -(-len(paths) // across)
    step = side + gap
    sheet = Image.new("RGB", (across * step + gap, rows * step + gap), "white")
    for k, path in enumerate(paths):
        image = open_photo(os.fspath(path))
        edge = min(image.size)
        x, y = (image.width - edge) // 2, (image.height - edge) // 2
        tile = image.resize((side, side), 1, box=(x, y, x + edge, y + edge))
        sheet.paste(tile, (gap + k % across * step, gap + k // across * step))
    return sheet


def _jobs(facts: dict[str, int]) -> Iterator[tuple[str, str, int, int]]:
    """(path without suffix, subject, stream, index) of every picture of the set."""
    for group, (place, subject, stream) in GROUPS.items():
        for index in range(facts["unknown" if group == "unknown" else "count"]):
            yield f"{place}/IMG_{index + 1:04d}", subject, stream, index
    for subject, stream in TEST_STREAMS.items():
        yield f"test_{subject}", subject, stream, 0


def _draw_into(
    stage: Path,
    facts: dict[str, int],
    progress: Callable[[int, int], None] | None,
) -> None:
    for place, _, _ in GROUPS.values():
        (stage / place).mkdir(parents=True, exist_ok=True)

    def draw(job: tuple[str, str, int, int]) -> tuple[str, str]:
        name, subject, stream, index = job
        suffix, data = picture(subject, seed=facts["seed"], stream=stream, index=index)
        (stage / (name + suffix)).write_bytes(data)
        return name + suffix, hashlib.sha256(data).hexdigest()

    jobs = list(_jobs(facts))
    digests: dict[str, str] = {}
    # Pillow lets go of the interpreter lock while it fills, blurs and encodes.
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        running = [pool.submit(draw, job) for job in jobs]
        for done, future in enumerate(as_completed(running), 1):
            name, digest = future.result()
            digests[name] = digest
            if progress is not None:
                progress(done, len(jobs))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    record = {**facts, "drawn": True, "sha256": dict(sorted(digests.items()))}
    (stage / MARKER).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _already_there(root: Path, facts: dict[str, int]) -> bool:
    """Whether the set is there, whole; EdgegraftError when something else is."""
    if not root.exists():
        return False
    if not root.is_dir():
        raise EdgegraftError(
            f"sample: expected a new or empty folder, got a file: {root}; "
            "give another path"
        )
    if not any(root.iterdir()):
        return False
    try:
        record = json.loads((root / MARKER).read_text(encoding="utf-8"))
        digests: dict[str, str] = record["sha256"]
        told = {name: record[name] for name in facts}
    except (OSError, ValueError, KeyError, TypeError):
        raise EdgegraftError(
            f"sample: expected a new or empty folder, got one with other files: {root}; "
            "give another path"
        ) from None
    if told != facts:
        differs = ", ".join(f"{k} {told[k]}" for k in facts if told[k] != facts[k])
        raise EdgegraftError(
            f"sample: {root} holds another sample set ({differs}); "
            "give another path, or delete it"
        )
    there = {
        p.relative_to(root).as_posix()
        for p in root.rglob("*")
        if p.is_file() and not p.name.startswith(".")
    }
    odd = sorted(there ^ {*digests, MARKER})
    odd += [
        name
        for name in sorted(there & set(digests))
        if hashlib.sha256((root / name).read_bytes()).hexdigest() != digests[name]
    ]
    if odd:
        raise EdgegraftError(
            f"sample: the set in {root} was changed ({odd[0]}"
            + (f" and {len(odd) - 1} more" if len(odd) > 1 else "")
            + "); give another path, or delete it"
        )
    return True


def _encode(
    image: Image.Image, rng: np.random.Generator, *, plain: bool
) -> tuple[str, bytes]:
    """The RGB picture as the bytes of a file such as cameras and phones leave."""
    out = io.BytesIO()
    kind, turn, quality = rng.random(), rng.random(), int(rng.integers(75, 96))
    fine, orientation = bool(rng.random() < 0.3), (6, 8, 3, 6, 8, 2)[rng.integers(6)]
    if kind < 0.04 and not plain:
        image.putalpha(_rounded(image.size, float(rng.uniform(0.05, 0.4))))
        image.save(out, "PNG", compress_level=4)
        return ".png", out.getvalue()
    if kind < 0.1 and not plain:
        image = image.convert("L")
    exif = Image.Exif()
    exif[SOFTWARE_TAG] = "edgegraft, drawn"
    if turn < 0.15 and not plain:
        exif[ORIENTATION_TAG] = orientation
        image = image.transpose(STORED_AS[orientation])
    sampling = 0 if fine else 2  # 4:4:4 or 4:2:0
    if image.mode == "L":
        image.save(out, "JPEG", quality=quality, exif=exif)
    else:
        image.save(out, "JPEG", quality=quality, exif=exif, subsampling=sampling)
    return ".jpg", out.getvalue()


def _rounded(size: tuple[int, int], part: float) -> Image.Image:
    """An opacity mask with round corners; `part` of the shorter side is their radius."""
    mask = Image.new("L", size)
    box = (1, 1, size[0] - 2, size[1] - 2)
    ImageDraw.Draw(mask).rounded_rectangle(box, part * min(size), fill=255)
    return mask
