"""What a picture shows beside cats and dogs: things, and places with things in them.

A thing is the subject of an `unknown` picture or the clutter of a scene. Units: it is
about two units wide or tall and stands on the ground at (0, 0). A place is the room or
landscape behind a subject: `backdrop` draws a whole RGB picture with a floor,
`foreground` over a finished one, so that parts of the subject are hidden. Units there:
one is the picture's width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from data.sample.sketch import Colour, Sketch, almond, blob, curve, limb, oval, wedge

GLASS: Colour = (176, 208, 224)
TYRE: Colour = (40, 40, 44)
STEEL: Colour = (186, 190, 196)
LEAF: Colour = (74, 130, 58)
BARK: Colour = (104, 76, 54)


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float)


def bright(rng: np.random.Generator) -> Colour:
    """A saturated colour of any hue."""
    hue, high = rng.uniform(0, 6), rng.uniform(150, 245)
    low = high * rng.uniform(0.1, 0.5)
    k = (np.array([5.0, 3.0, 1.0]) + hue) % 6
    r, g, b = (high - (high - low) * np.clip(np.minimum(k, 4 - k), 0, 1)).astype(int)
    return int(r), int(g), int(b)


def car(sk: Sketch, rng: np.random.Generator) -> None:
    paint = bright(rng)
    cabin = blob([(-0.8, -0.7), (-0.5, -1.2), (0.3, -1.22), (0.75, -0.7)])
    sk.part(cabin, paint, hair=0)
    for window in (
        [(-0.62, -0.72), (-0.44, -1.08), (-0.1, -1.1), (-0.1, -0.72)],
        [(0.02, -0.72), (0.02, -1.1), (0.28, -1.08), (0.56, -0.72)],
    ):
        sk.part(window, GLASS, hair=0, shadow=0)
    hull = [(-1.4, -0.65), (-0.8, -0.8), (0.8, -0.78), (1.35, -0.62), (1.45, -0.3)]
    sk.part(blob([*hull, (1.3, -0.16), (-1.35, -0.16), (-1.48, -0.35)]), paint, hair=0)
    for x in (-0.85, 0.85):
        sk.part(oval(x, -0.2, 0.3, 0.3), TYRE, hair=0)
        sk.part(oval(x, -0.2, 0.14, 0.14), STEEL, hair=0, shadow=0)
    sk.fill(oval(1.36, -0.5, 0.09, 0.08), (252, 240, 180))


def house(sk: Sketch, rng: np.random.Generator) -> None:
    wall = bright(rng)
    sk.part(box(-1.0, -1.3, 1.0, 0), wall, hair=0.3, depth=0.4)
    sk.part(box(0.5, -2.1, 0.75, -1.4), (150, 80, 64), hair=0.2)
    roof = np.array([(-1.25, -1.25), (0, -2.2), (1.25, -1.25)])
    sk.part(roof, (156, 62, 50), hair=0.4, depth=0.6)
    sk.part(box(-0.2, -0.75, 0.25, 0), BARK, hair=0.3, depth=0.4)
    for x in (-0.75, 0.45):
        sk.part(box(x, -1.0, x + 0.36, -0.6), GLASS, hair=0, depth=0.3)
        sk.line([(x + 0.18, -1.0), (x + 0.18, -0.6)], (240, 240, 236), 0.05)


def tree(sk: Sketch, rng: np.random.Generator) -> None:
    sk.part(limb([(0, 0), (0.05, -0.7), (0, -1.2)], [0.2, 0.14, 0.1]), BARK)
    leaf = LEAF if rng.random() < 0.7 else (196, 122, 46)
    for _ in range(5):
        x, y = rng.uniform(-0.55, 0.55), rng.uniform(-2.0, -1.1)
        r = rng.uniform(0.42, 0.6)
        sk.part(oval(x, y, r, r * 0.9), leaf, hair=1.0, shadow=0.2)


def fruit(sk: Sketch, rng: np.random.Generator) -> None:
    kind = rng.integers(3)
    if kind == 0:
        half = [(0, -1.35), (0.4, -1.5), (0.85, -1.1), (0.75, -0.4), (0.35, -0.02)]
        skin = (206, 52, 44) if rng.random() < 0.6 else (140, 184, 60)
        ring = np.array([*half, (0, -0.06), *[(-x, y) for x, y in half[:0:-1]]])
        sk.part(blob(ring), skin, hair=0.15, depth=1.4)
        sk.part(limb([(0, -1.3), (0.06, -1.7)], [0.05, 0.06]), BARK, hair=0)
        sk.part(almond(0.35, -1.66, 0.3, 0.12, -20), LEAF, hair=0)
    elif kind == 1:
        for k in range(3):
            spine = [
                (-1.0, -1.0 + 0.1 * k),
                (-0.2, -0.2 - 0.3 * k),
                (0.9, -0.5 * k - 0.4),
            ]
            sk.part(limb(spine, [0.1, 0.25, 0.07]), (236, 206, 70), hair=0.1)
    else:
        for row, count in enumerate((4, 3, 2, 1)):
            for k in range(count):
                x, y = (k - count / 2 + 0.5) * 0.42, -1.5 + 0.38 * row
                sk.part(oval(x, y, 0.25, 0.25), (112, 58, 134), hair=0, depth=1.3)
        sk.part(almond(0, -1.85, 0.45, 0.18), LEAF, hair=0)


def fish(sk: Sketch, rng: np.random.Generator) -> None:
    scales, y = bright(rng), -0.8
    tail = wedge((-0.75, y), (-1.5, y - 0.55), (-1.3, y))
    sk.part(tail, scales, hair=0.2)
    sk.part(tail * (1, -1) + (0, 2 * y), scales, hair=0.2)
    sk.part(wedge((-0.3, y - 0.4), (-0.2, y - 0.95), (0.5, y - 0.4)), scales, hair=0.2)
    bands = [
        (limb([(x, y - 0.7), (x + 0.1, y), (x, y + 0.7)], [0.09] * 3), bright(rng))
        for x in (-0.4, 0.0, 0.4)
    ]
    sk.part(almond(0, y, 1.15, 0.6), scales, bands, hair=0.25)
    sk.fill(oval(0.75, y - 0.1, 0.13, 0.13), (250, 250, 246))
    sk.fill(oval(0.78, y - 0.1, 0.07, 0.07), (20, 20, 24))


def bike(sk: Sketch, rng: np.random.Generator) -> None:
    paint = bright(rng)
    for x in (-0.8, 0.8):
        ring = oval(x, -0.5, 0.5, 0.5)
        sk.line(np.concatenate([ring, ring[:2]]), TYRE, 0.09)
        for t in np.arange(0, np.pi, np.pi / 5):
            dx, dy = 0.45 * np.cos(t), 0.45 * np.sin(t)
            sk.line([(x - dx, -0.5 - dy), (x + dx, -0.5 + dy)], STEEL, 0.015)
    hub, seat, head = (-0.1, -0.5), (-0.3, -1.2), (0.6, -1.2)
    frame = ((-0.8, -0.5), hub, head, seat, (-0.8, -0.5)), (seat, hub)
    for part in (*frame, (head, (0.8, -0.5)), (head, (0.55, -1.45), (0.8, -1.5))):
        sk.line(part, paint, 0.08)
    sk.part(oval(-0.34, -1.28, 0.24, 0.08), TYRE, hair=0)


def mug(sk: Sketch, rng: np.random.Generator) -> None:
    paint = bright(rng)
    ring = oval(0.65, -0.65, 0.34, 0.36)
    sk.line(np.concatenate([ring, ring[:2]]), paint, 0.14)
    band = [(box(-0.7, -0.75, 0.7, -0.5), bright(rng))]
    sk.part(box(-0.62, -1.3, 0.62, 0), paint, band, hair=0, depth=1.2)
    sk.part(oval(0, -1.3, 0.62, 0.16), (64, 40, 28), hair=0, depth=0.3)


def ball(sk: Sketch, rng: np.random.Generator) -> None:
    first, second = bright(rng), bright(rng)
    band = limb([(-0.8, -0.5), (0, -0.8), (0.8, -0.5)], [0.2, 0.24, 0.2])
    sk.part(oval(0, -0.7, 0.7, 0.7), first, [(band, second)], hair=0.1, depth=1.5)


def flower(sk: Sketch, rng: np.random.Generator) -> None:
    paint, petals = bright(rng), int(rng.integers(5, 9))
    sk.part(limb([(0, 0), (0.1, -0.6), (0, -1.3)], [0.06] * 3), LEAF, hair=0)
    sk.part(almond(0.36, -0.5, 0.36, 0.14, -30), LEAF, hair=0.2)
    for t in np.arange(petals) * 360.0 / petals:
        dx, dy = 0.42 * np.cos(np.radians(t)), 0.42 * np.sin(np.radians(t))
        sk.part(oval(dx, -1.5 + dy, 0.34, 0.2, t), paint, hair=0.2, shadow=0.15)
    sk.part(oval(0, -1.5, 0.24, 0.24), (240, 196, 60), hair=0.4)


def boat(sk: Sketch, rng: np.random.Generator) -> None:
    sk.line([(0.05, -0.4), (0.05, -2.2)], BARK, 0.08)
    sail = np.array([(0.12, -2.15), (1.0, -0.6), (0.12, -0.6)])
    sk.part(sail, (244, 240, 230), hair=0.1)
    sk.part(
        np.array([(-0.02, -2.0), (-0.7, -0.6), (-0.02, -0.6)]), bright(rng), hair=0.1
    )
    hull = np.array([(-1.2, -0.45), (1.3, -0.45), (0.85, 0), (-0.8, 0)])
    sk.part(hull, bright(rng), hair=0.2)


def lamp(sk: Sketch, rng: np.random.Generator) -> None:
    sk.part(oval(0, -0.08, 0.5, 0.12), TYRE, hair=0)
    sk.line([(0, -0.1), (0, -1.4)], STEEL, 0.1)
    shade = np.array([(-0.4, -2.0), (0.4, -2.0), (0.75, -1.2), (-0.75, -1.2)])
    sk.part(shade, bright(rng), hair=0.2)


def books(sk: Sketch, rng: np.random.Generator) -> None:
    y = 0.0
    for _ in range(int(rng.integers(3, 6))):
        h, dx = float(rng.uniform(0.2, 0.36)), float(rng.uniform(-0.15, 0.15))
        sk.part(box(-0.9 + dx, y - h, 0.8 + dx, y), bright(rng), hair=0.1, depth=0.5)
        sk.line([(-0.7 + dx, y - h), (-0.7 + dx, y)], (240, 232, 210), 0.05)
        y -= h


def umbrella(sk: Sketch, rng: np.random.Generator) -> None:
    first, second = bright(rng), (244, 240, 232)
    sk.line([(0, -1.8), (0, -0.2), (0.2, 0), (0.35, -0.2)], BARK, 0.08)
    dome = [(np.cos(t), np.sin(t)) for t in np.linspace(np.pi, 2 * np.pi, 20)]
    marks = [
        (wedge((x - 0.2, -1.1), (x * 0.4, -2.3), (x + 0.2, -1.1)), second)
        for x in (-0.7, 0.0, 0.7)
    ]
    sk.part(np.array(dome) * (1.25, 1.0) + (0, -1.15), first, marks, hair=0.1)


def shapes(sk: Sketch, rng: np.random.Generator) -> None:
    """Nothing that has a name: overlapping coloured areas."""
    for _ in range(int(rng.integers(4, 9))):
        x, y, r = rng.uniform(-1, 1), rng.uniform(-2, 0), rng.uniform(0.2, 0.8)
        corners = int(rng.integers(3, 8))
        t = np.sort(rng.uniform(0, 2 * np.pi, corners))
        ring = np.stack([x + r * np.cos(t), y + r * np.sin(t)], 1)
        outline = blob(ring) if rng.random() < 0.5 else ring
        sk.part(outline, bright(rng), hair=float(rng.uniform(0, 1)))


DrawThing = Callable[[Sketch, np.random.Generator], None]
THINGS: tuple[DrawThing, ...] = (
    car, house, tree, fruit, fish, bike, mug, ball, flower, boat, lamp, books,
    umbrella, shapes,
)  # fmt: skip
CLUTTER: tuple[DrawThing, ...] = (
    ball,
    mug,
    books,
    flower,
    fruit,
    car,
    lamp,
    tree,
    boat,
)


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
