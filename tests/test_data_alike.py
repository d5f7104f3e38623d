"""`data.audit.near_duplicates`: found in every pose, strangers left alone."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from data.audit import near_duplicates
from data.audit.thumbnails import SIDE


def picture(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Blobs of colour: like a photo, most of its contrast is in large shapes."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 6, 3), np.uint8)
    image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    return image.filter(ImageFilter.GaussianBlur(2))


def thumb(image: Image.Image) -> np.ndarray:
    side = (SIDE, SIDE)
    return np.asarray(image.convert("L").resize(side, Image.Resampling.BOX))


def found(*images: Image.Image) -> list[tuple[int, int, str]]:
    pairs = near_duplicates.pairs(np.stack([thumb(image) for image in images]))
    return [(pair.first, pair.second, pair.pose) for pair in pairs]


def test_strangers_are_no_pair() -> None:
    assert found(*(picture(seed) for seed in range(200))) == []


@pytest.mark.parametrize(
    ("pose", "turns"),
    [
        (0, ()),
        (1, (Image.Transpose.FLIP_LEFT_RIGHT,)),
        (2, (Image.Transpose.FLIP_TOP_BOTTOM,)),
        (3, (Image.Transpose.ROTATE_180,)),
        (4, (Image.Transpose.TRANSPOSE,)),
        (5, (Image.Transpose.ROTATE_90,)),
        (6, (Image.Transpose.ROTATE_270,)),
        (7, (Image.Transpose.TRANSVERSE,)),
    ],
)
def test_every_pose_is_found_and_named(
    pose: int, turns: tuple[Image.Transpose, ...]
) -> None:
    one = other = picture(1)
    for turn in turns:
        other = other.transpose(turn)
    strangers = [picture(seed) for seed in range(2, 30)]
    assert found(one, *strangers, other) in (
        [(0, 29, near_duplicates.POSES[pose])],
        [(0, 29, near_duplicates.POSES[{5: 6, 6: 5}.get(pose, pose)])],
    )


@pytest.mark.parametrize("crop", [(0.05, 0, 0, 0), (0.05, 0.05, 0.05, 0.05)])
def test_a_cropped_copy_is_found(crop: tuple[float, ...]) -> None:
    one = picture(5)
    left, top, right, low = crop
    box = (320 * left, 240 * top, 320 * (1 - right), 240 * (1 - low))
    assert len(found(one, one.crop(tuple(map(round, box))))) == 1


def test_another_light_is_the_same_picture() -> None:
    one = picture(6)
    assert len(found(one, one.point(lambda level: 40 + level * 0.6))) == 1


def test_blank_pictures_have_no_twins() -> None:
    walls = [Image.new("RGB", (40, 40), (grey, grey, grey)) for grey in (10, 10, 200)]
    assert found(*walls, picture(1)) == []


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_for_a_pair(count: int) -> None:
    assert near_duplicates.pairs(np.zeros((count, SIDE, SIDE), np.uint8)) == []


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    thumbs = np.stack([thumb(picture(seed % 40)) for seed in range(60)])
    whole = near_duplicates.pairs(thumbs)
    assert {(p.first, p.second) for p in whole} == {(k, k + 40) for k in range(20)}
    monkeypatch.setattr(near_duplicates, "BLOCK", 7)
    assert [p[:2] for p in near_duplicates.pairs(thumbs)] == [p[:2] for p in whole]


def test_links_make_clusters() -> None:
    assert near_duplicates.clusters(6, [(4, 2), (2, 5), (0, 1)]) == [0, 0, 2, 3, 2, 2]
