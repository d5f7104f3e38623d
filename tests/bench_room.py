"""What the benchmarks share: a model whose weights do not matter, the folder of real
photos and weights, and where they ran."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

_MAKE_MODEL = """
import sys
import numpy as np
from backbones.keras import keras
from edge.card import ModelCard
from edge.preprocess import InputRecipe
from quantize.conversion.convert import Conversion
from quantize.tflite.metadata import embed

k = keras()
image = k.Input((224, 224, 3), name="image")
x = k.layers.Rescaling(1 / 127.5, -1.0)(image)
x = k.applications.MobileNetV2(
    input_shape=(224, 224, 3), include_top=False, weights=None, pooling="avg"
)(x, training=False)
out = k.layers.Dense(2, activation="softmax", name="probabilities")(x)
pixels = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3), dtype=np.uint8)
model = Conversion(k.Model(image, out), calibration=pixels).make("int8")
card = ModelCard(
    labels=("cat", "dog"), input=InputRecipe(224, 224), variant="int8", name="random"
)
with open(sys.argv[1], "wb") as file:
    file.write(embed(model, card))
"""


def make_model(folder: Path) -> Path:
    """An int8 MobileNetV2 of random weights: the time does not depend on them.

    In a process of its own, so that TensorFlow weighs on no measurement.
    """
    model = folder / "model.tflite"
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    subprocess.run(
        [sys.executable, "-c", _MAKE_MODEL, str(model)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": search},
        check=True,
        capture_output=True,
    )
    return model


def assets(benchmark: str) -> Path | None:
    """The folder of real photos and weights, which Keras then finds its weights in.

    None without one: the record that says so is printed.
    """
    named = os.environ.get("EDGEGRAFT_ASSETS")
    if not named:
        reason = "EDGEGRAFT_ASSETS names no folder with real photos and weights"
        print(json.dumps({"benchmark": benchmark, "skipped": reason}))
        return None
    os.environ["KERAS_HOME"] = str(Path(named) / "keras_home")
    return Path(named)


def circumstances() -> dict[str, Any]:
    """The end of a record: the load, the Python, the machine, the day."""
    return {
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"),
    }
