"""`data.audit.audit`: damaged files, copies, leaks and shortages, told plainly."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.audit.audit import Audit, audit
from data.audit.findings import KINDS
from data.batches import load
from data.photos import Photo, PhotoFolder
from data.source import scan
from edge.preprocess import InputRecipe

ONE = {"has", "lies", "looks", "shows"}


def draw(path: Path, seed: int) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path)
    return path


def copied(path: Path, to: Path) -> Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(path.read_bytes())
    return to


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i in range(4):
        draw(tmp_path / "cat" / f"{i}.jpg", i)
        draw(tmp_path / "dog" / f"{i}.png", 10 + i)
    return tmp_path


def cut(path: Path) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def test_a_clean_folder(root: Path) -> None:
    report = audit(scan(root))
    assert report.findings == ()
    assert report.obstacles == []
    assert report.usable(report.folder.photos) == report.folder.photos
    assert "nothing damaged, no file twice" in report.lines()


def test_a_run_says_in_one_line_that_nothing_was_found(tmp_path: Path) -> None:
    photos = tuple(Photo(tmp_path / x / f"{i}", x) for i in range(30) for x in "ab")
    digests = {photo.path: str(photo.path) for photo in photos}
    folder = PhotoFolder(tmp_path, ("a", "b"), photos)
    clean = Audit.from_pass(folder, digests, [])
    assert clean.brief() == ["audit: 60 photos, nothing found"]
    bad = photos[0].path
    report = Audit.from_pass(folder, digests, [(bad, "is no photo")])
    assert report.brief() == report.lines()
    assert not any(line.startswith(" ") for line in report.brief(examples=False))
    assert any("1 cannot be read; left out" in line for line in report.brief())


def test_one_is_one(tmp_path: Path) -> None:
    for kind in KINDS:
        assert kind.sentence(1).split()[0] in {"is", "cannot", *ONE}, kind
        assert kind.sentence(2).split()[0] not in {"is", *ONE}, kind


def test_every_kind_of_trouble_is_found_once_and_the_gravest_comes_first(
    root: Path,
) -> None:
    bad = cut(draw(root / "dog" / "broken.png", 30))
    twin = copied(root / "cat" / "0.jpg", root / "cat" / "z.jpg")
    wrong = copied(root / "cat" / "1.jpg", root / "dog" / "x.jpg")
    before = {path: path.read_bytes() for path in root.rglob("*.*")}
    report = audit(scan(root), workers=2)
    assert [(f.kind, f.path, f.others) for f in report.findings] == [
        ("unreadable", bad, ()),
        ("two-labels", wrong, (root / "cat" / "1.jpg",)),
        ("duplicate", twin, (root / "cat" / "0.jpg",)),
    ]
    usable = [photo.path for photo in report.usable(report.folder.photos)]
    assert bad not in usable
    assert len(usable) == 10
    lines = report.lines()
    assert lines[0] == f"{root}: 11 photos, 10 usable, 2 labels"
    assert lines[1] == "1 cannot be read; left out"
    assert lines[2].startswith("  dog/broken.png: ")
    assert "  dog/x.jpg: the same file as cat/1.jpg" in lines
    assert {path: path.read_bytes() for path in root.rglob("*.*")} == before


def test_a_leak_between_given_parts(tmp_path: Path) -> None:
    places = [tmp_path / p / x for p in ("train", "test") for x in ("cat", "dog")]
    for seed in range(12):
        draw(places[seed % 4] / f"{seed // 4}.png", seed)
    leak = copied(tmp_path / "test/cat/0.png", tmp_path / "train/dog/leak.png")
    report = audit(scan(tmp_path))
    assert [(f.kind, f.path) for f in report.findings] == [("leak", leak)]
    assert "the score is too good" in report.lines()[1]
    table = [line.split() for line in report.lines() if line.startswith(("cat", "dog"))]
    assert table == [["cat", "6", "6", "3", "3"], ["dog", "7", "7", "4", "3"]]


def test_photos_that_cannot_be_read_can_make_a_label_too_small(root: Path) -> None:
    for i in range(2):
        cut(root / "cat" / f"{i}.jpg")
    report = audit(scan(root))
    assert len(report.obstacles) == 1
    assert "label 'cat': expected at least 3" in report.obstacles[0]
    assert report.lines()[1] == f"cannot train: {report.obstacles[0]}"
    assert report.to_dict()["trainable"] is False


def test_a_given_part_that_cannot_be_read_at_all(tmp_path: Path) -> None:
    for seed in range(6):
        label = ("cat", "dog")[seed % 2]
        draw(tmp_path / "train" / label / f"{seed}.png", seed)
        cut(draw(tmp_path / "test" / label / f"{seed}.png", seed))
    obstacles = audit(scan(tmp_path)).obstacles
    assert [line.split(":")[0] for line in obstacles] == ["test"]


def test_the_pass_that_feeds_training_gives_the_same_audit(root: Path) -> None:
    cut(root / "dog" / "3.png")
    copied(root / "cat" / "0.jpg", root / "dog" / "x.jpg")
    folder = scan(root)
    with load(folder.photos, InputRecipe(16, 16)) as pixels:
        known = pixels.digests, pixels.failures, pixels.fact_store, pixels.missing
        assert Audit.from_pass(folder, *known) == audit(folder)


def test_long_lists_are_cut_on_the_terminal_and_whole_in_json(root: Path) -> None:
    for i in range(25):
        (root / "cat" / f"bad{i:02}.jpg").write_bytes(b"")
    report = audit(scan(root))
    assert "  and 15 more (--json lists all)" in report.lines()
    record = json.loads(json.dumps(report.to_dict()))
    assert len(record["findings"]) == 25
    assert record["findings"][0]["path"] == "cat/bad00.jpg"
    assert record["labels"]["cat"] == {"photos": 29, "usable": 4}


def test_odd_names_can_be_printed(root: Path) -> None:
    (root / "cat" / "caf\udce9\n.jpg").write_bytes(b"")
    report = audit(scan(root))
    assert "  cat/caf\\udce9\\n.jpg: " in "\n".join(report.lines())
    json.dumps(report.to_dict(), ensure_ascii=False).encode("utf-8")


def test_a_cut_off_jpeg_is_used_and_named(root: Path) -> None:
    path = root / "cat" / "0.jpg"
    path.write_bytes(path.read_bytes()[:-2])
    report = audit(scan(root))
    (finding,) = report.of_kind("cut-off")
    assert (finding.path, finding.reason) == (path, "its end marker is missing")
    assert path in report.usable_digests and report.obstacles == []
    with load(scan(root).photos, InputRecipe(32, 32)) as pixels:
        assert pixels.missing == {path: 0.0}


def test_twelve_bits_are_white_for_the_whole_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(6):
        top = 4000 if number == 5 else 900  # one bright photo says how deep they are
        path = tmp_path / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        grey = rng.integers(0, top, (40, 40), np.uint16)
        grey[0, 0] = top
        Image.fromarray(grey).save(path)
    folder = scan(tmp_path)
    assert folder.white == 4095
    assert folder.notes() == ["16-bit photos use 12 bits only: 4,095 is white"]
    fact_store = audit(folder).fact_store
    assert fact_store[tmp_path / "dog" / "5.png"].high > 200
    assert 40 < fact_store[tmp_path / "cat" / "0.png"].high < 60
    with load(folder.photos, InputRecipe(40, 40, white=4095)) as pixels:
        assert pixels.array.max() >= 248
