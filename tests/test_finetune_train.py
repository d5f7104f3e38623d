"""The training loop, on a tiny CNN and noise in two colours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backbones import custom_cnn, network, registry
from edge.errors import EdgegraftError
from finetune.loop import fit
from finetune.loop import trainer as loop
from finetune.loop.examples import Examples
from finetune.loop.history import Epoch
from finetune.loop.step import set_trainable
from finetune.loop.trainer import Trainer
from tests.finetune_helpers import BASE, SIZE, examples, quiet, trainer, weights_of

pytestmark = pytest.mark.slow  # networks are trained or converted

PLAIN = replace(BASE, augment="none")
HINTS = 6  # numbers of a teacher's sight


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """Trained without a break, on varied photos and a teacher's hints."""
    it = trainer(tmp_path_factory.mktemp("whole"), train=examples(hints=HINTS))
    it.start()
    it.run(quiet)
    return it


def misleading() -> Examples:
    """Every label is the other one, so that each epoch makes a network worse."""
    told = examples()
    return replace(told, truth=1 - told.truth)


def test_it_learns_and_loads_its_best_epoch(whole: Trainer) -> None:
    assert [epoch.epoch for epoch in whole.history] == [0, 1, 2, 3, 4]
    assert whole.best is not None and whole.best.val_accuracy >= 0.9
    assert whole.best.rank == max(epoch.rank for epoch in whole.history)
    loss, accuracy = whole.evaluate()
    assert accuracy == whole.best.val_accuracy
    assert loss == pytest.approx(whole.best.val_loss, abs=1e-5)


def test_a_run_stopped_after_an_epoch_ends_as_an_undisturbed_one(
    whole: Trainer, tmp_path: Path
) -> None:
    """With a teacher's hints; without them, killed as a process: _kill."""

    class Stop(KeyboardInterrupt):
        pass

    def stop(epoch: int, step: int, done: Epoch | None) -> None:
        if epoch == 3 and step == 2:  # in the middle of an epoch
            raise Stop

    first = trainer(tmp_path / "stopped", train=examples(hints=HINTS))
    first.start()
    with pytest.raises(Stop):
        first.run(stop)
    second = trainer(tmp_path / "stopped", train=examples(hints=HINTS))
    second.model.set_weights([w * 0 + 9 for w in weights_of(second.model)])
    assert second.resume() and len(second.history) == 3
    second.run(quiet)
    assert [e.val_loss for e in second.history] == pytest.approx(
        [e.val_loss for e in whole.history], rel=1e-5
    )
    for mine, theirs in zip(
        weights_of(second.model), weights_of(whole.model), strict=True
    ):
        # the same sums on several threads may differ in the last bits
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_worse_epochs_do_not_replace_the_start_and_patience_ends_them(
    whole: Trainer, tmp_path: Path
) -> None:
    ruin = trainer(tmp_path / "ruin", replace(PLAIN, patience=2), misleading())
    ruin.model.set_weights(whole.model.get_weights())
    ruin.start()
    start = ruin.history[0]
    ruin.run(quiet)
    assert ruin.best is not None and ruin.best.rank >= start.rank
    assert ruin.evaluate()[1] >= start.val_accuracy
    assert len(ruin.history) == ruin.best.epoch + 3 < 1 + PLAIN.epochs
    assert ruin.ended == "no improvement for 2 epochs (--patience)"


