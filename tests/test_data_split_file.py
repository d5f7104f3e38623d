"""`split.csv`: written whole or not at all, read back with the line that is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from data.photos import Photo
from data.split import Split, make_split
from edge.errors import EdgegraftError
from tests.data_room import FOLDER, all_different, photos

ROOT = Path(__file__).parents[1]
FULL_DISK = """
import resource, sys
from pathlib import Path
from data.photos import Photo
from data.split import Row, Split
from edge.errors import EdgegraftError
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
rows = [Row(Photo(Path(f"{i}.jpg"), "cat"), "train", "0" * 64) for i in range(1000)]
try:
    Split(tuple(rows)).write(sys.argv[1], Path(), overwrite=True)
except EdgegraftError as error:
    print(error)
"""


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
    (tmp_path / "file").touch()
    with pytest.raises(EdgegraftError, match="cannot be written: File exists"):
        split.write(tmp_path / "file" / "split.csv", FOLDER)


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
    assert "split.csv: cannot be written: File too large" in done.stdout
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
