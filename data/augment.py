"""Augmentation: random variants of training photos, on batches, repeatable.

Runs inside the training step, never in the exported graph. Every random number is
drawn from (seed, step), so a resumed run sees the pictures an undisturbed one sees.

Geometry (mirror, turn, zoom, shift) is one projective transform a photo, bilinear;
outside pixels are mirrored in. Colour: brightness, contrast, saturation.

Does not know: labels, models.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from edge.errors import EdgegraftError


@dataclass(frozen=True)
class Augmentation:
    """How strongly photos are varied.

    mirror: swap left and right in half of them. turn: at most this many degrees.
    zoom: a scale between 1 - zoom and 1 + zoom. shift: at most this fraction of
    width and height. brightness: added, as a fraction of full scale. contrast,
    saturation: factors between 1 - x and 1 + x.
    """

    mirror: bool = False
    turn: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    @property
    def moves(self) -> bool:
        return bool(self.mirror or self.turn or self.zoom or self.shift)

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
}


def preset(name: str) -> Augmentation:
    """The preset of that name; EdgegraftError that lists them otherwise."""
    if name not in PRESETS:
        raise EdgegraftError(
            f"expected --augment to be one of {', '.join(PRESETS)}, got {name!r}"
        )
    return PRESETS[name]


def _transforms(tf: Any, count: Any, size: float, how: Augmentation, seed: Any) -> Any:
    """Rows [N, 8] for ImageProjectiveTransformV3: output point -> input point."""
    u = tf.random.stateless_uniform([5, count], seed, -1.0, 1.0)
    angle = u[0] * (how.turn * 3.14159265 / 180)
    scale = 1.0 + u[1] * how.zoom
    side = tf.where(u[2] < 0, -1.0, 1.0) if how.mirror else tf.ones([count])
    centre = (size - 1) / 2
    a, b = tf.cos(angle) * scale * side, -tf.sin(angle) * scale
    c, d = tf.sin(angle) * scale * side, tf.cos(angle) * scale
    dx = centre + u[3] * how.shift * size - (a + b) * centre
    dy = centre + u[4] * how.shift * size - (c + d) * centre
    zero = tf.zeros([count])
    return tf.stack([a, b, dx, c, d, dy, zero, zero], axis=1)


def augment(images: Any, how: Augmentation, seed: Any) -> Any:
    """Vary a batch: float32 [N, S, S, 3] in 0..255 -> the same shape and range.

    seed: int32 [2]; the same seed gives the same pictures. Call inside `tf.function`.
    """
    import tensorflow as tf

    shape = tf.shape(images)
    count = shape[0]
    geometry, colour = seed, tf.add(seed, [0, 1 << 20])
    if how.moves:
        images = tf.raw_ops.ImageProjectiveTransformV3(
            images=images,
            transforms=_transforms(
                tf, count, tf.cast(shape[1], tf.float32), how, geometry
            ),
            output_shape=shape[1:3],
            interpolation="BILINEAR",
            fill_mode="REFLECT",
            fill_value=0.0,
        )
    if not (how.brightness or how.contrast or how.saturation):
        return images
    u = tf.random.stateless_uniform([3, count, 1, 1, 1], colour, -1.0, 1.0)
    mean = tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
    images = (images - mean) * (1.0 + u[1] * how.contrast) + mean
    images += u[0] * how.brightness * 255.0
    if how.saturation:
        grey = tf.reduce_mean(images, axis=3, keepdims=True)
        images = (images - grey) * (1.0 + u[2] * how.saturation) + grey
    return tf.clip_by_value(images, 0.0, 255.0)
