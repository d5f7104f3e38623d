"""`data.split`: stratified, repeatable, given parts kept."""

from collections import Counter
from pathlib import Path

import pytest

from data.photos import Photo
from data.split import make_split
from edge.errors import EdgegraftError
from tests.data_room import all_different, digest, parts_of, photos


def test_each_label_gets_its_shares() -> None:
    some = photos("cat", 100) + photos("dog", 40)
    split = make_split(some, all_different(some), val=0.2, test=0.1)
    assert split.counts() == {
        "cat": {"train": 70, "val": 20, "test": 10},
        "dog": {"train": 28, "val": 8, "test": 4},
    }
    assert split.labels == ("cat", "dog")
    assert [row.photo for row in split.rows] == some
    together = split.part("train") + split.part("val") + split.part("test")
    assert Counter(together) == Counter(some)


@pytest.mark.parametrize("count", range(3, 12))
@pytest.mark.parametrize("share", [0.01, 0.15, 0.45])
def test_every_part_has_every_label(count: int, share: float) -> None:
    some = photos("cat", count) + photos("dog", 3)
    split = make_split(some, all_different(some), val=share, test=share)
    assert all(all(row.values()) for row in split.counts().values())


def test_the_seed_decides() -> None:
    some = photos("cat", 60) + photos("dog", 60)
    digests = all_different(some)
    first = make_split(some, digests, seed=1)
    assert first == make_split(some, digests, seed=1)
    other = make_split(some, digests, seed=2)
    assert first.part("test") != other.part("test")
    assert first.fingerprint != other.fingerprint


def test_names_and_order_do_not_matter_but_bytes_do() -> None:
    some = photos("cat", 30) + photos("dog", 30)
    digests = all_different(some)
    split = make_split(some, digests)
    renamed = [Photo(Path("elsewhere") / p.path.name, p.label) for p in some[::-1]]
    renamed = [
        Photo(p.path.with_name(f"{i}.jpg"), p.label) for i, p in enumerate(renamed)
    ]
    moved = {
        new.path: digests[old.path]
        for new, old in zip(renamed, some[::-1], strict=True)
    }
    again = make_split(renamed, moved)
    assert again.fingerprint == split.fingerprint
    moved[renamed[0].path] = digest("edited")
    assert make_split(renamed, moved).fingerprint != split.fingerprint


def test_a_photo_added_later_moves_few_others() -> None:
    some = photos("cat", 200) + photos("dog", 200)
    before = parts_of(make_split(some[1:], all_different(some)))
    after = parts_of(make_split(some, all_different(some)))
    assert sum(before[path] != after[path] for path in before) <= 2


def test_photos_without_a_digest_are_left_out() -> None:
    some = photos("cat", 10) + photos("dog", 10)
    digests = all_different(some)
    del digests[some[4].path]
    split = make_split(some, digests)
    assert len(split.rows) == 19
    assert some[4].path not in parts_of(split)


def test_a_given_test_part_is_never_touched() -> None:
    given = photos("cat", 9, "test") + photos("dog", 7, "test")
    pool = photos("cat", 40, "train") + photos("dog", 40, "train")
    split = make_split(given + pool, all_different(given + pool), val=0.25)
    assert list(split.part("test")) == given
    assert split.counts()["cat"] == {"train": 30, "val": 10, "test": 9}


def test_three_given_parts_are_kept_as_they_are() -> None:
    given = [
        photo
        for part in ("train", "val", "test")
        for label in ("cat", "dog")
        for photo in photos(label, 2, part)
    ]
    split = make_split(given, all_different(given))
    assert all(row.part == row.photo.part for row in split.rows)


@pytest.mark.parametrize(
    ("cats", "message"),
    [
        (
            photos("cat", 2),
            "label 'cat': expected at least 3 .*train, val, test.* got 2",
        ),
        (photos("cat", 1), "got 1"),
    ],
)
def test_too_few_photos(cats: list[Photo], message: str) -> None:
    some = cats + photos("dog", 9)
    with pytest.raises(EdgegraftError, match=message):
        make_split(some, all_different(some))


def test_copies_do_not_make_a_label() -> None:
    some = photos("cat", 5) + photos("dog", 9)
    digests = all_different(some) | {p.path: digest("one") for p in some[:5]}
    with pytest.raises(EdgegraftError, match=r"label 'cat': .* differ .* got 1;"):
        make_split(some, digests)


def test_a_label_whose_photos_are_all_under_another_one() -> None:
    some = photos("cat", 30) + photos("dog", 3)
    digests = all_different(some)
    for i in range(3):
        digests[some[30 + i].path] = digests[some[i].path]
    with pytest.raises(EdgegraftError, match=r"label 'dog'.* same files under another"):
        make_split(some, digests)


def test_a_label_that_the_given_test_part_lacks() -> None:
    some = (
        photos("cat", 5, "test") + photos("cat", 9, "train") + photos("dog", 9, "train")
    )
    split = make_split(some, all_different(some))
    assert split.counts()["dog"]["test"] == 0 < split.counts()["dog"]["val"]
    readable = {k: v for k, v in all_different(some).items() if "test" not in k.parts}
    with pytest.raises(EdgegraftError, match="test: expected photos that can be read"):
        make_split(some, readable)


def test_a_label_that_only_the_test_part_has() -> None:
    some = [p for label in ("cat", "dog") for p in photos(label, 9, "train")]
    some += [p for label in ("cat", "dog", "fox") for p in photos(label, 5, "test")]
    with pytest.raises(EdgegraftError, match=r"the train photos of 'fox': .* got 0"):
        make_split(some, all_different(some))


@pytest.mark.parametrize(("val", "test"), [(0, 0.2), (0.2, 0), (0.5, 0.5), (-1, 0.1)])
def test_shares_that_make_no_sense(val: float, test: float) -> None:
    some = photos("cat", 9) + photos("dog", 9)
    with pytest.raises(EdgegraftError, match="together below 1, got"):
        make_split(some, all_different(some), val=val, test=test)


def test_with_the_split_before_no_photo_moves() -> None:
    some = photos("cat", 200) + photos("dog", 200)
    digests = all_different(some)
    first = make_split([*some[:150], *some[200:330]], digests)
    before = parts_of(first)
    split = make_split(some, digests, previous=first)
    after = parts_of(split)
    assert all(after[path] == part for path, part in before.items())
    assert split.counts()["cat"] == {"train": 140, "val": 30, "test": 30}
    renamed = [Photo(Path("new") / p.path, p.label) for p in some]
    moved = {
        new.path: digests[old.path] for new, old in zip(renamed, some, strict=True)
    }
    again = make_split(renamed, moved, previous=first)
    assert again.fingerprint == split.fingerprint
