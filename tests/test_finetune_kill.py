"""Trainings in processes of their own: killed, or on two workers, they end alike."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgegraft
from backbones import custom_cnn, network, registry
from backbones.keras import seed_everything, tensorflow
from finetune.distributed import Workers
from finetune.loop.step import set_trainable
from finetune.loop.trainer import Trainer
from finetune.model import load
from finetune.run import Run
from tests.finetune_helpers import (
    BASE,
    SIZE,
    TINY,
    Child,
    drawn,
    examples,
    free_ports,
    nursery,
    quiet,
    tf_config,
    trainer,
    weights_of,
)
from tests.quantize_room import white_diagrams

pytestmark = pytest.mark.slow  # networks are trained or converted

KILLS = 2
EPOCHS, PAUSE = 8, 0.05  # so that there is time to be killed in
# Batch norm would see half a batch on each worker, and chance its own variations
OPTIONS = (
    *("--backbone", "custom_cnn", "--size", "16", "--augment", "none", "--run", "r"),
    *("--set", "filters=[4]", "--set", "batch_norm=false", "--set", "dropout=0"),
    *("--epochs", str(EPOCHS), "--patience", str(EPOCHS), "--familiarity", "none"),
)
# The sum of two halves of a batch, rounded otherwise than the whole, after 16 steps
ROUNDING = 1e-3


@pytest.fixture(scope="module", autouse=True)
def _nursery() -> Iterator[None]:
    with nursery():
        yield


# -- one process, killed ---------------------------------------------------------------
def train(pause: float, *folders: Path) -> None:
    """Train into one folder after the other, each from where it is."""
    tensorflow().config.experimental.enable_op_determinism()
    shape = {**TINY, "dropout": 0.3}
    settings = replace(BASE, epochs=EPOCHS, cnn=shape)

    def advance(*_: Any) -> None:
        print("step", flush=True)
        time.sleep(pause)

    for folder in folders:
        it = trainer(folder / "checkpoint", settings)
        if it.resume():
            print("resumed after", len(it.history) - 1, flush=True)
        else:
            it.start()
        it.run(advance)
        np.savez(folder / "end.npz", *it.model.get_weights(), *it.average.values)
        print("done", len(it.history), flush=True)


def weights(file: Path) -> list[np.ndarray]:
    with np.load(file) as found:
        return [found[name] for name in found.files]


def test_killed_at_two_random_moments_it_ends_as_undisturbed(tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    whole.mkdir()
    torn.mkdir()
    moments = random.Random(7)
    for _ in range(KILLS):
        child = Child(train, PAUSE, torn)
        steps = (line for line in child.out if line == "step\n")
        for _ in range(moments.randrange(8, 18)):  # six of them an epoch
            assert next(steps, None), "it ended before it was killed"
        time.sleep(moments.uniform(0, PAUSE))
        child.kill()
        assert not (torn / "end.npz").exists(), "it ended before it was killed"
    code, out, error = Child(train, 0, torn, whole).finish()
    assert code == 0 and out.count(f"done {EPOCHS + 1}\n") == 2, error
    assert int(out.split()[2]) >= KILLS  # epochs of those that were killed
    ends = (weights(folder / "end.npz") for folder in (torn, whole))
    for mine, theirs in zip(*ends, strict=True):
        np.testing.assert_array_equal(mine, theirs)


# -- two workers -----------------------------------------------------------------------
def finetune(*argv: str) -> int:
    with white_diagrams():
        return edgegraft.main(["finetune", *argv])


def start(folder: Path, *command: str) -> list[Child]:
    """Two workers with the same command, each with a folder for runs and for waste."""
    ports = free_ports(2)
    started = []
    for number in range(2):
        waste = folder / f"waste{number}"
        waste.mkdir(parents=True, exist_ok=True)
        variables = {"TF_CONFIG": tf_config(ports, number), "TMPDIR": str(waste)}
        variables["EDGEGRAFT_WORKERS_TIMEOUT"] = "300"  # a busy machine starts slowly
        artifacts = ("--artifacts", str(folder / f"runs{number}"))
        started.append(Child(finetune, *command, *artifacts, variables=variables))
    return started


def test_a_lost_chief_is_told_and_two_workers_end_where_one_does(
    tmp_path: Path,
) -> None:
    photos = drawn(tmp_path / "photos", 60)
    alone = ("--json", "--artifacts", str(tmp_path / "alone"))
    assert finetune(str(photos), *OPTIONS, *alone) == 0
    chief, other = start(tmp_path, str(photos), *OPTIONS)
    for line in chief.out:
        if f"epoch 2/{EPOCHS}:" in line:
            break
    chief.kill()
    code, out, error = other.finish()
    assert code == 2 and error.count("\n") == 1, error
    assert "expected all 2 workers until training ended, lost one" in error
    assert "--resume" in error and "worker 1 of 2" in out
    assert not Run.open(tmp_path / "runs0" / "r").trained

    for child in start(tmp_path, "--run", "r", "--resume"):
        code, out, error = child.finish()
        assert code == 0, error
        assert "resumed after epoch " in out
    mine, single = (
        load(Run.open(tmp_path / where / "r")).get_weights()
        for where in ("runs0", "alone")
    )
    for got, wanted in zip(mine, single, strict=True):
        np.testing.assert_allclose(got, wanted, atol=ROUNDING)
    assert any(np.abs(wanted).max() > 0.1 for wanted in single)
    assert not (tmp_path / "runs1").exists()  # only the chief writes
    assert not list((tmp_path / "waste1").glob("edgegraft-worker-*"))


# -- two devices -----------------------------------------------------------------------
def move(folder: Path) -> None:
    """Train on one device, then on two; write how far the weights have moved."""
    config = tensorflow().config
    config.set_logical_device_configuration(
        config.list_physical_devices("CPU")[0],
        [config.LogicalDeviceConfiguration()] * 2,
    )
    record, shape = registry.get("custom_cnn"), custom_cnn.from_mapping(TINY, "test")
    settings, part = replace(BASE, augment="none", epochs=1), examples(32)
    kernel = np.random.default_rng(0).normal(0, 3, (TINY["filters"][-1], 2))

    def made() -> Any:
        seed_everything(0)
        model = network.assemble(record, SIZE, 2, shape)
        set_trainable(model, record, "all")
        return model

    for name in ("one", "two"):
        model, mirrored, who = made(), None, Workers()
        network.set_head(model, kernel, np.zeros(2))
        begin = weights_of(model)
        if name == "two":
            strategy = tensorflow().distribute.MirroredStrategy(["CPU:0", "CPU:1"])
            who = Workers(strategy=strategy)
            with strategy.scope():
                mirrored = made()
        it = Trainer(
            model,
            settings,
            part,
            part,
            from_probe=False,
            checkpoint=folder / name,
            workers=who,
            mirrored=mirrored,
        )
        it.start()
        it.run(quiet)
        print("replicas", who.replicas)
        ends = [value.numpy() for value in it.average.values]
        moved = [end - start for end, start in zip(ends, begin, strict=True)]
        np.savez(folder / f"{name}.npz", *moved)


def test_two_devices_of_one_machine_move_the_weights_as_one(tmp_path: Path) -> None:
    code, out, error = Child(move, tmp_path).finish()
    assert out.splitlines() == ["replicas 1", "replicas 2"] and code == 0, error[-999:]
    one, two = weights(tmp_path / "one.npz"), weights(tmp_path / "two.npz")
    moved = max(np.abs(mine).max() for mine in one)
    apart = max(np.abs(a - b).max() for a, b in zip(one, two, strict=True))
    assert moved > 1e-4 and apart < moved * ROUNDING
