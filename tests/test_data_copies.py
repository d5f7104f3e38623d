"""`data.audit.copies`: of several copies the best one is kept, and one always is."""

import csv
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from data.audit import near_duplicates
from data.audit.audit import Audit, audit
from data.audit.copies import same_files
from data.audit.facts import THUMB, FactStore, PhotoFacts
from data.audit.keypoints import ROW
from data.audit.report import write
from data.photos import Photo, PhotoFolder
from data.source import scan
from data.split import connected_groups, make_split

SHARP, SOFT = 0.1, 0.9


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEGRAFT_CACHE", str(tmp_path / "cache"))


def picture(seed: int) -> Image.Image:
    """Shapes that any copy keeps, and grain that blur takes away."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(40, 215, (18, 24, 3), np.uint8))
    large = np.asarray(small.resize((480, 360), Image.Resampling.NEAREST), np.int16)
    grain = rng.integers(-30, 31, (360, 480, 1))
    return Image.fromarray((large + grain).clip(0, 255).astype(np.uint8))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, label in enumerate(("cat", "dog") * 4):
        path = tmp_path / "photos" / label / f"m{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    return tmp_path / "photos"


def names(paths: Iterable[Path]) -> set[str]:
    return {path.name for path in paths}


def rows(report: Audit, out: Path) -> dict[str, dict[str, str]]:
    write(report, out)
    with open(out / "audit.csv", newline="", encoding="utf-8") as file:
        return {Path(row["path"]).name: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("name", ["a.png", "z.png"])
def test_the_sharp_one_is_kept_whatever_its_name(
    root: Path, tmp_path: Path, name: str
) -> None:
    soft = picture(0).filter(ImageFilter.GaussianBlur(4))
    soft.save(root / "cat" / name)
    report = audit(scan(root))
    found = [(f.kind, f.path.name) for f in report.findings]
    assert found == [("near-duplicate", name), ("blurred", name)]
    told = rows(report, tmp_path / "out")
    assert (told["m0.png"]["exclude"], told["m0.png"]["reasons"]) == ("no", "")
    assert told[name]["exclude"] == "yes"
    assert told[name]["reasons"].startswith("a near copy of cat/m0.png; blur 0.")


@pytest.mark.parametrize("name", ["a.jpg", "z.jpg"])
def test_the_larger_one_is_kept(root: Path, name: str) -> None:
    picture(0).resize((320, 240)).save(root / "cat" / name)
    assert names(audit(scan(root)).excluded) == {name}


def test_one_with_a_finding_of_its_own_is_not_kept(root: Path) -> None:
    original = (root / "cat" / "m0.png").read_bytes()
    (root / "cat" / "a.jpg").write_bytes(original)  # the ending lies
    assert names(audit(scan(root)).excluded) == {"a.jpg"}


def test_the_turn_is_named(root: Path) -> None:
    turned = picture(0).transpose(Image.Transpose.ROTATE_270).resize((180, 240))
    turned.save(root / "cat" / "a.jpg")
    (finding,) = audit(scan(root)).findings
    assert (finding.path.name, finding.others[0].name) == ("a.jpg", "m0.png")
    assert finding.reason in {
        f"turned by {turn} degrees, a near copy of" for turn in (90, 270)
    }


def test_both_of_two_labels_say_why(root: Path, tmp_path: Path) -> None:
    (root / "dog" / "x.png").write_bytes((root / "cat" / "m0.png").read_bytes())
    picture(2).resize((320, 240)).save(root / "dog" / "y.png")
    told = rows(audit(scan(root)), tmp_path / "out")
    for name, kind, reason in (
        ("m0.png", "two-labels", "dog/x.png: the same file as this one"),
        ("x.png", "two-labels", "the same file as cat/m0.png"),
        ("m2.png", "near-two-labels", "dog/y.png: a near copy of this one"),
        ("y.png", "near-two-labels", "a near copy of cat/m2.png"),
    ):
        row = told[name]
        assert (row["exclude"], row["findings"]) == ("no", kind)  # which one is wrong?
        assert row["reasons"] == reason


def facts(*, width: int = 400, blur: float = SHARP, size: int = 90_000) -> PhotoFacts:
    thumb, features = bytes(THUMB * THUMB), bytes(ROW[0] * ROW[1])
    return PhotoFacts(
        "JPEG", "RGB", width, 300, 1, size, 60, 200, 50.0, blur, thumb, features
    )


def audited(
    photos: Sequence[Photo],
    fact_store: Sequence[PhotoFacts],
    pairs: Sequence[tuple[int, int] | near_duplicates.Pair],
    monkeypatch: pytest.MonkeyPatch,
    digests: Sequence[str] = (),
) -> Audit:
    """An audit in which these pairs (of the photos that differ) look alike."""
    some = [
        pair
        if isinstance(pair, near_duplicates.Pair)
        else near_duplicates.Pair(*pair, near_duplicates.COPY)
        for pair in pairs
    ]
    monkeypatch.setattr(near_duplicates, "pairs", lambda *_: some)
    monkeypatch.setattr(near_duplicates, "compare", lambda *_: [])
    filled = FactStore(len(photos))
    for photo, one in zip(photos, fact_store, strict=True):
        filled.add(photo.path, one)
    labels = tuple(sorted({photo.label for photo in photos}))
    paths = [photo.path for photo in photos]
    known = dict(zip(paths, digests or [str(path) for path in paths], strict=True))
    return Audit.from_pass(
        PhotoFolder(Path(), labels, tuple(photos)), known, [], filled
    )


@pytest.mark.parametrize(
    ("part", "blur", "out"),
    [
        ("val", SHARP, {"train.jpg"}),
        ("val", SOFT, {"train.jpg"}),
        ("test", SHARP, {"train.jpg"}),
        ("test", SOFT, {"train.jpg"}),  # what is measured stays
    ],
)
def test_given_parts(
    part: str, blur: float, out: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [Photo(Path(f"{p}.jpg"), "cat", p) for p in ("train", part)]
    fact_store = [facts(), facts(blur=blur)]
    report = audited(photos, fact_store, [(0, 1)], monkeypatch)
    assert names(report.excluded) == out


def test_a_look_alike_with_another_label_is_never_excluded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = {"a": "cat", "b": "cat", "c": "dog"}
    photos = [Photo(Path(f"{name}.jpg"), label) for name, label in labels.items()]
    fact_store = [facts(width=900), facts(), facts()]
    report = audited(photos, fact_store, [(0, 1), (0, 2)], monkeypatch)
    assert names(report.excluded) == {"b.jpg"}


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [((400, 400, 400), "cat.1.jpg"), ((400, 400, 800), "aug_0_1.jpg")],
)
def test_the_original_stays(
    sizes: tuple[int, ...], kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most pixels; then what is not compressed far more; then the shorter name."""
    named = ("a.jpg", "cat.1.jpg", "aug_0_1.jpg")
    photos = [Photo(Path(name), "cat") for name in named]
    measured = [
        facts(width=width, size=size)
        for width, size in zip(sizes, (20_000, 90_000, 100_000), strict=True)
    ]
    report = audited(photos, measured, [(0, 1), (1, 2), (0, 2)], monkeypatch)
    assert names(report.excluded) == {*named} - {kept}


