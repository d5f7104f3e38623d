"""The drawn sample set: the same bytes for one seed, photo-like files, no half sets."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.sample import picture, sample_set
from data.sample.picture import draw_picture
from data.sample.sample_set import SampleSet, write_sample
from edge.errors import EdgegraftError
from edge.preprocess import InputRecipe, load_pixels, open_photo

PER_LABEL = 32


def bytes_below(root: Path) -> dict[str, bytes]:
    return {
        p.relative_to(root).as_posix(): p.read_bytes()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def pictures(found: SampleSet) -> list[Path]:
    return sorted(p for p in found.photos.rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> SampleSet:
    folder = tmp_path_factory.mktemp("drawn") / "set"
    return write_sample(folder, count=PER_LABEL, seed=3, unknown=4)


def test_layout_and_counts(drawn: SampleSet) -> None:
    assert {p.name for p in drawn.photos.iterdir()} == {"cat", "dog"}
    for label in ("cat", "dog"):
        assert len(list((drawn.photos / label).iterdir())) == PER_LABEL
    assert len(list(drawn.unknown.iterdir())) == 4
    assert drawn.tests == [drawn.root / f"test_{name}.jpg" for name in ("cat", "dog")]
    for path in (*pictures(drawn), *drawn.tests):
        width, height = open_photo(str(path)).size
        assert min(width, height) >= 180
        assert max(width, height) <= 400


def test_one_seed_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.random.seed(1)  # the global generator must not matter
    monkeypatch.setattr(picture, "ENOUGH", 4)
    same = {"count": 4, "seed": 5, "unknown": 0}
    monkeypatch.setattr(picture, "cores", lambda: 2)
    many = bytes_below(write_sample(tmp_path / "many", **same).root)
    monkeypatch.setattr(picture, "cores", lambda: 1)
    one = bytes_below(write_sample(tmp_path / "one", **same).root)
    assert one == many
    few = bytes_below(write_sample(tmp_path / "few", count=2, seed=5, unknown=0).root)
    del few[sample_set.MARKER]
    assert few.items() <= one.items()  # photo i does not depend on the count
    other = bytes_below(
        write_sample(tmp_path / "other", count=2, seed=6, unknown=0).root
    )
    assert not set(other.values()) & set(one.values())


def test_files_vary_like_photos(drawn: SampleSet) -> None:
    modes, turns, shapes, suffixes = set(), set(), set(), set()
    for path in pictures(drawn):
        with Image.open(path) as image:
            modes.add(image.mode)
            turns.add(image.getexif().get(picture.ORIENTATION_TAG, 1))
        width, height = open_photo(str(path)).size
        shapes.add((width > height) - (width < height))
        suffixes.add(path.suffix)
    assert modes == {"RGB", "L", "RGBA"}
    assert {1, 3, 6, 8} <= turns
    assert shapes == {-1, 0, 1}
    assert suffixes == {".jpg", ".png"}


@pytest.mark.parametrize("orientation", sorted(picture.STORED_AS))
def test_turned_files_are_upright_when_opened(orientation: int) -> None:
    upright = draw_picture("cat", np.random.default_rng(11))
    for try_ in range(400):
        rng = np.random.default_rng([try_])
        suffix, data = picture.encode_picture(upright.copy(), rng, plain=False)
        with Image.open(io.BytesIO(data)) as stored:
            tag = stored.getexif().get(picture.ORIENTATION_TAG, 1)
            if suffix == ".jpg" and stored.mode == "RGB" and tag == orientation:
                turned = stored.convert("RGB")
                break
    else:
        pytest.fail(f"no file with orientation {orientation} in 400")
    if orientation in (6, 8):
        assert turned.size == upright.size[::-1]
    want = np.asarray(upright, np.float32)
    got = np.asarray(open_photo(data), np.float32)
    assert got.shape == want.shape
    assert np.abs(got - want).mean() < 12  # what JPEG does to the noise
    if turned.size == upright.size:
        assert np.abs(np.asarray(turned, np.float32) - want).mean() > 20


def test_a_linear_classifier_on_raw_pixels_does_not_solve_it(drawn: SampleSet) -> None:
    """32x32 pixels, cross-validated: about 57 %; a small CNN exceeds 90 %."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    selection = pytest.importorskip("sklearn.model_selection")
    recipe = InputRecipe(32, 32)
    paths = pictures(drawn)
    x = np.stack([load_pixels(str(p), recipe).ravel() / 255 - 0.5 for p in paths])
    y = np.array([p.parent.name == "dog" for p in paths])
    folds = selection.StratifiedKFold(3, shuffle=True, random_state=0)
    model = linear_model.LogisticRegression(C=0.01, max_iter=60, tol=1e-3)
    assert selection.cross_val_score(model, x, y, cv=folds).mean() <= 0.75


