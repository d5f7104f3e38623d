"""The page in a real browser: what only shows there.

One server and one browser for all; the model answers by the mean colour, so every
answer is known. Nothing may be asked of another host, whatever is done.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

pytest.importorskip("streamlit", reason="the page needs streamlit")

from tests import page_server
from tests.page_helpers import photo, write_run, zipped

pytestmark = pytest.mark.slow  # a browser and a server

WAIT = 60_000  # milliseconds, on a machine that does other things, too
INPUT = '[data-testid="stFileUploaderDropzoneInput"]'
CHART = '[data-testid="stVegaLiteChart"] :is(canvas, svg.marks)'
DIM = photo((100, 100, 104))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    write_run(folder / "artifacts")
    return folder


@pytest.fixture(scope="module")
def address(place: Path, browser: Any) -> Iterator[str]:
    """The page, served by the command; asks for the browser first, to be skipped."""
    command = page_server.page("--artifacts", place / "artifacts")
    with page_server.serve(command, place / "log.txt") as served:
        yield served.address


class Visit:
    """One visitor: a page of the browser, and the hosts it asked."""

    def __init__(self, browser: Any, address: str, **context: Any) -> None:
        self.address = address
        self.context = browser.new_context(permissions=["camera"], **context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT)
        self.hosts: set[str] = set()
        self.page.on("request", self._asked)
        self.page.on("websocket", self._asked)

    def _asked(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob"):
            self.hosts.add(parts.netloc)

    def go(self, path: str = "/") -> Any:
        self.page.goto(self.address + path)
        self.page.wait_for_selector('[data-testid="stSidebar"]', state="attached")
        return self.page

    def drop(self, *files: tuple[str, bytes]) -> None:
        self.page.wait_for_selector(INPUT, state="attached")
        self.page.set_input_files(
            INPUT,
            [
                {"name": name, "mimeType": "image/png", "buffer": content}
                for name, content in files
            ],
        )

    def rest(self) -> None:
        """Until the server has said all it has to say."""
        self.page.wait_for_selector(
            '[data-testid="stApp"][data-test-script-state="notRunning"]'
        )

    def see(self, text: str | re.Pattern[str]) -> Any:
        found = self.page.get_by_text(text).first
        found.wait_for()
        return found


@pytest.fixture
def visit(browser: Any, address: str, request: Any) -> Iterator[Visit]:
    visitor = Visit(browser, address, **getattr(request, "param", {}))
    yield visitor
    visitor.context.close()
    assert visitor.hosts == {urlsplit(address).netloc}  # no request leaves the machine


def test_one_photo_its_reason_and_the_link_to_its_model(visit: Visit) -> None:
    page = visit.go("/?run=pets&variant=float32")
    visit.drop(("red.png", photo("red")))
    page.locator("h2", has_text="red").wait_for()
    page.locator('img[alt="red.png, upright"]').wait_for()  # decoded, with a size
    page.get_by_text("Why?").click()
    page.locator('img[alt="What matters for red"]').wait_for()
    assert "variant=float32" in page.url
    undescribed = page.locator("img:not([alt])")
    assert undescribed.count() == 0


def test_a_pasted_photo_is_answered(visit: Visit) -> None:
    page = visit.go()
    page.wait_for_selector(INPUT, state="attached")
    numbers = list(photo("blue"))
    page.wait_for_function("!!window.edgegraftPaste")
    page.evaluate(
        """(numbers) => {
          const data = new DataTransfer();
          const bytes = new Uint8Array(numbers);
          data.items.add(new File([bytes], "pasted.png", {type: "image/png"}));
          document.dispatchEvent(new ClipboardEvent("paste",
            {clipboardData: data, bubbles: true}));
        }""",
        numbers,
    )
    page.locator("h2", has_text="blue").wait_for()


def test_thirty_photos_and_a_zip_in_the_batch(visit: Visit) -> None:
    page = visit.go("/batch")
    visit.drop(*((f"{n}.png", photo("lime")) for n in range(30)))
    page.locator("h2", has_text="30 photos").wait_for()
    page.locator('[data-testid="stDataFrame"]').wait_for()
    files = {f"{n}__png": photo("blue") for n in range(5)}
    visit.drop(("more.zip", zipped(**files)))
    page.locator("h2", has_text="35 photos").wait_for()
    visit.rest()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="CSV", exact=True).click()
    text = Path(waiting.value.path()).read_text()
    assert text.count(",green,") + text.count(",blue,") >= 35
    assert text.splitlines()[0].startswith("photo,label,probability")


def test_the_camera_is_answered_as_it_looks(visit: Visit) -> None:
    page = visit.go()
    page.get_by_text("Camera", exact=True).click()
    page.locator('[data-testid="stCameraInput"] video').wait_for()
    page.wait_for_function("document.querySelector('video')?.videoWidth > 0")
    page.get_by_role("button", name="Take Photo").click()
    page.locator("h2").first.wait_for()
    visit.see(re.compile("classified in"))


def test_models_side_by_side_and_the_plot(visit: Visit) -> None:
    page = visit.go("/compare")
    visit.drop(("red.png", photo("red")))
    visit.see("same answer")
    assert page.get_by_text("median of 15 on this host").count() == 2
    page.get_by_role("tab", name="All runs").click()
    page.locator(CHART).first.wait_for()
    visit.see(re.compile("The dashed line is the Pareto front"))


def test_the_lines_under_the_folder_for_a_device_work(
    visit: Visit, tmp_path: Path
) -> None:
    """As they stand on the page; the packages are not fetched but those of here."""
    page = visit.go("/model?run=pets&variant=int8")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Device folder").click()
    waiting.value.save_as(tmp_path / waiting.value.suggested_filename)
    lines = page.locator('[data-testid="stCode"] code').first
    unpack, venv, install, classify = lines.inner_text().splitlines()
    assert (venv.split()[-1], install.split()[-1]) == ("venv", "requirements.txt")
    (tmp_path / "photo.jpg").write_bytes(photo("red", kind="JPEG"))
    here = f"{unpack} && cp ../photo.jpg . && test -s requirements.txt && {classify}"
    here = here.replace("venv/bin/python", sys.executable)
    done = subprocess.run(
        ["sh", "-c", here], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("red "), done.stderr


def test_from_an_unsure_photo_to_a_label_by_key(visit: Visit, place: Path) -> None:
    page = visit.go("/review")
    visit.see("Off: nothing is saved").wait_for()
    page.get_by_text("Keep photos for review").click()
    visit.see("The queue is empty")
    visit.rest()
    page.get_by_role("link", name="Classify").click()
    # Review has a place to drop photos, too: it must be gone
    visit.see("Drop photos or a ZIP")
    page.get_by_text("Add photos to the queue").wait_for(state="detached")
    visit.rest()
    visit.drop(("dim.png", DIM))
    page.locator(".eg-badge", has_text="uncertain").wait_for()
    visit.rest()
    page.get_by_role("link", name="Review").click()
    visit.see("What is it?")
    page.get_by_role("button", name="green").wait_for()  # it holds the key
    visit.rest()
    page.keyboard.press("2")
    visit.see("The queue is empty")
    labelled = list((place / "artifacts").glob("visitors/*/feedback/green/*"))
    assert [path.read_bytes() for path in labelled] == [DIM]


def test_names_of_files_and_labels_are_text_on_every_page(
    visit: Visit, place: Path
) -> None:
    """Markdown, HTML, links and pictures in names: shown, and nothing is fetched (the
    fixture counts the requests to other hosts: none)."""
    evil = "http://127.0.0.1:9/x.png"
    labels = (f"![a]({evil})", f"<img src={evil}>", f"[b]({evil}) :red[c] $d$")
    write_run(place / "artifacts", "*run* ![r](http:x)", labels=labels)
    run = quote("*run* ![r](http:x)")
    for path in ("/", "/batch", "/compare", "/model", "/review"):
        page = visit.go(f"{path}?run={run}")
        if path in ("/", "/batch"):
            visit.drop((f"<img src={evil}> ![n]({evil}).png", photo("red")))
            page.locator("h2").first.wait_for()
        visit.rest()
        app = page.locator('[data-testid="stApp"]')
        assert app.locator(f'img[src*="127.0.0.1:9"], a[href*="{evil}"]').count() == 0
        markdown = app.locator('[data-testid="stMarkdownContainer"]')
        assert markdown.locator("em, .katex").count() == 0
        if path == "/":
            visit.see(labels[0])
            page.get_by_text("Why?").click()
            page.locator('img[alt^="What matters for"]').wait_for()


@pytest.mark.parametrize(
    "visit",
    [
        {"color_scheme": "dark"},
        {"viewport": {"width": 390, "height": 844}},
    ],
    indirect=True,
    ids=["dark", "phone"],
)
def test_the_dark_theme_and_a_phone(visit: Visit, request: Any) -> None:
    page = visit.go("/?run=pets")
    visit.drop(("red.png", photo("red")))
    page.locator("h2", has_text="red").wait_for()
    if request.node.callspec.id == "dark":
        colours = page.evaluate(
            """() => [getComputedStyle(document.querySelector(
                 '[data-testid="stApp"]')).backgroundColor,
               getComputedStyle(document.querySelector('h2')).color]"""
        )
        dark, light = (sum(map(int, re.findall(r"\d+", c)[:3])) for c in colours)
        assert dark < 120 and light > 600
    else:
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390  # nothing to scroll sideways
        box = page.locator("h2").first.bounding_box()
        assert box["y"] < 844  # the answer shows without scrolling
