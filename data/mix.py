"""Mixing photos of a batch: mixup and cutmix, answers mixed with the pixels.

mixup (Zhang et al. 2018, arXiv:1710.09412) blends two photos; cutmix (Yun et al. 2019,
arXiv:1905.04899) sets a rectangle of one into the other. The partner of a photo is the
one at the mirrored place of the batch, which is shuffled already. A batch is mixed as a
whole or not at all, half of the time where a preset asks for mixing.

Does not know: what the answers mean, models.
"""

from __future__ import annotations

from typing import Any

from data.augment import Augmentation


def _beta(tf: Any, seed: Any, alpha: float) -> Any:
    """One draw of Beta(alpha, alpha), as a quotient of gamma draws."""
    draws = tf.random.stateless_gamma([2], seed, alpha)
    return draws[0] / tf.maximum(draws[0] + draws[1], 1e-12)


def _blend(images: Any, share: Any) -> tuple[Any, Any]:
    return images * share + images[::-1] * (1 - share), share


def _paste(tf: Any, images: Any, share: Any, seed: Any) -> tuple[Any, Any]:
    """A rectangle of (1 - share) of the area; the share that is left in truth."""
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    size = tf.cast([height, width], tf.float32)
    half = size * tf.sqrt(1 - share) / 2
    centre = tf.random.stateless_uniform([2], seed) * size
    low = tf.clip_by_value(tf.round(centre - half), 0.0, size)
    high = tf.clip_by_value(tf.round(centre + half), 0.0, size)
    rows = tf.range(size[0])[:, None, None]
    columns = tf.range(size[1])[None, :, None]
    inside = (rows >= low[0]) & (rows < high[0])
    inside &= (columns >= low[1]) & (columns < high[1])
    area = tf.reduce_prod(high - low) / tf.reduce_prod(size)
    return tf.where(inside, images[::-1], images), 1 - area


def mix(images: Any, targets: Any, how: Augmentation, seed: Any) -> tuple[Any, Any]:
    """Mix a batch: float32 [N, S, S, 3] and [N, L], or leave it as it is.

    seed: int32 [2]; the same seed mixes the same way. Call inside `tf.function`.
    """
    import tensorflow as tf

    if not (how.mixup or how.cutmix):
        return images, targets
    chance = tf.random.stateless_uniform([2], tf.add(seed, [1 << 21, 0]))
    shares = tf.add(seed, [1 << 22, 0])

    def blended() -> tuple[Any, Any]:
        return _blend(images, _beta(tf, shares, how.mixup))

    def pasted() -> tuple[Any, Any]:
        share = _beta(tf, shares, how.cutmix)
        return _paste(tf, images, share, tf.add(seed, [1 << 23, 0]))

    def mixed() -> tuple[Any, Any]:
        if not how.cutmix:
            return blended()
        if not how.mixup:
            return pasted()
        both: tuple[Any, Any] = tf.cond(chance[1] < 0.5, blended, pasted)
        return both

    def plain() -> tuple[Any, Any]:
        return images, tf.constant(1.0)

    images, share = tf.cond(chance[0] < 0.5, mixed, plain)
    return images, targets * share + targets[::-1] * (1 - share)
