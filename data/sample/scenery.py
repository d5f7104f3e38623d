"""Places: the room or landscape behind a subject, and what stands in front of it.

`backdrop` draws a whole RGB picture with a floor; `foreground` draws over a finished
one so that parts of the subject are hidden. Units: one is the picture's width.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from data.sample.outlines import almond, curve, limb, oval
from data.sample.sketch import Colour, Sketch
from data.sample.things import CLUTTER, box, bright


def _mix(a: Colour, b: Colour, t: float) -> Colour:
    r, g, bl = (round(x + (y - x) * t) for x, y in zip(a, b, strict=True))
    return r, g, bl


def _muted(rng: np.random.Generator, light: float | None = None) -> Colour:
    """A wall-paint colour: any hue, little of it."""
    grey = int(rng.uniform(70, 225) if light is None else light)
    return _mix((grey, grey, grey), bright(rng), float(rng.uniform(0.04, 0.32)))


def _slope(size: tuple[int, int], top: Colour, bottom: Colour) -> Image.Image:
    strip = Image.new("RGB", (1, 2))
    strip.putpixel((0, 0), top)
    strip.putpixel((0, 1), bottom)
    return strip.resize(size, 2)


def _cloudy(
    image: Image.Image, rng: np.random.Generator, cell: int, strength: float
) -> None:
    """Lay soft noise with cells of about `cell` pixels over the picture."""
    w, h = image.size
    grid = rng.normal(0, 1, (h // cell + 2, w // cell + 2)).astype(np.float32)
    grey = Image.fromarray(np.clip(np.abs(grid) * strength, 0, 255).astype(np.uint8))
    tint = (255, 255, 255) if rng.random() < 0.5 else (20, 20, 20)
    image.paste(tint, (0, 0), grey.resize(image.size, 3))


def _wall(sk: Sketch, rng: np.random.Generator, floor: float, tall: float) -> None:
    paint = _muted(rng)
    other = _mix(paint, bright(rng), float(rng.uniform(0.15, 0.5)))
    kind = rng.integers(5)
    if kind == 0:  # striped paper
        step = rng.uniform(0.05, 0.16)
        for x in np.arange(0, 1, step):
            sk.fill(box(x, 0, x + step / 2, floor), other)
    elif kind == 1:  # dots
        step = rng.uniform(0.08, 0.16)
        for j, y in enumerate(np.arange(0, floor, step)):
            for x in np.arange(0, 1 + step, step) + (j % 2) * step / 2:
                sk.fill(oval(x, y, step * 0.18, step * 0.18, n=10), other)
    elif kind == 2:  # tiles or bricks
        h = rng.uniform(0.05, 0.12)
        for j, y in enumerate(np.arange(0, floor, h)):
            sk.line([(0, y), (1, y)], other, 0.006)
            for x in np.arange(-1, 1, h * 2) + (j % 2) * h:
                sk.line([(x + 1, y), (x + 1, y + h)], other, 0.006)
    if rng.random() < 0.5:
        _window(sk, rng, floor)
    if rng.random() < 0.4:  # a picture on the wall
        x, y = rng.uniform(0.05, 0.8), rng.uniform(0.03, 0.15) * tall
        w, h = rng.uniform(0.1, 0.22), rng.uniform(0.1, 0.2)
        sk.part(box(x, y, x + w, y + h), _muted(rng, 60), hair=0, depth=0.3, shadow=0)
        sk.fill(box(x + 0.015, y + 0.015, x + w - 0.015, y + h - 0.015), bright(rng))
        sk.fill(oval(x + w / 2, y + h / 2, w * 0.2, h * 0.2), bright(rng))


def _window(sk: Sketch, rng: np.random.Generator, floor: float) -> None:
    x, w = rng.uniform(0, 0.7), rng.uniform(0.25, 0.4)
    y1 = floor * rng.uniform(0.5, 0.8)
    sky = (190, 216, 236) if rng.random() < 0.7 else (34, 40, 62)
    sk.fill(box(x, -0.05, x + w, y1), (236, 232, 224))
    sk.fill(box(x + 0.02, -0.05, x + w - 0.02, y1 - 0.02), sky)
    sk.line([(x + w / 2, 0), (x + w / 2, y1)], (236, 232, 224), 0.015)
    cloth = bright(rng)
    for side in (x - 0.05, x + w - 0.07):
        sk.part(box(side, -0.1, side + 0.12, y1 + 0.1), cloth, hair=0.6, depth=0.6)


def _floor(sk: Sketch, rng: np.random.Generator, floor: float, tall: float) -> None:
    ground = _muted(rng)
    line = _mix(ground, (20, 16, 14), float(rng.uniform(0.2, 0.5)))
    sk.fill(box(0, floor, 1, tall), ground)
    kind = rng.integers(4)
    if kind == 0:  # boards running away from the eye
        for x in np.linspace(-1.2, 2.2, 18):
            sk.line([(0.5 + (x - 0.5) * 0.5, floor), (x, tall)], line, 0.006)
    elif kind == 1:  # tiles in perspective
        for x in np.linspace(-1.5, 2.5, 16):
            sk.line([(0.5 + (x - 0.5) * 0.5, floor), (x, tall)], line, 0.008)
        for t in np.linspace(0, 1, 7) ** 1.6:
            y = floor + (tall - floor) * t
            sk.line([(0, y), (1, y)], line, 0.008)
    elif kind == 2:  # a rug
        middle, deep = rng.uniform(0.3, 0.7), (tall - floor) * 0.4
        rug = oval(middle, (floor + tall) / 2, 0.42, deep)
        ring = oval(middle, (floor + tall) / 2, 0.34, deep * 0.8)
        sk.part(rug, bright(rng), [(ring, bright(rng))], hair=1, depth=0.3, shadow=0.1)
    sk.fill(box(0, floor - 0.02, 1, floor), _mix(ground, (250, 250, 250), 0.4))


def _sofa(sk: Sketch, rng: np.random.Generator, floor: float) -> None:
    cloth, x = _mix(_muted(rng), bright(rng), 0.4), float(rng.uniform(-0.3, 0.3))
    top = floor - rng.uniform(0.2, 0.34)
    sk.part(box(x, top, x + 1.0, floor + 0.1), cloth, hair=0.5, depth=0.7)
    for k in (0, 1):
        seat = box(x + 0.1 + 0.4 * k, floor - 0.1, x + 0.49 + 0.4 * k, floor + 0.06)
        sk.part(seat, _mix(cloth, (255, 255, 255), 0.12), hair=0.5, depth=0.6)
    for side in (x - 0.06, x + 0.9):
        sk.part(box(side, floor - 0.2, side + 0.16, floor + 0.14), cloth, hair=0.5)
    if rng.random() < 0.6:
        cushion = oval(x + rng.uniform(0.2, 0.8), floor - 0.14, 0.12, 0.1, 30)
        sk.part(cushion, bright(rng), hair=0.4)


def indoors(image: Image.Image, rng: np.random.Generator) -> float:
    w, h = image.size
    tall = h / w
    floor = tall * float(rng.uniform(0.5, 0.78))
    paint = _muted(rng)
    image.paste(_slope(image.size, paint, _mix(paint, (0, 0, 0), 0.25)))
    sk = Sketch(image, shadows=False).at(0, 0, w)
    _wall(sk, rng, floor, tall)
    _floor(sk, rng, floor, tall)
    if rng.random() < 0.4:
        _sofa(sk, rng, floor)
    return floor * w


def outdoors(image: Image.Image, rng: np.random.Generator) -> float:
    w, h = image.size
    tall = h / w
    floor = tall * float(rng.uniform(0.4, 0.7))
    skies: tuple[tuple[Colour, Colour], ...] = (
        ((92, 150, 214), (206, 226, 240)),
        ((150, 160, 172), (214, 216, 218)),
        ((86, 74, 128), (244, 168, 110)),
        ((38, 48, 78), (110, 118, 146)),
    )
    top, low = skies[rng.choice(4, p=[0.5, 0.25, 0.15, 0.1])]
    image.paste(_slope((w, h), top, low))
    sk = Sketch(image, shadows=False).at(0, 0, w)
    for _ in range(int(rng.integers(0, 5))):
        x, y = rng.uniform(0, 1), rng.uniform(0, floor * 0.6)
        for dx, r in ((-0.07, 0.05), (0, 0.07), (0.08, 0.05)):
            sk.fill(oval(x + dx, y, r * 1.3, r * 0.6), _mix(low, (255, 255, 255), 0.5))
    greens: tuple[Colour, ...] = ((96, 140, 62), (72, 112, 54), (140, 150, 70))
    sand, snow, soil = (214, 190, 146), (232, 236, 242), (134, 108, 80)
    ground = (*greens, *greens, sand, snow, soil)[rng.integers(9)]
    for k in range(int(rng.integers(0, 3))):  # hills
        ridge = [(x, floor - rng.uniform(0.0, 0.16)) for x in np.linspace(0, 1, 6)]
        outline = np.concatenate([curve(ridge), [(1, floor + 0.1), (0, floor + 0.1)]])
        sk.fill(outline, _mix(_mix(greens[k], low, 0.5), ground, 0.2))
    for _ in range(int(rng.integers(0, 4))):
        spot = sk.at(rng.uniform(0, 1), floor + 0.01, rng.uniform(0.08, 0.22))
        CLUTTER[7 if rng.random() < 0.8 else 5](spot, rng)
    if rng.random() < 0.3:  # a fence
        wood = _muted(rng)
        for x in np.arange(0.02, 1, 0.09):
            sk.fill(box(x, floor - 0.2, x + 0.05, floor + 0.03), wood)
        for y in (floor - 0.15, floor - 0.04):
            sk.fill(box(0, y, 1, y + 0.025), _mix(wood, (0, 0, 0), 0.2))
    sk.fill(box(0, floor, 1, tall), ground)
    blades = 260 if ground in greens else 60
    for x, t, lean in rng.random((blades, 3)):
        y = floor + (tall - floor) * t
        size = 0.02 + 0.05 * t
        shade = _mix(ground, (20, 30, 10) if lean < 0.5 else (240, 250, 200), 0.25)
        tip = (x + (lean - 0.5) * size, y - size * (1 if blades > 60 else 0.1))
        sk.line([(x, y), tip], shade, 0.004)
    return floor * w


def studio(image: Image.Image, rng: np.random.Generator) -> float:
    """A plain or checked cloth that fills the picture."""
    w, h = image.size
    cloth = _muted(rng)
    image.paste(_slope((w, h), cloth, _mix(cloth, bright(rng), 0.3)))
    sk = Sketch(image, shadows=False).at(0, 0, w)
    if rng.random() < 0.5:
        step, other = rng.uniform(0.06, 0.2), _mix(cloth, bright(rng), 0.4)
        turned = sk.at(0.5, 0.5, 1, float(rng.uniform(0, 90)))
        for x in np.arange(-1.5, 1.5, step):
            turned.fill(box(x, -2, x + step / 2, 2), other)
        if rng.random() < 0.5:
            for y in np.arange(-1.5, 1.5, step):
                turned.fill(box(-2, y, 2, y + step / 3), _mix(other, cloth, 0.5))
    return h * float(rng.uniform(0.4, 0.8))


def backdrop(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A place with clutter on its floor: RGB, `size` (width, height) pixels."""
    image = Image.new("RGB", size)
    draw = (indoors, outdoors, studio)[rng.choice(3, p=[0.42, 0.42, 0.16])]
    floor = draw(image, rng)
    w, h = size
    sk = Sketch(image, shadows=False).at(0, 0, w)
    for y in np.sort(rng.uniform(floor, h * 1.02, int(rng.integers(0, 5)))):
        scale = float(rng.uniform(0.04, 0.13))
        thing = CLUTTER[rng.integers(len(CLUTTER))]
        flip = bool(rng.random() < 0.5)
        thing(sk.at(rng.uniform(0, 1), y / w, scale, rng.normal(0, 6), flip), rng)
    _cloudy(image, rng, int(rng.integers(12, 60)), float(rng.uniform(5, 45)))
    return image


