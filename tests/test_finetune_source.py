"""Runs on lists and archives, photos left out, and labels that may be wrong."""

from __future__ import annotations

import csv
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgegraft
from data import batches
from data.photos import PARTS
from data.source import Source, choose, scan
from data.split import make_split
from edge.errors import EdgegraftError
from edge.preprocess import InputRecipe
from finetune import label_issues
from finetune.console import Console
from finetune.prepared import _audited, prepare
from finetune.run import Run
from tests.finetune_helpers import LABELS, TINY_RUN, drawn, run_on

pytestmark = pytest.mark.slow  # networks are trained or converted


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 noisy photos under two labels; each label in six bursts of two."""
    folder = drawn(tmp_path_factory.mktemp("source") / "photos")
    rows = []
    for path in sorted(folder.glob("*/*.png")):
        label, burst = path.parent.name, int(path.stem) // 4
        rows.append((path.relative_to(folder).as_posix(), label, f"{label}-{burst}"))
    with open(folder / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "group"), *rows])
    return folder


@pytest.fixture(scope="module")
def listed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on the list, from scratch."""
    return run_on(photos / "list.csv", tmp_path_factory.mktemp("listed") / "run")


def test_a_list_keeps_its_groups_on_one_side_and_the_run_resumes_from_it(
    photos: Path, listed: Run, tmp_path: Path
) -> None:
    run = Run.open(shutil.copytree(listed.folder, tmp_path / "run"))
    assert run.source == photos / "list.csv" and run.config["data"]["groups"] == 12
    with open(photos / "list.csv", newline="") as file:
        groups = {row["path"]: row["group"] for row in csv.DictReader(file)}
    sides: dict[str, set[str]] = {}
    for row in run.split().rows:
        place = row.photo.path.relative_to(run.photos_root).as_posix()
        sides.setdefault(groups[place], set()).add(row.part)
    assert len(sides) == 12 and all(len(parts) == 1 for parts in sides.values())
    assert {part for parts in sides.values() for part in parts} == set(PARTS)

    run.update(status="training")  # as an interrupt before the end leaves it
    again = run_on(None, run.folder, resume=True)
    assert again.trained and again.labels == LABELS
    assert again.config["data"] == run.config["data"]


def test_a_training_names_a_jpeg_without_its_end(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 60, 3), np.uint8)
    for name in ("a/1", "a/2", "b/1", "b/2"):
        path = tmp_path / f"{name}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise).save(path)
    cut = path.read_bytes()
    path.write_bytes(cut[: round(len(cut) * 0.96)])
    folder = scan(tmp_path)
    with batches.load(folder.photos, InputRecipe(16, 16)) as pixels:
        (finding,) = _audited(folder, pixels).of_kind("cut-off")
    assert finding.path == path and re.fullmatch(r"last \d% missing", finding.reason)


def test_a_linked_part_is_not_entered_and_the_run_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    drawn(folder / "train")
    (folder / "test").symlink_to(drawn(tmp_path / "elsewhere", 8))
    source = Source(scan(folder), None)
    prepare(source, TINY_RUN, Console(json=True)).pixels.close()
    told = capsys.readouterr()
    assert "left out, 1 in linked folders" in told.out + told.err


def test_an_archive_is_trained_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEGRAFT_CACHE", str(tmp_path / "cache"))
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(photos.glob("*/*.png")):
            file.write(path, path.relative_to(photos.parent))
    run = run_on(archive, tmp_path / "run")
    assert run.source == archive
    assert {row.photo.label for row in run.split().rows} == set(LABELS)
    assert len(run.split().rows) == 24


