"""HEIC photos: read where the extra is installed, and told plainly where it is not."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.audit.audit import audit
from data.source import scan
from edge.errors import PhotoError
from edge.photo_kinds import PHOTO_SUFFIXES
from edge.preprocess import open_photo

ROOT = Path(__file__).parents[1]
# The first bytes of every HEIC file: a box of 24 bytes that names its kind.
HEAD = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"

WITHOUT = """
import sys
sys.modules["pillow_heif"] = None
from edge.preprocess import open_photo
from edge.errors import PhotoError
try:
    open_photo(sys.argv[1])
except PhotoError as error:
    print(error.reason)
"""


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    path = tmp_path / "photo.heic"
    path.write_bytes(HEAD + bytes(500))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("not installed: pip install pillow-heif\n")


def test_the_error_names_every_kind_that_is_taken(tmp_path: Path) -> None:
    """Its list and the page's upload box are one."""
    other = {"JPE": "JPEG", "JPG": "JPEG", "JFIF": "JPEG", "TIF": "TIFF"}
    path = tmp_path / "photo.jpg"
    path.write_text("no photo at all")
    with pytest.raises(PhotoError) as wrong:
        open_photo(path)
    told = wrong.value.reason.partition("(")[2].partition(")")[0]
    taken = {suffix[1:].upper() for suffix in PHOTO_SUFFIXES}
    named = told.upper().replace(" OR ", ", ").split(", ")
    assert sorted({other.get(kind, kind) for kind in taken}) == sorted(named)


def test_with_the_extra_it_is_a_photo_like_others(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    heif.register_heif_opener()
    small = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    image = Image.fromarray(small).resize((96, 64), Image.Resampling.NEAREST)
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        image.save(tmp_path / label / "phone.heic")
        Image.effect_noise((96, 64), 60).save(tmp_path / label / "other.jpg")
    (tmp_path / "dog" / "phone.heic").unlink()
    (tmp_path / "dog" / "another.png").write_bytes(
        (tmp_path / "cat" / "other.jpg").read_bytes()
    )
    image.save(tmp_path / "cat" / "again.jpg")
    report = audit(scan(tmp_path))
    facts = report.fact_store[tmp_path / "cat" / "phone.heic"]
    assert (facts.format, facts.width, facts.height) == ("HEIF", 96, 64)
    assert report.of_kind("unreadable") == []
    (near,) = report.of_kind("near-duplicate")
    names = {path.name for path in (near.path, *near.others)}
    assert names == {"phone.heic", "again.jpg"}
