"""EfficientNet-Lite: the published network, and its weights from PyTorch's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backbones import network, registry, torch_file, weights
from edge.errors import EdgegraftError
from tests.backbones_room import write_checkpoint

pytestmark = pytest.mark.slow  # networks are trained or converted

LITE0 = registry.get("efficientnet_lite0")
SIZE = 32
CLASSES = 1000  # of ImageNet


@pytest.mark.parametrize(
    ("version", "millions"),
    [("lite0", 4.7), ("lite1", 5.4), ("lite2", 6.1), ("lite3", 8.2), ("lite4", 13.0)],
)
def test_as_many_parameters_as_published(version: str, millions: float) -> None:
    """tensorflow/tpu, models/official/efficientnet/lite; with the ImageNet head.

    Published without the statistics of batch norm, which Keras counts: up to 1 %.
    """
    parameters = registry.get(f"efficientnet_{version}").parameters
    assert parameters is not None
    assert (parameters + 1281 * CLASSES) / 1e6 == pytest.approx(millions, rel=0.02)


def as_torch(model: Any) -> dict[str, np.ndarray]:
    """A network's weights as a PyTorch module of it would hold them."""
    tensors: dict[str, np.ndarray] = {}
    for number, layer in enumerate(x for x in model.layers if x.weights):
        if "BatchNorm" in type(layer).__name__:
            names = ("weight", "bias", "running_mean", "running_var")
            for name, value in zip(names, layer.get_weights(), strict=True):
                tensors[f"net.{number}.{name}"] = value
            tensors[f"net.{number}.num_batches_tracked"] = np.array(1, "i8")
        else:
            (kernel,) = layer.get_weights()
            depthwise = "Depthwise" in type(layer).__name__
            axes = (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
            tensors[f"net.{number}.weight"] = kernel.transpose(axes)
    return tensors


def test_a_checkpoint_fills_every_layer(tmp_path: Path) -> None:
    model, random = LITE0.build(SIZE, None), np.random.default_rng(0)
    wanted = [random.random(w.shape, "f4") for w in model.get_weights()]
    model.set_weights(wanted)
    tensors = as_torch(model)
    head = {"fc.weight": np.ones((5, 1280), "f4"), "fc.bias": np.ones(5, "f4")}
    path = write_checkpoint(tmp_path / "mine.pth", {**tensors, **head}, zipped=True)
    model.set_weights([np.zeros_like(weight) for weight in wanted])
    weights.load(model, LITE0, weights.find(LITE0, SIZE, str(path)))
    for got, filled in zip(model.get_weights(), wanted, strict=True):
        np.testing.assert_array_equal(got, filled)

    first, second = list(tensors)[:2]
    wrong = (
        {**tensors, first: tensors[first][:-1].copy()},  # a filter too few
        {second: tensors[second], **tensors},  # batch norm before its convolution
        {**tensors, **head, "more": np.ones(1, "f4")},
    )
    for number, arrays in enumerate(wrong):
        path = write_checkpoint(tmp_path / f"wrong{number}.pth", arrays)
        with pytest.raises(EdgegraftError, match="does not fit") as caught:
            weights.load(model, LITE0, weights.find(LITE0, SIZE, str(path)))
        assert "\n" not in str(caught.value)


def installed(name: str) -> tuple[Any, Any]:
    """The record and where its weights come from: compared with its digest."""
    record = registry.get(name)
    if weights.locate(record, record.default_size) is None:
        pytest.skip(f"no package with the weights of {name} is installed")
    return record, weights.find(record, record.default_size, "imagenet")


def test_its_imagenet_head_names_what_is_in_the_picture(assets: Path) -> None:
    """Real weights of the installed package; ImageNet has no sunflower, but a daisy."""
    record, origin = installed("efficientnet_lite0")
    size = record.default_size
    model = network.assemble(record, size, 2)
    weights.load(model.get_layer(network.BACKBONE), record, origin)
    tensors = torch_file.read(origin.path)
    folder = assets / "reference_tflite"
    labels = (folder / "imagenet_labels.txt").read_text().splitlines()[1:]  # background
    for picture, wanted in (("parrot.jpg", "macaw"), ("sunflower.bmp", "daisy")):
        with Image.open(folder / picture) as opened:
            photo = opened.convert("RGB").resize(
                (size, size), Image.Resampling.BILINEAR
            )
        features = network.feature_model(model)(np.asarray(photo, np.float32)[None])
        logits = features.numpy() @ tensors["_fc.weight"].T + tensors["_fc.bias"]
        assert labels[int(logits.argmax())] == wanted


def test_another_package_carries_as_many_numbers_as_its_network_has() -> None:
    record, origin = installed("efficientnet_lite2")
    tensors = torch_file.read(origin.path)
    numbers = {
        name: array.size
        for name, array in tensors.items()
        if not name.startswith("_fc.") and not name.endswith("num_batches_tracked")
    }
    assert sum(numbers.values()) == record.parameters
