"""`data.audit.facts.FactCache`: a second audit decodes only what is new."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data.audit.facts
import data.batches
from data.audit.audit import audit
from data.audit.facts import FactCache, _cache_table, measure
from data.cli import main
from data.source import scan

ROOT = Path(__file__).resolve().parents[1]


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
        return measure(content, image)

    monkeypatch.setattr(data.batches, "measure", watched)
    return seen


def test_a_second_audit_decodes_only_what_is_new(
    root: Path, tmp_path: Path, decoded: list[bytes]
) -> None:
    with FactCache(tmp_path / "memory") as fact_cache:
        first = audit(scan(root), fact_cache=fact_cache)
    assert len(decoded) == 8  # two are no photos
    with FactCache(tmp_path / "memory") as fact_cache:
        assert audit(scan(root), fact_cache=fact_cache) == first
    assert len(decoded) == 8  # two are no photos
    shutil.move(root / "cat" / "0.png", root / "cat" / "renamed.png")
    changed = (root / "cat" / "2.png").read_bytes() + b"more"
    (root / "cat" / "2.png").write_bytes(changed)
    with FactCache(tmp_path / "memory") as fact_cache:
        audit(scan(root), fact_cache=fact_cache)
    assert decoded[8:] == [changed]


def test_it_gives_back_what_it_was_told(root: Path, tmp_path: Path) -> None:
    facts = measure((root / "dog" / "1.png").read_bytes())
    with FactCache(tmp_path / "memory") as fact_cache:
        fact_cache.put("a", facts)
        fact_cache.put("b", "damaged")
    with FactCache(tmp_path / "memory") as fact_cache:
        assert fact_cache.get("a") == facts
        assert fact_cache.get("b") == "damaged"
        assert fact_cache.get("c") is None


@pytest.mark.parametrize("damage", ["text", "facts", "table", "cut"])
def test_a_damaged_memory_mends_itself(root: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "memory"
    with FactCache(path) as fact_cache:
        first = audit(scan(root), fact_cache=fact_cache)
    if damage == "text":
        path.write_text("this is no database, " * 100)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        with sqlite3.connect(path) as file:
            file.execute(
                f"drop table {_cache_table()}"
                if damage == "table"
                else f"update {_cache_table()} set facts = '[1]'"
            )
    with FactCache(path) as fact_cache:
        assert audit(scan(root), fact_cache=fact_cache) == first


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
    assert err.startswith("warning: not kept for the next audit: ")
    assert err.count("\n") == 1
    assert main(["audit", str(root), "--no-memory"]) == 0
    assert capsys.readouterr().err == ""


def test_a_full_disk_is_said(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fact_cache: FactCache) -> sqlite3.Connection:
        file = connected(fact_cache)
        file.execute("pragma max_page_count = 3")
        return file

    connected = FactCache._connected
    monkeypatch.setattr(FactCache, "_connected", full)
    with FactCache(tmp_path / "memory") as fact_cache:
        report = audit(scan(root), fact_cache=fact_cache)
        fact_cache.close()
    assert "full" in fact_cache.problem
    assert len(report.digests) == 8


@pytest.mark.parametrize("loss", ["file", "folder", "content"])
def test_a_memory_that_was_thrown_away_meanwhile_is_begun_anew(
    loss: str, tmp_path: Path
) -> None:
    path = tmp_path / "cache" / "memory"
    with FactCache(path) as fact_cache:
        fact_cache.put("a", "damaged")
        fact_cache._write()
        if loss == "file":
            path.unlink()
        elif loss == "folder":
            shutil.rmtree(path.parent)
        else:
            path.write_text("this is no database, " * 500)
        fact_cache.put("b", "damaged")
    assert fact_cache.problem == ""
    with FactCache(path) as fact_cache:
        assert fact_cache.get("a") is None
        assert fact_cache.get("b") == "damaged"


def test_one_that_is_locked_for_good_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data.audit.facts, "PATIENCE", 0.1)
    path = tmp_path / "memory"
    FactCache(path).close()
    other = sqlite3.connect(path)
    with FactCache(path) as fact_cache:
        other.execute("begin exclusive")
        fact_cache.put("a", "damaged")
    assert fact_cache.problem == f"{path}: database is locked"
    other.close()


_MANY = """
import sys
import data.audit.facts
from data.audit.facts import FactCache
path, me, data.audit.facts.CACHE_VERSION = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.stdin.readline()
for turn in range(20):
    with FactCache(path) as cache:
        for number in range(10):
            cache.put(f"{me} {turn} {number}", "damaged")
        cache._write()
        cache.get(f"{me} {turn} 0")
    assert not cache.problem, cache.problem
"""


@pytest.mark.parametrize("versions", [(2, 2), (2, 3)])
def test_two_processes_write_at_once(versions: tuple[int, int], tmp_path: Path) -> None:
    """Of one version they share what they write; of two they are not in the way."""
    path = tmp_path / "memory"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", _MANY, str(path), f"p{number}", str(version)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for number, version in enumerate(versions)
    ]
    for process in both:  # started, they begin together
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    with sqlite3.connect(path) as file:
        (kept,) = file.execute(
            f"select count(*) from {_cache_table(versions[1])}"
        ).fetchone()
        assert kept == (400 if versions[0] == versions[1] else 200)
    file.close()
