"""What the tests of training share: a tiny CNN, and noise in two colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from backbones import custom_cnn, network, registry
from backbones.keras import seed_everything
from finetune import job
from finetune.console import Console
from finetune.loop.examples import Examples
from finetune.loop.schedule import set_trainable
from finetune.loop.trainer import Trainer
from finetune.prepared import Prepared
from finetune.run import Run
from finetune.settings import Settings

LABELS = ("blue", "red")
SIZE = 16
TINY = {"filters": [4, 8], "dropout": 0.0}
BASE = Settings(
    backbone="custom_cnn",
    size=SIZE,
    weights="none",
    cnn=TINY,
    augment="light",
    epochs=4,
    batch=8,
    rate=5e-3,
    label_smoothing=0.0,
    patience=10,
)


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
    done = job.run_job(job.Job(photos, settings, folder, **options), console)
    return done.run, done.prepared, done.network


def run_on(source: Path | None, folder: Path, **options: Any) -> Run:
    """The least run on these photos, without a word on stdout."""
    console = Console(json=True)
    return job.finetune(source, TINY_RUN, folder, console=console, **options)
