"""The page in a real browser: what only shows there.

One server and one browser for all; the model answers by the mean colour, so every
answer is known. Nothing may be asked of another host, whatever is done.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

pytest.importorskip("streamlit", reason="the page needs streamlit")

from edgegraft import main
from tests import npm, page_server
from tests.edge_models import network, with_card
from tests.fuzz.inputs import NAMES
from tests.page_helpers import photo, write_run, zipped

pytestmark = pytest.mark.slow  # a browser and a server

WAIT = 60_000  # milliseconds, on a machine that does other things, too
INPUT = '[data-testid="stFileUploaderDropzoneInput"]'
CHART = '[data-testid="stVegaLiteChart"] :is(canvas, svg.marks)'
DIM = photo((100, 100, 104))
OWN = {  # what only this page says, run or no run
    "Compare": "All runs",
    "Model": re.compile("^Device folder"),
    "Review": "Keep photos for review",
    "Train": "Label of the photos",
}
LOADED = ("/", "/batch")  # each with photos of its own; the others by their links
ROW = 300  # pixels: columns beside each other are read one after the other


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

    def click_to(self, title: str) -> Any:
        """Another page of the app by its link, without loading all code again."""
        self.page.get_by_role("link", name=title, exact=True).click()
        self.see(OWN[title])
        self.rest()
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

    def open(self, title: str) -> None:
        """What folds out moves its buttons: a click meanwhile can miss them."""
        self.page.get_by_text(title).click()
        # not by their promises, which wait forever where nothing more is drawn
        self.page.wait_for_function(
            """() => document.getAnimations().every(
              (one) => one.playState !== "running"
                || one.effect.getComputedTiming().iterations === Infinity)"""
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
    visit.open("Why?")
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


class Listener(ThreadingHTTPServer):
    """A host that counts what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Asked)
        self.name = f"127.0.0.1:{self.server_address[1]}"


class Asked(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Listener)
        self.server.asked.append(self.path)
        self.send_error(404)

    do_HEAD = do_POST = do_OPTIONS = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def hostile(record: Any, names: Iterator[str]) -> Any:
    """The record with a hostile name for each text that no code compares."""
    if isinstance(record, dict):
        kept = ("status", "variant", "file", "labels", "label", "model_sha256")
        return {k: v if k in kept else hostile(v, names) for k, v in record.items()}
    if isinstance(record, list):
        return [hostile(value, names) for value in record]
    return next(names) if isinstance(record, str) else record


