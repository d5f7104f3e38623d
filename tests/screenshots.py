"""Pictures of every page: `make screenshots`.

    python tests/screenshots.py [--artifacts artifacts] [--run quickstart ...]
        [-o artifacts/screenshots] [--only grid ...] [--docs]

Serves the named runs (by default all that were trained on the drawn sample set), drops
drawn photos, and writes a PNG of each page, light, dark and as a phone shows it. With
--docs those of the documentation are written to docs/ as well, but only of the very
runs that they show: `DOCS` says how each is made, one takes pretrained weights. Only
drawn photos are ever shown. Whether a page looks right only you can see: look at
them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests import browser as chromium  # noqa: E402
from tests.page_server import page as command  # noqa: E402
from tests.page_server import serve  # noqa: E402

INPUT = '[data-testid="stFileUploaderDropzoneInput"]'
CHART = '[data-testid="stVegaLiteChart"] :is(canvas, svg.marks)'
DESK, PHONE = {"width": 1200, "height": 820}, {"width": 390, "height": 844}
# What stands in docs/, the first two in the README, too
PICTURES = {
    "classify.png": "page-classify.png",
    "runs.png": "page-compare.png",
    "batch.png": "page-batch.png",
    "grid.png": "page-review.png",
    "train.png": "page-train.png",
    "model-phone.png": "page-phone.png",
    "answers-dark.png": "page-dark.png",
}
# The runs that these pictures show, the first one chosen, and how they are made
DOCS = {
    "pets-mobilenet": "edgegraft build artifacts/sample/photos --run pets-mobilenet "
    "--backbone mobilenet_v2_0.35 --unfreeze none",
    "quickstart": "make quickstart",
}
COLOURS = 256  # of the pictures in docs/: a third of the size, hardly to be seen


class Camera:
    """One server's pages, each visited anew."""

    def __init__(self, browser: Any, address: str, run: str, out: Path) -> None:
        self.browser, self.address, self.out = browser, address, out
        self.run = run  # the one that is chosen

    def visit(self, path: str, *, dark: bool = False, phone: bool = False) -> Any:
        context = self.browser.new_context(
            viewport=PHONE if phone else DESK,
            color_scheme="dark" if dark else "light",
            device_scale_factor=1.5 if phone else 1,
        )
        page = context.new_page()
        page.set_default_timeout(90_000)
        page.goto(f"{self.address}{path}?{urlencode({'run': self.run})}")
        rest(page)
        return page

    def take(self, page: Any, name: str) -> None:
        rest(page)
        page.mouse.move(1, 1)  # a toast stays while the mouse is on it
        page.wait_for_function("!document.querySelector('[data-testid=\"stToast\"]')")
        page.wait_for_timeout(1200)  # pictures and charts fade in
        page.screenshot(path=self.out / name)
        page.context.close()
        print(self.out / name)


def rest(page: Any) -> None:
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')


def drop(page: Any, photos: list[Path]) -> None:
    page.wait_for_selector(INPUT, state="attached")
    page.set_input_files(INPUT, [str(photo) for photo in photos])
    page.locator("h2, h3").first.wait_for()
    rest(page)


