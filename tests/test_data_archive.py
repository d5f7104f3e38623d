"""`data.archive`: ZIP and tar files of photos, and those that mean harm."""

import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import archive
from data.archive import decoded_names
from data.cli import main
from data.source import scan
from edge.errors import EdgegraftError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEGRAFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def photo(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG")
    return out.getvalue()


def files(above: str = "") -> dict[str, bytes]:
    return {
        f"{above}{label}/{i}.png": photo(10 * i + len(label) + (label == "dog"))
        for label in ("cat", "dog")
        for i in range(3)
    }


def zipped(
    path: Path, content: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED
) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in content.items():
            file.writestr(name, data)
    return path


def tarred(path: Path, content: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def names(root: Path) -> set[str]:
    return {p.path.relative_to(root).as_posix() for p in scan(root).photos}


def test_a_zip_with_a_folder_around_and_litter(tmp_path: Path, cache: Path) -> None:
    content = files("pets/") | {
        "pets/cat/.hidden.png": b"x",
        "__MACOSX/pets/cat/0.png": b"x",
        "pets/readme.txt": b"x",
        "pets/run.sh": b"x",
    }
    found = scan(zipped(tmp_path / "pets.zip", content))
    assert found.labels == ("cat", "dog")
    assert found.root.name == "pets"
    assert names(found.root) == set(files())
    assert found.photos[0].path.read_bytes() == files()["cat/0.png"]
    assert len([p for p in cache.rglob("*.png") if p.is_file()]) == 6


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_with_parts(tmp_path: Path, mode: str) -> None:
    ending = mode.replace("w:", ".").replace("w", "")
    content = files("train/") | files("test/")
    found = scan(tarred(tmp_path / f"pets.tar{ending}", content, mode))
    assert found.parts == ("train", "test")
    assert len(found.photos) == 12


def test_it_is_unpacked_once_and_anew_when_it_changed(
    tmp_path: Path, cache: Path
) -> None:
    path = zipped(tmp_path / "pets.zip", files())
    first = scan(path)
    before = os.stat(first.photos[0].path)
    assert scan(path) == first
    assert os.stat(first.photos[0].path).st_ino == before.st_ino
    zipped(path, files() | {"cat/new.png": photo(99)})
    assert scan(path).root != first.root
    assert len(scan(path).photos) == 7
    assert len(list((cache / "archives").iterdir())) == 2


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(zipped(tmp_path / "pets.zip", files()))]) == 0
    assert "6 photos, 6 usable, 2 labels" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    ["../evil.png", "cat/../../evil.png", "/etc/evil.png", "C:/evil.png", "..\\e.png"],
)
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_paths_that_lead_out_are_refused(
    tmp_path: Path, cache: Path, name: str, pack: object
) -> None:
    ending = "zip" if pack is zipped else "tar.gz"
    path = pack(tmp_path / f"x.{ending}", files() | {name: photo(1)})  # type: ignore[operator]
    before = set(tmp_path.iterdir())
    with pytest.raises(EdgegraftError, match="leads out of it"):
        scan(path)
    assert set(tmp_path.iterdir()) - before <= {cache}
    assert list((cache / "archives").iterdir()) == []