def test_hostile_names_are_text_on_every_page_and_in_every_report(
    visit: Visit, place: Path, listener: Listener, capsys: pytest.CaptureFixture[str]
) -> None:
    """Markdown, HTML, links, pictures, formulas in the names of photos, labels, runs
    and models, and in every text of their records: shown, and nothing is asked of the
    host that they name, by the browser, the page or a command."""
    host = listener.name
    url = f"http://{host}/x.png"
    names = [name.replace("{host}", host) for name in NAMES if name.isprintable()]
    names += [f"![a]({url})", f"<img src={url}>", f"[b]({url}) :red[c] $d$"]
    labels = tuple(names[-3:])
    files = [name.replace("/", "\\") + ".png" for name in names if len(name) < 200]
    artifacts = place / "artifacts"
    name = "*run* ![r](http:x)"
    run = write_run(artifacts, name, labels=labels)
    turns = itertools.cycle(names)
    for record in ("run.json", "metrics.json", "comparison.json"):
        changed = hostile(json.loads((run / record).read_text()), turns)
        (run / record).write_text(json.dumps(changed))
    model = run / "exports" / "int8.tflite"
    about = {"backbone": names[0], "source": names[1]}
    card = {"labels": labels, "name": url, "provenance": about}
    model.write_bytes(with_card(network(), **card))
    for path in (*LOADED, *OWN):
        if path in OWN:
            page = visit.click_to(path)
            assert parse_qs(urlsplit(page.url).query)["run"] == [name]
        else:
            page = visit.go(f"{path}?run={quote(name)}")
            shown = files[:1] if path == "/" else files
            visit.drop(*((file, photo("red")) for file in shown))
            page.locator("h2").first.wait_for()
        visit.rest()
        app = page.locator('[data-testid="stApp"]')
        assert app.locator('[data-testid="stException"]').count() == 0
        assert app.locator(f'img[src*="{host}"], a[href*="{host}"]').count() == 0
        markdown = app.locator('[data-testid="stMarkdownContainer"]')
        assert markdown.locator("em, .katex").count() == 0
        if path == "/":
            visit.see(labels[0])
            visit.open("Why?")
            page.locator('img[alt^="What matters for"]').wait_for()

    photos = place / "hostile"
    for number, file in enumerate(files):
        label = labels[number % 3].replace("/", "\\")
        (photos / label).mkdir(parents=True, exist_ok=True)
        (photos / label / file).write_bytes(photo((number * 20, 9, 99)))
    with (place / "list.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label"))
        rows.writerows(
            (path, labels[number % 3])
            for number, path in enumerate(sorted(photos.rglob("*.png")))
        )
    whole = str(model)
    assert main(["data", "audit", str(photos), "-o", str(place / "audit")]) in (0, 1)
    quick = ["--rounds", "1", "--runs", "1", "--seconds", "0.01", "--verbose"]
    by_list = ["--photos", str(place / "list.csv"), "--out", str(place / "compared")]
    other = place / names[-1].replace("/", "\\")
    other.with_suffix(".tflite").write_bytes(with_card(network(), **card, measured={}))
    files = [whole, str(other.with_suffix(".tflite"))]
    assert main(["compare", *files, *by_list, *quick]) == 0
    for command in (
        ["evaluate", whole, str(place / "list.csv")],
        ["info", whole],
        ["classify", whole, str(photos)],
        ["classify", whole, str(photos), "--json"],
        ["bench", whole, "--runs", "2"],
        ["pack", whole, "-o", str(place / "packed")],
    ):
        assert main(["edge", *command]) == 0, command
    assert "\x1b" not in capsys.readouterr().out
    for html in ("audit/audit.html", "compared/comparison.html"):
        with visit.context.new_page() as report:
            report.goto((place / html).as_uri())
            report.wait_for_load_state()
            assert report.locator(f'img[src*="{host}"], a[href*="{host}"]').count() == 0
    assert listener.asked == []


def test_a_burst_of_the_camera_becomes_photos_of_a_label(
    visit: Visit, place: Path
) -> None:
    page = visit.go("/train")
    visit.rest()
    page.get_by_label("Label of the photos").fill("cat")
    page.keyboard.press("Enter")
    visit.rest()
    visit.open("Take photos with the camera")
    page.get_by_role("button", name="Start the camera").click()
    take = page.get_by_role("button", name="Take photos")
    take.wait_for()
    page.evaluate(
        """() => {
          window.said = [];
          const status = document.querySelector(".eg-burst p");
          new MutationObserver(() => window.said.push(status.textContent))
            .observe(status, {childList: true});
        }"""
    )
    take.click()
    page.get_by_role("button", name="Delete", exact=True).wait_for()
    said = page.evaluate("window.said")
    assert said[:4] == ["3 …", "2 …", "1 …", "1 of 10"]
    assert said[-2:] == ["10 of 10", ""]
    taken = list((place / "artifacts").glob("visitors/*/uploads/photos/cat/*.jpg"))
    assert taken  # the same picture is kept once


def test_the_grid_of_review_by_mouse_and_keys(visit: Visit) -> None:
    page = visit.go("/review")
    visit.rest()
    page.get_by_text("Keep photos for review").click()
    visit.see("The queue is empty")
    visit.rest()
    visit.drop(*((f"{n}.png", photo((200, n * 9, 60))) for n in range(14)))
    visit.see("14 waiting")
    page.get_by_text("Grid", exact=True).click()
    visit.see("0 photos selected")
    visit.rest()
    tiles = page.locator('[class*="st-key-tile-"]')
    assert tiles.count() == 14
    tiles.nth(1).locator("img").click()
    visit.see("1 photo selected")
    tiles.nth(8).locator("img").click(modifiers=["Shift"])  # over the end of a row
    visit.see("8 photos selected")
    tiles.nth(3).locator("label").click()
    visit.see("7 photos selected")
    page.keyboard.press("ArrowDown")  # from 3 to 9
    page.keyboard.press("Space")
    visit.see("8 photos selected")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    visit.see("10 photos selected")
    page.keyboard.press("3")
    visit.see("4 waiting")


