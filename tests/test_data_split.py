"""`data.split`: stratified, repeatable, no file on two sides, kept on disk."""

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from data.folder import Photo
from data.split import Split, make_folds, make_split
from edge.errors import EdgegraftError

ROOT = Path(__file__).parents[1]
FOLDER = Path("photos")


def digest(content: object) -> str:
    return hashlib.sha256(ascii(content).encode()).hexdigest()


def photos(label: str, count: int, part: str | None = None) -> list[Photo]:
    place = FOLDER / (part or "") / label
    return [Photo(place / f"{i:04}.jpg", label, part) for i in range(count)]


def all_different(some: list[Photo]) -> dict[Path, str]:
    return {photo.path: digest(photo.path) for photo in some}


def parts_of(split: Split) -> dict[Path, str]:
    return {row.photo.path: row.part for row in split.rows}


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


def test_a_given_test_part_stays_even_if_its_photos_are_in_train_too() -> None:
    given = photos("cat", 5, "test") + photos("dog", 5, "test")
    pool = photos("cat", 10, "train") + photos("dog", 10, "train")
    digests = all_different(given + pool)
    digests[pool[0].path] = digests[given[0].path]  # the audit says so
    assert list(make_split(given + pool, digests).part("test")) == given


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
    with pytest.raises(EdgegraftError, match=r"the test photos of 'dog': .* got 0"):
        make_split(some, all_different(some))


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


def test_it_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    some = photos("cat, big", 9) + photos('d"ög', 9)
    some.append(Photo(FOLDER / "cat, big" / "caf\udce9\nx.jpg", "cat, big"))
    split = make_split(some, all_different(some))
    path = tmp_path / "split.csv"
    split.write(path, FOLDER)
    assert path.read_bytes().startswith(b"path,label,split,sha256\n")
    assert Split.read(path, FOLDER) == split
    assert Split.read(path, Path("moved")).fingerprint == split.fingerprint
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_split_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    path.write_text("precious")
    some = photos("cat", 9) + photos("dog", 9)
    split = make_split(some, all_different(some))
    with pytest.raises(EdgegraftError, match="choose another name or add --overwrite"):
        split.write(path, FOLDER)
    assert path.read_text() == "precious"
    split.write(path, FOLDER, overwrite=True)
    assert Split.read(path, FOLDER) == split


def test_no_folder_to_write_into(tmp_path: Path) -> None:
    some = photos("cat", 9) + photos("dog", 9)
    split = make_split(some, all_different(some))
    with pytest.raises(EdgegraftError, match="got: No such file or directory"):
        split.write(tmp_path / "gone" / "split.csv", FOLDER)


FULL_DISK = """
import resource, sys
from pathlib import Path
from data.folder import Photo
from data.split import Row, Split
from edge.errors import EdgegraftError
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
rows = [Row(Photo(Path(f"{i}.jpg"), "cat"), "train", "0" * 64) for i in range(1000)]
try:
    Split(tuple(rows)).write(sys.argv[1], Path(), overwrite=True)
except EdgegraftError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_old_split_and_no_half_file(tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    path.write_text("precious")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "expected a place to write the split to, got: File too large" in done.stdout
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the first line 'path,label,split,sha256', got ''"),
        ("path,label\na.jpg,cat\n", "got 'path,label'"),
        ("path,label,split,sha256\na.jpg,cat,train\n", "line 2: expected path, label"),
        (f"path,label,split,sha256\na.jpg,cat,exam,{'0' * 64}\n", "line 2: .*exam"),
        ("path,label,split,sha256\na.jpg,cat,train,12\n", "line 2: .*sha256"),
        ('path,label,split,sha256\n"' + "a" * 200_000, "field larger"),
    ],
)
def test_what_is_no_split_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "split.csv"
    path.write_text(text)
    with pytest.raises(EdgegraftError, match=message):
        Split.read(path, FOLDER)


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        EdgegraftError, match=r"expected a split.csv, got: No such file"
    ):
        Split.read(tmp_path / "split.csv", FOLDER)


def sides(split: Split, pairs: list[tuple[Path, Path]]) -> int:
    """How many pairs lie on two sides."""
    parts = parts_of(split)
    return sum(parts[one] != parts[two] for one, two in pairs)


def test_near_duplicates_stay_on_one_side() -> None:
    some = photos("cat", 400) + photos("dog", 400)
    pairs = [(some[2 * i].path, some[2 * i + 1].path) for i in range(200)]
    digests = all_different(some)
    for seed in range(5):
        split = make_split(some, digests, seed=seed, together=pairs)
        assert sides(split, pairs) == 0
        assert sides(make_split(some, digests, seed=seed), pairs) > 20
        assert split.counts()["dog"] == {"train": 280, "val": 60, "test": 60}


def test_what_links_chain_together_stays_together() -> None:
    some = photos("cat", 30) + photos("dog", 30)
    digests = all_different(some)
    digests[some[40].path] = digests[some[2].path]  # the same bytes as well
    chain = [(some[i].path, some[i + 1].path) for i in range(5)]
    for seed in range(10):
        parts = parts_of(make_split(some, digests, seed=seed, together=chain))
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


def test_with_the_split_before_no_photo_moves() -> None:
    some = photos("cat", 200) + photos("dog", 200)
    digests = all_different(some)
    first = make_split([*some[:150], *some[200:330]], digests)
    before = parts_of(first)
    split = make_split(some, digests, keep=first)
    after = parts_of(split)
    assert all(after[path] == part for path, part in before.items())
    assert split.counts()["cat"] == {"train": 140, "val": 30, "test": 30}
    renamed = [Photo(Path("new") / p.path, p.label) for p in some]
    moved = {
        new.path: digests[old.path] for new, old in zip(renamed, some, strict=True)
    }
    again = make_split(renamed, moved, keep=first)
    assert again.fingerprint == split.fingerprint


def test_a_copy_of_an_old_photo_joins_it() -> None:
    some = photos("cat", 40) + photos("dog", 40)
    first = make_split(some, all_different(some), val=0.3, test=0.3)
    tested = first.part("test")[0]
    new = Photo(FOLDER / "cat" / "new.jpg", tested.label)
    links = [(new.path, tested.path)]
    everything = [new, *some]
    split = make_split(
        everything, all_different(everything), keep=first, together=links
    )
    assert parts_of(split)[new.path] == "test"
    assert all(parts_of(split)[p] == part for p, part in parts_of(first).items())


@pytest.mark.parametrize("folds", [3, 5])
def test_folds_test_every_photo_once(folds: int) -> None:
    some = photos("cat", 50) + photos("dog", 31)
    pairs = [(some[i].path, some[i + 1].path) for i in range(0, 40, 2)]
    splits = make_folds(some, all_different(some), folds, seed=1, together=pairs)
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
