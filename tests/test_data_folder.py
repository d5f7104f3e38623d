"""`data.source.scan` of a folder: what is found, left out, refused."""

import os
import subprocess
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data.photos import Photo
from data.source import PhotoOptions, scan
from edge.errors import EdgegraftError
from edge.text import printable


def fill(folder: Path, *names: str) -> Path:
    """Empty files: `scan` decodes nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fill(tmp_path / "dog", "b.jpg", "a.PNG")
    fill(tmp_path / "cat", "c.jpeg", "d.webp")
    return tmp_path


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may read anything, so the tests of permissions are somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_labels_are_the_sorted_folder_names(root: Path) -> None:
    found = scan(root)
    assert found.labels == ("cat", "dog")
    assert found.photos == (
        Photo(root / "cat" / "c.jpeg", "cat"),
        Photo(root / "cat" / "d.webp", "cat"),
        Photo(root / "dog" / "a.PNG", "dog"),
        Photo(root / "dog" / "b.jpg", "dog"),
    )
    assert found.parts == ()
    assert found.notes() == []


def test_parts_are_understood_under_their_usual_names(tmp_path: Path) -> None:
    for part in ("Train", "validation", "test"):
        fill(tmp_path / part / "cat", "1.jpg", "2.jpg")
        fill(tmp_path / part / "dog", "1.jpg", "2.jpg")
    found = scan(tmp_path)
    assert found.labels == ("cat", "dog")
    assert found.parts == ("train", "val", "test")
    parts = {
        photo.path.relative_to(tmp_path).parts[0]: photo.part for photo in found.photos
    }
    assert parts == {"Train": "train", "validation": "val", "test": "test"}


def test_a_missing_part_is_fine_but_train_is_needed(tmp_path: Path) -> None:
    fill(tmp_path / "test" / "cat", "1.jpg", "2.jpg")
    fill(tmp_path / "test" / "dog", "1.jpg", "2.jpg")
    with pytest.raises(EdgegraftError, match="expected a train folder beside test"):
        scan(tmp_path)
    fill(tmp_path / "train" / "cat", "1.jpg", "2.jpg")
    fill(tmp_path / "train" / "dog", "1.jpg", "2.jpg")
    assert scan(tmp_path).parts == ("train", "test")


def test_a_label_may_be_called_train(tmp_path: Path) -> None:
    fill(tmp_path / "train", "1.jpg", "2.jpg")
    fill(tmp_path / "plane", "1.jpg", "2.jpg")
    found = scan(tmp_path)
    assert found.labels == ("plane", "train")
    assert found.parts == ()


def test_litter_is_counted_and_left_out(root: Path) -> None:
    fill(root / "cat", ".DS_Store", "Thumbs.db", "._c.jpeg", ".hidden.jpg", "notes.txt")
    fill(root / ".ipynb_checkpoints", "x.jpg")
    fill(root / "__MACOSX", "y.jpg")
    fill(root, "stray.jpg")
    found = scan(root)
    assert len(found.photos) == 4
    assert found.labels == ("cat", "dog")
    assert len(found.hidden) == 6
    assert found.ignored == (root / "cat" / "notes.txt",)
    assert found.unlabelled == (root / "stray.jpg",)
    assert [line.split(":")[0] for line in found.notes()] == [
        "left out, 1 outside the label folders (first",
        "left out, 1 that are not photos",
        "left out, 6 hidden or of the system (first",
    ]


def test_lists_that_edgegraft_writes_beside_the_labels_are_known(root: Path) -> None:
    fill(root, "split.csv", "split-3.csv", "captured.csv", "photos.csv", "prices.csv")
    fill(root / "cat", "split.csv")
    assert scan(root).ignored == (root / "prices.csv", root / "cat" / "split.csv")


def test_frigates_dataset_is_taken_as_it_lies(tmp_path: Path) -> None:
    """As Frigate 0.17 keeps what was labelled in its web page, in clips/NAME."""
    fill(tmp_path / "train", "1764338401.52-k3x9-open-0.91.webp")  # not labelled yet
    fill(tmp_path / "dataset" / "open", "open-1764338401.52.webp", "open-2.png")
    fill(tmp_path / "dataset" / "closed", "closed-1764338455.1.webp", "closed-2.png")
    fill(tmp_path / "dataset" / "none", "none-1764338999.9.webp", "none-2.png")
    found = scan(tmp_path / "dataset")
    assert found.labels == ("closed", "none", "open")
    assert len(found.photos) == 6 and found.notes() == []


def test_inner_folders_belong_to_their_label(root: Path) -> None:
    fill(root / "cat" / "tabby" / "young", "e.jpg")
    fill(root / "fox" / "red", "1.jpg", "2.jpg")
    found = scan(root)
    assert found.labels == ("cat", "dog", "fox")
    assert Photo(root / "cat" / "tabby" / "young" / "e.jpg", "cat") in found.photos
    assert found.nested == ("fox",)  # a likely mistake, so it is said
    assert "'fox' all lie in folders inside it" in found.notes()[0]


def test_linked_files_are_followed_and_linked_folders_are_not(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = fill(tmp_path_factory.mktemp("elsewhere"), "e.jpg")
    (root / "cat" / "linked.jpg").symlink_to(elsewhere / "e.jpg")
    (root / "cat" / "broken.jpg").symlink_to(elsewhere / "gone.jpg")
    (root / "cat" / "circle.jpg").symlink_to(root / "cat" / "circle.jpg")
    (root / "cat" / "loop").symlink_to(root, target_is_directory=True)
    (root / "more").symlink_to(elsewhere, target_is_directory=True)
    found = scan(root)
    assert found.labels == ("cat", "dog")
    names = [photo.path.name for photo in found.photos]
    assert "linked.jpg" in names
    assert {"broken.jpg", "circle.jpg"} <= set(names)  # reading will name them
    assert set(found.linked) == {root / "cat" / "loop", root / "more"}


def test_a_pipe_is_not_opened(root: Path) -> None:
    os.mkfifo(root / "cat" / "pipe.jpg")
    found = scan(root)
    assert found.special == (root / "cat" / "pipe.jpg",)
    assert "1 that cannot be opened as files or folders" in found.notes()[0]


def test_odd_file_names_are_taken_and_shown_safely(root: Path) -> None:
    odd = root / "cat" / os.fsdecode(b"caf\xe9\n.jpg")
    odd.touch()
    assert odd in [photo.path for photo in scan(root).photos]
    assert printable(odd.name) == "caf\\udce9\\n.jpg"
    printable(odd.name).encode("utf-8")


def test_labels_come_in_one_unicode_form(root: Path) -> None:
    fill(root / unicodedata.normalize("NFD", "café"), "1.jpg", "2.jpg")
    assert scan(root).labels == (unicodedata.normalize("NFC", "café"), "cat", "dog")


@pytest.mark.parametrize(
    ("first", "second"),
    [("fox", "Fox"), ("café", unicodedata.normalize("NFD", "café")), ("fox", "fox ")],
)
def test_labels_must_differ_in_more_than_form(
    root: Path, first: str, second: str
) -> None:
    fill(root / first, "1.jpg", "2.jpg")
    fill(root / second, "1.jpg", "2.jpg")
    with pytest.raises(EdgegraftError, match="differ in more than case, spaces or"):
        scan(root)


def test_labels_must_not_differ_in_form_between_parts(tmp_path: Path) -> None:
    for folder in ("train/cat", "train/dog", "test/Cat", "test/dog"):
        fill(tmp_path / folder, "1.jpg", "2.jpg")
    with pytest.raises(EdgegraftError, match=r"got 'cat' and 'Cat'; rename"):
        scan(tmp_path)


def test_a_label_must_fit_on_a_line(root: Path) -> None:
    fill(root / "two\nlines", "1.jpg", "2.jpg")
    with pytest.raises(EdgegraftError, match="can be printed on one line") as caught:
        scan(root)
    assert "\n" not in str(caught.value)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(EdgegraftError, match="got nothing there"):
        scan(tmp_path / "nowhere")


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "photos.doc").touch()
    with pytest.raises(EdgegraftError, match=r"or an archive .* got another file"):
        scan(tmp_path / "photos.doc")


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(EdgegraftError, match="got no photos; put them into one"):
        scan(tmp_path)


def test_a_folder_of_other_files(tmp_path: Path) -> None:
    fill(tmp_path / "cat", "1.raw", "2.raw")
    with pytest.raises(EdgegraftError, match=r"got 2 other files \(\.raw, \.\.\.\)"):
        scan(tmp_path)


def test_photos_without_label_folders(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg", "2.jpg")
    with pytest.raises(EdgegraftError, match="got 2 photos outside any label folder"):
        scan(tmp_path)


def test_parts_without_label_folders(tmp_path: Path) -> None:
    fill(tmp_path / "train", "1.jpg", "2.jpg")
    fill(tmp_path / "test", "1.jpg", "2.jpg")
    with pytest.raises(EdgegraftError, match="label folders inside test, train"):
        scan(tmp_path)


def test_parts_beside_labels(tmp_path: Path) -> None:
    fill(tmp_path / "train" / "cat", "1.jpg", "2.jpg")
    fill(tmp_path / "dog", "1.jpg", "2.jpg")
    with pytest.raises(EdgegraftError, match="got dog, train; take all as labels with"):
        scan(tmp_path)


def test_an_empty_part_is_made_from_train(tmp_path: Path) -> None:
    fill(tmp_path / "train" / "cat", "1.jpg", "2.jpg")
    fill(tmp_path / "train" / "dog", "1.jpg", "2.jpg")
    fill(tmp_path / "test" / "dog")
    found = scan(tmp_path)
    assert found.parts == () and found.root == tmp_path / "train"
    assert found.notes() == ["the label folders are those in train"]


def test_one_label(tmp_path: Path) -> None:
    fill(tmp_path / "cat", "1.jpg", "2.jpg")
    with pytest.raises(EdgegraftError, match="two labels or more, got only 'cat'"):
        scan(tmp_path)


def test_a_label_with_too_few_photos(root: Path) -> None:
    fill(root / "fox")
    found = scan(root)
    assert found.labels == ("cat", "dog")
    assert found.notes() == ["left out, 1 folder without photos: fox"]
    fill(root / "fox", "1.jpg")
    with pytest.raises(EdgegraftError, match="at least 2 photos of 'fox', got 1"):
        scan(root)


def test_unknown_is_no_label(root: Path) -> None:
    fill(root / "Unknown", "1.jpg", "2.jpg")
    with pytest.raises(EdgegraftError, match="add: --rename Unknown=other"):
        scan(root)
    found = scan(root, PhotoOptions(rename={"Unknown": "other"}))
    assert found.labels == ("cat", "dog", "other")
    with pytest.raises(EdgegraftError, match=r"expected a label of .*, got 'fox'"):
        scan(root, PhotoOptions(rename={"fox": "other"}))


def test_content_decides_what_a_photo_is(root: Path) -> None:
    for name, head in (
        ("png", b"\x89PNG\r\n\x1a\n"),
        ("photo.jpeg~", b"\xff\xd8\xff\xe0"),
        ("phone.heics", b"\0\0\0\x18ftypheic"),
        ("web.download", b"RIFF\0\0\0\0WEBPVP8 "),
        ("notes.txt", b"no photo"),
        ("film.mp4", b"\0\0\0\x18ftypisom"),
    ):
        (root / "cat" / name).write_bytes(head)
    found = scan(root)
    names = {p.path.name for p in found.photos if p.label == "cat"}
    assert names >= {"png", "photo.jpeg~", "phone.heics", "web.download"}
    assert [path.name for path in found.ignored] == ["film.mp4", "notes.txt"]
    (note,) = found.notes()
    assert note.startswith("left out, 2 that are not photos: 1 .mp4, 1 .txt (first: ")


@pytest.mark.parametrize("levels", [1500, 2100])
def test_deep_folders_are_walked_or_left_out(tmp_path: Path, levels: int) -> None:
    """1,500 levels fit into the longest path; beyond it the folder is named."""
    fill(tmp_path / "cat", "1.jpg", "2.jpg")
    fill(tmp_path / "dog", "1.jpg", "2.jpg")
    before = os.getcwd()
    os.chdir(tmp_path / "cat")
    try:
        for _ in range(levels):
            os.mkdir("d")
            os.chdir("d")
        Path("deep.jpg").touch()
    finally:
        os.chdir(before)
    try:
        found = scan(tmp_path)
        assert (len(found.photos) == 5) == (levels == 1500)
        assert bool(found.special) == (levels != 1500)
    finally:  # pytest's own removal recurses
        subprocess.run(["rm", "-rf", tmp_path / "cat"], check=True)


def test_no_permission() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        fill(root / "cat", "1.jpg", "2.jpg")
        secret = fill(root / "dog", "1.jpg", "2.jpg")
        secret.chmod(0)
        try:
            with without_privileges(), pytest.raises(EdgegraftError) as caught:
                scan(root)
        finally:
            secret.chmod(0o755)
    assert f"{secret}: expected a folder that may be read" in str(caught.value)
    assert f"chmod u+rx {secret}" in str(caught.value)


def test_linked_folders_are_entered_on_request_and_each_once(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    fill(root / "cat", "a.jpg", "b.jpg")
    fill(root / "dog", "a.jpg", "b.jpg")
    elsewhere = fill(tmp_path / "elsewhere", "far.jpg")
    (root / "cat" / "more").symlink_to(elsewhere)
    (root / "cat" / "again").symlink_to(elsewhere)
    (root / "cat" / "loop").symlink_to(root)
    before = {p.path for p in scan(root).photos}
    found = scan(root, PhotoOptions(follow_links=True))
    assert {p.path for p in found.photos} - before == {
        root / "cat" / "again" / "far.jpg"
    }
    assert set(found.linked) == {root / "cat" / "loop", root / "cat" / "more"}
