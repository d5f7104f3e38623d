"""`data.store`: rows in memory or in a nameless file, and disks that fill up."""

import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from data.batches import load
from data.photos import Photo
from edge.errors import EdgegraftError
from edge.preprocess import InputRecipe
from tests.data_room import draw, draw_twenty

RECIPE = InputRecipe(32, 24)
ROOT = Path(__file__).parents[1]


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    return draw_twenty(tmp_path / "photos" / "cat")


def test_beyond_the_limit_the_rows_lie_in_a_file_that_vanishes(
    photos: list[Photo], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    inside = load(photos, RECIPE)
    outside = load(photos, RECIPE, memory_limit=1000, cache_dir=cache)
    assert isinstance(outside.array, np.memmap)
    assert not isinstance(inside.array, np.memmap)
    np.testing.assert_array_equal(inside.array, outside.array)
    assert inside.digests == outside.digests
    outside.close()
    assert list(cache.iterdir()) == []
    with pytest.raises(ValueError, match="closed"):
        _ = outside.array


def test_nothing_readable_on_disk_either(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    photo = Photo(tmp_path / "empty.jpg", "cat")
    with load([photo], RECIPE, memory_limit=0) as pixels:
        assert pixels.array.shape == (0, 24, 32, 3)
    with load([], RECIPE) as pixels:
        assert pixels.array.shape == (0, 24, 32, 3)


def test_too_little_space_is_said_before_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = types.SimpleNamespace(free=999_999)
    monkeypatch.setattr("data.store.shutil.disk_usage", lambda folder: full)
    many = [Photo(tmp_path / f"not-there-{i}.jpg", "cat") for i in range(500)]
    with pytest.raises(EdgegraftError, match=r"expected .* MB of free space.*too lit"):
        load(many, RECIPE, memory_limit=1000, cache_dir=tmp_path)


def test_no_folder_for_the_cache(photos: list[Photo], tmp_path: Path) -> None:
    with pytest.raises(EdgegraftError, match="No such file"):
        load(photos, RECIPE, memory_limit=0, cache_dir=tmp_path / "gone")


FULL_DISK = """
import resource, sys
from pathlib import Path
from data.batches import load
from data.photos import Photo
from edge.errors import EdgegraftError
from edge.preprocess import InputRecipe
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
photos = [Photo(path, "cat") for path in sorted(Path(sys.argv[1]).iterdir())]
try:
    load(photos, InputRecipe(96, 96), memory_limit=0, cache_dir=Path(sys.argv[2]))
except EdgegraftError as error:
    print(error)
"""


def test_a_disk_that_fills_up_while_caching(
    photos: list[Photo], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    done = _python(FULL_DISK, str(photos[0].path.parent), str(cache))
    assert done.returncode == 0, done.stderr
    assert "MB of free space for the decoded photos, got: File too large" in done.stdout
    assert done.stderr == ""
    assert list(cache.iterdir()) == []


PEAK = """
import sys
from pathlib import Path
from data.batches import load
from data.photos import Photo
from edge.preprocess import InputRecipe
def peak():  # KiB; getrusage would count what the parent had before exec
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])
path, limit = Path(sys.argv[1]), int(sys.argv[2])
links = [path.with_name(f"{i}.jpg") for i in range(256)]
for link in links:
    link.exists() or link.symlink_to(path)
photos = [Photo(link, "cat") for link in links]
load(photos[:8], InputRecipe(224, 224)).close()
before = peak()
pixels = load(photos, InputRecipe(224, 224), memory_limit=limit)
assert len(pixels.array) == 256
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_stays_bounded_when_the_rows_go_to_disk(tmp_path: Path) -> None:
    photo = draw(tmp_path / "cat" / "photo.jpg", 1)
    size = 256 * 224 * 224 * 3 // 1024  # KiB
    held = int(_python(PEAK, str(photo.path), str(1 << 30)).stdout)
    assert held > 0.9 * size  # so the figure measures what it should
    bounded = int(_python(PEAK, str(photo.path), "0").stdout)
    keypoints = 256 * 250 * 132 // 1024  # KiB that the audit keeps of each photo
    assert bounded < 0.2 * size + keypoints


def _python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
