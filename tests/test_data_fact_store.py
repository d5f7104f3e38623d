"""`data.audit.facts.FactStore`: what is put in comes out, in memory or in a file."""

from pathlib import Path

import numpy as np
import pytest

import data.audit.facts
from data.audit.facts import THUMB, FactStore, PhotoFacts
from data.audit.keypoints import ROW


def facts(number: int) -> PhotoFacts:
    rng = np.random.default_rng(number)
    low, high = sorted(rng.integers(0, 256, 2).tolist())
    return PhotoFacts(
        format=("JPEG", "PNG", "HEIF")[number % 3],
        mode=("RGB", "transparent P")[number % 2],
        width=4000 + number,
        height=70_000,
        turn=1 + number % 8,
        size=90_000 + number,
        low=low,
        high=high,
        deviation=round(float(rng.uniform(0, 80)), 2),
        blur=round(float(rng.uniform()), 3),
        thumb=rng.integers(0, 256, THUMB * THUMB, np.uint8).tobytes(),
        features=rng.integers(0, 256, ROW, np.uint8).tobytes(),
    )


@pytest.mark.parametrize("limit", [1 << 24, 0])
def test_every_fact_is_the_same(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.audit.facts, "IN_MEMORY", limit)
    expected = {Path(f"{number}.jpg"): facts(number) for number in range(40)}
    fact_store = FactStore(50)  # some photos could not be read
    for path, one in expected.items():
        fact_store.add(path, one)
    assert dict(fact_store) == expected
    assert list(fact_store) == list(expected)
    assert all(type(fact_store[path].width) is int for path in expected)
    areas = [one.width * one.height for one in expected.values()]
    assert fact_store.areas().tolist() == areas
    paths = list(expected)[::-3]
    found = fact_store.photos(paths)
    rows = [row.tobytes() for row in found.thumbs[:]]
    assert rows == [expected[path].thumb for path in paths]
    assert found.features[[1]].tobytes() == expected[paths[1]].features
    assert found.sizes[2].tolist() == [expected[paths[2]].width, 70_000]
    with pytest.raises(ValueError, match="being read"):
        fact_store.add(Path("late.jpg"), facts(99))


def test_none_at_all() -> None:
    assert len(FactStore()) == 0
    assert Path("a.jpg") not in FactStore()
    assert len(FactStore(3).photos([]).thumbs) == 0
