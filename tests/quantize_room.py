"""Small networks, photos and runs for the tests of quantize/: no training needed.

The network tells reddish photos from bluish ones by their mean colour, so it is right
by construction, and what conversion does to it can be worked out by hand.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from quantize.comparison.compare import CompareOptions
from quantize.comparison.timing import Effort

SIZE = 24
LABELS = ("blue", "red")
COLOURS = "colours"  # the backbone of colour_network
PER_LABEL = 20
QUICK = CompareOptions(effort=Effort(rounds=1, runs=2, seconds=0.02))


def pixels(count: int, seed: int = 0, *, dim: float = 1.0) -> npt.NDArray[np.uint8]:
    """uint8 [count, SIZE, SIZE, 3]: noise, bluish and reddish by turns.

    `dim` scales the brightness: 0.2 gives photos taken in the dark.
    """
    random = np.random.default_rng(seed)
    photos = random.integers(0, 200, (count, SIZE, SIZE, 3)).astype(np.float64)
    photos[0::2, :, :, 2] += 55
    photos[1::2, :, :, 0] += 55
    return (photos * dim).astype(np.uint8)


def colour_network(
    *, common: float = 0.0, to_blue: float = 0.0, softmax: bool = True
) -> Any:
    """float32 image [N, SIZE, SIZE, 3] in 0..255 -> probabilities [N, 2].

    `common` times the brightness is added to both logits: it changes no probability,
    but it stretches their range until eight bits cannot hold the difference.
    `to_blue` is added to the logit of blue and taken from that of red: near 5 some red
    photos are a rounding step from blue.
    """
    from backbones.keras import keras

    k = keras()
    image = k.Input((SIZE, SIZE, 3), name="image")
    x = k.layers.Rescaling(1 / 127.5, -1.0)(image)
    conv = k.layers.Conv2D(8, 3, padding="same", activation="relu6", name="conv")
    depthwise = k.layers.DepthwiseConv2D(3, padding="same", name="depthwise")
    x = depthwise(conv(x))
    x = k.layers.GlobalAveragePooling2D()(x)
    dense = k.layers.Dense(2, activation="softmax" if softmax else None, name="logits")
    model = k.Model(image, dense(x))

    centre = np.zeros((3, 3, 3, 8), np.float32)
    for channel in range(3):  # each colour, above and below the middle
        centre[1, 1, channel, channel] = 1.0
        centre[1, 1, channel, channel + 3] = -1.0
    centre[1, 1, :, 6] = 1 / 3  # brightness
    conv.set_weights([centre, np.zeros(8, np.float32)])
    pass_through = np.zeros((3, 3, 8, 1), np.float32)
    pass_through[1, 1] = 1.0
    depthwise.set_weights([pass_through, np.zeros(8, np.float32)])
    kernel = np.zeros((8, 2), np.float32)
    kernel[[0, 3]] = [[-12, 12], [12, -12]]
    kernel[[2, 5]] = [[12, -12], [-12, 12]]
    kernel[6] = common
    dense.set_weights([kernel, np.array([to_blue, -to_blue], np.float32)])
    return model


def colour_backbone() -> Any:
    """The record of colour_network without its head, for a run to be rebuilt from."""
    from backbones.keras import keras
    from backbones.record import Backbone

    def build(size: int, options: Any) -> Any:
        layers = keras().layers
        image = keras().Input((size, size, 3))
        x = layers.Conv2D(8, 3, padding="same", activation="relu6", name="conv")(image)
        x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
        return keras().Model(image, layers.GlobalAveragePooling2D()(x))

    return Backbone(COLOURS, "tests", build, 1 / 127.5, -1.0, SIZE, 8)


def write_photos(folder: Path, per_label: int = PER_LABEL, seed: int = 7) -> Path:
    """folder/{blue,red}/NN.png: each photo different."""
    photos = pixels(2 * per_label, seed)
    for number, photo in enumerate(photos):
        path = folder / LABELS[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(path)
    return folder


def write_run(folder: Path, photos: Path, network: Any) -> Any:
    """A finished run, as finetune leaves it, holding `network`."""
    from data import batches
    from data.source import scan
    from data.split import make_split
    from finetune.model import save
    from finetune.run import Run
    from finetune.settings import Settings

    settings = Settings(backbone=COLOURS, size=SIZE, weights="none")
    found = scan(photos)
    with batches.load(found.photos, settings.recipe) as decoded:
        split = make_split(found.photos, decoded.digests, val=0.25, test=0.25)
    config = {
        "status": "trained",
        "photos": str(photos.resolve()),
        "labels": list(found.labels),
        "settings": settings.to_dict(),
        "created": "2026-01-02T03:04:05+00:00",
        "calibration": {"temperature": 1.25},
        "data": {"fingerprint": split.fingerprint},
    }
    run = Run.create(folder, config, overwrite=True)
    split.write(run.folder / "split.csv", photos)
    save(run, network)
    return run


def write_exported(folder: Path) -> Any:
    """The run folder/one with its files, of the photos folder/photos."""
    from quantize.export import export

    run = write_run(folder / "one", write_photos(folder / "photos"), colour_network())
    export(run, calibration_count=8, max_drop=1.0, repair=False)
    return run


@contextmanager
def white_diagrams() -> Iterator[None]:
    """Diagrams are written white and empty, for tests that look at no picture: drawing
    them is half of a tiny run. Sheets of photos, which have no axes, are drawn.
    """
    from matplotlib.figure import Figure

    draw = Figure.savefig

    def quick(self: Any, to: Any, **how: Any) -> None:
        if not self.axes:
            draw(self, to, **how)
        elif how["format"] == "svg":
            to.write('<svg xmlns="http://www.w3.org/2000/svg"></svg>')
        else:
            size = [round(inches * self.dpi) for inches in self.get_size_inches()]
            Image.new("RGB", size, "white").save(to, "PNG")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", quick)
        yield


def copied(run: Any, folder: Path) -> Any:
    """The run again, in a folder where a test may change it."""
    from finetune.run import Run

    return Run.open(shutil.copytree(run.folder, folder / run.folder.name))
