"""How a drawn cat or dog looks: its coat and its head.

A cat and a dog take their coat from the same `draw_coat`, so that neither colour nor
pattern shows which of the two a picture shows. Units of a head: about one from its
middle to each side; x right, y down, the middle at (0, 0). `yaw` from -1 to 1 turns a
front view towards x; side views look towards +x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.sample.sketch import (
    Colour,
    Outline,
    Sketch,
    almond,
    blob,
    both,
    curve,
    furry,
    limb,
    oval,
    wedge,
)

Marks = list[tuple[Outline, Colour]]

# (ground colour, darker mark, paler mark)
PALETTE: tuple[tuple[Colour, Colour, Colour], ...] = (
    ((52, 48, 50), (28, 26, 28), (232, 226, 218)),  # black
    ((98, 98, 106), (58, 58, 66), (226, 224, 222)),  # slate
    ((158, 156, 158), (92, 90, 94), (240, 238, 234)),  # silver
    ((234, 228, 218), (150, 112, 80), (250, 246, 240)),  # white
    ((226, 200, 162), (164, 118, 74), (248, 238, 222)),  # cream
    ((212, 138, 70), (158, 86, 36), (246, 226, 198)),  # ginger
    ((138, 98, 66), (78, 50, 32), (226, 206, 182)),  # brown
    ((92, 64, 50), (52, 36, 30), (208, 182, 156)),  # chocolate
    ((214, 170, 104), (150, 104, 52), (248, 232, 200)),  # gold
    ((178, 150, 120), (92, 72, 58), (238, 226, 210)),  # fawn
)
PATTERNS = ("plain", "tabby", "bicolour", "patches", "points", "saddle")
DARK: Colour = (26, 20, 22)
PINK: Colour = (222, 142, 140)
TONGUE: Colour = (226, 108, 118)
WHITE: Colour = (250, 248, 244)
CAT_EYES: tuple[Colour, ...] = (
    (122, 182, 72),
    (216, 184, 56),
    (224, 146, 48),
    (110, 176, 214),
    (160, 200, 120),
)
DOG_EYES: tuple[Colour, ...] = ((66, 40, 26), (92, 58, 32), (48, 32, 28), (120, 80, 40))


@dataclass(frozen=True)
class Coat:
    """Colours (RGB 0..255), pattern, and fur: tuft length in head radii."""

    ground: Colour
    mark: Colour
    pale: Colour
    pattern: str
    fluff: float
    hair: float

    def limb_marks(
        self, spine: np.ndarray | list[tuple[float, float]], width: float
    ) -> Marks:
        """What is drawn on a leg or tail whose last spine point is its tip."""
        line = np.asarray(spine, float)
        tip = line[-1]
        sock = oval(tip[0], tip[1], width * 2.0, width * 2.0)
        if self.pattern == "points":
            return [(sock, self.mark)]
        if self.pattern in ("bicolour", "saddle"):
            return [(sock, self.pale)]
        if self.pattern != "tabby":
            return []
        bands: Marks = []
        for t in np.linspace(0.15, 0.9, 5) * (len(line) - 1):
            i = min(int(t), len(line) - 2)
            along = line[i + 1] - line[i]
            at = line[i] + along * (t - i)
            side = along[::-1] * (-1, 1) / max(float(np.hypot(*along)), 1e-9)
            ends = [tuple(at - side * width * 1.3), tuple(at + side * width * 1.3)]
            bands.append((limb(ends, [width * 0.22] * 2), self.mark))
        return bands

    def body_marks(self, outline: Outline, rng: np.random.Generator) -> Marks:
        """What is drawn on the trunk, from its bounding box."""
        (x0, y0), (x1, y1) = outline.min(0), outline.max(0)
        w, h = x1 - x0, y1 - y0
        if self.pattern == "tabby":
            bands: Marks = []
            for x in np.linspace(x0 + 0.12 * w, x1 - 0.1 * w, max(4, int(w * 2.6))):
                lean = rng.uniform(-0.1, 0.25)
                spine = [(x, y0), (x + lean * 0.6, y0 + 0.3 * h), (x + lean, y1)]
                end = rng.uniform(0.02, 0.08)
                bands.append((limb(spine, [0.12, 0.08, end]), self.mark))
            return bands
        if self.pattern == "patches":
            return [
                (
                    oval(
                        x0 + w * rng.uniform(0.05, 0.95),
                        y0 + h * rng.uniform(0.05, 0.8),
                        rng.uniform(0.15, 0.3) * w,
                        rng.uniform(0.12, 0.3) * h,
                        rng.uniform(0, 180),
                    ),
                    self.mark if i % 2 else self.pale,
                )
                for i in range(5)
            ]
        if self.pattern == "saddle":
            return [(oval((x0 + x1) / 2, y0 + 0.1 * h, 0.62 * w, 0.5 * h), self.mark)]
        return []


def draw_coat(rng: np.random.Generator) -> Coat:
    ground, mark, pale = PALETTE[rng.integers(len(PALETTE))]
    shift = rng.normal(0, 3, 3) + rng.normal(0, 7)

    def tint(colour: Colour) -> Colour:
        r, g, b = np.clip(np.add(colour, shift), 6, 252).astype(int).tolist()
        return r, g, b

    return Coat(
        tint(ground),
        tint(mark),
        tint(pale),
        PATTERNS[rng.integers(len(PATTERNS))],
        fluff=float(rng.uniform(0.02, 0.11)),
        hair=float(rng.uniform(0.35, 0.9)),
    )


@dataclass(frozen=True)
class Look:
    """What stays the same about one animal, whatever its pose."""

    coat: Coat
    eye: Colour
    nose: Colour
    ear: str  # cat: "up"; dog: "floppy" | "long" | "folded" | "up"
    ear_size: float
    pupil: float  # half width of a cat's slit, in eye widths
    tongue: bool
    sleepy: bool
    muzzle: float  # a dog's muzzle, relative size


def face_marks(coat: Coat, rng: np.random.Generator, nose_y: float) -> Marks:
    """Marks of a face seen from the front: the same for every animal."""
    if coat.pattern == "tabby":
        lines: Marks = []
        for x, lean in ((-0.3, -0.1), (0.0, 0.0), (0.3, 0.1)):
            spine = [(x + lean, -1.0), (x, -0.7), (x * 0.7, -0.4)]
            lines.append((limb(spine, [0.09, 0.07, 0.02]), coat.mark))
        for side in (-1, 1):
            for y in (0.12, 0.34):
                spine = [(side * 1.1, y), (side * 0.78, y - 0.02)]
                lines.append((limb(spine, [0.06, 0.02]), coat.mark))
        return lines
    if coat.pattern == "bicolour":
        spine = [(0, -0.95), (0, -0.3), (0, nose_y), (0, 1.0)]
        return [(limb(spine, [0.08, 0.14, 0.42, 0.75]), coat.pale)]
    if coat.pattern == "patches":
        side = -1 if rng.random() < 0.5 else 1
        return [
            (oval(side * 0.5, -0.25, 0.5, 0.62, side * 20), coat.mark),
            (oval(-side * 0.35, 0.55, 0.5, 0.4), coat.pale),
        ]
    if coat.pattern == "points":
        return [(oval(0, nose_y, 0.62, 0.62), coat.mark)]
    if coat.pattern == "saddle":
        return [(oval(0, -0.85, 1.1, 0.55), coat.mark)]
    return []


def muzzle_colour(coat: Coat) -> Colour:
    if coat.pattern == "points":
        return coat.mark
    return coat.ground if coat.pattern == "plain" else coat.pale


def ear_colour(coat: Coat) -> Colour:
    return coat.mark if coat.pattern in ("points", "saddle", "patches") else coat.ground


def darker(colour: Colour) -> Colour:
    r, g, b = (int(v * 0.72) for v in colour)
    return r, g, b


def cat_look(rng: np.random.Generator, coat: Coat) -> Look:
    nose = PINK if rng.random() < 0.7 else (92, 62, 60)
    return Look(
        coat,
        CAT_EYES[rng.integers(len(CAT_EYES))],
        nose,
        "up",
        float(rng.uniform(0.9, 1.2)),
        float(rng.uniform(0.14, 0.34)),
        False,
        bool(rng.random() < 0.07),
        1.0,
    )


def _cat_eye(
    sk: Sketch, look: Look, x: float, y: float, rx: float, turn: float
) -> None:
    ry = 0.86 * 0.26
    if look.sleepy:
        lid = [(x - rx, y), (x, y + 0.12), (x + rx, y)]
        sk.line(curve(lid), DARK, 0.06)
        return
    sk.fill(almond(x, y, rx * 1.22, ry * 1.26, turn), DARK)
    sk.fill(almond(x, y, rx, ry, turn), look.eye)
    slit = look.pupil * rx
    sk.fill(almond(x, y, ry * 0.96, slit, 90), DARK)
    sk.fill(oval(x - 0.08, y - 0.09, 0.05, 0.05), WHITE)


def cat_face(sk: Sketch, look: Look, rng: np.random.Generator, yaw: float) -> None:
    """A cat from the front: pointed ears, almond eyes with slits, whiskers."""
    coat = look.coat
    for side in (-1, 1):
        narrow = 1 - 0.3 * max(0.0, side * yaw)
        shift = -0.08 * yaw
        a = (shift + side * 0.22 * narrow, -0.66)
        tip = (shift + side * 0.86 * narrow, -0.55 - 0.98 * look.ear_size)
        b = (shift + side * 1.02 * narrow, -0.12)
        ear = wedge(a, tip, b)
        sk.part(furry(ear, rng, coat.fluff * 0.4), ear_colour(coat), hair=coat.hair)
        middle = np.mean([a, tip, b], axis=0)
        inner = middle + (ear - middle) * 0.6 + (0, 0.05)
        sk.part(inner, PINK, hair=0.2, shadow=0.0)
    skull = both([
        (0, -0.84), (0.5, -0.8), (0.94, -0.4), (1.08, 0.12), (0.86, 0.6), (0.4, 0.86),
        (0, 0.92),
    ])  # fmt: skip
    marks = face_marks(coat, rng, 0.3)
    sk.part(furry(skull, rng, coat.fluff), coat.ground, marks, hair=coat.hair)
    m = 0.26 * yaw
    pale = muzzle_colour(coat)
    sk.part(oval(m, 0.62, 0.26, 0.2), pale, hair=0.2, depth=0.7, shadow=0.1)
    for side in (-1, 1):
        puff = oval(m + side * 0.21, 0.4, 0.27, 0.21, side * 12)
        sk.part(puff, pale, hair=0.25, depth=0.7, shadow=0.12)
    for side in (-1, 1):
        x = 0.18 * yaw + side * 0.44
        rx = 0.28 * (1 - 0.25 * max(0.0, side * yaw))
        _cat_eye(sk, look, x, -0.08, rx, side * -14)
    sk.fill(wedge((m - 0.15, 0.17), (m, 0.34), (m + 0.15, 0.17)), look.nose)
    for side in (-1, 1):
        lip = [(m, 0.34), (m, 0.44), (m + side * 0.12, 0.53), (m + side * 0.26, 0.47)]
        sk.line(curve(lip), (70, 44, 44), 0.035)
    _whiskers(sk, coat, m)


def _whiskers(sk: Sketch, coat: Coat, x: float) -> None:
    colour = WHITE if sum(coat.ground) < 540 else (96, 90, 88)
    for side in (-1, 1):
        for k, rise in enumerate((-0.16, 0.0, 0.16)):
            start = (x + side * 0.26, 0.4 + 0.05 * (k - 1))
            end = (x + side * 1.32, 0.4 + rise * 1.6 + 0.06)
            bend = (x + side * 0.8, 0.4 + rise * 0.9 - 0.06)
            sk.line(curve([start, bend, end]), colour, 0.02)


def cat_profile(sk: Sketch, look: Look, rng: np.random.Generator) -> None:
    """A cat's head from the side: round, a short muzzle, pricked ears."""
    coat = look.coat
    ears = (
        ((0.05, -0.6), (0.36, -1.42), (0.6, -0.5)),
        ((-0.6, -0.45), (-0.3, -0.5 - 1.0 * look.ear_size), (0.28, -0.66)),
    )
    for ear in ears:
        shape = wedge(*ear)
        sk.part(furry(shape, rng, coat.fluff * 0.4), ear_colour(coat), hair=coat.hair)
    middle = np.mean(ears[1], axis=0)
    sk.part(middle + (wedge(*ears[1]) - middle) * 0.5, PINK, hair=0.2, shadow=0.0)
    head = blob([
        (-0.1, -0.8), (0.42, -0.68), (0.72, -0.34), (0.9, 0.04), (1.06, 0.2),
        (1.02, 0.4), (0.84, 0.58), (0.4, 0.78), (-0.3, 0.82), (-0.92, 0.4),
        (-0.9, -0.3),
    ])  # fmt: skip
    marks = [(np.add(m, (0.3, 0)), c) for m, c in face_marks(coat, rng, 0.3)]
    sk.part(furry(head, rng, coat.fluff * 0.7), coat.ground, marks, hair=coat.hair)
    puff = oval(0.8, 0.4, 0.28, 0.2, -12)
    sk.part(puff, muzzle_colour(coat), hair=0.2, depth=0.7, shadow=0.1)
    _cat_eye(sk, look, 0.5, -0.08, 0.2, 14)
    sk.fill(wedge((0.9, 0.1), (1.1, 0.16), (1.02, 0.3)), look.nose)
    mouth = [(1.02, 0.32), (0.96, 0.45), (0.7, 0.5)]
    sk.line(curve(mouth), (70, 44, 44), 0.035)
    _whiskers(sk, coat, 0.78)


