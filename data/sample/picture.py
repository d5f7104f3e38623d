"""One drawn picture: a subject in a place, under some light, through some lens.

Drawn larger than it is and scaled down; every choice comes out of the generator
handed in, so a picture depends on nothing but it.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from data.sample.animals import POSES, draw_animal
from data.sample.outlines import oval
from data.sample.scenery import backdrop, foreground
from data.sample.sketch import Sketch
from data.sample.things import THINGS

OVERSAMPLING = 1.6
ASPECTS = ((4, 3), (4, 3), (3, 2), (1, 1), (3, 4), (3, 4), (2, 3))


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
