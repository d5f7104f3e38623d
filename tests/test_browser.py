"""The browser that the page's tests drive: it starts, and shows a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def test_a_file_opens_without_any_request(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("<title>here</title><p id=a>photos</p>", "utf-8")
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert (page.title(), page.inner_text("#a")) == ("here", "photos")
    assert asked == [path.as_uri()]
    page.close()