def dog_look(rng: np.random.Generator, coat: Coat) -> Look:
    ears = ("floppy", "floppy", "long", "folded", "up")
    return Look(
        coat,
        DOG_EYES[rng.integers(len(DOG_EYES))],
        (30, 26, 28),
        ears[rng.integers(len(ears))],
        float(rng.uniform(0.9, 1.15)),
        0.0,
        bool(rng.random() < 0.55),
        bool(rng.random() < 0.07),
        float(rng.uniform(0.9, 1.15)),
    )


def _dog_eye(sk: Sketch, look: Look, x: float, y: float, r: float) -> None:
    if look.sleepy:
        sk.line(curve([(x - r, y), (x, y + 0.1), (x + r, y)]), DARK, 0.06)
        return
    sk.fill(oval(x, y, r * 1.28, r * 1.18), DARK)
    sk.fill(oval(x, y, r * 0.95, r * 0.95), look.eye)
    sk.fill(oval(x, y, r * 0.6, r * 0.6), (14, 10, 12))
    sk.fill(oval(x - 0.05, y - 0.06, 0.055, 0.055), WHITE)


def _dog_ear(
    sk: Sketch, look: Look, rng: np.random.Generator, side: int, yaw: float
) -> None:
    coat, size = look.coat, look.ear_size
    narrow = 1 - 0.25 * max(0.0, side * yaw)
    shift = -0.06 * yaw

    def at(points: list[tuple[float, float]]) -> np.ndarray:
        return np.array([(shift + side * x * narrow, y) for x, y in points])

    colour = coat.mark if coat.pattern != "plain" else darker(coat.ground)
    if look.ear == "up":
        ear = wedge(*at([(0.2, -0.66), (0.66, -0.7 - 0.85 * size), (0.88, -0.28)]))
        sk.part(furry(ear, rng, coat.fluff * 0.4), colour, hair=coat.hair)
        middle = ear.mean(0)
        sk.part(middle + (ear - middle) * 0.55, PINK, hair=0.2, shadow=0.0)
        return
    if look.ear == "folded":
        base = wedge(*at([(0.3, -0.62), (0.82, -1.12 * size), (0.92, -0.3)]))
        sk.part(base, coat.ground, hair=coat.hair)
        flap = at([(0.44, -0.98), (0.84, -1.1), (1.08, -0.8), (1.16, -0.3)])
        outline = blob([*flap, *at([(0.94, -0.34)])])
    else:
        drop = {"floppy": 0.5, "long": 1.05}[look.ear] * size
        half = [(0.5, -0.78), (0.86, -0.72), (1.14, -0.3), (1.22, drop * 0.55)]
        half += [(1.02, drop), (0.78, drop * 0.6), (0.74, -0.1)]
        outline = blob(at(half))
    sk.part(furry(outline, rng, coat.fluff), colour, hair=coat.hair)


