"""`data.batches`: one pass, every photo named or decoded."""

import hashlib
import os
import resource
import tempfile
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data.batches
from data.batches import load
from data.photos import Photo
from edge.errors import EdgegraftError
from edge.preprocess import InputRecipe, load_pixels
from tests.data_room import draw, draw_twenty

RECIPE = InputRecipe(32, 24)
ROOT = Path(__file__).parents[1]


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    return draw_twenty(tmp_path / "photos" / "cat")


def test_rows_are_edges_pixels_in_the_order_asked_for(photos: list[Photo]) -> None:
    photos = photos[::-1]
    with load(photos, RECIPE, workers=3) as pixels:
        assert pixels.array.shape == (20, 24, 32, 3)
        assert pixels.array.dtype == np.uint8
        assert pixels.failures == ()
        for row, photo in enumerate(photos):
            assert pixels.rows[photo.path] == row
            expected = load_pixels(photo.path, RECIPE)
            np.testing.assert_array_equal(pixels.array[row], expected)
            digest = hashlib.sha256(photo.path.read_bytes()).hexdigest()
            assert pixels.digests[photo.path] == digest
        np.testing.assert_array_equal(pixels.of(photos[3:5]), pixels.array[3:5])


def test_the_cached_photos_cannot_be_written_over(photos: list[Photo]) -> None:
    for limit in (1 << 30, 0):
        with (
            load(photos, RECIPE, memory_limit=limit) as pixels,
            pytest.raises(ValueError, match="read-only"),
        ):
            pixels.array[0] = 0


def test_a_photo_asked_for_twice_is_read_once(photos: list[Photo]) -> None:
    with load([*photos, photos[0]], RECIPE) as pixels:
        assert len(pixels.array) == 20


