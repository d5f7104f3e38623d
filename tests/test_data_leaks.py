"""`data.split`: no file, near-duplicate or group on two sides; folds."""

from collections import Counter
from pathlib import Path

import pytest

from data.photos import Photo
from data.split import Split, make_folds, make_split
from edge.errors import EdgegraftError
from tests.data_room import FOLDER, all_different, digest, parts_of, photos


def test_copies_stay_on_one_side() -> None:
    some = photos("cat", 90) + photos("dog", 90)
    digests = {
        p.path: digest((p.label, i // 3)) if i < 60 else digest(p.path)
        for i, p in enumerate(some)
    }
    for seed in range(5):
        split = make_split(some, digests, seed=seed)
        sides: dict[str, set[str]] = {}
        for row in split.rows:
            sides.setdefault(row.sha256, set()).add(row.part)
        assert all(len(parts) == 1 for parts in sides.values())
        assert split.counts()["cat"] == {"train": 62, "val": 14, "test": 14}


def test_copies_under_two_labels_stay_on_one_side() -> None:
    some = photos("cat", 20) + photos("dog", 20)
    digests = all_different(some)
    for i in range(5):
        digests[some[20 + i].path] = digests[some[i].path]
    parts = parts_of(make_split(some, digests, val=0.3, test=0.3))
    assert all(parts[some[i].path] == parts[some[20 + i].path] for i in range(5))


def test_copies_only_is_still_split() -> None:
    some = photos("cat", 6) + photos("dog", 6)
    digests = {p.path: digest((p.label, i // 2)) for i, p in enumerate(some)}
    assert make_split(some, digests).counts()["cat"] == {
        "train": 2,
        "val": 2,
        "test": 2,
    }


def test_a_given_test_part_stays_even_if_its_photos_are_in_train_too() -> None:
    given = photos("cat", 5, "test") + photos("dog", 5, "test")
    pool = photos("cat", 10, "train") + photos("dog", 10, "train")
    digests = all_different(given + pool)
    digests[pool[0].path] = digests[given[0].path]  # the audit says so
    assert list(make_split(given + pool, digests).part("test")) == given


def sides(split: Split, pairs: list[tuple[Path, Path]]) -> int:
    """How many pairs lie on two sides."""
    parts = parts_of(split)
    return sum(parts[one] != parts[two] for one, two in pairs)


def test_near_duplicates_stay_on_one_side() -> None:
    some = photos("cat", 400) + photos("dog", 400)
    pairs = [(some[2 * i].path, some[2 * i + 1].path) for i in range(200)]
    digests = all_different(some)
    for seed in range(5):
        split = make_split(some, digests, seed=seed, near_duplicates=pairs)
        assert sides(split, pairs) == 0
        assert sides(make_split(some, digests, seed=seed), pairs) > 20
        assert split.counts()["dog"] == {"train": 280, "val": 60, "test": 60}


def test_what_links_chain_together_stays_together() -> None:
    some = photos("cat", 30) + photos("dog", 30)
    digests = all_different(some)
    digests[some[40].path] = digests[some[2].path]  # the same bytes as well
    chain = [(some[i].path, some[i + 1].path) for i in range(5)]
    for seed in range(10):
        parts = parts_of(make_split(some, digests, seed=seed, near_duplicates=chain))
        assert len({parts[some[i].path] for i in (0, 1, 2, 3, 4, 5, 40)}) == 1


def test_groups_stay_on_one_side() -> None:
    some = [
        Photo(p.path, p.label, group=f"animal {i // 4}")
        for i, p in enumerate(photos("cat", 80) + photos("dog", 80))
    ]
    split = make_split(some, all_different(some), val=0.2, test=0.2)
    groups: dict[str | None, set[str]] = {}
    for row in split.rows:
        groups.setdefault(row.photo.group, set()).add(row.part)
    assert len(groups) == 40
    assert all(len(parts) == 1 for parts in groups.values())
    assert split.counts()["cat"] == {"train": 48, "val": 16, "test": 16}


def test_one_group_for_a_label_cannot_be_split() -> None:
    some = [Photo(p.path, p.label, group="one cat") for p in photos("cat", 9)]
    some += photos("dog", 9)
    with pytest.raises(EdgegraftError, match=r"label 'cat'.* belong to one group"):
        make_split(some, all_different(some))


def test_a_copy_of_an_old_photo_joins_it() -> None:
    some = photos("cat", 40) + photos("dog", 40)
    first = make_split(some, all_different(some), val=0.3, test=0.3)
    tested = first.part("test")[0]
    new = Photo(FOLDER / "cat" / "new.jpg", tested.label)
    links = [(new.path, tested.path)]
    everything = [new, *some]
    split = make_split(
        everything, all_different(everything), previous=first, near_duplicates=links
    )
    assert parts_of(split)[new.path] == "test"
    assert all(parts_of(split)[p] == part for p, part in parts_of(first).items())


@pytest.mark.parametrize("folds", [3, 5])
def test_folds_test_every_photo_once(folds: int) -> None:
    some = photos("cat", 50) + photos("dog", 31)
    pairs = [(some[i].path, some[i + 1].path) for i in range(0, 40, 2)]
    splits = make_folds(some, all_different(some), folds, seed=1, near_duplicates=pairs)
    assert len(splits) == folds
    tested = [photo for split in splits for photo in split.part("test")]
    assert Counter(tested) == Counter(some)
    for split in splits:
        assert sides(split, pairs) == 0
        assert len(split.rows) == 81
        assert abs(split.counts()["cat"]["test"] - 50 / folds) <= 2
        assert abs(split.counts()["dog"]["val"] - 31 / folds) <= 2


def test_folds_that_cannot_be() -> None:
    some = photos("cat", 4) + photos("dog", 9)
    with pytest.raises(EdgegraftError, match=r"expected 5 photos or more .* got 4"):
        make_folds(some, all_different(some), 5)
    with pytest.raises(EdgegraftError, match="3 folds or more, got 2"):
        make_folds(some, all_different(some), 2)
    given = photos("cat", 9, "train") + photos("dog", 9, "test")
    with pytest.raises(EdgegraftError, match="without a val or test part"):
        make_folds(given, all_different(given), 3)
