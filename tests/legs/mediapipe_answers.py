"""What MediaPipe's ImageClassifier makes of a model file and a folder of photos.

Runs in an environment with MediaPipe and without edgegraft: the file's path is all
it gets. Prints one JSON document: version, labels, and the best label of each photo.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mediapipe as mp
import numpy as np
from mediapipe.tasks.python import vision
from mediapipe.tasks.python.core.base_options import BaseOptions
from PIL import Image, ImageOps


def main(model: str, photos: str) -> int:
    options = vision.ImageClassifierOptions(
        base_options=BaseOptions(model_asset_path=model)
    )
    best: dict[str, str] = {}
    labels: set[str] = set()
    with vision.ImageClassifier.create_from_options(options) as classifier:
        for path in sorted(Path(photos).rglob("*")):
            if not path.is_file():
                continue
            # MediaPipe's own reader ignores the EXIF turn and greyscale photos, so
            # the upright RGB picture is handed over at full size; scaling is its own.
            with Image.open(path) as photo:
                upright = ImageOps.exif_transpose(photo).convert("RGB")
            image = mp.Image(
                image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(upright)
            )
            ranking = classifier.classify(image).classifications[0].categories
            labels.update(category.category_name for category in ranking)
            best[str(path)] = ranking[0].category_name
    answers = {"version": mp.__version__, "labels": sorted(labels), "photos": best}
    print(json.dumps(answers))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