def test_of_each_copy_that_goes_one_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any chain of copies, in any parts: what goes is a copy of what stays."""
    left_out = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        parts = [str(part) for part in rng.choice(["train", "val", "test"], 24)]
        labels = [str(label) for label in rng.choice(["cat", "dog"], 24, p=(0.8, 0.2))]
        photos = [
            Photo(Path(f"{k:02}.jpg"), label, part)
            for k, (label, part) in enumerate(zip(labels, parts, strict=True))
        ]
        contents = [int(content) for content in rng.integers(0, 18, 24)]
        fact_store = [facts(width=400 + 9 * c, blur=SHARP) for c in contents]
        firsts = list(dict.fromkeys(contents))
        ends = rng.integers(0, len(firsts), (12, 2))
        pairs = sorted({(int(min(e)), int(max(e))) for e in ends if e[0] != e[1]})
        digests = [str(content) for content in contents]
        report = audited(photos, fact_store, pairs, monkeypatch, digests)
        out = report.excluded
        heads = [group[0].path for group in same_files(photos, report.digests)]
        links = [(heads[a], heads[b]) for a, b in pairs]
        for group in connected_groups(photos, report.digests, links):
            for label in {photo.label for photo in group}:
                mine = [photo for photo in group if photo.label == label]
                assert any(photo.path not in out for photo in mine), (seed, mine)
        left_out += len(out)
    assert left_out > 400  # of 1,440: the rule is not that all stay


def frames(count: int) -> tuple[list[Photo], list[PhotoFacts]]:
    photos = [
        Photo(Path(f"frame{number}.jpg"), ("empty", "parcel")[number % 2])
        for number in range(count)
    ]
    return photos, [facts() for _ in photos]


def test_a_fixed_camera_is_one_line_and_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    photos, fact_store = frames(120)
    some = [
        near_duplicates.Pair(k, k + step, near_duplicates.COPY, still=True)
        for step in (1, 2)
        for k in range(120 - step)
    ]
    report = audited(photos, fact_store, some, monkeypatch)
    assert report.findings == () and report.excluded == set()
    (warning,) = [line for line in report.warnings if "look alike" in line]
    assert warning.startswith("most photos look alike (120 of 120), as from a camera")
    split = make_split(
        photos, report.usable_digests, near_duplicates=report.near_duplicates
    )
    for label in ("empty", "parcel"):
        assert split.counts()[label] == {"train": 42, "val": 9, "test": 9}
    part = {row.photo.path.name: row.part for row in split.rows}
    runs = [part[f"frame{number}.jpg"] for number in range(0, 120, 2)]
    changes = sum(a != b for a, b in itertools.pairwise(runs))
    assert changes <= 19  # whole runs, not frame by frame


def test_few_photos_of_one_thing_can_be_split(monkeypatch: pytest.MonkeyPatch) -> None:
    photos, fact_store = frames(6)
    some = [
        near_duplicates.Pair(a, b, near_duplicates.BURST)
        for a, b in itertools.combinations(range(6), 2)
    ]
    report = audited(photos, fact_store, some, monkeypatch)
    assert report.obstacles == []
    split = make_split(
        photos, report.usable_digests, near_duplicates=report.near_duplicates
    )
    assert split.counts()["empty"] == {"train": 1, "val": 1, "test": 1}


def test_a_burst_stays_on_one_side(monkeypatch: pytest.MonkeyPatch) -> None:
    photos, fact_store = frames(60)
    some = [near_duplicates.Pair(k, k + 2, near_duplicates.BURST) for k in (0, 2, 4)]
    report = audited(photos, fact_store, some, monkeypatch)
    assert [finding.kind for finding in report.findings] == ["burst"] * 3
    assert report.excluded == set()
    for seed in range(5):
        split = make_split(
            photos,
            report.usable_digests,
            seed=seed,
            near_duplicates=report.near_duplicates,
        )
        assert len({split.rows[k].part for k in (0, 2, 4, 6)}) == 1