def foreground(image: Image.Image, rng: np.random.Generator) -> None:
    """Something close to the lens that hides a part of the picture."""
    w, h = image.size
    tall = h / w
    sk = Sketch(image).at(0, 0, w)
    kind = rng.integers(5)
    if kind == 0:  # grass
        green = _mix((70, 120, 50), bright(rng), 0.15)
        for x in rng.uniform(0, 1, 45):
            high = rng.uniform(0.08, 0.24)
            tip = (x + rng.uniform(-0.06, 0.06), tall - high)
            shade = _mix(green, (16, 30, 10), float(rng.uniform(0, 0.5)))
            sk.fill([(x - 0.008, tall), tip, (x + 0.008, tall)], shade)
    elif kind == 1:  # a pole, a chair leg
        x, r = rng.uniform(0.1, 0.9), rng.uniform(0.012, 0.035)
        pole = limb([(x, -0.1), (x + rng.uniform(-0.2, 0.2), tall + 0.1)], [r, r])
        sk.part(pole, _muted(rng), hair=0.2, shadow=0.2)
    elif kind == 2:  # leaves in a corner
        corner = float(rng.integers(2))
        for _ in range(9):
            x = abs(corner - rng.uniform(0, 0.35))
            leaf = almond(x, rng.uniform(0, 0.22), 0.09, 0.035, rng.uniform(0, 180))
            sk.part(leaf, _mix((70, 124, 56), bright(rng), 0.2), hair=0.3, shadow=0.2)
    elif kind == 3:  # a cushion or box edge from below
        x = rng.uniform(-0.1, 0.7)
        lid = box(
            x, tall - rng.uniform(0.06, 0.2), x + rng.uniform(0.2, 0.5), tall + 0.1
        )
        sk.part(lid, bright(rng), hair=0.4, depth=0.6)
    else:  # something small, close by
        thing = CLUTTER[rng.integers(len(CLUTTER))]
        x = rng.uniform(0.0, 0.2) if rng.random() < 0.5 else rng.uniform(0.8, 1.0)
        thing(sk.at(x, tall * 1.02, float(rng.uniform(0.1, 0.16))), rng)
