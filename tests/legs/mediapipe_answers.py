"""What MediaPipe's ImageClassifier makes of a model file and a folder of photos.

Runs in an environment with MediaPipe and without edgegraft: the file's path is all
it gets. Prints one JSON document: version, labels, and for each photo its best label
and how familiar it is, by the heads' names: handed over at the size of the model's
input ("input") and at its own ("full").
"""

from __future__ import annotations

import json
import sys
import zipfile
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
    with zipfile.ZipFile(model) as attached:  # what our own file says of its input
        recipe = json.loads(attached.read("card.json"))["input"]
    size = (recipe["width"], recipe["height"])
    best: dict[str, dict[str, tuple[str, float | None]]] = {"input": {}, "full": {}}
    labels: set[str] = set()
    with vision.ImageClassifier.create_from_options(options) as classifier:
        for path in sorted(Path(photos).rglob("*")):
            if not path.is_file():
                continue
            photo = _upright(path)
            small = photo.resize(size, Image.Resampling.BILINEAR)
            for name, picture in (("input", small), ("full", photo)):
                image = mp.Image(
                    image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(picture)
                )
                heads = {
                    head.head_name: head.categories
                    for head in classifier.classify(image).classifications
                }
                ranking = heads["probabilities"]
                labels.update(category.category_name for category in ranking)
                seen = heads.get("familiarity")
                best[name][str(path)] = (
                    ranking[0].category_name,
                    seen[0].score if seen else None,
                )
    client = f"MediaPipe {mp.__version__}"
    print(json.dumps({"client": client, "labels": sorted(labels), **best}))
    return 0


def _upright(path: Path) -> Image.Image:
    """RGB on white, turned as EXIF says; MediaPipe's own reader does neither."""
    with Image.open(path) as photo:
        picture = ImageOps.exif_transpose(photo)
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
