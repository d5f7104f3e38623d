"""audit.json, audit.csv and audit.html; and --exclude-from."""

import base64
import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from data.audit.audit import Audit, audit
from data.audit.report import COLUMNS, NAMES, html_page, read_exclusion, write
from data.cli import main
from data.source import scan
from edge.errors import EdgegraftError


def draw(path: Path, seed: int) -> Path:
    small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize((96, 72), Image.Resampling.NEAREST).save(path)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEGRAFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i in range(6):
        draw(tmp_path / "photos" / "cat" / f"{i}.jpg", i)
        draw(tmp_path / "photos" / "dog" / f"{i}.png", 10 + i)
    return tmp_path / "photos"


@pytest.fixture
def spoiled(root: Path) -> Path:
    """Damaged, two labels, a mirrored copy, dark, odd name."""
    (root / "cat" / "bad<b>.jpg").write_bytes(b"no photo")
    (root / "dog" / "x.jpg").write_bytes((root / "cat" / "0.jpg").read_bytes())
    mirror = Image.open(root / "dog" / "1.png").transpose(0)
    mirror.save(root / "dog" / "mirror.jpg")
    Image.open(root / "cat" / "2.jpg").point(lambda v: v // 12).save(
        root / "cat" / "night.png"
    )
    return root


def kinds(report: Audit) -> list[tuple[str, str]]:
    return [(f.kind, f.path.name) for f in report.findings]


def test_the_findings_this_is_about(spoiled: Path) -> None:
    assert kinds(audit(scan(spoiled))) == [
        ("unreadable", "bad<b>.jpg"),
        ("two-labels", "x.jpg"),
        ("near-duplicate", "night.png"),
        ("near-duplicate", "mirror.jpg"),
        ("dark", "night.png"),
    ]


def test_blur_alone(root: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    soft = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(6))
    soft.point(lambda v: (v - 127) * 8 + 127).save(root / "cat" / "soft.jpg")
    Image.fromarray(noise).save(root / "cat" / "sharp.jpg")
    assert ("blurred", "soft.jpg") in kinds(audit(scan(root)))
    assert ("blurred", "sharp.jpg") not in kinds(audit(scan(root)))


def test_a_small_and_a_long_one(root: Path) -> None:
    draw(root / "cat" / "a.png", 50)
    Image.open(root / "cat" / "a.png").resize((20, 18)).save(root / "cat" / "a.png")
    Image.open(draw(root / "dog" / "b.png", 51)).resize((300, 40)).save(
        root / "dog" / "b.png"
    )
    assert kinds(audit(scan(root))) == [("small", "a.png"), ("odd-shape", "b.png")]


def test_uneven_and_small_labels_are_warned_of(root: Path) -> None:
    for i in range(40):
        draw(root / "cat" / f"more{i}.jpg", 100 + i)
    for i in range(1, 6):
        (root / "dog" / f"{i}.png").unlink()
    draw(root / "dog" / "last.png", 99)
    small, uneven = audit(scan(root)).warnings
    assert small.startswith("label 'dog' has 2 usable photos; with fewer than 30")
    assert uneven.startswith("labels are uneven: 46 photos of 'cat', 2 of 'dog'")


def test_of_many_labels_the_rarest_are_shown(tmp_path: Path) -> None:
    for number in range(21):
        draw(tmp_path / f"label{number:02d}" / "a.png", number)
        draw(tmp_path / f"label{number:02d}" / "b.png", 100 + number)
    report = audit(scan(tmp_path))
    assert "and 1 label with as many photos or more" in report.lines()
    assert "and 1 label with as many photos or more" in html_page(report)


def test_a_test_photo_is_never_the_one_that_is_flagged(tmp_path: Path) -> None:
    for seed in range(6):
        for part in ("train", "val", "test"):
            label = ("cat", "dog")[seed % 2]
            number = seed + 10 * ("train", "val", "test").index(part)
            draw(tmp_path / part / label / f"{number}.png", number)
    copy = (tmp_path / "test" / "cat" / "20.png").read_bytes()
    (tmp_path / "train" / "cat" / "leak.png").write_bytes(copy)
    turned = Image.open(tmp_path / "val" / "dog" / "11.png").rotate(180)
    turned.save(tmp_path / "train" / "dog" / "turned.png")
    Image.open(tmp_path / "test" / "dog" / "21.png").point(lambda v: v // 12).save(
        tmp_path / "test" / "dog" / "21.png"
    )
    report = audit(scan(tmp_path))
    assert kinds(report).pop() == ("dark", "21.png")
    report = replace(report, findings=report.findings[:-1])
    assert kinds(report) == [("leak", "leak.png"), ("near-leak", "turned.png")]
    assert report.excluded == {f.path for f in report.findings}
    assert audit(scan(tmp_path)).excluded == report.excluded