def dog_face(sk: Sketch, look: Look, rng: np.random.Generator, yaw: float) -> None:
    """A dog from the front: hanging or pricked ears, big muzzle and nose, tongue."""
    coat, size = look.coat, look.muzzle
    hanging = look.ear in ("floppy", "long")
    if not hanging:
        for side in (-1, 1):
            _dog_ear(sk, look, rng, side, yaw)
    skull = both([
        (0, -0.88), (0.45, -0.85), (0.8, -0.5), (0.84, 0.0), (0.72, 0.45), (0.5, 0.85),
        (0, 1.0),
    ])  # fmt: skip
    marks = face_marks(coat, rng, 0.45)
    sk.part(furry(skull, rng, coat.fluff), coat.ground, marks, hair=coat.hair)
    if hanging:
        for side in (-1, 1):
            _dog_ear(sk, look, rng, side, yaw)
    for side in (-1, 1):
        x = 0.2 * yaw + side * 0.37
        _dog_eye(sk, look, x, -0.2, 0.16)
        brow = [(x - 0.15, -0.46), (x, -0.53), (x + 0.15, -0.46)]
        sk.line(curve(brow), darker(coat.ground), 0.05)
    m = 0.38 * yaw
    pale = muzzle_colour(coat)
    if look.tongue:
        sk.part(oval(m, 0.86, 0.32, 0.26), (92, 34, 40), hair=0, shadow=0.2)
        tongue = blob([
            (m - 0.2, 0.8), (m + 0.2, 0.8), (m + 0.19, 1.22), (m, 1.36),
            (m - 0.19, 1.22),
        ])  # fmt: skip
        sk.part(tongue, TONGUE, hair=0.0, depth=0.8, shadow=0.15)
        sk.line([(m, 0.85), (m, 1.2)], (186, 76, 90), 0.03)
    bridge = limb([(0.2 * yaw, -0.25), (m, 0.3)], [0.2, 0.34])
    sk.part(bridge, pale, hair=0.3, depth=0.5, shadow=0.0)
    for side in (-1, 1):
        jowl = oval(m + side * 0.24, 0.58, 0.34 * size, 0.33 * size, side * -18)
        sk.part(jowl, pale, hair=0.3, depth=0.8, shadow=0.16)
    sk.line([(m, 0.45), (m, 0.72)], DARK, 0.04)
    for side in (-1, 1):
        lip = [(m, 0.72), (m + side * 0.2, 0.84), (m + side * 0.44, 0.72)]
        sk.line(curve(lip), DARK, 0.04)
    nose = both([(0, 0.16), (0.2, 0.17), (0.26, 0.3), (0.12, 0.44), (0, 0.48)])
    sk.part(np.add(nose, (m, 0.0)), look.nose, hair=0.0, depth=0.8, shadow=0.25)
    sk.fill(oval(m - 0.07, 0.25, 0.08, 0.035), (150, 146, 150))


