"""The training loop: augmentation, warm-up and cosine, best weights, exact resume.

One loop for both kinds of network. A pretrained one starts from its probe and is
never left worse than it on validation: the probe is entry 0 of the history, and an
epoch replaces it only when it is better by more than chance (McNemar's exact paired
test on the validation photos). The best of several epochs on a few hundred photos
nearly always looks better than where it started, whether it is or not. After every
epoch the state (weights, optimiser, history) is on disk, so an interrupted run goes on
from its last epoch.

The rate rises linearly over the first tenth of the steps and falls as a cosine
(Loshchilov and Hutter 2017, arXiv:1608.03983). Shuffling and augmentation are drawn
from (seed, epoch, step), which makes a resumed run see what an undisturbed one sees.

Does not know: files of photos, plots, calibration.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import network
from backbones.keras import keras, tensorflow
from backbones.registry import Backbone
from data.augment import augment, preset
from edge.errors import EdgegraftError
from finetune import features
from finetune.paired import Right, mcnemar
from finetune.probe import log_loss
from finetune.run import write_atomic
from finetune.settings import Settings

WARM_UP = 0.1  # fraction of all steps
SURE = 0.05  # a gain over the probe with a larger p-value counts as chance


@dataclass(frozen=True)
class Examples:
    """Rows of a pixel array and their class numbers.

    array: uint8 [N, S, S, 3], maybe memory-mapped. rows, truth: int64 [n].
    """

    array: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.int64]
    truth: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv. Epoch 0 is the probe (or the untrained network)."""

    epoch: int
    train_loss: float | None
    train_accuracy: float | None
    val_loss: float
    val_accuracy: float
    rate: float
    seconds: float

    @property
    def rank(self) -> tuple[float, float]:
        """Better epochs rank higher: validation accuracy, then log loss."""
        return (round(self.val_accuracy, 6), -self.val_loss)


Advance = Callable[[int, int, Epoch | None], None]  # epoch, step, finished epoch


def set_trainable(model: Any, backbone: Backbone, unfreeze: str) -> int:
    """Choose what is trained (none, top, all); the number of trained weights.

    Batch norm of a pretrained backbone keeps its statistics either way: the backbone
    is called in inference mode (`backbones.network`).
    """
    inner = model.get_layer(network.BACKBONE)
    names = [layer.name for layer in inner.layers]
    first = 0
    if unfreeze == "none":
        first = len(names)
    elif unfreeze == "top" and backbone.top is not None:
        first = names.index(backbone.top)
    for number, layer in enumerate(inner.layers):
        layer.trainable = number >= first
    return int(sum(math.prod(weight.shape) for weight in model.trainable_weights))


def _schedule(settings: Settings, steps: int) -> Any:
    warm_up = max(1, round(steps * WARM_UP))
    return keras().optimizers.schedules.CosineDecay(
        settings.rate / 100,
        max(1, steps - warm_up),
        alpha=0.01,
        warmup_target=settings.rate,
        warmup_steps=warm_up,
    )


def surely_better(start: Right, later: Right) -> bool:
    """Whether `later` answers more of the same photos rightly, beyond chance.

    Both bool [N].
    """
    flips = mcnemar(start, later)
    return flips.gained > flips.lost and flips.p < SURE


