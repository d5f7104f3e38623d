"""The six drawn animals, `--classes`, and the same animal in several poses."""

import csv
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgegraft
from data.audit.audit import audit
from data.photos import scan
from data.sample.picture import draw_picture
from data.sample.sample import ANIMALS, STREAMS, write_sample
from data.sample.sketch import Sketch
from data.sample.snapshot import picture
from data.sample.species import SPECIES
from edge.errors import EdgegraftError


@pytest.mark.parametrize("name", ANIMALS)
def test_every_pose_is_drawn_within_its_extent(name: str) -> None:
    """A pose that left its extent would lose its head at the picture's edge."""
    unit, margin = 24, 40
    for key, pose in SPECIES[name].poses.items():
        left, right, tall = pose.extent
        size = [round((left + right) * unit), round(tall * unit)]
        blank = Image.new("RGB", (size[0] + 2 * margin, size[1] + 2 * margin), "white")
        here = blank.copy()
        sketch = Sketch(here, shadows=False)
        animal = SPECIES[name].make(np.random.default_rng(4))
        place = sketch.at(margin + left * unit, margin + tall * unit, unit)
        pose.draw(place, replace(animal, rng=np.random.default_rng(7)))
        drawn = (np.asarray(here) != np.asarray(blank)).any(2)
        inside = drawn[: margin + size[1], margin : margin + size[0]].sum()
        above = drawn[: margin + size[1]].sum()
        assert inside > 0.9 * above, key
        assert inside > 0.12 * size[0] * size[1], key


def test_one_animal_looks_the_same_in_every_pose() -> None:
    for name in ANIMALS:
        one, same, other = (
            SPECIES[name].make(np.random.default_rng([1, number]))
            for number in (5, 5, 6)
        )
        looks = [
            {f.name: getattr(animal, f.name) for f in fields(animal) if f.name != "rng"}
            for animal in (one, same, other)
        ]
        assert looks[0] == looks[1] != looks[2]


def test_the_animal_and_its_place_are_drawn_apart() -> None:
    """Same place, another animal; same animal, another place."""

    def drawn(place: int, animal: int) -> bytes:
        return draw_picture(
            "bear",
            np.random.default_rng(place),
            plain=True,
            individual=np.random.default_rng(animal),
        ).tobytes()

    one = drawn(1, 1)
    assert drawn(1, 1) == one
    assert len({one, drawn(1, 2), drawn(2, 1), drawn(2, 2)}) == 4
    data = [picture("bear", seed=0, stream=4, index=k, animal=9)[1] for k in range(3)]
    assert len(set(data)) == 3


def test_cats_do_not_depend_on_the_other_classes(tmp_path: Path) -> None:
    two = write_sample(tmp_path / "two", count=2, seed=5, unknown=0)
    some = write_sample(
        tmp_path / "some", count=2, seed=5, unknown=0, classes=("turtle", "cat")
    )
    assert sorted(path.name for path in some.photos.iterdir()) == ["cat", "turtle"]
    for path in (two.photos / "cat").iterdir():
        assert (some.photos / "cat" / path.name).read_bytes() == path.read_bytes()
    assert [path.name for path in some.tests] == ["test_cat.jpg", "test_turtle.jpg"]
    assert all(path.is_file() for path in some.tests)
    with pytest.raises(EdgegraftError, match="another sample set"):
        write_sample(tmp_path / "some", count=2, seed=5, unknown=0)


def test_the_list_names_the_groups(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "sample", str(tmp_path / "set"), "--count", "7", "--poses", "3"]
    assert edgegraft.main([*command, "--classes", "bird,rabbit"]) == 0
    listed = tmp_path / "set" / "photos.csv"
    assert str(listed) in capsys.readouterr().out
    folder = scan(listed)
    assert folder.labels == ("bird", "rabbit") and len(folder.photos) == 14
    with open(listed, newline="") as file:
        groups = [row["group"] for row in csv.DictReader(file)]
    assert groups.count("bird-0") == 3 and groups.count("rabbit-2") == 1
    assert not [f for f in audit(folder).findings if f.kind == "near-duplicate"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--classes", "cat,unicorn"], "expected classes of cat, dog, rabbit"),
        (["--classes", "cat"], "expected two classes or more"),
        (["--classes", "cat,cat"], "each once"),
        (["--poses", "0"], "poses from 1"),
        (["--poses", "2", "--faults"], "--faults or --poses"),
    ],
)
def test_wrong_options_are_refused(
    tmp_path: Path, options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edgegraft.main(["data", "sample", str(tmp_path / "set"), *options]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_animals_are_told_apart_by_shape_not_by_colour() -> None:
    """Mean colours say little: every animal has every coat and every place."""
    seen, truth = [], []
    for number, name in enumerate(ANIMALS):
        for index in range(16):
            rng = np.random.default_rng([3, STREAMS[name], index])
            image = draw_picture(name, rng).resize((8, 8))
            seen.append(np.asarray(image, float).mean((0, 1)))
            truth.append(number)
    colours, numbers = np.array(seen), np.array(truth)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = numbers[distances.argmin(1)]
    assert (nearest == numbers).mean() < 0.4  # chance is 0.17
