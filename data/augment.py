"""Augmentation: random variants of training photos, on batches, repeatable.

Runs inside the training step, never in the exported graph. Every random number is
drawn from (seed, step), so a resumed run gets the pictures of an uninterrupted one.

Geometry (mirror, turn, zoom, shift) is one projective transform a photo, bilinear;
outside pixels are reflected. Colour: brightness, contrast, saturation. Erasing puts a
grey rectangle over some photos (Zhong et al. 2020, arXiv:1708.04896).

`mix` blends photos of a batch and their targets: mixup (Zhang et al. 2018,
arXiv:1710.09412) blends two photos; cutmix (Yun et al. 2019, arXiv:1905.04899) sets a
rectangle of one into the other. The partner of a photo is the one at the mirrored index
of the batch, which is shuffled already. A batch is mixed as a whole or not at all, half
of the time where a preset has mixing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from edge.errors import EdgegraftError

GREY = 127.5  # what is erased
ERASED_AREA = 0.02, 0.25  # of the photo
ERASED_ASPECT = 0.5, 2.0  # height to width


@dataclass(frozen=True)
class Augmentation:
    """How strongly photos are varied.

    mirror: swap left and right in half of them. turn: at most this many degrees.
    zoom: a scale between 1 - zoom and 1 + zoom. shift: at most this fraction of
    width and height. brightness: added, as a fraction of full scale. contrast,
    saturation: factors between 1 - x and 1 + x. erase: fraction of the photos that lose
    a rectangle. mixup, cutmix: the alpha of their Beta distribution, 0 is off.
    """

    mirror: bool = False
    turn: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def moves(self) -> bool:
        return bool(self.mirror or self.turn or self.zoom or self.shift)

    @property
    def colours(self) -> bool:
        return bool(self.brightness or self.contrast or self.saturation)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


PRESETS = {
    "none": Augmentation(),
    "light": Augmentation(mirror=True, zoom=0.1, shift=0.05),
    "standard": Augmentation(
        mirror=True,
        turn=10.0,
        zoom=0.2,
        shift=0.1,
        brightness=0.1,
        contrast=0.2,
        saturation=0.2,
    ),
    "strong": Augmentation(
        mirror=True,
        turn=15.0,
        zoom=0.3,
        shift=0.15,
        brightness=0.15,
        contrast=0.3,
        saturation=0.4,
        erase=0.5,
        mixup=0.2,
        cutmix=1.0,
    ),
}


def preset(name: str) -> Augmentation:
    """The preset of that name; EdgegraftError that lists them otherwise."""
    if name not in PRESETS:
        raise EdgegraftError(
            f"expected --augment to be one of {', '.join(PRESETS)}, got {name!r}"
        )
    return PRESETS[name]


def _transforms(
    tf: Any, count: Any, size: float, augmentation: Augmentation, seed: Any
) -> Any:
    """Rows [N, 8] for ImageProjectiveTransformV3: output point -> input point."""
    u = tf.random.stateless_uniform([5, count], seed, -1.0, 1.0)
    angle = u[0] * (augmentation.turn * 3.14159265 / 180)
    scale = 1.0 + u[1] * augmentation.zoom
    side = tf.where(u[2] < 0, -1.0, 1.0) if augmentation.mirror else tf.ones([count])
    centre = (size - 1) / 2
    a, b = tf.cos(angle) * scale * side, -tf.sin(angle) * scale
    c, d = tf.sin(angle) * scale * side, tf.cos(angle) * scale
    dx = centre + u[3] * augmentation.shift * size - (a + b) * centre
    dy = centre + u[4] * augmentation.shift * size - (c + d) * centre
    zero = tf.zeros([count])
    return tf.stack([a, b, dx, c, d, dy, zero, zero], axis=1)


def _moved(tf: Any, images: Any, augmentation: Augmentation, seed: Any) -> Any:
    shape = tf.shape(images)
    size = tf.cast(shape[1], tf.float32)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=_transforms(tf, shape[0], size, augmentation, seed),
        output_shape=shape[1:3],
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    )


def _coloured(tf: Any, images: Any, augmentation: Augmentation, seed: Any) -> Any:
    """Contrast around a photo's mean, brightness, saturation around each pixel's grey.

    All of it is linear in a pixel, so it is one product with a 3 x 3 matrix a photo
    and one sum: what stays grey is scaled by contrast, what is colour by both.
    """
    count, size = tf.shape(images)[0], tf.shape(images)[1]
    u = tf.random.stateless_uniform([3, count, 1, 1], seed, -1.0, 1.0)
    pixels = tf.reshape(images, [count, size * size, 3])
    contrast, saturation = (
        1.0 + u[1] * augmentation.contrast,
        1.0 + u[2] * augmentation.saturation,
    )
    grey = tf.fill([3, 3], 1 / 3)
    matrix = contrast * (saturation * tf.eye(3) + (1.0 - saturation) * grey)
    mean = tf.reduce_mean(pixels, axis=[1, 2], keepdims=True)
    added = mean * (1.0 - contrast) + u[0] * augmentation.brightness * 255.0
    pixels = tf.clip_by_value(tf.linalg.matmul(pixels, matrix) + added, 0.0, 255.0)
    return tf.reshape(pixels, tf.shape(images))


def _erased(tf: Any, images: Any, augmentation: Augmentation, seed: Any) -> Any:
    shape = tf.shape(images)
    count, size = shape[0], tf.cast(shape[1], tf.float32)
    u = tf.random.stateless_uniform([5, count, 1, 1, 1], seed)
    smallest, largest = ERASED_AREA
    area = smallest + u[0] * (largest - smallest)
    flattest, tallest = ERASED_ASPECT
    aspect = flattest * (tallest / flattest) ** u[1]
    height, width = tf.sqrt(area * aspect) * size, tf.sqrt(area / aspect) * size
    top, left = u[2] * (size - height), u[3] * (size - width)
    rows = tf.range(size)[None, :, None, None]
    columns = tf.range(size)[None, None, :, None]
    inside = (rows >= top) & (rows < top + height)
    inside &= (columns >= left) & (columns < left + width)
    return tf.where(inside & (u[4] < augmentation.erase), GREY, images)


def augment(images: Any, augmentation: Augmentation, seed: Any) -> Any:
    """Vary a batch: float32 [N, S, S, 3] in 0..255 -> the same shape and range.

    seed: int32 [2]; the same seed gives the same pictures. Call inside `tf.function`.
    """
    import tensorflow as tf

    if augmentation.moves:
        images = _moved(tf, images, augmentation, seed)
    if augmentation.colours:
        images = _coloured(tf, images, augmentation, tf.add(seed, [0, 1 << 20]))
    if augmentation.erase:
        images = _erased(tf, images, augmentation, tf.add(seed, [0, 1 << 24]))
    return images


def _beta(tf: Any, seed: Any, alpha: float) -> Any:
    """One draw of Beta(alpha, alpha), as a quotient of gamma draws."""
    draws = tf.random.stateless_gamma([2], seed, alpha)
    return draws[0] / tf.maximum(draws[0] + draws[1], 1e-12)


def _paste(tf: Any, images: Any, weight: Any, seed: Any) -> tuple[Any, Any]:
    """A rectangle of (1 - weight) of the area; the weight after clipping it."""
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    size = tf.cast([height, width], tf.float32)
    half = size * tf.sqrt(1 - weight) / 2
    centre = tf.random.stateless_uniform([2], seed) * size
    low = tf.clip_by_value(tf.round(centre - half), 0.0, size)
    high = tf.clip_by_value(tf.round(centre + half), 0.0, size)
    rows = tf.range(size[0])[:, None, None]
    columns = tf.range(size[1])[None, :, None]
    inside = (rows >= low[0]) & (rows < high[0])
    inside &= (columns >= low[1]) & (columns < high[1])
    area = tf.reduce_prod(high - low) / tf.reduce_prod(size)
    return tf.where(inside, images[::-1], images), 1 - area


def mix(
    images: Any, targets: Any, augmentation: Augmentation, seed: Any
) -> tuple[Any, Any]:
    """Mix a batch: float32 [N, S, S, 3] and [N, L], or leave it as it is.

    seed: int32 [2]; the same seed mixes the same way. Call inside `tf.function`.
    """
    import tensorflow as tf

    if not (augmentation.mixup or augmentation.cutmix):
        return images, targets
    draws = tf.random.stateless_uniform([2], tf.add(seed, [1 << 21, 0]))
    weight_seed = tf.add(seed, [1 << 22, 0])

    def blended() -> tuple[Any, Any]:
        weight = _beta(tf, weight_seed, augmentation.mixup)
        return images * weight + images[::-1] * (1 - weight), weight

    def pasted() -> tuple[Any, Any]:
        weight = _beta(tf, weight_seed, augmentation.cutmix)
        return _paste(tf, images, weight, tf.add(seed, [1 << 23, 0]))

    def mixed() -> tuple[Any, Any]:
        if not augmentation.cutmix:
            return blended()
        if not augmentation.mixup:
            return pasted()
        either: tuple[Any, Any] = tf.cond(draws[1] < 0.5, blended, pasted)
        return either

    def plain() -> tuple[Any, Any]:
        return images, tf.constant(1.0)

    images, weight = tf.cond(draws[0] < 0.5, mixed, plain)
    return images, targets * weight + targets[::-1] * (1 - weight)
