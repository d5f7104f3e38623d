"""The configurable CNN: every option builds, bad files get one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backbones import custom_cnn, network, registry
from edge.errors import EdgegraftError


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"filters": [8], "head": "flatten", "dense": 16},
        {"filters": [8, 16], "pooling": "stride", "convolutions": 2},
        {"filters": [8, 16], "separable": True, "pooling": "average", "kernel": 5},
        {"filters": [8, 16], "batch_norm": False, "dropout": 0, "head": "max"},
        {"activation": "relu6"},
    ],
    ids=json.dumps,
)
def test_every_option_of_the_cnn_builds(options: dict[str, Any]) -> None:
    config = custom_cnn.from_mapping(options, "test")
    record = registry.get("custom_cnn")
    model = network.assemble(record, 32, 2, config, frozen=False)
    inner = model.get_layer(network.BACKBONE)
    kinds = [type(layer).__name__ for layer in inner.layers]
    assert model.predict(np.zeros((1, 32, 32, 3)), verbose=0).shape == (1, 2)
    assert ("BatchNormalization" in kinds) == config.batch_norm
    assert ("SeparableConv2D" in kinds) == (
        config.separable and len(config.filters) > 1
    )
    assert ("Dropout" in kinds) == (config.dropout > 0)
    convolutions = [kind for kind in kinds if kind.endswith("Conv2D")]
    assert len(convolutions) == len(config.filters) * config.convolutions


def test_toml_file_and_options_are_read_in_that_order(tmp_path: Path) -> None:
    file = tmp_path / "net.toml"
    file.write_text("[custom_cnn]\nfilters = [8, 16]\nkernel = 5\nhead = 'max'\n")
    config = custom_cnn.read_config(file, ["kernel=3", "pooling=stride", "dropout=0.5"])
    assert config.filters == (8, 16) and config.kernel == 3 and config.head == "max"
    assert config.pooling == "stride" and config.dropout == 0.5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("filtres = [8]", "expected custom_cnn options among filters"),
        ("kernel = 4", "kernel to be 1, 3, 5 or 7, got 4"),
        ("filters = []", "filters to be 1 to 8"),
        ("filters = ['a']", "whole numbers"),
        ("dropout = 1.0", "dropout to be a number from 0 to below 1"),
        ("pooling = 'both'", "max or average or stride"),
        ("filters = [8", "expected TOML"),
    ],
)
def test_bad_cnn_files_get_one_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "net.toml"
    file.write_text(text)
    with pytest.raises(EdgegraftError) as caught:
        custom_cnn.read_config(file)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_missing_cnn_file_and_too_small_a_photo(tmp_path: Path) -> None:
    with pytest.raises(EdgegraftError, match="expected a TOML file"):
        custom_cnn.read_config(tmp_path / "none.toml")
    with pytest.raises(EdgegraftError, match="size of at least 16"):
        network.assemble(registry.get("custom_cnn"), 8, 2)
    with pytest.raises(EdgegraftError, match="at least 32 for mobilenet_v2"):
        network.assemble(registry.get("mobilenet_v2_0.35"), 16, 2)