def test_what_is_kept_lies_between_probe_and_end(tmp_path: Path) -> None:
    it = trainer(tmp_path / "c", PLAIN)
    it._from_probe = True
    it.start()
    it.run(quiet)
    assert [point.alpha for point in it.tried] == list(loop.ALPHAS)
    lowest = min(it.tried, key=lambda point: point.val_loss)
    assert it.alpha == lowest.alpha > 0  # an untrained start is far behind
    assert it.best is not None and it.best.epoch == 4
    assert it.evaluate() == pytest.approx((it.best.val_loss, it.best.val_accuracy))
    worse = trainer(tmp_path / "d", replace(PLAIN, patience=1), misleading())
    worse._from_probe = True
    worse.model.set_weights(it.model.get_weights())
    worse.start()
    start = weights_of(worse.model)
    worse.run(quiet)
    # not patience, the end of the schedule is what counts
    assert len(worse.history) == 1 + PLAIN.epochs and not worse.ended
    assert fit.verdict(worse, pretrained=True).endswith(", chosen by log loss")
    assert worse.alpha < 1
    if worse.alpha == 0:
        assert worse.best is not None and worse.best.epoch == 0
        for mine, theirs in zip(weights_of(worse.model), start, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_between_two_networks() -> None:
    start, end = [np.float32([0, 2])], [np.float32([1, 4])]
    assert loop.weights_between(start, end, 0.0)[0] is start[0]
    assert loop.weights_between(start, end, 1.0)[0] is end[0]
    np.testing.assert_allclose(loop.weights_between(start, end, 0.25)[0], [0.25, 2.5])
    truth = np.arange(40) % 2
    signs = np.where(truth[:, None] == np.arange(2), 1.0, -1.0).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 1, (40, 2)).astype(np.float32)
    for wanted in (0.75, 0.25, 0.0):  # the others are plainly worse
        off = [3 * noise * abs(alpha - wanted) for alpha in loop.ALPHAS]
        kept, tried = loop.choose_average(signs - np.stack(off), truth)
        assert kept.alpha == wanted and kept.val_accuracy == 1.0
        assert [point.alpha for point in tried] == list(loop.ALPHAS)
    alike = loop.choose_average(np.stack([signs] * 5), truth)
    assert alike[0].alpha == loop.USUAL
    slip, end = signs.copy(), signs.copy()
    slip[3] *= -1
    end[5] *= -0.9  # another mistake, a little less sure: better by chance
    kept, tried = loop.choose_average(np.stack([slip] * 4 + [end]), truth)
    assert kept.alpha == loop.USUAL and kept.val_loss > tried[-1].val_loss


def test_time_that_runs_out_ends_training_with_what_it_has(tmp_path: Path) -> None:
    it = trainer(tmp_path / "c", PLAIN)
    left = iter([1e6] * 7 + [0.0] * 99)
    it._time_left = lambda: next(left)
    it.start()
    it.run(quiet)  # five steps an epoch, and a look at the plan after it
    assert [epoch.epoch for epoch in it.history] == [0, 1, 2]
    assert it.best is not None and it.best.epoch > 0
    planned = trainer(tmp_path / "d", PLAIN)
    seconds = iter([9.0] * 5 + [2.5] * 99)
    planned._time_left = lambda: next(seconds)
    planned.start()
    planned._plan(1, 1.0)  # the first look: nine more epochs fit
    assert planned.planned == PLAIN.epochs
    for _ in range(4):
        next(seconds)
    planned._plan(1, 1.0)
    assert planned.planned == 3  # two more fit, so the rate falls by then
    none = trainer(tmp_path / "e", PLAIN)
    none._from_probe, none._time_left = True, lambda: -1.0
    none.start()
    none.planned = 0
    start = weights_of(none.model)
    none.run(quiet)
    for mine, theirs in zip(weights_of(none.model), start, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_nan_stops_with_the_step_and_keeps_the_last_good_weights(
    tmp_path: Path,
) -> None:
    it = trainer(tmp_path / "c", PLAIN)
    it.start()
    kernel, bias = network.get_head(it.model)
    network.set_head(it.model, kernel, bias * np.nan)
    with pytest.raises(EdgegraftError, match=r"got nan in epoch 1, step 1; .*--rate"):
        it.run(quiet)
    with np.load(tmp_path / "c" / "kept-0.npz") as kept:
        assert all(np.isfinite(kept[name]).all() for name in kept.files)


@pytest.mark.parametrize("unfreeze", ["top", "all"])
def test_unfreezing_trains_that_part_and_never_batch_norm_statistics(
    unfreeze: str, tmp_path: Path
) -> None:
    """A backbone in inference mode, as pretrained ones are; small, with batch norm."""
    record = replace(registry.get("custom_cnn"), top="block_2_conv_1")
    shape = custom_cnn.from_mapping({"filters": [4, 8], "dropout": 0.0}, "test")
    model = network.assemble(record, SIZE, 2, shape)
    part = examples(8)
    set_trainable(model, record, unfreeze)
    # the head starts at zero, and a zero head passes no gradient on
    random = np.random.default_rng(0)
    network.set_head(model, random.normal(0, 1, (8, 2)), np.zeros(2))
    before = {v.name: np.array(v) for v in model.variables}
    it = Trainer(model, PLAIN, part, part, from_probe=True, checkpoint=tmp_path / "c")
    it.start()
    it.steps = 1
    it._one_epoch(1, quiet)
    moved = {v.name for v in model.variables if not np.array_equal(before[v.name], v)}
    assert any("moving_" in name for name in before)
    assert not any("moving_" in name for name in moved)
    layers = {name.partition("/")[0] for name in moved}
    assert {"logits", "block_2_conv_1"} <= layers
    assert ("block_1_conv_1" in layers) == (unfreeze == "all")
