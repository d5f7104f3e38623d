"""One step of training: a batch in, weights a little better.

    pixels -> augmentation -> network -> weighted cross-entropy -> Adam

Everything random in it is drawn from the seed it is given, so a step can be repeated.
It runs on every replica of a `tf.distribute` strategy; each takes its share of the
batch, and the losses are sums over the whole batch's weight, so the shares add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import folded
from backbones.keras import keras, tensorflow
from data.augment import Augmentation, augment, mix
from finetune.distill.hints import Follower
from finetune.loop.ema import Average
from finetune.loop.examples import Batch
from finetune.loop.schedule import Group

CLIP = 1.0  # of the norm of all gradients of a group


def _optimizer(group: Group) -> Any:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980), its slots made at once."""
    optimizer = keras().optimizers.Adam(0.0, global_clipnorm=CLIP)
    optimizer.build(list(group.variables))
    return optimizer


class Step:
    """Call it with a batch; the weights of `model` change in place.

    follower: draws the network's features towards the batch's hints; made, as the
    model, under the scope of `strategy`, a `tf.distribute` strategy.
    """

    def __init__(
        self,
        model: Any,
        groups: Sequence[Group],
        average: Average,
        how: Augmentation,
        *,
        follower: Follower | None = None,
        strategy: Any = None,
    ) -> None:
        tf = tensorflow()
        self._strategy = strategy or tf.distribute.get_strategy()
        self._outputs = folded.outputs(model)
        self._groups, self._average = tuple(groups), average
        self._how, self._follower = how, follower
        with self._strategy.scope():
            self.optimizers = [_optimizer(group) for group in self._groups]
        self._compiled = tf.function(self._on_all_replicas)

    def __call__(
        self, batch: Batch, *, rate: float, seed: tuple[int, int]
    ) -> tuple[float, float]:
        """The weighted loss of the answers (nats; that of all where it isn't finite),
        and the share of the photos whose likeliest answer is the target's."""
        tf = tensorflow()
        for optimizer, group in zip(self.optimizers, self._groups, strict=True):
            optimizer.learning_rate.assign(rate * group.multiplier)
        total = max(float(batch.weights.sum()), 1e-12)
        scale = np.array([1 / total, 1 / len(batch.images)], np.float32)
        shares = Batch(*(self._share(part) for part in batch))
        loss, right = self._compiled(
            shares, tf.constant(scale), tf.constant(seed, tf.int32)
        )
        return float(loss), float(right)

    def _share(self, part: npt.NDArray[Any]) -> Any:
        """A tensor on one device, or each replica's share of the batch."""
        tf, strategy = tensorflow(), self._strategy
        replicas = strategy.num_replicas_in_sync
        if replicas == 1:
            return tf.constant(part)

        def share(context: Any) -> Any:
            return tf.constant(part[context.replica_id_in_sync_group :: replicas])

        return strategy.experimental_distribute_values_from_function(share)

    def _on_all_replicas(self, batch: Batch, scale: Any, seed: Any) -> Any:
        tf, strategy = tensorflow(), self._strategy
        results = strategy.run(self._on_one_replica, args=(batch, scale, seed))
        self._average.update()
        add = tf.distribute.ReduceOp.SUM
        return tuple(strategy.reduce(add, value, axis=None) for value in results)

    def _on_one_replica(self, batch: Any, scale: Any, seed: Any) -> Any:
        tf = tensorflow()
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        seed = seed + tf.stack([0, replica])
        pixels = augment(tf.cast(batch.images, tf.float32), self._how, seed)
        both = tf.concat([batch.targets, batch.hints], axis=1)
        pixels, both = mix(pixels, both, self._how, seed)
        widths = [batch.targets.shape[1], batch.hints.shape[1]]
        targets, hints = tf.split(both, widths, axis=1)
        variables = [v for group in self._groups for v in group.variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            features, logits = self._outputs(pixels, training=True)
            logits = tf.cast(logits, tf.float32)
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            loss = shown = tf.reduce_sum(losses * batch.weights) * scale[0]
            if self._follower is not None:
                losses = self._follower.losses(features, hints)
                loss += tf.reduce_sum(losses * batch.weights) * scale[0]
        gradients = iter(tape.gradient(loss, variables))
        for optimizer, group in zip(self.optimizers, self._groups, strict=True):
            own = [(next(gradients), variable) for variable in group.variables]
            optimizer.apply_gradients(own)
        right = tf.equal(tf.argmax(logits, axis=1), tf.argmax(targets, axis=1))
        right = tf.reduce_sum(tf.cast(right, tf.float32)) * scale[1]
        return tf.where(tf.math.is_finite(loss), shown, loss), right
