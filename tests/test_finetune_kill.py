"""A training that is killed at two random moments ends with the same bits."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
KILLS = 2
TRAINING = """
import sys, time
from pathlib import Path
import numpy as np
from backbones.keras import tensorflow
tensorflow().config.experimental.enable_op_determinism()
from finetune.settings import Settings
from tests.finetune_helpers import BASE, trainer

settings = Settings.from_dict({{
    **BASE.to_dict(), "augment": "strong", "epochs": {epochs},
    "cnn": {{"filters": [4, 8], "dropout": 0.3}},
}})
for folder in map(Path, sys.argv[1:]):
    it = trainer(folder / "checkpoint", settings)
    if not it.resume():
        it.start()
    print("ready", flush=True)
    it.run(lambda epoch, step, done: time.sleep({pause}))
    np.savez(folder / "end.npz", *it.model.get_weights(), *it.average.values)
    print("done", len(it.history), flush=True)
"""
EPOCHS, PAUSE = 12, 0.05  # so that there is time to be killed in


def start(pause: float, *folders: Path) -> subprocess.Popen[str]:
    """A process that trains into one folder after the other, from where they are."""
    script = TRAINING.format(epochs=EPOCHS, pause=pause)
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, folders)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def weights(folder: Path) -> list[np.ndarray]:
    with np.load(folder / "end.npz") as found:
        return [found[name] for name in found.files]


@pytest.mark.slow
def test_killed_at_two_random_moments_it_ends_as_undisturbed(tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    whole.mkdir()
    torn.mkdir()
    moments = random.Random(7)
    for _ in range(KILLS):
        process = start(PAUSE, torn)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0.2, 1.2))
        process.kill()
        process.communicate()
        assert not (torn / "end.npz").exists(), "it ended before it was killed"
    last = start(0, torn, whole)
    out, _ = last.communicate(timeout=600)
    assert last.returncode == 0 and out.count(f"done {EPOCHS + 1}\n") == 2
    for mine, theirs in zip(weights(torn), weights(whole), strict=True):
        np.testing.assert_array_equal(mine, theirs)
