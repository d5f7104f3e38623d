"""`data.manifest`: photos listed in a CSV or JSON lines file, as people have them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.cli import main
from data.source import PhotoOptions, scan
from data.split import Split, make_split
from edge.errors import EdgegraftError


def draw(path: Path, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEGRAFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for i in range(12):
        draw(tmp_path / "flat" / f"{i:02}.jpg", i)
    return tmp_path


def listed(place: Path, text: str, name: str = "list.csv") -> Path:
    path = place / name
    path.write_text(text, "utf-8")
    return path


def rows(count: int, extra: str = "") -> str:
    lines = [f"flat/{i:02}.jpg,{('cat', 'dog')[i % 2]}{extra}\n" for i in range(count)]
    return "".join(lines)


def test_a_csv(place: Path) -> None:
    found = scan(listed(place, "path,label\n" + rows(12)))
    assert found.labels == ("cat", "dog")
    assert found.root == place
    assert [p.path for p in found.photos] == sorted(place.glob("flat/*"))
    assert {(p.part, p.group) for p in found.photos} == {(None, None)}


def test_json_lines_with_split_and_group(place: Path) -> None:
    records = [
        {
            "path": f"flat/{i:02}.jpg",
            "label": ("cat", "dog")[i % 2],
            "split": "validation" if i < 4 else "train" if i < 8 else None,
            "group": i // 2,
            "who": "me",
        }
        for i in range(12)
    ]
    text = "\n\n".join(json.dumps(record) for record in records)
    found = scan(listed(place, text, "list.jsonl"))
    assert [p.part for p in found.photos] == ["val"] * 4 + ["train"] * 8
    assert [p.group for p in found.photos] == [str(i // 2) for i in range(12)]


def test_excels_csv_in_any_case_and_order(place: Path) -> None:
    text = "\ufeffLabel;x\n".replace(";", ",").replace("x", "Group, PATH ")
    text += "".join(f" cat ,a, flat/{i:02}.jpg\n" for i in range(4))
    text += "".join(f"dog,,flat/{i:02}.jpg\n" for i in range(4, 8))
    found = scan(listed(place, text))
    assert found.labels == ("cat", "dog")
    assert [p.group for p in found.photos] == ["a"] * 4 + [None] * 4


def test_photos_outside_the_lists_folder(place: Path) -> None:
    (place / "lists").mkdir()
    text = "path,label\n" + rows(12).replace("flat/", "../flat/")
    found = scan(listed(place / "lists", text))
    assert found.root == place
    absolute = "path,label\n" + rows(12).replace("flat/", f"{place}/flat/")
    assert scan(listed(place / "lists", absolute)) == found


def test_a_split_of_it_can_be_read_back(place: Path) -> None:
    text = "path,label,group\n" + "".join(
        f"flat/{i:02}.jpg,{('cat', 'dog')[i % 2]},g{i // 4}\n" for i in range(12)
    )
    path = listed(place, text)
    out = place / "split.csv"
    assert main(["split", str(path), "-o", str(out)]) == 0
    groups = {p.path: p.group for p in scan(path).photos}
    parts: dict[str | None, set[str]] = {}
    for row in Split.read(out, place).rows:
        parts.setdefault(groups[row.photo.path], set()).add(row.part)
    assert sorted(map(len, parts.values())) == [1, 1, 1]


def test_a_given_test_part_is_kept(place: Path) -> None:
    lines = [
        f"flat/{i:02}.jpg,{('cat', 'dog')[i % 2]},{'test' if i < 4 else ''}\n"
        for i in range(12)
    ]
    found = scan(listed(place, "path,label,split\n" + "".join(lines)))
    digests = {p.path: f"{i:064}" for i, p in enumerate(found.photos)}
    split = make_split(found.photos, digests)
    assert [p.path.name for p in split.part("test")] == [
        f"{i:02}.jpg" for i in range(4)
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the columns path and label .*, got 'nothing'"),
        ("where,what\n", "got 'where, what'; name them"),
        ("path,class,breed\n", "unclear which column is the label: class, breed"),
        ("path,label,label\n", "expected one column 'label', got two"),
        (
            "path,label\n" + rows(12) + "flat/no.jpg,cat\n",
            "1 of 13 .*line 14: .*no.jpg",
        ),
        ("path,label\n" + rows(12) + "flat/00.jpg,dog\n", "each photo once.* line 2"),
        ("path,label\n" + rows(12) + "flat/x.jpg\n", "line 14: expected a label"),
        ("path,label,split\n" + rows(12, ",exam"), "line 2: .* got 'exam'"),
        ("path,label,split\n" + rows(12, ",test"), "every line is val or test"),
        ("path,label\n" + rows(11) + "flat/11.jpg,Dog\n", "differ in more than case"),
        ("path,label\nflat/00.jpg,cat\nflat/02.jpg,cat\n", "two labels or more"),
        ("path,label\n" + rows(3), "at least 2 photos of 'dog', got 1"),
        ("path,label\n", "expected photos in .*, got no photos"),
    ],
)
def test_what_cannot_be_right_is_refused(place: Path, text: str, message: str) -> None:
    with pytest.raises(EdgegraftError, match=message):
        scan(listed(place, text))


@pytest.mark.parametrize("line", ["[1]", "{", '"a.jpg"'])
def test_what_is_no_json_line_is_refused(place: Path, line: str) -> None:
    with pytest.raises(EdgegraftError, match="line 1: expected an object such as"):
        scan(listed(place, line, "list.jsonl"))


def test_json_lines_that_are_wrong_are_named_and_left_out(place: Path) -> None:
    good = [
        {
            "path": f"flat/{i % 12:02}.jpg",
            "label": ["cat", "dog"][i % 2],
            "note": "a\u2028b",
        }
        for i in range(60)
    ]
    wrong = [
        '{"path": "flat/00.jpg"',
        '{"path": "a.jpg"}',
        '{"path": [], "label": "x"}',
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in good]
    found = scan(listed(place, "\n".join([*lines, *wrong]), "list.jsonl"))
    assert len(found.photos) == 12
    (note,) = [n for n in found.notes() if "wrong" in n]
    assert note.startswith("left out, 3 wrong rows: line 61: expected an object")
    assert "line 62: expected a label, got the keys path" in note
    assert "line 63: expected 'path' to be text, got []" in note
    text = json.dumps({"file_name": "flat/00.jpg", "text": "cat"})
    with pytest.raises(
        EdgegraftError, match=r"name the columns: --columns label=\.\.\."
    ):
        scan(listed(place, text, "list.jsonl"))


@pytest.mark.parametrize("said", ["sep=;\r\n", '"sep=;"\n', "\n\nSEP=;\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
def test_what_excel_writes_above_the_header(
    place: Path, said: str, encoding: str
) -> None:
    quoted = rows(12).replace("cat", '"cat, small; ""fat"""')
    text = said + ("path,label\n" + quoted).replace("jpg,", "jpg;").replace(
        "path,", "path;"
    )
    path = place / "list.csv"
    path.write_bytes(text.encode(encoding))
    found = scan(path)
    assert found.labels == ('cat, small; "fat"', "dog") and len(found.photos) == 12


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_separators_and_encodings(place: Path, separator: str, encoding: str) -> None:
    lines = ["path,label", rows(12).replace("cat", "Käfer").replace("dog", "Blüte")]
    text = "\r\n".join(lines).replace(",", separator)
    path = place / "list.csv"
    path.write_bytes(text.encode(encoding))
    found = scan(path)
    assert found.labels == ("Blüte", "Käfer") and len(found.photos) == 12
    guessed = ["the list is not UTF-8; read as Windows-1252"]
    assert found.notes() == (guessed if encoding == "cp1252" else [])


