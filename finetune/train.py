"""The training loop: epochs, what is kept of them, exact resume.

One loop for both kinds of network. A pretrained one starts from its probe and is
never left worse than it on validation: the probe is entry 0 of the history, and an
epoch replaces it only when it is better by more than chance (McNemar's exact paired
test on the validation photos). The best of several epochs on a few hundred photos
nearly always looks better than where it started, whether it is or not. After every
epoch the state is on disk (`finetune.checkpoint`), so an interrupted run goes on from
its last epoch. Shuffling, augmentation and dropout are drawn from (seed, epoch, step),
which makes a resumed run see what an undisturbed one sees.

What is judged and kept are the moving averages of the weights (`finetune.average`).

Does not know: files of photos, plots, calibration.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from backbones import network
from backbones.keras import reset_dropout, tensorflow
from data.augment import preset
from edge.errors import EdgegraftError
from finetune import examples, features
from finetune.average import Average, decay_for
from finetune.checkpoint import Checkpoint
from finetune.epochs import Epoch
from finetune.examples import Examples
from finetune.paired import Right, mcnemar
from finetune.probe import log_loss
from finetune.schedule import groups, rate_at
from finetune.settings import Settings
from finetune.step import Step

SURE = 0.05  # a gain over the probe with a larger p-value counts as chance

Advance = Callable[[int, int, Epoch | None], None]  # epoch, step, finished epoch


def surely_better(start: Right, later: Right) -> bool:
    """Whether `later` answers more of the same photos rightly, beyond chance.

    Both bool [N].
    """
    flips = mcnemar(start, later)
    return flips.gained > flips.lost and flips.p < SURE


class Trainer:
    """Trains `model` in place; `checkpoint` is a folder of its own.

    from_probe: the network that `start` finds is a fitted one, worth keeping.
    teacher, strategy: see `finetune.step.Step`. time_left: seconds that training may
    still take; None without a limit.
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
        teacher: Any = None,
        strategy: Any = None,
        time_left: Callable[[], float] | None = None,
    ) -> None:
        self.model, self.settings = model, settings
        self.train, self.val = train, val
        self.history: list[Epoch] = []
        self.best: Epoch | None = None
        self.planned = settings.epochs
        self._right: dict[str, list[int]] = {}  # validation photos, of start and best
        self._from_probe, self._time_left = from_probe, time_left
        self.batch = min(settings.batch, len(train))
        self.steps = max(1, len(train) // self.batch)  # an epoch; the rest waits
        self._logits = network.logit_model(model)
        self._classes = int(self._logits.output_shape[-1])
        decay = decay_for(settings.average, self.steps) if settings.average else 0.0
        self.average = Average(model.weights, decay)
        self._step = Step(
            model,
            groups(model, settings.rate_decay),
            self.average,
            preset(settings.augment),
            teacher=teacher,
            strategy=strategy,
        )
        tracked = tensorflow().train.Checkpoint(
            model=model,
            optimizers=self._step.optimizers,
            average=self.average.saved,
        )
        self.checkpoint = Checkpoint(checkpoint, tracked)

    # -- state -----------------------------------------------------------------
    def resume(self) -> bool:
        """Load the state after the last whole epoch; False when there is none."""
        if not self.checkpoint.exists:
            return False
        state = self.checkpoint.load()
        self.history = [Epoch(**row) for row in state["history"]]
        self._right, self.planned = state["right"], state["planned"]
        self.best = next(e for e in self.history if e.epoch == state["best"])
        return True

    def _record(self, epoch: Epoch, right: Right) -> None:
        """Enter an epoch; the network holds the weights that were judged."""
        self.history.append(epoch)
        if self.best is None or epoch.rank > self.best.rank:
            self.best = epoch
            self._right["best"] = right.astype(int).tolist()
            self.checkpoint.keep(epoch.epoch, self.model.get_weights())

    def _save(self) -> None:
        assert self.best is not None
        state = {
            "history": [asdict(epoch) for epoch in self.history],
            "best": self.best.epoch,
            "planned": self.planned,
            "right": self._right,
        }
        self.checkpoint.save(self.history[-1].epoch, state, {0, self.best.epoch})

    # -- training --------------------------------------------------------------
    def evaluate(self) -> tuple[float, Right]:
        """Log loss (nats) on the validation part, and which photos are right."""
        logits = features.compute(self._logits, self.val.array, self.val.rows)
        right = logits.argmax(axis=1) == self.val.truth
        return log_loss(logits, self.val.truth), right

    def start(self) -> None:
        """Enter the network as it is now as epoch 0."""
        started = time.perf_counter()
        loss, right = self.evaluate()
        seconds = time.perf_counter() - started
        self._right["start"] = right.astype(int).tolist()
        self.average.restart()
        start = Epoch(0, None, None, loss, float(right.mean()), 0.0, seconds)
        self._record(start, right)
        self._save()

    def _one_step(self, number: int, step: int, chosen: Any) -> tuple[float, float]:
        settings = self.settings
        position = (number - 1) * self.steps + step
        loss, right = self._step(
            self.train.pixels(chosen),
            self.train.targets(chosen, self._classes, settings.label_smoothing),
            self.train.importance(chosen),
            rate=rate_at(position, self.planned * self.steps, settings.rate),
            seed=(settings.seed, position),
        )
        if not math.isfinite(loss):
            assert self.best is not None
            raise EdgegraftError(
                f"expected a finite loss, got {loss} in epoch {number}, step "
                f"{step + 1}; the weights of epoch {self.best.epoch} are kept in "
                f"{self.checkpoint.kept_file(self.best.epoch)}; try a smaller --rate "
                f"than {settings.rate}"
            )
        return loss, right

    def _one_epoch(self, number: int, advance: Advance) -> tuple[Epoch, Right]:
        """Train, then judge the averages, which are left in the network."""
        settings, started = self.settings, time.perf_counter()
        reset_dropout(self.model, settings.seed, number)
        random = np.random.default_rng([settings.seed, number])
        drawn = examples.order(
            self.train.truth, self._classes, settings.balance, random
        )
        found = []
        for step in range(self.steps):
            chosen = drawn[step * self.batch : (step + 1) * self.batch]
            found.append(self._one_step(number, step, chosen))
            advance(number, step + 1, None)
            if self._out_of_time():
                break
        self.average.swap()
        val_loss, right = self.evaluate()
        loss, accuracy = np.mean(found, axis=0)
        position = (number - 1) * self.steps + len(found) - 1
        epoch = Epoch(
            number,
            float(loss),
            float(accuracy),
            val_loss,
            float(right.mean()),
            rate_at(position, self.planned * self.steps, settings.rate),
            time.perf_counter() - started,
        )
        return epoch, right

    def _out_of_time(self) -> bool:
        return self._time_left is not None and self._time_left() <= 0

    def _plan(self, number: int, seconds: float) -> None:
        """Shorten the plan to what the time allows, so that the rate still falls."""
        if self._time_left is not None:
            more = int(max(0.0, self._time_left()) / max(seconds, 1e-6))
            self.planned = min(self.planned, number + more)

    def run(self, advance: Advance) -> None:
        """Train to the last epoch or until patience or time ends; load what is kept.

        advance(epoch, step, finished epoch or None) is called after every step and
        after every epoch.
        """
        for number in range(len(self.history), self.settings.epochs + 1):
            assert self.best is not None
            waited = len(self.history) - 1 - self.best.epoch
            if number > self.planned or waited >= self.settings.patience:
                break
            epoch, right = self._one_epoch(number, advance)
            self._record(epoch, right)
            self.average.swap()  # training goes on with the weights themselves
            self._plan(number, epoch.seconds)
            self._save()
            advance(number, self.steps, epoch)
        start, best = (np.array(self._right[k], bool) for k in ("start", "best"))
        assert self.best is not None
        if self._from_probe and not surely_better(start, best):
            self.best = self.history[0]
        self.model.set_weights(self.checkpoint.kept(self.best.epoch))

    def clear(self) -> None:
        """Remove the checkpoint, once the result is safe elsewhere."""
        self.checkpoint.clear()
