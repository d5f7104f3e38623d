"""What the tests of training share: a tiny CNN, and noise in two colours."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backbones import custom_cnn, network, registry
from backbones.keras import seed_everything
from finetune import job
from finetune.console import Console
from finetune.loop.examples import Examples
from finetune.loop.step import set_trainable
from finetune.loop.trainer import Trainer
from finetune.prepared import Prepared
from finetune.run import Run
from finetune.settings import Settings
from tests.quantize_room import white_diagrams

LABELS = ("blue", "red")
SIZE = 16
TINY = {"filters": [8], "dropout": 0.0}
BASE = Settings(
    backbone="custom_cnn",
    size=SIZE,
    weights="none",
    cnn=TINY,
    augment="light",
    epochs=4,
    batch=8,
    rate=2e-2,
    label_smoothing=0.0,
    patience=10,
)


class Heard(Console):
    """Keeps its lines, and prints nothing."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, line: str = "", *, detail: bool = False) -> None:
        self.lines.append(line)


def examples(count: int = 40, seed: int = 0, hints: int = 0) -> Examples:
    """hints: how many numbers of a teacher's sight come with each."""
    random = np.random.default_rng(seed)
    photos = random.integers(0, 170, (count, SIZE, SIZE, 3))
    truth = np.arange(count) % 2
    photos[truth == 0, :, :, 0] += 40
    photos[truth == 1, :, :, 2] += 40
    seen = random.normal(size=(count, hints)).astype(np.float32) if hints else None
    return Examples(photos.astype(np.uint8), np.arange(count), truth, hints=seen)


def trainer(
    folder: Path, settings: Settings = BASE, train: Examples | None = None
) -> Trainer:
    seed_everything(settings.seed)
    record = registry.get("custom_cnn")
    config = custom_cnn.from_mapping(settings.cnn or {}, "test")
    model = network.assemble(record, SIZE, 2, config, frozen=False)
    set_trainable(model, record, "all")
    return Trainer(
        model,
        settings,
        train or examples(),
        examples(20, seed=1),
        from_probe=False,
        checkpoint=folder,
    )


def quiet(*_: Any) -> None:
    return None


def weights_of(model: Any) -> list[np.ndarray]:
    return [np.array(weight) for weight in model.get_weights()]


# The least that a whole run can be: one epoch of one block
TINY_RUN = Settings(
    backbone="custom_cnn",
    size=SIZE,
    weights="none",
    cnn={"filters": [4], "dropout": 0.0},
    augment="none",
    epochs=1,
    batch=8,
)


def draw(path: Path, seed: int, label: str) -> Path:
    """A noisy photo, red or blue."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 160, (10, 10, 3)).astype(np.uint8)
    pixels = np.asarray(Image.fromarray(small).resize((60, 60), 0)).astype(int)
    pixels[:, :, 0 if label == "red" else 2] += 90
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


def drawn(folder: Path, count: int = 24) -> Path:
    """So many noisy photos, every other one blue."""
    for number in range(count):
        label = LABELS[number % 2]
        draw(folder / label / f"{number:02}.png", number, label)
    return folder


def finetune(
    photos: Path | None, settings: Settings, folder: Path, console: Any, **options: Any
) -> tuple[Run, Prepared, Any]:
    """(the run, its photos, the network); the photos are left open."""
    with white_diagrams():
        done = job.run_job(job.Job(photos, settings, folder, **options), console)
    return done.run, done.prepared, done.network


def run_on(source: Path | None, folder: Path, **options: Any) -> Run:
    """The least run on these photos, without a word on stdout."""
    run, prepared, _ = finetune(source, TINY_RUN, folder, Console(json=True), **options)
    prepared.pixels.close()
    return run


# -- several workers -------------------------------------------------------------------
def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def tf_config(ports: list[int], number: int) -> str:
    addresses = [f"127.0.0.1:{port}" for port in ports]
    task = {"type": "worker", "index": number}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


# -- processes of their own ------------------------------------------------------------
class Child:
    """A process that calls a function of a module; `out` and `error` are its streams.

    It begins as the fork of a server (`nursery`) that has imported TensorFlow and done
    nothing with it: an import for each process would take longer than its training.
    """

    def __init__(
        self,
        function: Callable[..., int | None],
        *arguments: Any,
        variables: dict[str, str] | None = None,
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        environment = {**os.environ, **(variables or {})}
        (out, to_out), (error, to_error) = context.Pipe(False), context.Pipe(False)
        self.process = context.Process(
            target=_begin, args=(to_out, to_error, environment, function, arguments)
        )
        self.process.start()
        to_out.close()
        to_error.close()
        self.out = os.fdopen(os.dup(out.fileno()))
        self._error = os.fdopen(os.dup(error.fileno()))

    def kill(self) -> None:
        self.process.kill()
        self.finish()

    def finish(self, seconds: float = 400) -> tuple[int | None, str, str]:
        """(exit status, what it still writes to stdout, to stderr), once it has ended.

        It is killed after these seconds.
        """
        late = threading.Timer(seconds, self.process.kill)
        late.start()
        with self.out, self._error:
            told = self.out.read(), self._error.read()
        self.process.join()
        late.cancel()
        return self.process.exitcode, *told


def _begin(
    out: Connection,
    error: Connection,
    environment: dict[str, str],
    function: Callable[..., int | None],
    arguments: tuple[Any, ...],
) -> None:
    os.dup2(out.fileno(), 1)
    os.dup2(error.fileno(), 2)
    out.close()
    error.close()
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    os.environ.clear()
    os.environ.update(environment)
    raise SystemExit(function(*arguments))


@contextmanager
def nursery() -> Iterator[None]:
    """What a `Child` is forked from; it ends with the context."""
    context = multiprocessing.get_context("forkserver")
    modules = ["tensorflow", "tf_keras", "scipy.optimize", "finetune.cli"]
    modules += ["matplotlib.backends.backend_agg"]
    context.set_forkserver_preload(modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_USE_LEGACY_KERAS", "1")  # as `backbones.keras` sets it
        forkserver.ensure_running()
        try:
            yield
        finally:
            forkserver._forkserver._stop()
