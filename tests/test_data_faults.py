"""The audit against a known truth: a drawn set with planted faults."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.audit.audit import Audit, audit
from data.sample import picture
from data.sample.sample_set import (
    FAULT_SHARES,
    NEAR_COPIES,
    FaultySet,
    plant_faults,
    write_faulty,
    write_sample,
)
from data.source import scan
from edge.errors import EdgegraftError

COUNT = 30  # of each label: a near-duplicate of each kind is planted


@pytest.fixture(scope="module", autouse=True)
def drawn_once() -> Iterator[None]:
    """A picture depends on its number and the seed alone, and takes a while."""
    with pytest.MonkeyPatch.context() as patch:
        once = functools.cache(picture.picture_file)
        patch.setattr(picture, "picture_file", once)
        patch.setattr(picture, "cores", lambda: 1)  # in this process
        yield


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> FaultySet:
    return write_faulty(tmp_path_factory.mktemp("faulty") / "set", count=COUNT, seed=3)


@pytest.fixture(scope="module")
def report(faulty: FaultySet) -> Audit:
    return audit(scan(faulty.photos))


def paths(report: Audit, *kinds: str) -> set[str]:
    root = report.folder.root
    return {
        finding.path.relative_to(root).as_posix()
        for finding in report.findings
        if finding.kind in kinds
    }


def test_the_truth_lies_beside_the_photos(faulty: FaultySet) -> None:
    record = json.loads((faulty.photos.parent / "faults.json").read_text("utf-8"))
    assert record["faults"] == faulty.faults
    assert set(faulty.faults) == set(FAULT_SHARES)
    assert {how for _, _, how in faulty.faults["near-duplicate"]} == set(NEAR_COPIES)
    for planted in faulty.faults.values():
        assert all((faulty.photos / path).is_file() for path, *_ in planted)
    spoiled = [path for planted in faulty.faults.values() for path, *_ in planted]
    assert len(spoiled) == len(set(spoiled))


def test_wrong_labels_lie_in_the_other_folder(faulty: FaultySet) -> None:
    for path, true in faulty.faults["wrong-label"]:
        assert path.split("/")[0] != true
        assert f"_from_{true}." in path


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        ("damaged", "unreadable"),
        ("wrong-ending", "wrong-ending"),
        ("dark", "dark"),
        ("bright", "bright"),
        ("blank", "blank"),
    ],
)
def test_all_are_found_and_nothing_else(
    faulty: FaultySet, report: Audit, planted: str, kind: str
) -> None:
    assert paths(report, kind) == {path for (path,) in faulty.faults[planted]}


def test_blurred_photos_are_found(faulty: FaultySet, report: Audit) -> None:
    # The drawings have out-of-focus ones among them, which it may name as well.
    assert {path for (path,) in faulty.faults["blurred"]} <= paths(report, "blurred")
    assert len(paths(report, "blurred")) <= 2 + len(faulty.faults["blurred"])


@pytest.mark.parametrize("kind", ["duplicate", "near-duplicate"])
def test_copies_are_found_with_what_they_are_copies_of(
    faulty: FaultySet, report: Audit, kind: str
) -> None:
    root = report.folder.root
    found = {
        frozenset(p.relative_to(root).as_posix() for p in (f.path, *f.others))
        for f in report.findings
        if f.kind == kind
    }
    assert found == {frozenset((a, b)) for a, b, _ in faulty.faults[kind]}


def test_one_seed_plants_the_same(faulty: FaultySet, tmp_path: Path) -> None:
    again = write_faulty(tmp_path / "again", count=COUNT, seed=3)
    assert again.faults == faulty.faults
    names = sorted(path.name for path in faulty.photos.rglob("*"))
    assert sorted(path.name for path in again.photos.rglob("*")) == names
    whole = write_sample(tmp_path / "whole", count=COUNT, seed=3, unknown=0)
    assert plant_faults(whole.photos, seed=4) != faulty.faults


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(EdgegraftError, match="expected a new folder"):
        write_faulty(tmp_path / "set")
    with pytest.raises(EdgegraftError, match="count of 20 or more, got 3"):
        write_faulty(tmp_path / "new", count=3)
    assert list(tmp_path.iterdir()) == [tmp_path / "set"]
