"""The training loop, on a tiny CNN and noise in two colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backbones import network, registry
from edge.errors import EdgegraftError
from finetune.loop import fit, wise_ft
from finetune.loop.examples import Examples
from finetune.loop.history import Epoch
from finetune.loop.schedule import set_trainable
from finetune.loop.trainer import Trainer
from finetune.settings import Settings
from tests.finetune_helpers import BASE, examples, quiet, trainer, weights_of

pytestmark = pytest.mark.slow  # networks are trained or converted


def test_it_learns_and_loads_its_best_epoch(tmp_path: Path) -> None:
    it = trainer(tmp_path / "c")
    it.start()
    it.run(quiet)
    assert [epoch.epoch for epoch in it.history] == [0, 1, 2, 3, 4]
    assert it.best is not None and it.best.val_accuracy >= 0.9
    assert it.best.rank == max(epoch.rank for epoch in it.history)
    loss, accuracy = it.evaluate()
    assert accuracy == it.best.val_accuracy
    assert loss == pytest.approx(it.best.val_loss, abs=1e-5)


@pytest.mark.parametrize("hints", [0, 6])
def test_a_run_stopped_after_an_epoch_ends_as_an_undisturbed_one(
    tmp_path: Path, hints: int
) -> None:
    whole = trainer(tmp_path / "whole", train=examples(hints=hints))
    whole.start()
    whole.run(quiet)

    class Stop(KeyboardInterrupt):
        pass

    def stop(epoch: int, step: int, done: Epoch | None) -> None:
        if epoch == 3 and step == 2:  # in the middle of an epoch
            raise Stop

    first = trainer(tmp_path / "stopped", train=examples(hints=hints))
    first.start()
    with pytest.raises(Stop):
        first.run(stop)
    second = trainer(tmp_path / "stopped", train=examples(hints=hints))
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


def test_worse_epochs_do_not_replace_the_start(tmp_path: Path) -> None:
    good = trainer(tmp_path / "good")
    good.start()
    good.run(quiet)
    ruin = trainer(
        tmp_path / "ruin", Settings.from_dict({**BASE.to_dict(), "rate": 1.0})
    )
    ruin.model.set_weights(good.model.get_weights())
    ruin.start()
    start = ruin.history[0]
    ruin.run(quiet)
    assert ruin.best is not None and ruin.best.rank >= start.rank
    assert ruin.evaluate()[1] >= start.val_accuracy


def test_what_is_kept_lies_between_probe_and_end(tmp_path: Path) -> None:
    it = trainer(tmp_path / "c")
    it._from_probe = True
    it.start()
    start = weights_of(it.model)
    it.run(quiet)
    assert [point.alpha for point in it.tried] == list(wise_ft.ALPHAS)
    lowest = min(it.tried, key=lambda point: point.val_loss)
    assert it.alpha == lowest.alpha > 0  # an untrained start is far behind
    assert it.best is not None and it.best.epoch == 4
    assert it.evaluate() == pytest.approx((it.best.val_loss, it.best.val_accuracy))
    ruin = Settings.from_dict({**BASE.to_dict(), "rate": 1.0, "epochs": 1})
    worse = trainer(tmp_path / "d", ruin)
    worse._from_probe = True
    worse.model.set_weights(it.model.get_weights())
    worse.start()
    start = weights_of(worse.model)
    worse.run(quiet)
    assert worse.alpha < 1
    if worse.alpha == 0:
        assert worse.best is not None and worse.best.epoch == 0
        for mine, theirs in zip(weights_of(worse.model), start, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_between_two_networks() -> None:
    start, end = [np.float32([0, 2])], [np.float32([1, 4])]
    assert wise_ft.between(start, end, 0.0)[0] is start[0]
    assert wise_ft.between(start, end, 1.0)[0] is end[0]
    np.testing.assert_allclose(wise_ft.between(start, end, 0.25)[0], [0.25, 2.5])
    truth = np.arange(40) % 2
    signs = np.where(truth[:, None] == np.arange(2), 1.0, -1.0).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 1, (40, 2)).astype(np.float32)
    for wanted in (0.75, 0.25, 0.0):  # the others are plainly worse
        kept, tried = wise_ft.choose(
            lambda alpha, best=wanted: signs - 3 * noise * abs(alpha - best), truth
        )
        assert kept.alpha == wanted and kept.val_accuracy == 1.0
        assert [point.alpha for point in tried] == list(wise_ft.ALPHAS)
    alike = wise_ft.choose(lambda alpha: signs, truth)
    assert alike[0].alpha == wise_ft.USUAL
    slip, end = signs.copy(), signs.copy()
    slip[3] *= -1
    end[5] *= -0.9  # another mistake, a little less sure: better by chance
    kept, tried = wise_ft.choose(lambda alpha: end if alpha == 1 else slip, truth)
    assert kept.alpha == wise_ft.USUAL and kept.val_loss > tried[-1].val_loss


def test_patience_ends_a_hopeless_run(tmp_path: Path) -> None:
    settings = Settings.from_dict({**BASE.to_dict(), "patience": 1, "rate": 1e-12})
    it = trainer(tmp_path / "c", settings)
    it.start()
    it.run(quiet)
    assert len(it.history) < 1 + settings.epochs
    assert it.ended == "no improvement for 1 epochs (--patience)"
    near = trainer(tmp_path / "d", settings)  # the end of the schedule is what counts
    near._from_probe = True
    near.start()
    near.run(quiet)
    assert len(near.history) == 1 + settings.epochs and not near.ended
    assert fit.verdict(near, pretrained=True).endswith(", chosen by log loss")


def test_time_that_runs_out_ends_training_with_what_it_has(tmp_path: Path) -> None:
    it = trainer(tmp_path / "c")
    left = iter([1e6] * 7 + [0.0] * 99)
    it._time_left = lambda: next(left)
    it.start()
    it.run(quiet)  # five steps an epoch, and a look at the plan after it
    assert [epoch.epoch for epoch in it.history] == [0, 1, 2]
    assert it.best is not None and it.best.epoch > 0
    planned = trainer(tmp_path / "d")
    seconds = iter([9.0] * 5 + [2.5] * 99)
    planned._time_left = lambda: next(seconds)
    planned.start()
    planned._plan(1, 1.0)  # the first look: nine more epochs fit
    assert planned.planned == BASE.epochs
    for _ in range(4):
        next(seconds)
    planned._plan(1, 1.0)
    assert planned.planned == 3  # two more fit, so the rate falls by then
    none = trainer(tmp_path / "e")
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
    it = trainer(tmp_path / "c")
    it.start()
    kernel, bias = network.get_head(it.model)
    network.set_head(it.model, kernel, bias * np.nan)
    with pytest.raises(EdgegraftError, match=r"got nan in epoch 1, step 1; .*--rate"):
        it.run(quiet)
    assert (tmp_path / "c" / "kept-0.npz").is_file()


@pytest.mark.parametrize("damage", ["state.json", "epoch-0.index", "kept-0.npz"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: str) -> None:
    it = trainer(tmp_path / "c")
    it.start()
    path = tmp_path / "c" / damage
    assert path.is_file()
    path.write_bytes(b"\x00{")
    with pytest.raises(EdgegraftError, match="--overwrite") as caught:
        trainer(tmp_path / "c").resume()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("unfreeze", ["top", "all"])
def test_unfreezing_trains_that_part_and_never_batch_norm_statistics(
    unfreeze: str, tmp_path: Path
) -> None:
    record = registry.get("mobilenet_v1_0.25")
    model = network.assemble(record, 32, 2)
    settings = Settings.from_dict(
        {**BASE.to_dict(), "size": 32, "epochs": 1, "batch": 8}
    )
    random = np.random.default_rng(0)
    photos = random.integers(0, 255, (8, 32, 32, 3)).astype(np.uint8)
    part = Examples(photos, np.arange(8), (np.arange(8) % 3 == 0).astype(np.int64))
    set_trainable(model, record, unfreeze)
    # the head starts at zero, and a zero head passes no gradient on
    network.set_head(model, random.normal(0, 1, (256, 2)), np.zeros(2))
    before = {v.name: np.array(v) for v in model.variables}
    it = Trainer(
        model, settings, part, part, from_probe=True, checkpoint=tmp_path / "c"
    )
    it.start()
    it.steps = 1
    it._one_epoch(1, quiet)
    moved = {v.name for v in model.variables if not np.array_equal(before[v.name], v)}
    assert any(name.startswith("logits") for name in moved)
    assert not any("moving_" in name for name in moved)
    backbone = {name for name in moved if not name.startswith("logits")}
    early = {
        name
        for name in backbone
        if name.startswith(("conv1", "conv_dw_3", "conv_pw_3"))
    }
    assert backbone
    assert bool(early) == (unfreeze == "all")
