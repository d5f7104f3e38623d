"""`data.memory`: a second audit decodes only what is new."""

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data.reading
from data.audit import audit
from data.cli import main
from data.folder import scan
from data.look import look_at
from data.memory import Memory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed in range(8):
        path = tmp_path / "photos" / ("cat", "dog")[seed % 2] / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(noise).save(path)
    (tmp_path / "photos" / "cat" / "bad.jpg").write_bytes(b"no photo")
    (tmp_path / "photos" / "cat" / "empty.jpg").write_bytes(b"")
    return tmp_path / "photos"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bytes of every photo that is decoded from now on."""
    seen: list[bytes] = []

    def watched(content: bytes, image: Image.Image | None = None) -> object:
        seen.append(content)
        return look_at(content, image)

    monkeypatch.setattr(data.reading, "look_at", watched)
    return seen


def test_a_second_audit_decodes_only_what_is_new(
    root: Path, tmp_path: Path, decoded: list[bytes]
) -> None:
    with Memory(tmp_path / "memory") as memory:
        first = audit(scan(root), memory=memory)
    assert len(decoded) == 10
    with Memory(tmp_path / "memory") as memory:
        assert audit(scan(root), memory=memory) == first
    assert len(decoded) == 10
    shutil.move(root / "cat" / "0.png", root / "cat" / "renamed.png")
    changed = (root / "cat" / "2.png").read_bytes() + b"more"
    (root / "cat" / "2.png").write_bytes(changed)
    with Memory(tmp_path / "memory") as memory:
        audit(scan(root), memory=memory)
    assert decoded[10:] == [changed]


def test_it_gives_back_what_it_was_told(root: Path, tmp_path: Path) -> None:
    look = look_at((root / "dog" / "1.png").read_bytes())
    with Memory(tmp_path / "memory") as memory:
        memory.remember("a", look)
        memory.remember("b", "damaged")
    with Memory(tmp_path / "memory") as memory:
        assert memory.recall("a") == look
        assert memory.recall("b") == "damaged"
        assert memory.recall("c") is None


@pytest.mark.parametrize("damage", ["text", "version", "table", "cut"])
def test_a_damaged_memory_mends_itself(root: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "memory"
    with Memory(path) as memory:
        first = audit(scan(root), memory=memory)
    if damage == "text":
        path.write_text("this is no database, " * 100)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        with sqlite3.connect(path) as file:
            file.execute(
                "pragma user_version = 99"
                if damage == "version"
                else "update looks set facts = '[1]'"
            )
    with Memory(path) as memory:
        assert audit(scan(root), memory=memory) == first


def test_a_memory_that_cannot_be_is_said_and_does_not_stop_the_audit(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EDGEGRAFT_CACHE", str(tmp_path / "file"))
    assert main(["audit", str(root)]) == 0
    out, err = capsys.readouterr()
    assert "10 photos, 8 usable" in out
    assert err.startswith("warning: not remembered: ")
    assert err.count("\n") == 1
    assert main(["audit", str(root), "--no-memory"]) == 0
    assert capsys.readouterr().err == ""


def test_a_full_disk_is_said(root: Path, tmp_path: Path) -> None:
    with Memory(tmp_path / "memory") as memory:
        assert memory._file is not None
        memory._file.execute("pragma max_page_count = 3")
        report = audit(scan(root), memory=memory)
        memory.close()
    assert "full" in memory.problem
    assert len(report.digests) == 8
