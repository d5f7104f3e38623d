"""One training step on a batch.

    pixels -> augmentation -> network -> weighted cross-entropy -> Adam

All random numbers are drawn from the seed argument, so a step can be repeated. It runs
on every replica of a `tf.distribute` strategy; each takes a slice of the batch, and
losses are divided by the weight of the whole batch, so that the slices add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import network
from backbones.keras import keras, tensorflow
from data.augment import Augmentation, augment, mix
from finetune.distill.hints import HintRegressor
from finetune.loop.ema import Average
from finetune.loop.examples import Batch
from finetune.loop.schedule import Group

CLIP = 1.0  # of the norm of all gradients of a group


def _optimizer(group: Group) -> Any:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980), with its slots built."""
    optimizer = keras().optimizers.Adam(0.0, global_clipnorm=CLIP)
    optimizer.build(list(group.variables))
    return optimizer


class Step:
    """Call it with a batch; the weights of `model` change in place.

    hint_regressor: trains the network's features to match the batch's hints; built, as
    the model, in the scope of `strategy`, a `tf.distribute` strategy.
    """

    def __init__(
        self,
        model: Any,
        groups: Sequence[Group],
        average: Average,
        augmentation: Augmentation,
        *,
        hint_regressor: HintRegressor | None = None,
        strategy: Any = None,
    ) -> None:
        tf = tensorflow()
        self._strategy = strategy or tf.distribute.get_strategy()
        self._outputs = network.training_outputs(model)
        self._groups, self._average = tuple(groups), average
        self._augmentation, self._hint_regressor = augmentation, hint_regressor
        with self._strategy.scope():
            self.optimizers = [_optimizer(group) for group in self._groups]
        self._compiled = tf.function(self._on_all_replicas)

    def __call__(
        self, batch: Batch, *, rate: float, seed: tuple[int, int]
    ) -> tuple[float, float]:
        """(weighted cross-entropy in nats, accuracy) of the batch.

        Where the whole loss, with that of hints, is not finite, it is returned instead.
        """
        tf = tensorflow()
        for optimizer, group in zip(self.optimizers, self._groups, strict=True):
            optimizer.learning_rate.assign(rate * group.multiplier)
        total = max(float(batch.weights.sum()), 1e-12)
        scale = np.array([1 / total, 1 / len(batch.images)], np.float32)
        distributed = Batch(*(self._distributed(array) for array in batch))
        loss, accuracy = self._compiled(
            distributed, tf.constant(scale), tf.constant(seed, tf.int32)
        )
        return float(loss), float(accuracy)

    def _distributed(self, array: npt.NDArray[Any]) -> Any:
        """A tensor on one device, or each replica's slice of the batch."""
        tf, strategy = tensorflow(), self._strategy
        replicas = strategy.num_replicas_in_sync
        if replicas == 1:
            return tf.constant(array)
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                array[context.replica_id_in_sync_group :: replicas]
            )
        )

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
        pixels = augment(tf.cast(batch.images, tf.float32), self._augmentation, seed)
        both = tf.concat([batch.targets, batch.hints], axis=1)
        pixels, both = mix(pixels, both, self._augmentation, seed)
        widths = [batch.targets.shape[1], batch.hints.shape[1]]
        targets, hints = tf.split(both, widths, axis=1)
        variables = [v for group in self._groups for v in group.variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            features, logits = self._outputs(pixels, training=True)
            logits = tf.cast(logits, tf.float32)
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            loss = cross_entropy = tf.reduce_sum(losses * batch.weights) * scale[0]
            if self._hint_regressor is not None:
                losses = self._hint_regressor.losses(features, hints)
                loss += tf.reduce_sum(losses * batch.weights) * scale[0]
        gradients = iter(tape.gradient(loss, variables))
        for optimizer, group in zip(self.optimizers, self._groups, strict=True):
            pairs = [(next(gradients), variable) for variable in group.variables]
            optimizer.apply_gradients(pairs)
        right = tf.equal(tf.argmax(logits, axis=1), tf.argmax(targets, axis=1))
        accuracy = tf.reduce_sum(tf.cast(right, tf.float32)) * scale[1]
        return tf.where(tf.math.is_finite(loss), cross_entropy, loss), accuracy