def take_all(
    camera: Camera, photos: dict[str, list[Path]], only: Sequence[str] = ()
) -> None:
    """Every page (or those named) on a desk, dark, and on a phone."""
    few = photos["cat"][2:5] + photos["dog"][2:5]

    def classify(page: Any) -> None:
        drop(page, photos["cat"][2:3])
        page.get_by_text("Why?").click()
        page.get_by_text("patches").wait_for()

    def answers(page: Any) -> None:
        drop(page, few)

    def batch(page: Any) -> None:
        drop(page, photos["cat"] + photos["dog"])

    def compare(page: Any) -> None:
        drop(page, few[:2])

    def runs(page: Any) -> None:
        page.get_by_role("tab", name="All runs").click()
        page.locator(CHART).first.wait_for()

    def queue(page: Any) -> None:
        page.get_by_text("Keep photos for review").click()
        page.get_by_text("The queue is empty").wait_for()
        rest(page)
        drop(page, few * 2 + photos["cat"][5:9] + photos["dog"][5:7])
        page.get_by_text("What is it?").wait_for()

    def grid(page: Any) -> None:
        queue(page)
        page.get_by_text("Grid", exact=True).click()
        page.locator('[class*="st-key-tile-"] img').first.wait_for()
        rest(page)
        page.locator('[class*="st-key-tile-"] img').nth(1).click()
        page.locator('[class*="st-key-tile-"] img').nth(4).click(modifiers=["Shift"])
        page.get_by_text("4 photos selected").wait_for()

    def train(page: Any) -> None:
        for label in ("cat", "dog"):
            page.get_by_label("Label of the photos").fill(label)
            page.keyboard.press("Enter")
            rest(page)
            page.wait_for_selector(INPUT, state="attached")
            page.set_input_files(INPUT, [str(photo) for photo in photos[label]])
            count = f"{label} {len(photos[label])} photos"
            page.locator("p", has_text=count).first.wait_for()
            rest(page)
        page.get_by_role("button", name="Check").scroll_into_view_if_needed()

    scenes = {
        "empty": ("/", None),
        "classify": ("/", classify),
        "answers": ("/", answers),
        "batch": ("/batch", batch),
        "compare": ("/compare", compare),
        "runs": ("/compare", runs),
        "model": ("/model", None),
        "review": ("/review", queue),
        "grid": ("/review", grid),
        "train": ("/train", train),
    }
    for name, (path, prepare) in scenes.items():
        if only and name not in only:
            continue
        for kind in ("", "-dark", "-phone"):
            page = camera.visit(path, dark=kind == "-dark", phone=kind == "-phone")
            if prepare:
                prepare(page)
            camera.take(page, f"{name}{kind}.png")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--run", action="append", help="default: all on drawn photos")
    parser.add_argument("-o", "--out", type=Path, default=Path("artifacts/screenshots"))
    parser.add_argument("--only", action="append", default=[], help="one scene")
    parser.add_argument("--docs", action="store_true", help="write those of docs/, too")
    args = parser.parse_args()
    reason = chromium.why_not()
    if reason:
        raise SystemExit(f"screenshots: {reason}")
    sample = args.artifacts / "sample" / "photos"
    photos = {
        label: sorted((sample / label).glob("*.jpg"))[:24] for label in ("cat", "dog")
    }
    runs = args.run or drawn_runs(args.artifacts, sample)
    if not args.run and args.docs and set(runs) >= set(DOCS):
        runs = list(DOCS)  # others would be in the pictures, too
    if not runs or not all(photos.values()):
        raise SystemExit("screenshots: expected a run on drawn photos; make quickstart")
    args.out.mkdir(parents=True, exist_ok=True)
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch, "artifacts")
        place.mkdir()
        for run in runs:
            (place / run).symlink_to((args.artifacts / run).resolve())
        with (
            serve(command("--artifacts", place), Path(scratch, "log.txt")) as served,
            sync_playwright() as playwright,
        ):
            browser = chromium.launch(playwright)
            take_all(
                Camera(browser, served.address, runs[0], args.out), photos, args.only
            )
            browser.close()
    if args.docs:
        print(write_docs(args.out, runs, ROOT / "docs", args.only))
    return 0


def write_docs(
    pictures: Path, runs: Sequence[str], docs: Path, only: Sequence[str] = ()
) -> str:
    """Write the pictures of docs/ (of the scenes `only`), if they are of these very
    runs; what was done, a line."""
    if set(runs) != set(DOCS):
        needed = "; ".join(DOCS.values())
        return (
            f"{docs} is left as it is: its pictures show {' and '.join(DOCS)}, these "
            f"show {' and '.join(runs)}; make the runs ({needed}) and name no other"
        )
    from PIL import Image

    wanted = {
        name: target
        for name, target in PICTURES.items()
        if not only or Path(name).stem.split("-")[0] in only
    }
    for name, target in wanted.items():
        with Image.open(pictures / name) as picture:
            small = picture.convert("RGB").quantize(COLOURS)
            small.save(docs / target, optimize=True)
    return f"{docs}: {', '.join(wanted.values())}"


def drawn_runs(artifacts: Path, sample: Path) -> list[str]:
    """The runs whose photos are the drawn ones."""
    found = []
    for record in sorted(artifacts.glob("*/run.json")):
        photos = json.loads(record.read_text(encoding="utf-8")).get("photos", "")
        if Path(photos).resolve() == sample.resolve():
            found.append(record.parent.name)
    return found


if __name__ == "__main__":
    sys.exit(main())
