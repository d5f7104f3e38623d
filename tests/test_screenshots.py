"""`make screenshots` writes the pictures of docs/ only of the runs that they show."""

from pathlib import Path

import pytest
from PIL import Image

from tests.screenshots import DOCS, PICTURES, ROOT, write_docs


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in PICTURES:
        Image.new("RGB", (40, 30), "teal").save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("runs", [["quickstart"], [*DOCS, "mine"]])
def test_other_runs_leave_docs_alone(pictures: Path, runs: list[str]) -> None:
    docs = pictures / "docs"
    docs.mkdir()
    said = write_docs(pictures, runs, docs)
    assert list(docs.iterdir()) == []
    assert "is left as it is: its pictures show pets-mobilenet and quickstart" in said
    assert "--backbone mobilenet_v2_0.35 --unfreeze none; make quickstart" in said


def test_these_runs_are_shown(pictures: Path) -> None:
    docs = pictures / "docs"
    docs.mkdir()
    assert "page-classify.png" in write_docs(pictures, sorted(DOCS), docs)
    assert {path.name for path in docs.iterdir()} == set(PICTURES.values())
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "page.md").read_text(encoding="utf-8")
    assert "(docs/page-classify.png)" in readme
    assert all(f"({target})" in page for target in PICTURES.values())
