"""One training step: which weights it changes, at which rates, and their averages.

    pixels -> augmentation -> network -> weighted cross-entropy -> Adam -> averages

The rate rises linearly over the first tenth of the steps and falls as a cosine
(Loshchilov and Hutter 2017, arXiv:1608.03983). Lower layers have general features, so
they may have smaller rates (discriminative rates: Howard and Ruder 2018,
arXiv:1801.06146). An exponential moving average of the weights is better than the last
ones (Polyak and Juditsky 1992). Its decay starts small, so that the untrained weights
are forgotten quickly, as in TensorFlow's `ExponentialMovingAverage`; batch norm's
statistics are averaged with the weights.

All random numbers are drawn from the seed argument, so a step can be repeated. It runs
on every replica of a `tf.distribute` strategy; each takes a slice of the batch, and
losses are divided by the weight of the whole batch, so that the slices add up.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import network
from backbones.keras import keras, tensorflow
from backbones.record import Backbone
from data.augment import Augmentation, augment, mix
from edge.errors import EdgegraftError
from finetune.distill import HintRegressor
from finetune.loop.examples import Batch

WARM_UP = 0.1  # fraction of all steps
LAST = 0.01  # the cosine ends at this fraction of the peak
AUTO_FROZEN = 3  # 1/3 of the layers, the lowest, stay frozen: edges, colours
GROUPS = 4  # of layers with a learning rate of their own
CLIP = 1.0  # of the norm of all gradients of a group


# -- what is trained, at which rate ----------------------------------------------------
@dataclass(frozen=True)
class RateGroup:
    """Variables that are trained at `multiplier` times the learning rate."""

    multiplier: float
    variables: tuple[Any, ...]


def rate_at(step: int, steps: int, peak: float) -> float:
    """The learning rate of step 0..steps-1."""
    warm_up = max(1, round(steps * WARM_UP))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, steps - warm_up)
    return peak * (LAST + (1 - LAST) * (1 + math.cos(math.pi * progress)) / 2)


def _first_trained(names: list[str], backbone: Backbone, unfreeze: str) -> int:
    if unfreeze == "all":
        return 0
    if unfreeze == "auto":
        return len(names) // AUTO_FROZEN
    if unfreeze == "none":
        return len(names)
    if unfreeze == "top":
        return names.index(backbone.top) if backbone.top is not None else 0
    return max(0, len(names) - int(unfreeze))


def set_trainable(model: Any, backbone: Backbone, unfreeze: str) -> int:
    """Set which layers are trained; returns the number of trained weights.

    unfreeze: none, auto (all but the lowest third), top (from the layer that the
    backbone's record names), all, or the number of the backbone's last layers, counted
    as Keras lists them. EdgegraftError when it has fewer. Batch norm of a pretrained
    backbone keeps its statistics either way: the backbone is called in inference mode
    (`backbones.network`).
    """
    if not backbone.can_train and unfreeze != "none":
        raise EdgegraftError(
            f"expected --unfreeze none with {backbone.name}, a module that can't be "
            f"fine-tuned (in TF1's format, called through a signature, or without "
            f"weights to train), got {unfreeze}"
        )
    layers = model.get_layer(network.BACKBONE).layers
    if unfreeze.isdecimal() and int(unfreeze) > len(layers):
        raise EdgegraftError(
            f"expected --unfreeze to be at most {len(layers)}, the layers of "
            f"{backbone.name}, got {unfreeze}"
        )
    first = _first_trained([layer.name for layer in layers], backbone, unfreeze)
    for index, layer in enumerate(layers):
        layer.trainable = index >= first
    return int(sum(math.prod(weight.shape) for weight in model.trainable_weights))


def rate_groups(model: Any, decay: float) -> tuple[RateGroup, ...]:
    """Trained variables by learning-rate multiplier: the head 1, the lowest `decay`.

    The backbone's trained layers are cut into `GROUPS` equal groups, whose multiplier
    falls geometrically; at a decay of 1 there is one group.
    """
    if decay == 1:
        return (RateGroup(1.0, tuple(model.trainable_variables)),)
    layers = model.get_layer(network.BACKBONE).layers
    trained = [layer for layer in layers if layer.trainable_variables]
    result = [
        RateGroup(1.0, tuple(model.get_layer(network.LOGITS).trainable_variables))
    ]
    cuts = [len(trained) * index // GROUPS for index in range(GROUPS + 1)]
    for index, (start, end) in enumerate(itertools.pairwise(cuts)):
        layers = trained[start:end]
        variables = tuple(v for layer in layers for v in layer.trainable_variables)
        if variables:
            result.append(RateGroup(decay ** (1 - index / GROUPS), variables))
    return tuple(result)


# -- moving averages of the weights ----------------------------------------------------
def average_decay(epochs: float, steps: int) -> float:
    """The decay a step, for a time constant of `epochs` epochs of `steps` steps."""
    return math.exp(-1 / max(1.0, epochs * steps))


class MovingAverage:
    """Exponential averages of `weights`, variables; `saved` is their checkpoint.

    `decay` (a variable) is that of a step; at 0 the averages are the weights.
    """

    def __init__(self, weights: list[Any]) -> None:
        tf = tensorflow()
        self._weights = weights
        self.decay = tf.Variable(0.0, trainable=False)
        self.values = [tf.Variable(weight, trainable=False) for weight in weights]
        self.count = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.saved = tf.train.Checkpoint(values=self.values, count=self.count)

    def restart(self) -> None:
        """Start again from the current weights."""
        self.count.assign(0)
        for value, weight in zip(self.values, self._weights, strict=True):
            value.assign(weight)

    def update(self) -> None:
        """Add the weights of this step; call inside `tf.function`."""
        tf = tensorflow()
        self.count.assign_add(1)
        count = tf.cast(self.count, tf.float32)
        decay = tf.minimum(self.decay, (1 + count) / (10 + count))
        for value, weight in zip(self.values, self._weights, strict=True):
            # in this form a frozen weight stays bit-identical
            value.assign_add((tf.cast(weight, value.dtype) - value) * (1 - decay))

    def swap(self) -> None:
        """Exchange the weights and their averages; a second call undoes it."""
        for value, weight in zip(self.values, self._weights, strict=True):
            current = weight.numpy()
            weight.assign(value)
            value.assign(current)


# -- the step --------------------------------------------------------------------------
def _optimizer(group: RateGroup) -> Any:
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
        groups: Sequence[RateGroup],
        average: MovingAverage,
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

    def restart(self) -> None:
        """Forget the steps that were made: the optimizers are as built."""
        tf = tensorflow()
        for optimizer in self.optimizers:
            for variable in optimizer.variables:
                variable.assign(tf.zeros_like(variable))

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