def test_three_files_are_written(spoiled: Path, tmp_path: Path) -> None:
    report = audit(scan(spoiled))
    page = write(report, tmp_path / "new" / "out")
    assert sorted(p.name for p in page.parent.iterdir()) == sorted(NAMES)
    record = json.loads((page.parent / "audit.json").read_text("utf-8"))
    assert record["photos"] == 16
    assert [f["kind"] for f in record["findings"]] == [k for k, _ in kinds(report)]
    with open(page.parent / "audit.csv", newline="", encoding="utf-8") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert set(rows) == {p.path.relative_to(spoiled).as_posix()
                         for p in report.folder.photos}  # fmt: skip
    assert set(rows["cat/0.jpg"]) == set(COLUMNS)
    assert rows["cat/1.jpg"]["exclude"] == "no"
    assert rows["cat/1.jpg"]["width"] == "96"
    assert rows["cat/0.jpg"]["exclude"] == "no"  # which of its labels is wrong?
    assert rows["dog/mirror.jpg"]["exclude"] == "yes"
    assert rows["cat/night.png"]["findings"] == "near-duplicate dark"
    assert rows["cat/bad<b>.jpg"]["sha256"] == ""


def test_the_page_stands_alone_and_escapes_names(spoiled: Path, tmp_path: Path) -> None:
    text = write(audit(scan(spoiled)), tmp_path / "out").read_text("utf-8")
    assert "bad&lt;b&gt;.jpg" in text
    assert "bad<b>" not in text
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "<script" not in text
    thumbs = re.findall(r"data:image/jpeg;base64,([^\"]+)", text)
    assert len(thumbs) == 3 * 2 + 1  # three pairs, and one that is dark as well
    for thumb in thumbs:
        assert Image.open(io.BytesIO(base64.b64decode(thumb))).height == 132


def test_the_page_leads_with_what_matters(spoiled: Path, tmp_path: Path) -> None:
    (spoiled / "cat" / "no-photo.jpg").write_bytes(b"<html>")
    text = write(audit(scan(spoiled)), tmp_path / "audit").read_text("utf-8")
    body = text[text.index("<main>") :]
    first = body.index('class="verdict')
    assert first < body.index('class="tiles"') < body.index("<h2>Labels")
    assert "--exclude-from audit.csv" in body[first : body.index('class="tiles"')]
    section = body[body.index('id="unreadable"') :]  # no picture: a list of names
    section = section[: section.index("</section>")]
    assert '<ul class="names">' in section and "cat/no-photo.jpg" in section
    assert "<img" not in section


def test_a_second_audit_is_not_written_over_the_first(
    root: Path, tmp_path: Path
) -> None:
    report = audit(scan(root))
    write(report, tmp_path / "out")
    with pytest.raises(EdgegraftError, match="add --overwrite"):
        write(report, tmp_path / "out")
    write(report, tmp_path / "out", overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgegraftError, match="expected a place to write the audit"):
        write(report, tmp_path / "file" / "out")


def test_exclude_from_leaves_the_flagged_ones_out(
    spoiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["audit", str(spoiled), "-o", str(out)]) == 0
    assert f"written: {out / 'audit.html'}" in capsys.readouterr().out
    arguments = [str(spoiled), "--exclude-from", str(out / "audit.csv")]
    assert main(["audit", *arguments]) == 0
    told = capsys.readouterr().out
    assert "13 photos, 13 usable" in told
    assert "3 photos left out by audit.csv" in told
    split = tmp_path / "split.csv"
    assert main(["split", *arguments, "-o", str(split), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["excluded"]["photos"] == 3
    assert len(record["excluded"]["sha256"]) == 64
    text = split.read_text("utf-8")
    assert "night.png" not in text
    assert "cat/1.jpg" in text
    assert (spoiled / "cat" / "night.png").is_file()


def test_the_user_has_the_last_word(spoiled: Path, tmp_path: Path) -> None:
    write(audit(scan(spoiled)), tmp_path)
    path = tmp_path / "audit.csv"
    path.write_text(path.read_text("utf-8").replace(",yes,", ",no,"), "utf-8")
    assert read_exclusion(path, scan(spoiled)).paths == frozenset()


def test_a_photo_that_changed_since_is_noticed(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(audit(scan(root)), tmp_path)
    draw(root / "cat" / "3.jpg", 77)
    arguments = ["audit", str(root), "--exclude-from", str(tmp_path / "audit.csv")]
    assert main(arguments) == 0
    assert "1 photo changed since that audit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "expected audit.csv, got: No such file"),
        ("", "expected the columns path, sha256, exclude, got 'nothing'"),
        ("a,b\n1,2\n", "got 'a, b'"),
        ("path,sha256,exclude\ncat/0.jpg,,maybe\n", "line 2: expected yes, no or"),
        ("path,sha256,exclude\nfox/0.jpg,,yes\n", "got none of them .* audit this"),
    ],
)
def test_what_is_no_audit_is_refused(
    root: Path, tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "audit.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(EdgegraftError, match=message):
        read_exclusion(path, scan(root))