def test_photos_left_out_are_recorded_and_stay_out_when_resumed(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = shutil.copytree(photos, tmp_path / "photos")
    assert edgegraft.main(["data", "audit", str(mine), "-o", str(tmp_path / "a")]) == 0
    listed = tmp_path / "a" / "audit.csv"
    text = listed.read_text().splitlines()
    chosen = [line.replace(",no,", ",yes,", 1) for line in text[1:3]]
    assert chosen != text[1:3]
    listed.write_text("\n".join([text[0], *chosen, *text[3:]]) + "\n")
    changed = next(mine.glob("red/1*.png"))
    Image.new("RGB", (40, 40), (9, 200, 30)).save(changed)
    capsys.readouterr()

    run = run_on(mine, tmp_path / "run", exclude_from=listed)
    said = capsys.readouterr().err
    assert "2 photos left out by audit.csv" in said
    assert f"1 photo changed since that audit (first: {changed})" in said
    assert len(run.split().rows) == 22
    assert run.config["data"]["excluded"]["photos"] == 2
    assert (run.folder / "excluded.csv").read_bytes() == listed.read_bytes()
    listed.unlink()
    run.update(status="training")
    again = run_on(None, run.folder, resume=True)
    assert again.trained and len(again.split().rows) == 22


def test_the_command_refuses_a_wrong_list_in_one_line(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["finetune", str(photos), "--exclude-from", str(photos / "list.csv")]
    command += ["--backbone", "custom_cnn", "--artifacts", str(tmp_path)]
    assert edgegraft.main(command) == 2
    said = capsys.readouterr().err
    assert (
        said.count("\n") == 1 and "expected the columns path, sha256, exclude" in said
    )
    assert not list(tmp_path.iterdir())
    command = ["finetune", "--resume", "--run", "x", "--exclude-from", "a.csv"]
    assert edgegraft.main(command) == 2
    assert "got --exclude-from" in capsys.readouterr().err


def test_a_network_from_scratch_checks_validation_labels_only(listed: Run) -> None:
    with open(listed.folder / "label_issues.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["part"] for row in rows} == {"val"}
    assert len(rows) == listed.config["data"]["parts"]["val"]
    assert listed.config["label_issues"]["photos"] == len(rows)
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores) and all(-1 <= score <= 1 for score in scores)
    assert Image.open(listed.folder / "label_issues.png").width > 300


def test_wrong_labels_are_named_by_the_probe_and_can_be_left_out(
    photos: Path, tmp_path: Path
) -> None:
    """Photos lie in the wrong folder; their features say what they are."""
    mine = drawn(tmp_path / "photos", 240)  # of 24 nothing could be said
    wrong = [mine / f"{LABELS[n % 2]}/{n:02}.png" for n in range(12)]
    moved = [mine / f"{LABELS[1 - n % 2]}/wrong{n:02}.png" for n in range(12)]
    for old, new in zip(wrong, moved, strict=True):
        old.rename(new)
    folder = scan(mine)
    recipe = InputRecipe(16, 16)
    with batches.load(folder.photos, recipe) as pixels:
        split = make_split(folder.photos, pixels.digests)
        config = {"labels": LABELS, "settings": TINY_RUN.to_dict(), "photos": str(mine)}
        run = Run.create(tmp_path / "run", config, overwrite=False)
        split.write(run.folder / "split.csv", mine)
        asked = [*split.part("train"), *split.part("val")]
        red = [(p.label == "red") != p.path.name.startswith("wrong") for p in asked]
        seen = np.random.default_rng(1).normal(0, 1, (len(asked), 16))
        seen[:, 0] += np.where(red, 4, -4)
        label_issues.by_cross_validation(
            run, pixels, asked, np.float32(seen), (), Console(json=True)
        )
    listed = run.folder / "label_issues.csv"
    with open(listed, newline="") as file:
        rows = list(csv.DictReader(file))
    asked_names = {photo.path.name for photo in asked}
    planted = {path.name for path in moved} & asked_names
    assert planted  # the test part is not asked about
    flagged = {Path(row["path"]).name for row in rows if row["issue"] == "yes"}
    assert flagged and flagged <= planted
    assert {row["exclude"] for row in rows} == {""}  # an issue leaves nothing out
    unmarked = choose(mine, listed)
    assert unmarked.folder.photos == folder.photos
    assert "no photo left out by label_issues.csv" in unmarked.lines({})[0]
    for row in rows:
        row["exclude"] = row["issue"]
    with open(listed, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    left = choose(mine, listed)
    assert planted.isdisjoint(p.path.name for p in left.folder.photos)
    with pytest.raises(EdgegraftError, match="expected photos of"):
        choose(photos / "list.csv", listed)
