"""`data.archive`: ZIP and tar files of photos, and those that mean harm."""

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import archive
from data.cli import main
from data.photos import scan
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


def zipped(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
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
    assert len([p for p in cache.rglob("*") if p.is_file()]) == 6


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
    assert len(list((cache / "unpacked").iterdir())) == 2


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(zipped(tmp_path / "pets.zip", files()))]) == 0
    assert "6 photos, 6 usable, 2 labels" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    ["../evil.png", "cat/../../evil.png", "/tmp/evil.png", "C:/evil.png", "..\\e.png"],
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
    assert list((cache / "unpacked").iterdir()) == []


def test_links_are_refused(tmp_path: Path, cache: Path) -> None:
    path = tarred(tmp_path / "x.tar.gz", files())
    with tarfile.open(path, "w") as file:
        info = tarfile.TarInfo("cat/passwd.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(info)
    with pytest.raises(EdgegraftError, match=r"got a link or device: cat/passwd\.png"):
        scan(path)
    link = zipfile.ZipInfo("cat/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(EdgegraftError, match="got a link or device"):
        scan(tmp_path / "x.zip")
    assert list((cache / "unpacked").iterdir()) == []


def test_a_bomb_is_refused_before_it_goes_off(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "SPARE", 1000)
    path = zipped(tmp_path / "x.zip", {"cat/0.png": bytes(10_000_000)})
    with pytest.raises(EdgegraftError, match="more than 100 times its size"):
        scan(path)
    assert list((cache / "unpacked").iterdir()) == []


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_no_photos_and_one_name_twice(tmp_path: Path) -> None:
    with pytest.raises(EdgegraftError, match="expected photos in it, got none"):
        scan(zipped(tmp_path / "a.zip", {"readme.txt": b"x"}))
    twice = {"cat/a.png": photo(1), "cat/A.png": photo(2)}
    with pytest.raises(EdgegraftError, match="expected each name once"):
        scan(zipped(tmp_path / "b.zip", twice))