def test_the_same_set_is_found_again(tmp_path: Path) -> None:
    first = write_sample(tmp_path / "set", count=2, unknown=0)
    times = {p: p.stat().st_mtime_ns for p in pictures(first)}
    (first.photos / ".DS_Store").write_bytes(b"what a file browser leaves")
    assert write_sample(tmp_path / "set", count=2, unknown=0) == first
    assert {p: p.stat().st_mtime_ns for p in times} == times
    record = json.loads((first.root / sample_set.MARKER).read_text())
    assert record["drawn"] is True and record["seed"] == 0 and record["count"] == 2


def test_refuses_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.mkdir()
    (held / "mine.txt").write_text("keep me")
    with pytest.raises(EdgegraftError, match="other files"):
        write_sample(held, count=1)
    assert [p.name for p in held.iterdir()] == ["mine.txt"]
    with pytest.raises(EdgegraftError, match="got a file"):
        write_sample(held / "mine.txt", count=1)
    with pytest.raises(EdgegraftError, match="could not write the sample set"):
        write_sample(held / "mine.txt" / "below", count=1)
    (held / "mine.txt").unlink()
    assert write_sample(held, count=1).tests[1].is_file()  # empty is as good as new


def test_refuses_another_or_a_changed_set(tmp_path: Path) -> None:
    found = write_sample(tmp_path / "set", count=2, unknown=0)
    with pytest.raises(EdgegraftError, match=r"another sample set .*seed 0"):
        write_sample(found.root, count=2, unknown=0, seed=1)
    victim = pictures(found)[0]
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-9])
    with pytest.raises(EdgegraftError, match=rf"changed .*{victim.name}"):
        write_sample(found.root, count=2, unknown=0)
    victim.write_bytes(whole)
    shutil.copy(victim, victim.with_name("added.jpg"))
    with pytest.raises(EdgegraftError, match=r"added\.jpg"):
        write_sample(found.root, count=2, unknown=0)
    victim.with_name("added.jpg").unlink()
    (found.root / sample_set.MARKER).write_text("{")
    with pytest.raises(EdgegraftError, match="other files"):
        write_sample(found.root, count=2, unknown=0)


@pytest.mark.parametrize("cores", [1, 2])
def test_an_interrupted_run_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr(picture, "cores", lambda: cores)
    started: list[subprocess.Popen[bytes]] = []

    class Watched(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[call-overload]
            started.append(self)

    monkeypatch.setattr(picture.subprocess, "Popen", Watched)

    def stop(done: int, total: int) -> None:
        assert total == 2 * 40 + 13 + 2
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sample(tmp_path / "set", count=40, progress=stop)
    assert list(tmp_path.iterdir()) == []
    assert len(started) == (0 if cores == 1 else 2)
    assert all(child.returncode is not None for child in started)


@pytest.mark.skipif(os.name == "nt", reason="limits file sizes in the POSIX way")
@pytest.mark.parametrize("count", [2, 14])
def test_a_full_disk_is_one_line(tmp_path: Path, count: int) -> None:
    """A limit on file size stands in for the full disk, also in child processes."""
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "from data.sample import picture\n"
        "picture.cores = lambda: 2\n"
        "from data.sample.sample_set import write_sample\n"
        "from edge.errors import EdgegraftError\n"
        "try:\n"
        f"    write_sample(sys.argv[1], count={count})\n"
        "except EdgegraftError as error:\n"
        "    sys.exit(str(error))\n"
    )
    here = Path(__file__).resolve().parent.parent
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "set")],
        cwd=here,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "could not write the sample set" in line and "large" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"count": 0}, "count from 1"),
        ({"count": -5}, "count from 1"),
        ({"count": 10**9}, "count from 1 to"),
        ({"count": True}, "count as an integer"),
        ({"count": 2.5}, "count as an integer"),
        ({"count": 1, "seed": -1}, "seed from 0"),
        ({"count": 1, "unknown": -1}, "unknown from 0"),
    ],
)
def test_refuses_wrong_numbers(
    tmp_path: Path, wrong: dict[str, object], says: str
) -> None:
    with pytest.raises(EdgegraftError, match=says):
        write_sample(tmp_path / "set", **wrong)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