class Trainer:
    """Trains `model` in place; `checkpoint` is a folder of its own.

    from_probe: the network that `start` finds is a fitted one, worth keeping.
    """

    def __init__(
        self,
        model: Any,
        settings: Settings,
        train: Examples,
        val: Examples,
        *,
        from_probe: bool,
        checkpoint: Path,
    ) -> None:
        tf = tensorflow()
        self.model, self.settings = model, settings
        self.train, self.val = train, val
        self.checkpoint = checkpoint
        self.history: list[Epoch] = []
        self.best: Epoch | None = None
        self._right: dict[str, list[int]] = {}  # validation photos, of start and best
        self._from_probe = from_probe
        self.batch = min(settings.batch, len(train))
        self.steps = max(1, len(train) // self.batch)  # an epoch; the rest waits
        self.optimizer = keras().optimizers.Adam(
            _schedule(settings, self.steps * settings.epochs), clipnorm=1.0
        )
        self.optimizer.build(model.trainable_variables)
        self._saved = tf.train.Checkpoint(model=model, optimizer=self.optimizer)
        self._logits = network.logit_model(model)
        self._step = self._make_step()

    def _make_step(self) -> Callable[..., Any]:
        tf, settings = tensorflow(), self.settings
        how, smoothing = preset(settings.augment), settings.label_smoothing
        classes = self._logits.output_shape[-1]

        @tf.function
        def step(images: Any, truth: Any, seed: Any) -> Any:
            pixels = augment(tf.cast(images, tf.float32), how, seed)
            target = tf.one_hot(truth, classes) * (1 - smoothing) + smoothing / classes
            with tf.GradientTape() as tape:
                logits = self._logits(pixels, training=True)
                loss = tf.reduce_mean(
                    tf.nn.softmax_cross_entropy_with_logits(target, logits)
                )
            variables = self.model.trainable_variables
            self.optimizer.apply_gradients(
                zip(tape.gradient(loss, variables), variables, strict=True)
            )
            right = tf.equal(tf.argmax(logits, axis=1), truth)
            return loss, tf.reduce_mean(tf.cast(right, tf.float32))

        return step

    # -- state on disk ---------------------------------------------------------
    @property
    def _best_weights(self) -> Path:
        return self.checkpoint / "best.weights.h5"

    @property
    def _start_weights(self) -> Path:
        return self.checkpoint / "start.weights.h5"

    def _keep(self, path: Path) -> None:
        write_atomic(path, lambda to: self.model.save_weights(str(to)))

    def _save(self) -> None:
        number = len(self.history)
        prefix = self.checkpoint / f"epoch-{number}"
        self._saved.write(str(prefix))
        state = {
            "checkpoint": prefix.name,
            "history": [asdict(epoch) for epoch in self.history],
            "best": self.best.epoch if self.best else None,
            "right": self._right,
        }
        write_atomic(
            self.checkpoint / "state.json",
            lambda to: to.write_text(json.dumps(state, indent=1)),
        )
        for old in self.checkpoint.glob("epoch-*"):
            if old.name.split(".")[0] != prefix.name:
                old.unlink()

    def resume(self) -> bool:
        """Load the state after the last whole epoch; False when there is none."""
        state_file = self.checkpoint / "state.json"
        if not state_file.is_file():
            return False
        try:
            state = json.loads(state_file.read_text())
            history = [Epoch(**row) for row in state["history"]]
            restored = self._saved.read(str(self.checkpoint / state["checkpoint"]))
            restored.assert_existing_objects_matched()
        except Exception as error:  # TensorFlow raises many kinds for a damaged file
            reason = " ".join(str(error).split())[:120]
            raise EdgegraftError(
                f"expected a checkpoint of this run in {self.checkpoint}, got one that "
                f"can't be read ({reason}); start again with --overwrite"
            ) from error
        self.history, self._right = history, state["right"]
        self.best = next(e for e in history if e.epoch == state["best"])
        return True

    # -- training --------------------------------------------------------------
    def evaluate(self) -> tuple[float, Right]:
        """Log loss (nats) on the validation part, and which photos are right."""
        logits = features.compute(self._logits, self.val.array, self.val.rows)
        right = logits.argmax(axis=1) == self.val.truth
        return log_loss(logits, self.val.truth), right

    def _record(self, epoch: Epoch, right: Right) -> None:
        self.history.append(epoch)
        if self.best is None or epoch.rank > self.best.rank:
            self.best = epoch
            self._right["best"] = right.astype(int).tolist()
            self._keep(self._best_weights)
        self._save()

    def start(self) -> None:
        """Enter the network as it is now as epoch 0."""
        self.checkpoint.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        loss, right = self.evaluate()
        seconds = time.perf_counter() - started
        self._right["start"] = right.astype(int).tolist()
        self._keep(self._start_weights)
        start = Epoch(0, None, None, loss, float(right.mean()), 0.0, seconds)
        self._record(start, right)

    def _one_epoch(self, number: int, advance: Advance) -> tuple[Epoch, Right]:
        tf, settings = tensorflow(), self.settings
        started = time.perf_counter()
        keras().utils.set_random_seed(settings.seed * 10_007 + number)  # dropout
        order = np.random.default_rng([settings.seed, number]).permutation(
            len(self.train)
        )
        losses, rights = [], []
        for step in range(self.steps):
            chosen = order[step * self.batch : (step + 1) * self.batch]
            position = (number - 1) * self.steps + step
            loss, right = self._step(
                tf.constant(self.train.array[self.train.rows[chosen]]),
                tf.constant(self.train.truth[chosen]),
                tf.constant([settings.seed, position], tf.int32),
            )
            losses.append(float(loss))
            rights.append(float(right))
            if not math.isfinite(losses[-1]):
                raise EdgegraftError(
                    f"expected a finite loss, got {losses[-1]} in epoch {number}, step "
                    f"{step + 1}; the weights of epoch {self.best and self.best.epoch} "
                    f"are kept in {self._best_weights}; try a smaller --rate than "
                    f"{settings.rate}"
                )
            advance(number, step + 1, None)
        loss, right = self.evaluate()
        epoch = Epoch(
            number,
            float(np.mean(losses)),
            float(np.mean(rights)),
            loss,
            float(right.mean()),
            float(self.optimizer.learning_rate.numpy()),
            time.perf_counter() - started,
        )
        return epoch, right

    def run(self, advance: Advance) -> None:
        """Train to the last epoch or until patience ends; then load what is kept.

        advance(epoch, step, finished epoch or None) is called after every step and
        after every epoch.
        """
        for number in range(len(self.history), self.settings.epochs + 1):
            assert self.best is not None
            if len(self.history) - 1 - self.best.epoch >= self.settings.patience:
                break
            epoch, right = self._one_epoch(number, advance)
            self._record(epoch, right)
            advance(number, self.steps, epoch)
        start, best = (np.array(self._right[k], bool) for k in ("start", "best"))
        if self._from_probe and not surely_better(start, best):
            self.best = self.history[0]
            self.model.load_weights(str(self._start_weights))
        else:
            self.model.load_weights(str(self._best_weights))

    def clear(self) -> None:
        """Remove the checkpoint, once the result is safe elsewhere."""
        shutil.rmtree(self.checkpoint, ignore_errors=True)