def test_bad_files_are_named_and_the_others_keep_their_order(
    photos: list[Photo], tmp_path: Path
) -> None:
    bad = tmp_path / "photos" / "bad"
    bad.mkdir()
    whole = photos[0].path.read_bytes()
    (bad / "empty.jpg").touch()
    (bad / "cut.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (bad / "text.jpg").write_text("I only pretend to be a photo. " * 50)
    (bad / "web.jpg").write_text("<html><body>404 not found</body></html>")
    (bad / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    (bad / "self.jpg").symlink_to(bad / "self.jpg")
    (bad / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (bad / "pipe.jpg").symlink_to(tmp_path / "pipe")  # must not hang
    (bad / "bomb.png").write_bytes(_png_header(60_000, 60_000))
    poor = [Photo(path, "bad") for path in sorted(bad.iterdir())]
    mixed = [*photos[:5], *poor, *photos[5:], Photo(bad / "never.jpg", "bad")]
    for limit in (1 << 30, 0):
        with load(mixed, RECIPE, workers=2, memory_limit=limit) as pixels:
            assert list(pixels.rows) == [photo.path for photo in photos]
            assert list(pixels.rows.values()) == list(range(20))
            assert len(pixels.array) == 20
            last = load_pixels(photos[-1].path, RECIPE)
            np.testing.assert_array_equal(pixels.array[-1], last)
            reasons = {path.name: reason for path, reason in pixels.failures}
            assert set(pixels.digests) == set(pixels.rows)
    assert set(reasons) == {photo.path.name for photo in poor} | {"never.jpg"}
    assert "empty" in reasons["empty.jpg"]
    assert "nowhere" in reasons["link.jpg"]
    assert reasons["never.jpg"] == "no such file"
    assert reasons["pipe.jpg"] == "not an ordinary file"
    assert "pixels" in reasons["bomb.png"]
    assert all(reason and "\n" not in reason for reason in reasons.values())


def _png_header(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and hardly holds anything."""
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    head = _chunk(b"IHDR", size + bytes((8, 2, 0, 0, 0)))
    return b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IDAT", zlib.compress(bytes(100)))


def _chunk(kind: bytes, body: bytes) -> bytes:
    check = zlib.crc32(kind + body).to_bytes(4, "big")
    return len(body).to_bytes(4, "big") + kind + body + check


def test_no_permission() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        photo = draw(Path(name) / "cat" / "secret.png", 1)
        photo.path.chmod(0)
        root = os.geteuid() == 0
        if root:  # root may read anything
            os.seteuid(65534)
        try:
            pixels = load([photo], RECIPE, workers=1)
        finally:
            if root:
                os.seteuid(0)
    assert pixels.failures == ((photo.path, "no permission to read it (chmod u+r)"),)
    assert pixels.array.shape == (0, 24, 32, 3)


def test_one_pixel_and_many_million(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (200, 10, 30)).save(tmp_path / "tiny.png")
    Image.new("L", (6_000, 6_000), 77).save(tmp_path / "huge.jpg")
    Image.new("1", (7_500, 4_800), 1).save(tmp_path / "huge.png")
    paths = sorted(tmp_path.iterdir())
    with load([Photo(path, "cat") for path in paths], RECIPE, workers=2) as pixels:
        assert pixels.failures == ()
        assert [path.name for path in pixels.rows] == [
            "huge.jpg",
            "huge.png",
            "tiny.png",
        ]
        np.testing.assert_allclose(pixels.array[0].astype(int), 77, atol=1)
        assert (pixels.array[1] == 255).all()
        assert (pixels.array[2] == (200, 10, 30)).all()


def test_large_photos_are_decoded_one_at_a_time(
    photos: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, most, lock = 0, 0, threading.Lock()

    def watched(source: bytes, recipe: InputRecipe) -> np.ndarray:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        pause.wait(0.01)
        with lock:
            busy -= 1
        return load_pixels(source, recipe)

    pause = threading.Event()
    monkeypatch.setattr(data.batches, "load_pixels", watched)
    load(photos, RECIPE, workers=4, with_facts=False).close()
    assert most > 1
    monkeypatch.setattr(data.batches, "LARGE_PIXELS", 80 * 60 - 1)
    monkeypatch.setattr(data.batches, "SMALL_BYTES", 0)
    most = 0
    load(photos, RECIPE, workers=4, with_facts=False).close()
    assert most == 1


def test_progress_counts_every_file_in_the_callers_thread(photos: list[Photo]) -> None:
    seen: list[tuple[int, int]] = []
    threads = set()

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        threads.add(threading.current_thread())

    load(photos, RECIPE, workers=2, progress=progress).close()
    assert seen == [(done, 20) for done in range(1, 21)]
    assert threads == {threading.current_thread()}


def test_what_keep_raises_ends_the_pass(photos: list[Photo]) -> None:
    def keep(number: int, pixels: np.ndarray) -> None:
        if number == 5:
            raise EdgegraftError("no room")

    paths = [photo.path for photo in photos]
    with pytest.raises(EdgegraftError, match="no room"):
        list(data.batches.read_photos(paths, RECIPE, keep, workers=2))
    assert not [t for t in threading.enumerate() if t.name.startswith("photos")]


def test_a_slow_photo_holds_nobody_up_and_changes_no_order(
    photos: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    others = threading.Event()

    def watched(source: bytes, recipe: InputRecipe) -> np.ndarray:
        if source == first:  # ends when the others have ended
            assert others.wait(30)
        return load_pixels(source, recipe)

    def keep(number: int, pixels: np.ndarray) -> None:
        kept.append(number)
        if len(kept) == len(photos) - 1:
            others.set()

    first = photos[0].path.read_bytes()
    kept: list[int] = []
    monkeypatch.setattr(data.batches, "load_pixels", watched)
    paths = [photo.path for photo in photos]
    readings = list(data.batches.read_photos(paths, RECIPE, keep, workers=2))
    assert [reading.path for reading in readings] == paths
    assert kept[-1] == 0
    assert sorted(kept) == list(range(20))


def test_ctrl_c_stops_the_threads_and_leaves_no_file(
    photos: list[Photo], tmp_path: Path
) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    cache = tmp_path / "cache"
    cache.mkdir()
    with pytest.raises(KeyboardInterrupt):
        load(photos, RECIPE, memory_limit=0, cache_dir=cache, progress=interrupt)
    assert list(cache.iterdir()) == []
    assert not [t for t in threading.enumerate() if t.name.startswith("photos")]


def test_workers_must_be_some(photos: list[Photo]) -> None:
    with pytest.raises(EdgegraftError, match="expected 1 or more, got 0"):
        load(photos, RECIPE, workers=0)


def test_few_files_are_open_at_a_time(photos: list[Photo]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = len(os.listdir("/proc/self/fd")) + 12
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    try:
        with load(photos, RECIPE, workers=2) as pixels:
            assert pixels.failures == ()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