def test_file_names_that_are_no_text_are_found(place: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    draw(place / "flat" / name, 50)
    text = "path,label\n" + rows(12) + f"flat/{name},cat\n"
    (place / "list.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    found = scan(place / "list.csv")
    assert place / "flat" / name in [photo.path for photo in found.photos]


@pytest.mark.parametrize(
    "header", ["filename,class", "Image Name,Label", "id,breed", "IMAGE,category"]
)
def test_usual_names_of_columns(place: Path, header: str) -> None:
    text = f"{header}\n" + rows(12).replace("flat/", "").replace(".jpg", "")
    found = scan(listed(place, text))
    assert found.labels == ("cat", "dog") and len(found.photos) == 12
    columns, by_name = found.notes()
    assert columns.startswith("columns of the list: path is ")
    assert by_name == "12 photos found by name, such as flat/00.jpg"


def test_columns_settle_what_is_unclear(place: Path) -> None:
    text = "where,what,class\n" + rows(12, ",x")
    with pytest.raises(EdgegraftError, match="--columns path="):
        scan(listed(place, text))
    options = PhotoOptions(columns={"path": "where", "label": "what"})
    assert scan(listed(place, text), options).labels == ("cat", "dog")
    wrong = PhotoOptions(columns={"path": "where", "label": "waht"})
    with pytest.raises(EdgegraftError, match="label=waht: expected one of its"):
        scan(listed(place, text), wrong)


def test_one_column_for_each_label(place: Path) -> None:
    lines = [f"flat/{i:02}.jpg,{1 - i % 2}.0,{i % 2}.0" for i in range(12)]
    found = scan(listed(place, "\n".join(["image,cat,dog", *lines])))
    assert [p.label for p in found.photos] == ["cat", "dog"] * 6
    assert found.notes() == ["labels from 2 columns of 0 and 1"]
    two = [*lines[:-1], "flat/11.jpg,1,1"]
    with pytest.raises(EdgegraftError, match="1 of 12 that are wrong: line 13: exp"):
        scan(listed(place, "\n".join(["image,cat,dog", *two])))


def test_a_list_without_header(place: Path) -> None:
    found = scan(listed(place, rows(12)))
    assert found.labels == ("cat", "dog") and len(found.photos) == 12


def test_paths_from_windows_and_blank_rows(place: Path) -> None:
    text = "path,label,\n" + rows(12, ",").replace("flat/", "flat\\") + ",,\n,,\n\n"
    assert len(scan(listed(place, text)).photos) == 12
    far = rows(12).replace("flat/", "C:\\Users\\me\\photos\\")
    assert len(scan(listed(place, "path,label\n" + far)).photos) == 12


def test_few_wrong_rows_are_named_and_left_out(place: Path) -> None:
    for i in range(12, 60):
        draw(place / "flat" / f"{i:02}.jpg", i)
    wrong = "flat/gone.jpg,cat\nflat/03.jpg,\n"
    found = scan(listed(place, "path,label\n" + rows(60) + wrong + rows(1)))
    assert len(found.photos) == 60
    assert found.notes() == [
        "left out, 2 wrong rows: line 62: expected a file that is there, got "
        f"flat/gone.jpg; paths start from {place}; line 63: expected a label, got none",
        "1 row repeated, taken once",
    ]


def test_a_name_that_two_files_have_is_not_guessed(place: Path) -> None:
    draw(place / "other" / "00.jpg", 70)
    text = "path,label\n" + rows(12).replace("flat/", "")
    with pytest.raises(
        EdgegraftError, match=r"expected one file called 00\.jpg, got 2"
    ):
        scan(listed(place, text))