def dog_profile(sk: Sketch, look: Look, rng: np.random.Generator) -> None:
    """A dog's head from the side: a long muzzle with the nose at its end."""
    coat, far = look.coat, 1.1 + 0.3 * look.muzzle
    ear_colour = coat.mark if coat.pattern != "plain" else darker(coat.ground)
    if look.ear == "up":
        shape = wedge((0.0, -0.6), (0.12, -1.4), (0.45, -0.6))
        sk.part(shape, ear_colour, hair=coat.hair)
    if look.tongue:
        tongue = limb([(0.95, 0.42), (1.15, 0.6), (1.2, 0.95)], [0.12, 0.14, 0.12])
        sk.part(tongue, TONGUE, hair=0.0, depth=0.8, shadow=0.1)
        jaw = limb([(0.3, 0.5), (0.8, 0.62), (1.12, 0.62)], [0.25, 0.16, 0.1])
        sk.part(jaw, muzzle_colour(coat), hair=coat.hair, shadow=0.1)
    head = blob([
        (-0.2, -0.82), (0.3, -0.76), (0.6, -0.4), (0.9, -0.2), (far, -0.18),
        (far + 0.14, 0.06), (far, 0.42), (0.95, 0.52), (0.5, 0.66), (-0.2, 0.84),
        (-0.85, 0.5), (-0.95, -0.2),
    ])  # fmt: skip
    marks = [(np.add(m, (0.4, 0)), c) for m, c in face_marks(coat, rng, 0.3)]
    sk.part(furry(head, rng, coat.fluff * 0.7), coat.ground, marks, hair=coat.hair)
    snout = limb([(0.82, 0.16), (far - 0.14, 0.14)], [0.3, 0.26])
    sk.part(snout, muzzle_colour(coat), hair=0.3, depth=0.6, shadow=0.0)
    sk.part(oval(far + 0.04, -0.06, 0.17, 0.14), look.nose, hair=0.0, depth=0.8)
    sk.line(curve([(far, 0.34), (1.05, 0.42), (0.68, 0.34)]), DARK, 0.04)
    _dog_eye(sk, look, 0.42, -0.26, 0.14)
    if look.ear == "up":
        ear = wedge((-0.55, -0.5), (-0.25, -0.75 - 0.8 * look.ear_size), (0.2, -0.66))
    else:
        drop = {"folded": 0.1, "floppy": 0.6, "long": 1.05}[look.ear] * look.ear_size
        ear = blob([
            (-0.5, -0.68), (-0.05, -0.66), (0.08, -0.2), (0.02, drop * 0.7),
            (-0.3, drop), (-0.62, drop * 0.6), (-0.7, -0.1),
        ])  # fmt: skip
    sk.part(furry(ear, rng, coat.fluff * 0.7), ear_colour, hair=coat.hair)
