"""A folder for Frigate's custom classification: ``pack --for frigate``.

Frigate 0.17 reads ``model.tflite`` and ``labelmap.txt`` from
``/config/model_cache/NAME/``. It cuts a part out of the frame, stretches it to 224 x
224 with OpenCV, gives it to the first input as uint8 RGB, and divides the first output
by its sum. So that output has to be the probabilities, and their zero point 0. It knows
no `unknown`: familiarity, the second output, is not read there.
"""

from __future__ import annotations

import re

import numpy as np

from edge.card import ModelCard
from edge.errors import ModelError
from edge.model_file import ModelFile
from edge.region import Region

SIDE = 224  # pixels; Frigate has no other size
LABEL_MAP, CONFIG = "labelmap.txt", "frigate.yml"
_CONFIG = """# Copy model.tflite and labelmap.txt to /config/model_cache/{name}/,
# add this to Frigate's config.yml, with your camera in place of CAMERA, restart.
# The state then comes over MQTT: frigate/CAMERA/classification/{name}
# Frigate stretches without antialiasing and has no "unknown": what edgegraft measured
# holds nearly, not exactly.
classification:
  custom:
    {name}:
      enabled: true
      threshold: 0.8
      state_config:
        motion: true
        interval: 60
        cameras:
          CAMERA:
            crop: [{crop}]  # left, top, right, bottom: shares of the frame
"""


def contents(file: ModelFile, region: Region | None) -> dict[str, bytes]:
    """Name and bytes of each file. ModelError for a model that Frigate cannot feed."""
    card = file.card
    if card is None:
        raise ModelError(
            f"{file.where}: expected a model of edgegraft for Frigate, got a foreign "
            "file"
        )
    _refuse_unfit(file, card)
    if any(label != label.strip() for label in card.labels):
        raise ModelError(f"{file.where}: expected labels without spaces around them")
    region = region or card.input.region or (0.0, 0.0, 1.0, 1.0)
    if max(region) > 1:
        raise ModelError(
            "--region: expected shares from 0 to 1 for Frigate, got pixels"
        )
    x, y, width, height = region
    crop = ", ".join(f"{edge:.4g}" for edge in (x, y, x + width, y + height))
    name = re.sub(r"[^a-z0-9_]+", "_", card.name.lower()).strip("_") or "model"
    return {
        "model.tflite": file.content,
        LABEL_MAP: ("\n".join(card.labels) + "\n").encode(),
        CONFIG: _CONFIG.format(name=name, crop=crop).encode(),
    }


def _refuse_unfit(file: ModelFile, card: ModelCard) -> None:
    recipe = card.input
    if (recipe.width, recipe.height, recipe.resize) != (SIDE, SIDE, "stretch"):
        raise ModelError(
            f"{file.where}: expected an input of {SIDE} x {SIDE}, stretched, for "
            f"Frigate, got {recipe.width} x {recipe.height}, {recipe.resize}; build "
            f"with --size {SIDE} --resize stretch"
        )
    _, interpreter = file.open()
    (image,) = interpreter.get_input_details()
    scores = interpreter.get_output_details()[0]
    input_dtype, output_dtype = np.dtype(image["dtype"]), np.dtype(scores["dtype"])
    shape = [int(side) for side in scores["shape"]]
    if (
        input_dtype != np.uint8
        or output_dtype not in (np.uint8, np.float32)
        or scores["quantization"][1] != 0  # the zero point
        or shape != [1, len(card.labels)]
    ):
        raise ModelError(
            f"{file.where}: expected uint8 pixels in and {len(card.labels)} "
            f"probabilities as first output for Frigate, got {input_dtype} in and "
            f"{output_dtype} {shape} out; pack the int8 file (--variant int8)"
        )
