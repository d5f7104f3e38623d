"""The training loop: epochs, selection of weights, exact resume.

From scratch the best epoch on validation is kept, with early stopping. A pretrained
network starts from its probe and is trained to the end of its schedule; the result is
an average of the two, since the best of several epochs on a few hundred photos nearly
always looks better than the start, whether it is or not. Weights on the straight line
between them, (1 - alpha) * probe + alpha * fine-tuned, do better than either end, and
lose less on photos that differ from the training ones (WiSE-FT: Wortsman et al. 2022,
arXiv:2109.01903). tests/benchmarks/finetune_gain.py measures the gain over the probe.

The state is written after every epoch (`Checkpoint`). Shuffling, augmentation and
dropout are drawn from (seed, epoch, step), so a resumed run gives the same result as an
uninterrupted one, and there is no generator state to store.

The moving averages of the weights (`finetune.loop.step`) are evaluated and kept.
"""

from __future__ import annotations

import copy
import io
import json
import math
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import network
from backbones.keras import reset_dropout, tensorflow
from data.augment import preset
from edge.errors import EdgegraftError
from edge.files import write_atomic
from finetune.distill import HintRegressor
from finetune.distributed import ALONE, Workers
from finetune.head.probe import fit_temperature, log_loss, log_losses
from finetune.loop import examples
from finetune.loop.examples import Examples, Ints
from finetune.loop.history import Epoch
from finetune.loop.step import (
    MovingAverage,
    RateGroup,
    Step,
    average_decay,
    rate_at,
    rate_groups,
)
from finetune.model import Forward
from finetune.paired import within_one_standard_error
from finetune.settings import Settings

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
USUAL = 0.75
STATE = "state.json"  # of a checkpoint

Advance = Callable[[int, int, Epoch | None], None]  # epoch, step, finished epoch


@dataclass(frozen=True)
class Point:
    """One alpha, 0..1, and its scores on validation photos, or out of fold."""

    alpha: float
    val_loss: float  # nats, at its best temperature
    val_accuracy: float


def weights_between(
    start: Sequence[npt.NDArray[Any]], end: Sequence[npt.NDArray[Any]], alpha: float
) -> list[npt.NDArray[Any]]:
    """(1 - alpha) * start + alpha * end; the ends are returned to the bit."""
    if alpha in (0.0, 1.0):
        return list(end if alpha else start)
    return [
        np.asarray(a + (b - a) * alpha, a.dtype)
        for a, b in zip(start, end, strict=True)
    ]


def choose_average(
    logits: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]
) -> tuple[Point, tuple[Point, ...]]:
    """The chosen average and all that were tried, in the order of `ALPHAS`.

    Each alpha is scored by its log loss, at its own best temperature: accuracies of a
    few hundred photos differ by chance alone. Losses do, too, so of the alphas whose
    loss is within one standard error of the lowest (`finetune.paired`) the nearest to
    `USUAL` is chosen. 0 keeps the probe.

    logits: [A, N, L] of N photos that were not trained on, at each alpha. Of two points
    equally near to `USUAL` the one nearer the probe is chosen.
    """
    tried, losses = [], []
    for alpha, own in zip(ALPHAS, logits, strict=True):
        calibrated = own / np.float32(fit_temperature(own, truth))
        losses.append(log_losses(calibrated, truth))
        right = own.argmax(axis=1) == truth
        tried.append(Point(alpha, float(losses[-1].mean()), float(right.mean())))
    lowest = min(losses, key=lambda loss: float(loss.mean()))
    good = [
        point
        for point, loss in zip(tried, losses, strict=True)
        if within_one_standard_error(loss, lowest)
    ]
    return min(good, key=lambda point: abs(point.alpha - USUAL)), tuple(tried)


