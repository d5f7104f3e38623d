"""`data.store.PixelCache`: pixels by content, whole or not at all, within a limit."""

import errno
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data import batches, store
from data.photos import Photo
from data.source import scan
from data.store import PixelCache
from edge.preprocess import InputRecipe, load_pixels

RECIPE = InputRecipe(24, 24)


@pytest.fixture
def photos(tmp_path: Path) -> tuple[Photo, ...]:
    for number in range(12):
        rng = np.random.default_rng(number)
        path = tmp_path / "photos" / ("a", "b")[number % 2] / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
        small.resize((70, 50)).save(path, quality=90)
    return scan(tmp_path / "photos").photos


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for every photo that is really decoded."""
    found: list[int] = []
    before = batches._decoded

    def counted(data: bytes, *rest: Any) -> Any:
        found.append(len(data))
        return before(data, *rest)

    monkeypatch.setattr(batches, "_decoded", counted)
    return found


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEGRAFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pixels"


def loaded(photos: tuple[Photo, ...], recipe: InputRecipe = RECIPE) -> Any:
    said: list[str] = []
    with batches.load_through_cache(photos, recipe, warn=said.append) as pixels:
        return np.array(pixels.array), pixels.from_cache, said, dict(pixels.fact_store)


def files(kept: Path) -> list[Path]:
    return sorted(path for path in kept.glob("*/*/*") if path.is_file())


def test_a_second_run_decodes_nothing_and_sees_the_same(
    photos: tuple[Photo, ...], kept: Path, decoded: list[int]
) -> None:
    first, from_cache, said, fact_store = loaded(photos)
    assert (len(decoded), from_cache, said) == (12, 0, [])
    again, from_cache, said, same = loaded(photos)
    assert (len(decoded), from_cache, said) == (12, 12, [])
    np.testing.assert_array_equal(first, again)
    assert fact_store == same and len(fact_store) == 12
    for row, photo in enumerate(photos):
        np.testing.assert_array_equal(again[row], load_pixels(photo.path, RECIPE))
    assert not [path for path in kept.rglob(".*") if path.name != store.STAMP]


def test_another_size_is_decoded_but_not_measured_again(
    photos: tuple[Photo, ...], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, _, facts = loaded(photos)
    monkeypatch.delattr(batches, "measure")  # keypoints take most of an audit's time
    other = InputRecipe(24, 20)
    pixels, from_cache, said, same = loaded(photos, other)
    assert (from_cache, said) == (0, []) and same == facts
    for row, photo in enumerate(photos):
        np.testing.assert_array_equal(pixels[row], load_pixels(photo.path, other))


def test_only_what_is_new_or_changed_is_decoded(
    photos: tuple[Photo, ...], kept: Path, decoded: list[int]
) -> None:
    loaded(photos)
    moved = photos[3].path.rename(photos[3].path.with_name("moved.jpg"))
    Image.new("RGB", (50, 50), (200, 30, 9)).save(photos[4].path)
    now = scan(moved.parents[1]).photos
    pixels, from_cache, _, _ = loaded(now)
    assert (len(decoded), from_cache) == (13, 11)
    for row, photo in enumerate(now):
        np.testing.assert_array_equal(pixels[row], load_pixels(photo.path, RECIPE))


def test_the_key_is_the_recipe_the_library_and_the_code(
    photos: tuple[Photo, ...],
    kept: Path,
    decoded: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded(photos)
    for other in (InputRecipe(24, 20), InputRecipe(24, 24, "crop")):
        pixels, from_cache, _, _ = loaded(photos, other)
        assert from_cache == 0 and pixels.shape[1:3] == (other.height, other.width)
    assert len(decoded) == 36
    before = store.cache_key(RECIPE)
    monkeypatch.setattr(store.PIL, "__version__", "0.0")
    assert store.cache_key(RECIPE) != before
    monkeypatch.undo()
    assert store.cache_key(RECIPE) == before
    monkeypatch.setattr(store.preprocess, "__file__", __file__)
    assert store.cache_key(RECIPE) != before


@pytest.mark.parametrize("harm", ["cut", "flipped", "empty", "longer"])
def test_it_mends_itself(
    photos: tuple[Photo, ...], kept: Path, decoded: list[int], harm: str
) -> None:
    first, _, _, _ = loaded(photos)
    victim = files(kept)[5]
    data = victim.read_bytes()
    victim.write_bytes(
        {
            "cut": data[:-100],
            "flipped": data[:50] + bytes([data[50] ^ 1]) + data[51:],
            "empty": b"",
            "longer": data + b"x",
        }[harm]
    )
    again, from_cache, said, _ = loaded(photos)
    assert (len(decoded), from_cache, said) == (13, 11, [])
    np.testing.assert_array_equal(first, again)
    assert victim.read_bytes() == data


def test_a_full_disk_costs_the_cache_not_the_run(
    photos: tuple[Photo, ...], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store.os, "replace", full)
    pixels, from_cache, said, _ = loaded(photos)
    assert len(pixels) == 12 and from_cache == 0
    assert len(said) == 1 and "not kept for the next run" in said[0]
    assert "No space left" in said[0]
    assert files(kept) == []


def test_a_folder_that_cannot_be_made_is_reported(
    photos: tuple[Photo, ...], kept: Path
) -> None:
    kept.parent.mkdir()
    kept.write_text("a file is in the way")
    pixels, _, said, _ = loaded(photos)
    assert len(pixels) == 12 and len(said) == 1 and str(kept) in said[0]
    assert kept.read_text() == "a file is in the way"


def test_it_stays_within_its_limit_and_leaves_space_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = 24 * 24 * 3 + store.SUM
    pixels = np.zeros((24, 24, 3), np.uint8)
    cache = PixelCache(tmp_path, RECIPE, limit=each * 5)
    for number in range(9):
        cache.put(f"{number:064x}", pixels)
    assert len(files(tmp_path)) == 5 and "kept already" in cache.problem
    old = InputRecipe(24, 20)
    other = PixelCache(tmp_path, old, limit=each * 100)
    other.put(f"{1:064x}", np.zeros((20, 24, 3), np.uint8))
    os.utime(tmp_path / store.cache_key(RECIPE) / store.STAMP, (1, 1))
    PixelCache(tmp_path, InputRecipe(16, 16), limit=each * 4)
    left = {path.name for path in tmp_path.iterdir()}
    assert store.cache_key(RECIPE) not in left and store.cache_key(old) in left

    usage = shutil.disk_usage(tmp_path)._replace(free=store.SPARE + each)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: usage)
    tight = PixelCache(tmp_path, InputRecipe(24, 24, "pad"), limit=each * 100)
    for number in range(3):
        tight.put(f"{number:064x}", pixels)
    assert len(list(tight.folder.glob("*/*"))) == 1
    assert "2.1 GB are left to others" in tight.problem


def test_many_threads_may_keep_the_same_photo(tmp_path: Path) -> None:
    cache = PixelCache(tmp_path, RECIPE)
    pixels = np.arange(24 * 24 * 3, dtype=np.uint32).astype(np.uint8)
    pixels = pixels.reshape(24, 24, 3)
    names = [f"{number:064x}" for number in range(20)]

    def keep() -> None:
        for name in names:
            cache.put(name, pixels)
            found = cache.get(name)
            assert found is not None and (found == pixels).all()

    threads = [threading.Thread(target=keep) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not cache.problem and len(files(tmp_path)) == 20