def test_links_are_left_out(tmp_path: Path, cache: Path) -> None:
    path = tarred(tmp_path / "x.tar", files(), "w")
    with tarfile.open(path, "a") as file:
        info = tarfile.TarInfo("cat/passwd.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(info)
    line = "left out, 1 of the archive: a link or device (cat/passwd.png)"
    found = scan(path)
    assert found.notes() == [line] and len(found.photos) == 6
    link = zipfile.ZipInfo("cat/passwd.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(zipped(tmp_path / "x.zip", files()), "a") as file:
        file.writestr(link, "/etc/passwd")
    assert scan(tmp_path / "x.zip").notes() == [line]
    assert scan(tmp_path / "x.zip").notes() == [line]  # it is remembered
    assert not [p for p in cache.rglob("*") if p.is_symlink()]


def test_entries_that_cannot_be_unpacked_are_left_out_one_by_one(
    tmp_path: Path,
) -> None:
    odd = {
        "cat/A.PNG": photo(1),
        "cat/a.png": photo(2),
        "cat/more.zip": b"PK",
        "cat/" + "n" * 300 + ".png": photo(3),
        "d/" * 1500 + "a.png": photo(4),
        "dog/0.png/b.png": photo(5),
        "cat/no_ending": photo(7),
    }
    found = scan(zipped(tmp_path / "x.zip", files() | odd))
    assert len(found.photos) == 8 and found.labels == ("cat", "dog")
    reasons = [note.split(": ")[1].split(" (")[0] for note in found.notes()]
    assert reasons == [
        "a name that differs from another in case only",
        "an archive inside the archive; unpack it first",
        "a name that is too long for a file",
        "more than 64 folders deep",
        "another entry has its place",
    ]


@pytest.mark.parametrize("method", [8, 12, 14])  # deflate, bzip2, LZMA
def test_a_damaged_entry_does_not_cost_the_others(tmp_path: Path, method: int) -> None:
    path = zipped(tmp_path / "x.zip", files(), method)
    data = bytearray(path.read_bytes())
    start = data.index(b"cat/1.png") + 40
    data[start : start + 30] = bytes(30)
    path.write_bytes(data)
    found = scan(path)
    assert found.notes() == ["left out, 1 of the archive: damaged (cat/1.png)"]
    assert len(found.photos) == 5


@pytest.mark.parametrize(
    ("encoding", "labels"),
    [
        ("utf-8", ("Käfer", "Blüte")),
        ("cp437", ("Käfer", "Blüte")),
        ("cp437", ("Älg", "Ångström")),  # which could be kanji, too
        ("cp850", ("ÉTÉ São", "Ødegård")),
        ("gbk", ("猫", "小狗")),
        ("cp932", ("ねこ", "いぬ犬")),
        ("cp932", ("紙", "硝子")),  # without kana
    ],
)
def test_names_without_the_flag_are_guessed_once(
    tmp_path: Path, encoding: str, labels: tuple[str, ...]
) -> None:
    content = {
        f"{label}/{i}.png": photo(10 * n + i)
        for n, label in enumerate(labels)
        for i in range(3)
    }
    found = scan(unmarked(tmp_path / "x.zip", content, encoding))
    assert set(found.labels) == set(labels)
    (note,) = found.notes()
    assert f"not marked as UTF-8; read as {encoding}: {labels[0]}/0.png" in note


def unmarked(path: Path, content: dict[str, bytes], encoding: str) -> Path:
    """A ZIP with names in a code page, as old tools write it (without the flag)."""
    swaps = {}
    with zipfile.ZipFile(path, "w") as file:
        for number, (name, data) in enumerate(content.items()):
            raw = name.encode(encoding)
            stand_in = f"{number:02}".encode().ljust(len(raw), b"_")
            swaps[stand_in] = raw
            file.writestr(stand_in.decode(), data)
    archive_bytes = path.read_bytes()
    for stand_in, raw in swaps.items():
        archive_bytes = archive_bytes.replace(stand_in, raw)
    path.write_bytes(archive_bytes)
    return path


def test_a_name_in_the_unicode_extra_field_counts(tmp_path: Path) -> None:
    raw = "Käfer/0.png".encode("cp850")
    info = zipfile.ZipInfo(raw.decode("cp437"))
    field = b"\1" + zlib.crc32(raw).to_bytes(4, "little") + "Käfer/0.png".encode()
    info.extra = struct.pack("<HH", 0x7075, len(field)) + field
    info.orig_filename = raw.decode("cp437")
    assert decoded_names([info]) == (["Käfer/0.png"], "")


def test_a_bomb_is_refused_before_it_goes_off(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "SPARE", 1000)
    path = zipped(tmp_path / "x.zip", {"cat/0.png": bytes(10_000_000)})
    with pytest.raises(EdgegraftError, match="more than 100 times its size"):
        scan(path)
    assert list((cache / "archives").iterdir()) == []


def test_a_full_disk_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 10

    monkeypatch.setattr(archive.shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(EdgegraftError, match=r"of free space .* set EDGEGRAFT_CACHE"):
        scan(zipped(tmp_path / "x.zip", files()))


@pytest.mark.parametrize("ending", ["zip", "tar.gz", "tar"])
def test_damaged_archives(tmp_path: Path, cache: Path, ending: str) -> None:
    pack = zipped if ending == "zip" else tarred
    path = pack(tmp_path / f"x.{ending}", files())
    whole = path.read_bytes()
    for data in (b"", b"not an archive", whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(EdgegraftError, match=r"expected a whole ZIP or tar|in it"):
            scan(path)
    assert not [p for p in cache.rglob("*") if p.is_file()]


def test_messages_name_the_archive_and_not_where_it_is_unpacked(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = zipped(tmp_path / "good.zip", files())
    assert main(["audit", str(good)]) == 0
    assert f"{good}: 6 photos, 6 usable, 2 labels" in capsys.readouterr().out
    flat = zipped(tmp_path / "flat.zip", {f"train/{i}.png": photo(i) for i in range(3)})
    assert main(["audit", str(flat)]) == 2
    error = capsys.readouterr().err
    assert f"put the photos into {flat}/train/LABEL" in error
    assert str(cache) not in error


def test_no_photos(tmp_path: Path) -> None:
    with pytest.raises(EdgegraftError, match="expected photos in it, got none"):
        scan(zipped(tmp_path / "a.zip", {"readme.txt": b"x"}))
