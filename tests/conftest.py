"""Fixtures that several rooms share: real assets where they are, small drawn photos."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session")
def assets() -> Path:
    """Real photos and weights; the test is skipped where they are not."""
    folder = os.environ.get("EDGEGRAFT_ASSETS")
    if not folder or not Path(folder, "photos").is_dir():
        pytest.skip("EDGEGRAFT_ASSETS names no folder with real photos and weights")
    return Path(folder)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn sample set: photos/{cat,dog}, unknown/, test_cat.jpg, ..."""
    from data.sample import write_sample

    folder = tmp_path_factory.mktemp("drawn") / "sample"
    write_sample(folder, count=24, seed=3, unknown=4)
    return folder
