"""Two workers on this machine: one run, the network of one, no waiting in vain."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgegraft
from edge.errors import EdgegraftError
from finetune import distributed
from finetune.distributed import ALONE, Workers, join
from finetune.model import load
from finetune.run import Run
from tests.finetune_helpers import TINY_RUN, drawn

ROOT = Path(__file__).resolve().parents[1]
EPOCHS = 24  # a tenth of a second each: time to be killed in
# Batch norm would see half a batch on each worker, and chance its own variations
OPTIONS = (
    *("--backbone", "custom_cnn", "--size", "16", "--augment", "none", "--run", "r"),
    *("--set", "filters=[4]", "--set", "batch_norm=false", "--set", "dropout=0"),
    *("--epochs", str(EPOCHS), "--patience", str(EPOCHS), "--familiarity", "none"),
)
# The sum of two halves of a batch, rounded otherwise than the whole, after 80 steps
ROUNDING = 1e-3


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def config(ports: list[int], number: int) -> str:
    addresses = [f"127.0.0.1:{port}" for port in ports]
    task = {"type": "worker", "index": number}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


def start(folder: Path, *command: str) -> list[subprocess.Popen[str]]:
    """Two workers with the same command, each with a folder for runs and for waste."""
    ports = free_ports(2)
    started = []
    for number in range(2):
        waste = folder / f"waste{number}"
        waste.mkdir(parents=True, exist_ok=True)
        variables = {"TF_CONFIG": config(ports, number), "TMPDIR": str(waste)}
        variables["EDGEGRAFT_WORKERS_TIMEOUT"] = "300"  # a busy machine starts slowly
        artifacts = ["--artifacts", str(folder / f"runs{number}")]
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "edgegraft", "finetune", *command, *artifacts],
                env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


@pytest.mark.slow
def test_a_lost_chief_is_told_and_two_workers_end_where_one_does(
    tmp_path: Path,
) -> None:
    photos = drawn(tmp_path / "photos", 60)
    assert (
        edgegraft.main(
            [
                "finetune",
                str(photos),
                *OPTIONS,
                "--json",
                "--artifacts",
                str(tmp_path / "alone"),
            ]
        )
        == 0
    )
    first = start(tmp_path, str(photos), *OPTIONS)
    assert first[0].stdout is not None
    for line in first[0].stdout:
        if f"epoch 2/{EPOCHS}:" in line:
            break
    first[0].kill()
    out, error = first[1].communicate(timeout=120)
    first[0].communicate()
    assert first[1].returncode == 2 and error.count("\n") == 1, error
    assert "expected all 2 workers until training ended, lost one" in error
    assert "--resume" in error and "worker 1 of 2" in out
    assert not Run.open(tmp_path / "runs0" / "r").trained

    again = start(tmp_path, "--run", "r", "--resume")
    for process in again:
        out, error = process.communicate(timeout=400)
        assert process.returncode == 0, error
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


TWO_DEVICES = """
import sys
from pathlib import Path
import numpy as np
from backbones import custom_cnn, network, registry
from backbones.keras import seed_everything, tensorflow
from finetune.loop.examples import Examples
from finetune.loop.schedule import set_trainable
from finetune.settings import Settings
from finetune.loop.trainer import Trainer
from finetune.distributed import Workers

config = tensorflow().config
config.set_logical_device_configuration(
    config.list_physical_devices("CPU")[0], [config.LogicalDeviceConfiguration()] * 2
)
record = registry.get("custom_cnn")
shape = custom_cnn.from_mapping({"filters": [4, 8], "dropout": 0.0}, "test")
random = np.random.default_rng(0)
photos = random.integers(0, 255, (32, 32, 32, 3)).astype(np.uint8)
part = Examples(photos, np.arange(32), np.arange(32) % 2)
kernel = random.normal(0, 3, (8, 2))
settings = Settings(backbone=record.name, size=32, augment="none", epochs=2, batch=8)

def made():
    seed_everything(0)
    model = network.assemble(record, 32, 2, shape)
    set_trainable(model, record, "all")
    return model

for name in sys.argv[1:]:
    model, mirrored, who = made(), None, Workers()
    network.set_head(model, kernel, np.zeros(2))
    start = model.get_weights()
    if Path(name).name == "two":
        strategy = tensorflow().distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        who = Workers(strategy=strategy)
        with strategy.scope():
            mirrored = made()
    it = Trainer(model, settings, part, part, from_probe=True,
                 checkpoint=Path(name), workers=who, mirrored=mirrored)
    it.start()
    it.run(lambda *_: None)
    print("replicas", who.replicas)
    ends = [value.numpy() for value in it.average.values]
    np.savez(name, *(end - begin for end, begin in zip(ends, start)))