AXE, AXE_SHA512 = (
    "axe-core@4.10.3",
    "Xm7bpRXnDSX2YE2YFfBk2FnF0ep6tmG7xPh8iHee8MIcrgq762Nkce856dYtJYLkuIoYZvGfTs/PbZhideTcE"
    "g==",
)
RULES = {  # the same page in both: only its colours differ
    "light": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]},
    "dark": {"type": "rule", "values": ["color-contrast"]},
}
AXE_RUN = """(rules) => axe.run(document,
  {runOnly: rules, resultTypes: ["violations"]}).then((found) => found.violations)"""
# What the Tab key reaches in the page's main part, in its order: tops of the boxes
FOCUS = """() => [...document.querySelectorAll(
    'section[data-testid="stMain"] :is(a[href], button, input, select, textarea)')]
  .filter((e) => !e.disabled && e.offsetParent && e.tabIndex >= 0)
  .map((e) => [e.tabIndex, Math.round(e.getBoundingClientRect().top + scrollY)])"""


def test_every_page_is_accessible_light_and_dark(
    visit: Visit, place: Path, request: Any
) -> None:
    """axe-core finds nothing against WCAG 2.1 AA: contrast, labels, roles; and Tab
    goes down the page."""
    try:
        axe = npm.package(AXE, AXE_SHA512, request.config.cache.mkdir("axe") / "npm")
    except npm.Unavailable as reason:
        pytest.skip(f"axe-core comes from npm: {reason}")
    files = {f"cup/{n}__png": photo((9 * n, 60, 90)) for n in range(8)}
    files |= {f"pen/{n}__png": photo((9 * n, 60, 200)) for n in range(8)}
    drops = {
        "/": [("red.png", photo("red"))],
        "/batch": [("red.png", photo("red")), ("dim.png", DIM)],
        "Compare": [("red.png", photo("red"))],
        "Model": [],
        "Review": [("dim.png", DIM)],
        "Train": [("photos.zip", zipped(**files))],
    }
    found = []
    for path, dropped in drops.items():
        visit.page.emulate_media(color_scheme="light")
        if path in LOADED:
            page = visit.go(f"{path}?run=pets")
            page.add_script_tag(path=axe / "axe.min.js")
            visit.rest()
        else:
            page = visit.click_to(path)
        if path == "Review":
            page.get_by_text("Keep photos for review").click()
            visit.see("The queue is empty")
            visit.rest()
        if dropped:
            visit.drop(*dropped)
            after = {"Compare": "same answer", "Review": "What is it?"}
            visit.see(after.get(path, re.compile("^(red|2 photos|8 photos)")))
            visit.rest()
        for scheme, rules in RULES.items():
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(800)  # colours fade
            violations = page.evaluate(AXE_RUN, rules)
            found += [
                f"{path} {scheme}: {violation['id']}: {node['html'][:150]}: "
                f"{node['failureSummary'][:200]}"
                for violation in violations
                for node in violation["nodes"]
            ]
        focus = page.evaluate(FOCUS)
        assert all(index == 0 for index, _ in focus), path
        tops = [top for _, top in focus]
        back = max((a - b for a, b in pairwise(tops)), default=0)
        if back > ROW:
            found.append(f"{path}: Tab goes up {back} pixels: {tops}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "visit",
    [{"color_scheme": "dark", "viewport": {"width": 390, "height": 844}}],
    indirect=True,
    ids=["phone"],
)
def test_the_dark_theme_and_a_phone(visit: Visit) -> None:
    page = visit.go("/?run=pets")
    visit.drop(("red.png", photo("red")))
    page.locator("h2", has_text="red").wait_for()
    colours = page.evaluate(
        """() => [getComputedStyle(document.querySelector(
             '[data-testid="stApp"]')).backgroundColor,
           getComputedStyle(document.querySelector('h2')).color]"""
    )
    dark, light = (sum(map(int, re.findall(r"\d+", c)[:3])) for c in colours)
    assert dark < 120 and light > 600
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390  # nothing to scroll sideways
    box = page.locator("h2").first.bounding_box()
    assert box["y"] < 844  # the answer shows without scrolling
