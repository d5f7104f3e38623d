"""`data.folders`: which folders are parts, which are labels, under whatever names."""

import hashlib
import json
from pathlib import Path

import pytest

from data.folders import part_of
from data.source import PhotoOptions, labelled, scan
from edge.errors import EdgegraftError

LABELS, PARTS = PhotoOptions(layout="labels"), PhotoOptions(layout="parts")


def fill(root: Path, *folders: str) -> Path:
    """Two empty photos in each folder."""
    for name in folders:
        folder = root / name
        folder.mkdir(parents=True)
        for number in (1, 2):
            (folder / f"{number}.jpg").touch()
    return root


def both(*parts: str) -> list[str]:
    return [f"{part}/{label}" for part in parts for label in ("cat", "dog")]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train", "train"),
        ("Training Set", "train"),
        ("training_set", "train"),
        ("seg_train", "train"),
        ("trainset", "train"),
        ("TrainData", "train"),
        ("train_images_224x224", "train"),
        ("train1", "train"),
        ("val2017", "val"),
        ("dev", "val"),
        ("val", "val"),
        ("valid", "val"),
        ("validation_set", "val"),
        ("test-set", "test"),
        ("testing", "test"),
        ("seg_pred", "predict"),
        ("trainer", None),
        ("steam train", None),
        ("contest", None),
        ("images", None),
    ],
)
def test_names_of_parts(name: str, part: str | None) -> None:
    assert part_of(name) == part


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("train/images", "test/images"),
        ("asl_alphabet_train/asl_alphabet_train", "asl_alphabet_test"),
        ("pets/train", "pets/test"),
        ("train1", "test1"),
    ],
)
def test_parts_are_never_labels(tmp_path: Path, train: str, test: str) -> None:
    found = scan(fill(tmp_path, *both(train, test)))
    assert found.labels == ("cat", "dog")
    assert found.parts == ("train", "test")
    for photo in found.photos:
        assert photo.part == ("train" if "train" in str(photo.path) else "test")
    assert len(found.notes()) == 1


def test_a_train_folder_alone_holds_the_labels(tmp_path: Path) -> None:
    found = scan(fill(tmp_path, *both("training_set")))
    assert (found.labels, found.parts) == (("cat", "dog"), ())
    assert found.notes() == ["the label folders are those in training_set"]


def test_each_label_may_have_its_own_parts(tmp_path: Path) -> None:
    folders = [f"{label}/{part}" for label in ("cat", "dog") for part in PARTS_HERE]
    found = scan(fill(tmp_path, *folders))
    assert (found.labels, found.parts) == (("cat", "dog"), ("train", "test"))
    fill(tmp_path, "fox")
    with pytest.raises(EdgegraftError, match="got parts in cat, dog only; move them"):
        scan(tmp_path)
    assert scan(tmp_path, LABELS).labels == ("cat", "dog", "fox")


PARTS_HERE = ("train", "test")


def test_photos_to_predict_are_left_out(tmp_path: Path) -> None:
    fill(tmp_path, *both("seg_train", "seg_test"), "seg_pred/seg_pred")
    found = scan(tmp_path)
    assert found.parts == ("train", "test") and len(found.photos) == 8
    assert "left out, 2 photos in seg_pred: they have no label" in found.notes()


SPELLED = ["cat_train", "cat_test", "dog_train", "dog_test"]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ([*both("train", "test"), "dog"], "or only test, train as parts with --layout"),
        (both("train", "training"), "one folder for each part, got train, training;"),
        (SPELLED, "look like the parts of labels: cat_test, cat_train, dog_t"),
        (["train", "test", "cat"], "or only test, train as parts"),
    ],
)
def test_what_is_unclear_is_refused_with_the_way_out(
    tmp_path: Path, folders: list[str], message: str
) -> None:
    fill(tmp_path, *folders)
    with pytest.raises(EdgegraftError, match=message) as caught:
        scan(tmp_path)
    assert "--layout labels" in str(caught.value)
    tops = {folder.split("/")[0] for folder in folders}
    assert set(scan(tmp_path, LABELS).labels) == tops


def test_what_lies_beside_the_parts_is_left_out(tmp_path: Path) -> None:
    fill(tmp_path, *both("train", "test"), "extra")
    for options in (None, PARTS):
        found = scan(tmp_path, options)
        assert (found.labels, found.parts) == (("cat", "dog"), ("train", "test"))
        assert found.notes() == ["left out, beside the parts: extra"]
    with pytest.raises(EdgegraftError, match="named train, val or test with --layout"):
        scan(fill(tmp_path / "flat", "cat", "dog"), PARTS)


def test_a_part_may_lack_a_label(tmp_path: Path) -> None:
    fill(tmp_path, *both("train"), "test/cat", "val/dog", "val/fox")
    found = scan(tmp_path)
    assert found.labels == ("cat", "dog")
    assert found.notes() == [
        "val has no photos of cat: it is not measured there",
        "left out, 2 photos in val of fox: train has none",
        "test has no photos of dog: it is not measured there",
    ]


def test_what_to_measure_on(tmp_path: Path) -> None:
    fill(tmp_path / "parts", *both("train", "test"))
    read = labelled(tmp_path / "parts")
    assert len(read.photos) == 4 and read.root == tmp_path / "parts"
    assert read.what == f"the 4 photos of the test part of {tmp_path / 'parts'}"
    read = labelled(tmp_path / "parts" / "test")
    assert {photo.label for photo in read.photos} == {"cat", "dog"}
    fill(tmp_path / "alone", *both("test"))
    assert len(labelled(tmp_path / "alone").photos) == 4


def test_a_runs_own_test_photos(tmp_path: Path) -> None:
    fill(tmp_path / "photos", "cat", "dog")
    empty = hashlib.sha256(b"").hexdigest()
    run = tmp_path / "run"
    rows = [f"cat/{i}.jpg,cat,test,{empty}" for i in (1, 2)]
    run.mkdir()
    (run / "split.csv").write_text(
        "\n".join(["path,label,split,sha256", *rows, f"dog/1.jpg,dog,train,{empty}"])
    )
    with pytest.raises(EdgegraftError, match="expected photos in"):
        labelled(run)
    (run / "run.json").write_text("{}")
    with pytest.raises(EdgegraftError, match="expected a run that names its photos"):
        labelled(run)
    (run / "run.json").write_text(json.dumps({"photos": str(tmp_path / "photos")}))
    read = labelled(run)
    assert [photo.path.parent.name for photo in read.photos] == ["cat", "cat"]
    assert read.what == f"the 2 test photos of {run}"
    (tmp_path / "photos" / "cat" / "2.jpg").write_text("another")
    with pytest.raises(EdgegraftError, match=r"2.jpg: expected the photo that .*run"):
        labelled(run)