"""


@pytest.mark.slow
def test_two_devices_of_one_machine_move_the_weights_as_one(tmp_path: Path) -> None:
    places = [str(tmp_path / "one"), str(tmp_path / "two")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", TWO_DEVICES, *places]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["replicas 1", "replicas 2"], done.stderr[-999:]
    with np.load(places[0] + ".npz") as one, np.load(places[1] + ".npz") as two:
        moved = max(np.abs(one[name]).max() for name in one.files)
        apart = max(np.abs(one[name] - two[name]).max() for name in one.files)
    assert moved > 1e-4 and apart < moved * ROUNDING


def test_a_worker_that_never_comes_up_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ports = free_ports(2)
    monkeypatch.setenv("TF_CONFIG", config(ports, 0))
    monkeypatch.setenv("EDGEGRAFT_WORKERS_TIMEOUT", "0.3")
    photos = drawn(tmp_path / "photos", 4)
    command = ["finetune", str(photos), *OPTIONS, "--artifacts", str(tmp_path / "a")]
    assert edgegraft.main(command) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and not (tmp_path / "a").exists()
    assert f"no answer from worker 1 at 127.0.0.1:{ports[1]}" in told
    assert edgegraft.main([*command, "--repeats", "3"]) == 2
    assert "expected --repeats 1 with TF_CONFIG" in capsys.readouterr().err


def test_everybody_is_waited_for_at_the_listen() -> None:
    ports = free_ports(3)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    failed = []

    def wait(number: int) -> None:
        try:
            # as TensorFlow, whoever has seen all the others keeps his port open
            distributed._wait_for_all(addresses, number, 20)
            with distributed._listen(addresses[number]):
                everybody.wait(20)
        except Exception as error:
            failed.append(error)

    everybody = threading.Barrier(3)
    threads = [threading.Thread(target=wait, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Expecting property name"),
        ('["a"]', "no attribute"),
        ('{"cluster": {"worker": ["a", "b:1"]}}', "'a' is no HOST:PORT"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"index": 2}}', "not among"),
        ('{"cluster": {"ps": ["a:1"], "worker": ["b:1"]}}', "chief and worker train"),
    ],
)
def test_a_wrong_tf_config_is_one_line(
    text: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(EdgegraftError, match="expected TF_CONFIG to be like") as caught:
        join()
    assert why in str(caught.value) and "\n" not in str(caught.value)


def test_a_taken_port_and_a_wrong_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("TF_CONFIG", config([port, free_ports(1)[0]], 0))
        with pytest.raises(EdgegraftError, match=f"expected port {port} .* to be free"):
            join()
    monkeypatch.setenv("EDGEGRAFT_WORKERS_TIMEOUT", "soon")
    with pytest.raises(EdgegraftError, match="TIMEOUT in seconds above 0, got 'soon'"):
        join()


def test_one_worker_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", config(free_ports(1), 0))
    assert join() is ALONE and ALONE.is_chief and not ALONE.several


def test_other_photos_or_settings_than_the_chiefs_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(Workers, "share", lambda self, own: told.setdefault("all", own))
    distributed.refuse_differences(Workers(0, 2), TINY_RUN, "a" * 64)
    distributed.refuse_differences(Workers(1, 2), TINY_RUN, "a" * 64)
    with pytest.raises(EdgegraftError, match=r"chief's photos on every .* on worker 1"):
        distributed.refuse_differences(Workers(1, 2), TINY_RUN, "b" * 64)
    other = type(TINY_RUN).from_dict({**TINY_RUN.to_dict(), "seed": 9})
    with pytest.raises(EdgegraftError, match=r"settings \(seed\)"):
        distributed.refuse_differences(Workers(1, 2), other, "a" * 64)


def test_what_the_others_write_vanishes(tmp_path: Path) -> None:
    with distributed.run_folder(ALONE, tmp_path / "r") as own:
        assert own == tmp_path / "r"
    with distributed.run_folder(Workers(1, 2), tmp_path / "r") as other:
        assert other.name == "r" and Path(tempfile.gettempdir()) in other.parents
        other.mkdir()
    assert not other.parent.exists()