class Checkpoint:
    """A training's state on disk, whole after every epoch, for an exact resume.

        folder/
            state.json          history, plan, which of the files below belong to it
            epoch-<n>.*         weights, optimisers' slots, averages after epoch n
            kept-<n>.npz        the best weights so far

    state.json is renamed into place last and names the other files, so a kill at any
    moment leaves the state of the last complete epoch. `tracked` is a
    tf.train.Checkpoint of the variables.
    """

    def __init__(self, folder: Path, tracked: Any) -> None:
        self.folder = folder
        self._tracked = tracked

    def in_folder(self, folder: Path) -> Checkpoint:
        """A checkpoint of the same variables in another folder."""
        return Checkpoint(folder, self._tracked)

    @property
    def exists(self) -> bool:
        return (self.folder / STATE).is_file()

    def kept_file(self, epoch: int) -> Path:
        return self.folder / f"kept-{epoch}.npz"

    def keep(self, epoch: int, weights: list[Any]) -> None:
        """Write the best weights, those of `epoch`."""
        write_atomic(self.kept_file(epoch), lambda to: np.savez(to, *weights))

    def kept(self, epoch: int) -> list[Any]:
        """The weights that `keep` wrote; EdgegraftError when they can't be read."""
        path = self.kept_file(epoch)
        try:
            with np.load(path, allow_pickle=False) as stored:
                return [stored[name] for name in stored.files]
        except Exception as error:  # numpy and zipfile raise many kinds
            raise self._damaged(error) from error

    def save(self, epoch: int, state: Mapping[str, Any], needed: set[int]) -> None:
        """Write the state after `epoch`; delete kept weights of epochs not `needed`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        prefix = f"epoch-{epoch}"
        self._tracked.write(str(self.folder / prefix))
        text = json.dumps({"variables": prefix, **state}, indent=1)
        write_atomic(self.folder / STATE, text + "\n")
        kept = {self.kept_file(kept_epoch).name for kept_epoch in needed}
        for path in [*self.folder.glob("epoch-*"), *self.folder.glob("kept-*.npz")]:
            if not (path.name.startswith(prefix + ".") or path.name in kept):
                path.unlink()

    def load(self) -> dict[str, Any]:
        """Restore the variables, return the state; EdgegraftError if it is damaged."""
        try:
            state = json.loads((self.folder / STATE).read_text())
            status = self._tracked.read(str(self.folder / state["variables"]))
            status.assert_existing_objects_matched()
            status.assert_consumed()
        except Exception as error:  # TensorFlow raises many kinds for a damaged file
            raise self._damaged(error) from error
        return dict(state)

    def pack(self) -> bytes:
        """All files of the folder as a ZIP, for `unpack` on another machine."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as file:
            for path in sorted(self.folder.iterdir()):
                file.write(path, path.name)
        return packed.getvalue()

    def unpack(self, packed: bytes) -> None:
        """Replace the folder's files by those of another machine."""
        self.clear()
        self.folder.mkdir(parents=True)
        with zipfile.ZipFile(io.BytesIO(packed)) as file:
            file.extractall(self.folder)

    def _damaged(self, error: Exception) -> EdgegraftError:
        reason = " ".join(str(error).split())[:120]
        return EdgegraftError(
            f"expected a checkpoint of this run in {self.folder}, got one that can't "
            f"be read ({reason}); start again with --overwrite"
        )

    def clear(self) -> None:
        """Remove the folder, once the result is written."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Trainer:
    """Trains `model` in place; `checkpoint` is a folder of its own.

    from_probe: `model` has a fitted head at `start`. val: None where nothing is left to
    judge with; then nothing is evaluated, and `average_at` is the average with the
    probe that `run` takes. After `run`, `best` describes the kept weights. time_left:
    the seconds left for training; None without a limit.
    workers: the workers that train; `mirrored` is then the same network, built in the
    scope of their strategy and trained in place of `model`, which is evaluated and
    kept.
    """

    def __init__(
        self,
        model: Any,
        settings: Settings,
        train: Examples,
        val: Examples | None,
        *,
        from_probe: bool,
        checkpoint: Path,
        workers: Workers = ALONE,
        mirrored: Any = None,
        time_left: Callable[[], float] | None = None,
    ) -> None:
        self.model, self.settings = model, settings
        self.workers = workers
        self._trained = model if mirrored is None else mirrored
        self._from_probe, self._time_left = from_probe, time_left
        logits = network.logit_model(model)
        self._logits = Forward(logits)
        self._classes = int(logits.output_shape[-1])
        self._take(train, val)
        self.average = MovingAverage(self._trained.weights)
        rates, hint_map = rate_groups(self._trained, settings.rate_decay), {}
        self.hint_regressor = self._build_hint_regressor()
        if self.hint_regressor is not None:
            rates = (*rates, RateGroup(1.0, tuple(self.hint_regressor.variables)))
            hint_map["hints"] = self.hint_regressor.map
        self._step = Step(
            self._trained,
            rates,
            self.average,
            preset(settings.augment),
            hint_regressor=self.hint_regressor,
            strategy=workers.strategy,
        )
        tracked = tensorflow().train.Checkpoint(
            model=self._trained,
            optimizers=self._step.optimizers,
            average=self.average.saved,
            **hint_map,
        )
        self.checkpoint = Checkpoint(checkpoint, tracked)

    def _take(self, train: Examples, val: Examples | None) -> None:
        """These photos, and the state before the first epoch."""
        self.train, self.val = train, val
        self.history: list[Epoch] = []
        self.best: Epoch | None = None
        self.planned = self.settings.epochs
        self.tried: tuple[Point, ...] = ()  # averages of probe and last weights
        self.tried_logits: Any = None  # float32 [A, N, L] of validation at each of them
        self.alpha = 1.0  # weight of the last weights in the chosen average
        self.average_at: float | None = None  # that weight, where folds choose it
        self.ended = ""  # why training stopped before the last epoch
        self.batch = min(self.settings.batch, len(train))
        if self.batch < self.workers.replicas:
            raise EdgegraftError(
                "expected at least a photo of a batch for each of "
                f"{self.workers.replicas} devices, got batches of {self.batch}; try a "
                "larger --batch, or fewer workers"
            )
        self.steps = max(1, len(train) // self.batch)  # the remainder is dropped

    def other(self, train: Examples, val: Examples | None, checkpoint: Path) -> Trainer:
        """A trainer of the same network for other photos; it shares what was compiled,
        so begin with one when the other has ended."""
        other = copy.copy(self)
        other._take(train, val)
        other.checkpoint = self.checkpoint.in_folder(checkpoint)
        return other

    def _build_hint_regressor(self) -> HintRegressor | None:
        """The map from features to the teacher's hints, where there are any."""
        if self.train.hints is None:
            return None
        strategy = self.workers.strategy or tensorflow().distribute.get_strategy()
        with strategy.scope():
            width = self.train.hints.shape[1]
            return HintRegressor(self._trained, width, self.settings.teacher_hints)

    # -- state -----------------------------------------------------------------
    def resume(self) -> bool:
        """Load the state after the last complete epoch; False when there is none."""
        if not self.workers.agree([self.checkpoint.exists])[0]:
            return False
        if self.workers.is_chief:
            self._load()
        self._copy_chiefs_state()
        return True

    def _copy_chiefs_state(self) -> None:
        """Bring the other workers to the chief's state."""
        if not self.workers.several:
            return
        chief = self.workers.is_chief
        packed = self.workers.share(self.checkpoint.pack() if chief else b"")
        if not chief:
            self.checkpoint.unpack(packed)
            self._load()

    def _load(self) -> None:
        state = self.checkpoint.load()
        self.history = [Epoch(**row) for row in state["history"]]
        self.planned = state["planned"]
        self.best = next(e for e in self.history if e.epoch == state["best"])
        for epoch in {0, self.best.epoch}:  # damaged files fail now, not at the end
            self.checkpoint.kept(epoch)

    def _record(self, epoch: Epoch) -> None:
        """Add an epoch; the network holds the weights that were evaluated."""
        self.history.append(epoch)
        if self.best is None or epoch.rank > self.best.rank:
            self.best = epoch
            self.checkpoint.keep(epoch.epoch, self.model.get_weights())

    def _save(self) -> None:
        assert self.best is not None
        state = {
            "history": [asdict(epoch) for epoch in self.history],
            "best": self.best.epoch,
            "planned": self.planned,
        }
        self.checkpoint.save(self.history[-1].epoch, state, {0, self.best.epoch})

    # -- training --------------------------------------------------------------
    def _val_logits(self) -> npt.NDArray[np.float32]:
        assert self.val is not None
        return self._logits.compute(self.val.array, self.val.rows)

    def evaluate(self) -> tuple[float, float]:
        """Log loss (nats) and accuracy on the validation part; NaN without one."""
        if self.val is None:
            return math.nan, math.nan
        logits = self._val_logits()
        right = logits.argmax(axis=1) == self.val.truth
        return log_loss(logits, self.val.truth), float(right.mean())

    def _copy_trained(self) -> None:
        """Copy the trained weights into `model`."""
        if self._trained is not self.model:
            self.model.set_weights(self._trained.get_weights())

    def start(self) -> None:
        """Record the network as it is now as epoch 0."""
        started = time.perf_counter()
        loss, accuracy = self.evaluate()
        seconds = time.perf_counter() - started
        if self._trained is not self.model:
            self._trained.set_weights(self.model.get_weights())
        self.average.restart()
        self._step.restart()
        self._record(Epoch(0, None, None, loss, accuracy, 0.0, seconds))
        self._save()
        self._copy_chiefs_state()

    def _one_step(self, epoch: int, step: int, indices: Ints) -> tuple[float, float]:
        settings = self.settings
        position = (epoch - 1) * self.steps + step
        loss, accuracy = self._step(
            self.train.batch(indices, self._classes, settings.label_smoothing),
            rate=rate_at(position, self.planned * self.steps, settings.rate),
            seed=(settings.seed, position),
        )
        if not math.isfinite(loss):
            assert self.best is not None
            raise EdgegraftError(
                f"expected a finite loss, got {loss} in epoch {epoch}, step "
                f"{step + 1}; the weights of epoch {self.best.epoch} are kept in "
                f"{self.checkpoint.kept_file(self.best.epoch)}; try a smaller --rate "
                f"than {settings.rate}, with --overwrite"
            )
        return loss, accuracy

    def _one_epoch(self, epoch: int, advance: Advance) -> Epoch:
        """Train, then evaluate the averages, which stay in the network."""
        settings, started = self.settings, time.perf_counter()
        reset_dropout(self.model, settings.seed, epoch)
        random = np.random.default_rng([settings.seed, epoch])
        shuffled = examples.order(
            self.train.truth, self._classes, settings.balance, random
        )
        results = []
        for step in range(self.steps):
            indices = shuffled[step * self.batch : (step + 1) * self.batch]
            results.append(self._one_step(epoch, step, indices))
            advance(epoch, step + 1, None)
            if self._time_left is not None and self._seconds_left() <= 0:
                break
        self.average.swap()
        self._copy_trained()
        val_loss, val_accuracy = self.evaluate()
        loss, accuracy = np.mean(results, axis=0)
        seconds = time.perf_counter() - started
        val_loss, val_accuracy, seconds = self.workers.agree(
            [val_loss, val_accuracy, seconds]
        )
        position = (epoch - 1) * self.steps + len(results) - 1
        return Epoch(
            epoch,
            float(loss),
            float(accuracy),
            val_loss,
            val_accuracy,
            rate_at(position, self.planned * self.steps, settings.rate),
            seconds,
        )

    def _seconds_left(self) -> float:
        assert self._time_left is not None
        return self.workers.agree([self._time_left()])[0]

    def _plan(self, epoch: int, seconds: float) -> None:
        """Plan only as many epochs as time allows, so that the rate still falls."""
        if self._time_left is not None:
            more = int(max(0.0, self._seconds_left()) / max(seconds, 1e-6))
            self.planned = min(self.planned, epoch + more)

    def _out_of_patience(self) -> bool:
        """Early stopping; never from a probe, which few epochs surpass."""
        assert self.best is not None
        waited = len(self.history) - 1 - self.best.epoch
        return not self._from_probe and waited >= self.settings.patience

    def run(self, advance: Advance) -> None:
        """Train until epochs, time or patience end; load the best weights.

        advance(epoch, step, finished epoch or None) is called after every step and
        after every epoch.
        """
        if self.settings.average:
            decay = average_decay(self.settings.average, self.steps)
            self.average.decay.assign(decay)
        for epoch in range(len(self.history), self.settings.epochs + 1):
            if self._out_of_patience():
                patience = self.settings.patience
                self.ended = f"no improvement for {patience} epochs (--patience)"
                break
            if epoch > self.planned:
                self.ended = "--time-limit"
                break
            result = self._one_epoch(epoch, advance)
            self._record(result)
            self.average.swap()  # training continues with the raw weights
            self._plan(epoch, result.seconds)
            self._save()
            advance(epoch, self.steps, result)
        assert self.best is not None
        if self._from_probe and len(self.history) > 1:  # there was time to train
            self._average_with_probe()
        else:
            self.model.set_weights(self.checkpoint.kept(self.best.epoch))

    def _average_with_probe(self) -> None:
        """Load the best average of the probe and the last weights."""
        start = self.checkpoint.kept(0)
        self.average.swap()
        self._copy_trained()
        end = self.model.get_weights()

        if self.average_at is None:
            assert self.val is not None
            logits = []
            for alpha in ALPHAS:
                self.model.set_weights(weights_between(start, end, alpha))
                logits.append(self._val_logits())
            self.tried_logits = np.stack(logits)
            chosen, self.tried = choose_average(self.tried_logits, self.val.truth)
            self.alpha = chosen.alpha
        else:
            self.alpha = self.average_at
        self.model.set_weights(weights_between(start, end, self.alpha))
        last = self.history[-1] if self.alpha else self.history[0]
        loss, accuracy = self.evaluate()
        self.best = replace(last, val_loss=loss, val_accuracy=accuracy)
