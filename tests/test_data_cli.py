"""`data audit|split|sample` as a person runs them."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.cli import _parser, main
from data.source import scan
from data.split import Split
from edge import preprocess

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEGRAFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(6):
            noise = random.integers(0, 256, (30, 40, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / "photos" / label / f"{i}.png")
    return tmp_path / "photos"


def test_audit_of_good_photos(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(photos)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{photos}: 12 photos, 12 usable, 2 labels\n")
    assert "photos/s" in out
    assert err == ""


def test_audit_as_json(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "cat" / "bad.jpg").write_text("no photo")
    assert main(["audit", str(photos), "--json", "--workers", "1"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["trainable"] is True
    assert record["usable"] == 12
    assert record["findings"][0]["path"] == "cat/bad.jpg"
    assert record["seconds"] > 0


def test_audit_of_photos_that_cannot_be_trained_on(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted((photos / "cat").iterdir())[:4]:
        path.write_bytes(b"")
    assert main(["audit", str(photos)]) == 1
    assert "cannot train: label 'cat': expected at least 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("left", "why"),
    [
        ((6, None), "expected two labels or more, got only 'cat'"),
        ((6, 1), "label 'dog': expected at least 3 that can be read and differ"),
        ((6, 0), "expected two labels or more, got only 'cat'"),
    ],
)
def test_too_few_photos_are_audited_all_the_same(
    left: tuple[int, int | None],
    why: str,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for path in sorted((photos / "dog").iterdir())[left[1] or 0 :]:
        path.unlink()
    if left[1] is None:
        (photos / "dog").rmdir()
    (photos / "cat" / "bad.jpg").write_text("no photo")
    assert main(["audit", str(photos)]) == 1
    out = capsys.readouterr().out
    assert f"cannot train: {why}" in out
    assert "cat/bad.jpg" in out  # what else is wrong is said, too
    assert main(["split", str(photos), "-o", str(photos / "split.csv")]) == 2


def test_split(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "cat" / "bad.jpg").write_text("no photo")
    path = tmp_path / "split.csv"
    arguments = ["split", str(photos), "-o", str(path), "--seed", "3", "--val", "0.3"]
    assert main(arguments) == 0
    assert "1 photo left out" in capsys.readouterr().out
    split = Split.read(path, photos)
    assert split.counts()["cat"] == {"train": 3, "val": 2, "test": 1}
    found = {photo.path for photo in scan(photos).photos}
    assert {row.photo.path for row in split.rows} < found

    assert main(arguments) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fingerprint"] == split.fingerprint


@pytest.mark.parametrize("verb", ["audit", "split"])
def test_bad_input_is_one_line_and_exit_2(verb: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgegraft", "data", verb, str(tmp_path / "nowhere")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("edgegraft: error: ")
    assert done.stderr.count("\n") == 1
    assert not (ROOT / "split.csv").exists()


@pytest.mark.parametrize("verb", ["audit", "split", "sample", "capture"])
def test_help_says_what_a_verb_and_each_option_does(verb: str) -> None:
    (commands,) = (
        action.choices
        for action in _parser("data")._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    assert commands[verb].description
    silent = [a.dest for a in commands[verb]._actions if not a.help]
    assert silent == []


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="nothing there"):
        main(["audit", str(tmp_path / "nowhere"), "--debug"])


@pytest.mark.parametrize(
    "arguments", [[], ["prune", "x"], ["audit"], ["split", "x", "--val", "much"]]
)
def test_a_wrong_command_is_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("edgegraft: error: ")
    assert err.count("\n") == 1


def test_sample_is_drawn_and_can_be_audited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sample"
    assert main(["sample", str(folder), "--count", "4", "--seed", "1"]) == 0
    assert f"next: edgegraft build {folder / 'photos'}" in capsys.readouterr().out
    assert main(["audit", str(folder / "photos")]) == 0
    assert "8 photos, 8 usable, 2 labels" in capsys.readouterr().out


def test_split_into_folds_and_beside_an_earlier_split(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "split.csv"
    assert main(["split", str(photos), "-o", str(path), "--folds", "3"]) == 0
    out = capsys.readouterr().out
    names = ["split-1.csv", "split-2.csv", "split-3.csv"]
    assert sorted(p.name for p in tmp_path.glob("*.csv")) == names
    assert all(f"written to {tmp_path / name}" in out for name in names)
    first = tmp_path / names[0]
    arguments = ["split", str(photos), "-o", str(path), "--keep", str(first)]
    assert main(arguments) == 0
    assert Split.read(path, photos) == Split.read(first, photos)
    assert main([*arguments, "--folds", "3", "--overwrite"]) == 2
    assert "expected --folds or --keep, got both" in capsys.readouterr().err


def test_a_split_of_many_labels_is_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 22 labels the 20 rarest are shown."""
    random = np.random.default_rng(0)
    for label in range(22):
        folder = tmp_path / "photos" / f"part{label:02d}"
        folder.mkdir(parents=True)
        for i in range(3 + (label == 0)):
            noise = random.integers(0, 256, (30, 40, 3), np.uint8)
            Image.fromarray(noise).save(folder / f"{i}.png")
    words = ["split", str(tmp_path / "photos"), "-o", str(tmp_path / "split.csv")]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 20 + 2 and "part00" not in "".join(lines)
    assert lines[-2] == "and 2 labels with as many photos or more"


def test_near_duplicates_are_not_split(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("cat", "dog"):
        for i in range(4):
            path = photos / label / f"{i}.png"
            image = Image.open(path).crop((0, 0, 16, 12)).resize((200, 150), 0)
            image.save(path)
            image.resize((80, 60)).save(photos / label / f"{i}_small.jpg")
    path = tmp_path / "split.csv"
    for seed in range(2):
        arguments = ["split", str(photos), "-o", str(path), "--seed", str(seed)]
        assert main([*arguments, "--val", "0.3", "--test", "0.3", "--overwrite"]) == 0
        parts = {row.photo.path: row.part for row in Split.read(path, photos).rows}
        assert len(parts) == 20
        for small in photos.glob("*/*_small.jpg"):
            assert parts[small] == parts[small.with_name(small.name[0] + ".png")]


def test_the_limit_of_a_photos_size_can_be_raised(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEGRAFT_MAX_MEGAPIXELS", "")  # taken back afterwards
    monkeypatch.setattr(preprocess, "MAX_PIXELS", 1000)
    assert main(["audit", str(photos), "--no-memory"]) == 1
    assert "at most 1,000 pixels, got 40 x 30 (--max-m" in capsys.readouterr().out
    arguments = ["audit", str(photos), "--no-memory", "--max-megapixels"]
    assert main([*arguments, "0.0012"]) == 0
    with pytest.raises(SystemExit):
        main([*arguments, "-1"])


def test_options_of_a_list_and_of_labels(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{p.relative_to(photos)};{p.parent.name}" for p in photos.glob("*/*")]
    listed = photos / "list.csv"
    listed.write_text("\n".join(["where;what", *lines]))
    columns = ["--columns", "path=where,label=what", "--rename", "cat=fox"]
    assert main(["audit", str(listed), *columns]) == 0
    assert "12 photos, 12 usable, 2 labels" in capsys.readouterr().out
    for wrong in (["--columns", "name=where"], ["--rename", "cat"]):
        assert main(["audit", str(listed), *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1
