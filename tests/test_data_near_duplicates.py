"""`data.audit.near_duplicates`: copies are confirmed, different photos left alone."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from data.audit import near_duplicates
from data.audit.facts import THUMB
from data.audit.near_duplicates import BURST, COPY, Pair, Photos
from data.split import connected_components

pytest.importorskip("cv2", reason="OpenCV is not installed")

from data.audit import keypoints

Edit = Callable[[Image.Image], Image.Image]


def picture(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Shapes on a soft ground: corners and edges as a photo has them."""
    rng = np.random.default_rng(seed)
    small = rng.integers(60, 200, (4, 5, 3), np.uint8)
    image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        x, y = rng.integers(0, size[0]), rng.integers(0, size[1])
        corners = rng.integers(-24, 25, (4, 2)) + np.array([x, y])
        colour = tuple(rng.integers(0, 256, 3).tolist())
        draw.polygon([tuple(corner) for corner in corners.tolist()], fill=colour)
    return image


def photos(*images: Image.Image) -> Photos:
    grey = [image.convert("L") for image in images]
    thumbs = [g.resize((THUMB, THUMB), Image.Resampling.BOX) for g in grey]
    return Photos(
        np.stack([keypoints.detect(g) for g in grey]),
        np.stack([np.asarray(thumb) for thumb in thumbs]),
        np.array([image.size for image in images]),
    )


def pairs(*images: Image.Image) -> list[Pair]:
    return near_duplicates.pairs(photos(*images))


def recoded(image: Image.Image) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=30)
    return Image.open(out)


def with_logo(image: Image.Image) -> Image.Image:
    image = image.copy()
    ImageDraw.Draw(image).ellipse((20, 150, 90, 220), fill=(230, 20, 30))
    return image


def augmented(image: Image.Image) -> Image.Image:
    """Turned by 33 degrees and zoomed by a fifth, as augmentation writes it."""
    turned = image.rotate(33, Image.Resampling.BICUBIC, fillcolor=(90, 90, 90))
    return turned.transform(
        (224, 224), Image.Transform.EXTENT, (30, 20, 290, 220), Image.Resampling.BICUBIC
    )


EDITS: dict[str, Edit] = {
    "recoded": recoded,
    "resized": lambda image: image.resize((200, 150)),
    "stretched": lambda image: image.resize((224, 224)),
    "cropped": lambda image: image.crop((40, 30, 296, 222)),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned by 90": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "turned by 180": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "brightened": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "logo": with_logo,
    "augmented": augmented,
}


@pytest.fixture(scope="module")
def others() -> list[Image.Image]:
    return [picture(seed) for seed in range(2, 26)]


def test_different_pictures_are_no_pair(others: list[Image.Image]) -> None:
    assert pairs(*others) == []


@pytest.mark.parametrize("edit", EDITS)
def test_every_edit_is_a_copy(edit: str, others: list[Image.Image]) -> None:
    image = picture(1)
    (pair,) = pairs(image, *others[:8], EDITS[edit](image))
    assert (pair.first, pair.second, pair.kind) == (0, 9, COPY)
    assert pair.mirrored == (edit == "mirrored")
    if edit.startswith("turned"):
        assert pair.turned in {"turned by 90": (90, 270), "turned by 180": (180,)}[edit]


def test_a_print_that_two_photos_share_is_not_enough() -> None:
    one, other = picture(1), picture(2)
    label = picture(3, (80, 60))
    one.paste(label, (20, 30))
    other.paste(label, (200, 150))
    assert pairs(one, other) == []


def test_the_next_frame_of_a_video_is_a_burst() -> None:
    wide = picture(4, (400, 300))
    first, second = (wide.crop((x, 20, x + 320, 260)) for x in (20, 32))
    assert [pair.kind for pair in pairs(first, second)] == [BURST]


def test_a_photo_without_detail_has_no_copies() -> None:
    walls = [Image.new("RGB", (200, 150), (grey,) * 3) for grey in (10, 10, 200)]
    assert pairs(*walls, picture(1)) == []


@pytest.mark.parametrize("size", [(1, 1), (400, 2), (12, 9)])
def test_tiny_photos_are_read(size: tuple[int, int]) -> None:
    row = keypoints.detect(picture(1).resize(size).convert("L"))
    assert row.shape == keypoints.ROW


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_for_a_pair(count: int) -> None:
    none = np.zeros((count, *keypoints.ROW), np.uint8)
    thumbs = np.zeros((count, THUMB, THUMB), np.uint8)
    assert near_duplicates.pairs(Photos(none, thumbs, np.ones((count, 2)))) == []


def test_many_photos_are_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond `WHOLE` photos summaries are reduced; the copies are still candidates."""
    monkeypatch.setattr(keypoints, "WHOLE", 10)
    monkeypatch.setattr(keypoints, "QUERIES", 7)
    some = [picture(seed) for seed in range(30)]
    copies = [EDITS["cropped"](image) for image in some[:10]]
    found = pairs(*some, *copies)
    assert [(p.first, p.second) for p in found] == [(k, k + 30) for k in range(10)]


def test_links_make_clusters() -> None:
    assert connected_components(6, [(4, 2), (2, 5), (0, 1)]) == [0, 0, 2, 3, 2, 2]
