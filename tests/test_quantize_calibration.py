"""Which photos calibrate: balanced, from train only, the same every time."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data.photos import Photo
from data.split import Row, Split
from edge.errors import EdgegraftError
from quantize.conversion import calibration

ROOT = Path("photos")


def split(**counts: int) -> Split:
    """label=number of training photos; each label also has two of val and of test."""
    rows = []
    for label, count in counts.items():
        for part, size in (("train", count), ("val", 2), ("test", 2)):
            for number in range(size):
                name = f"{label}-{part}-{number}"
                digest = hashlib.sha256(name.encode()).hexdigest()
                rows.append(
                    Row(Photo(ROOT / label / f"{name}.jpg", label), part, digest)
                )
    return Split(tuple(rows))


def test_labels_get_equal_shares_of_train():
    chosen = calibration.choose(split(cat=50, dog=200), 60)
    assert Counter(row.photo.label for row in chosen) == {"cat": 30, "dog": 30}
    assert {row.part for row in chosen} == {"train"}
    assert len({row.sha256 for row in chosen}) == 60


def test_a_small_label_gives_all_and_others_fill_up():
    chosen = calibration.choose(split(cat=3, dog=200), 60)
    assert Counter(row.photo.label for row in chosen) == {"cat": 3, "dog": 57}


def test_a_small_part_is_taken_whole():
    assert len(calibration.choose(split(cat=3, dog=4), 200)) == 7


def test_an_odd_count_is_met_exactly():
    assert len(calibration.choose(split(a=9, b=9, c=9), 10)) == 10


def test_names_and_folders_do_not_matter_but_the_seed_does():
    whole = split(cat=40, dog=40)
    moved = Split(
        tuple(
            Row(Photo(Path("elsewhere") / f"{n}.png", row.photo.label), *row[1:])
            for n, row in enumerate(reversed(whole.rows))
        )
    )
    first = [row.sha256 for row in calibration.choose(whole, 20)]
    assert [row.sha256 for row in calibration.choose(moved, 20)] == first
    assert [row.sha256 for row in calibration.choose(whole, 20, seed=1)] != first


def test_a_copy_is_refused_with_the_reason():
    rows = list(split(cat=4, dog=4).rows)
    copies = [
        Row(Photo(ROOT / f"cat/copy{n}.jpg", "cat"), "train", rows[0].sha256)
        for n in range(5)
    ]
    whole = Split((*rows, *copies))
    chosen = calibration.choose(whole, 100)
    assert len(chosen) == 8 and len({row.sha256 for row in chosen}) == 8
    refused = calibration.copies(whole, chosen)
    assert len(refused) == 5 and not {one.row for one in refused} & set(chosen)
    (first,) = (row for row in chosen if row.sha256 == rows[0].sha256)
    why = f"a copy of cat/{first.photo.path.name}, byte for byte"
    assert {one.reason for one in refused} == {why}
    assert calibration.copies(split(cat=4, dog=4), chosen) == ()


def test_photos_are_spread_over_their_features():
    """Nine cats that are alike and one that isn't: that one is always taken."""
    rows = [r for r in split(cat=10, dog=10).rows if r.part == "train"]
    features = np.zeros((20, 2), np.float32)
    features[:10, 0] = np.arange(10) / 100
    features[7] = (5.0, 5.0)
    features[10:] = np.random.default_rng(0).random((10, 2))
    chosen = calibration.select_diverse(rows, features, 6)
    assert rows[7] in chosen and len({row.sha256 for row in chosen}) == 6
    assert Counter(row.photo.label for row in chosen) == {"cat": 3, "dog": 3}
    assert calibration.select_diverse(rows, features, 100)  # all there are
    assert len(calibration.select_diverse(rows, features, 100)) == 20


def test_copies_saved_again_come_last():
    rows = [r for r in split(cat=6).rows if r.part == "train"]
    features = np.array([[0.0], [0.0], [0.0], [1.0], [2.0], [4.0]], np.float32)
    values = {
        float(features[rows.index(r), 0])
        for r in calibration.select_diverse(rows, features, 4)
    }
    assert values == {0.0, 1.0, 2.0, 4.0}


def test_too_small_a_count_is_refused():
    with pytest.raises(EdgegraftError, match="at least 2 calibration photos"):
        calibration.choose(split(cat=5, dog=5), 1)


def test_a_run_without_training_photos_is_refused():
    with pytest.raises(EdgegraftError, match="got an empty part"):
        calibration.choose(split(cat=0, dog=0), 10)


def test_copies_in_pixels_and_blank_photos_are_sifted_out():
    rows = [r for r in split(cat=3, dog=3).rows if r.part == "train"]
    photos = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
    photos[2] = photos[1]  # saved as another file
    photos[4] = 200
    kept, refused = calibration.sift(rows, list(photos))
    assert kept == (rows[0], rows[1], rows[3], rows[5])
    told = {one.row: one.reason for one in refused}
    assert told == {
        rows[2]: f"a copy of cat/{rows[1].photo.path.name}, pixel for pixel",
        rows[4]: "of one colour",
    }
    assert calibration.summary(refused) == "1 of one colour, 1 a copy of another"


@pytest.mark.parametrize("blank", [True, False])
def test_a_constant_set_is_refused(blank):
    """All of one colour, each of its own; or all the same picture."""
    rows = [r for r in split(cat=3, dog=3).rows if r.part == "train"]
    photos = np.zeros((6, 4, 4, 3), np.uint8)
    photos[:] = np.arange(6)[:, None, None, None]
    why = r"got 6 \(6 of one colour\)"
    if not blank:
        photos[:] = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
        why = r"got 6 \(5 copies of others\)"
    with pytest.raises(EdgegraftError, match=why):
        calibration.sift(rows, list(photos))


def test_the_list_is_written_with_paths_from_the_root(tmp_path):
    chosen = calibration.choose(split(cat=5, dog=5), 4)
    path = tmp_path / "calibration.csv"
    other = calibration.Refused(chosen[0], chosen[1], "byte for byte")
    calibration.write_csv(path, chosen, ROOT, [other])
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "label", "sha256", "refused"]
    assert [row[2] for row in rows[1:5]] == [row.sha256 for row in chosen]
    assert [row[3] for row in rows[1:]] == ["", "", "", "", other.reason]
    assert rows[1][0] == f"{rows[1][1]}/{chosen[0].photo.path.name}"
    assert list(tmp_path.iterdir()) == [path]
