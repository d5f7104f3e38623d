"""Five hundred photos through the Batch page, and through `edge classify`.

    python tests/benchmarks/page_batch.py [--model FILE] [--photos DIR] [--rounds 3]

In every round, in turn: a headless Chromium drops one ZIP of the photos on the page,
and `edge classify FOLDER --json -o FILE` answers the same files in a process of its
own, its start included. The page's time runs from the end of the upload's response to
the frame that holds the results; its server's own time is what it tells. Photos come
from --photos (or $EDGEGRAFT_ASSETS, or are drawn). Each way's least time counts,
because other programs only ever add to it.

Ends in one JSON line; exits 1 where the goal is missed (with --report only says so).
It does not know: the time of the upload itself.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests import browser as chromium  # noqa: E402
from tests.bench_room import circumstances, make_model  # noqa: E402
from tests.page_server import page as command  # noqa: E402
from tests.page_server import serve  # noqa: E402

GOAL = 0.8  # of the speed of `edge classify`
INPUT = '[data-testid="stFileUploaderDropzoneInput"]'
WATCH = """(count) => {
  performance.clearResourceTimings();
  window.done = null;
  const look = () => {
    const told = [...document.querySelectorAll("h2")]
      .find((e) => e.textContent.startsWith(count + " photos"));
    if (told && !window.done) requestAnimationFrame(() => {
      window.done = {at: performance.now(), text: told.textContent};
    });
  };
  new MutationObserver(look).observe(document.body,
    {subtree: true, childList: true, characterData: true});
}"""
TOLD = """() => {
  const sent = performance.getEntriesByType("resource")
    .filter((e) => e.name.includes("upload_file")).at(-1);
  return [(window.done.at - sent.responseEnd) / 1e3, window.done.text];
}"""


def through_the_page(browser: Any, address: str, archive: Path) -> tuple[float, float]:
    """(seconds in the browser, seconds the server tells)."""
    page = browser.new_page()
    page.set_default_timeout(200_000)
    page.goto(f"{address}/batch")
    page.wait_for_selector(INPUT, state="attached")
    with zipfile.ZipFile(archive) as file:
        count = f"{len(file.namelist()):,}"
    page.evaluate(WATCH, count)
    page.set_input_files(INPUT, str(archive))
    page.wait_for_function("() => !!window.done")
    seconds, text = page.evaluate(TOLD)
    page.context.close()
    told = re.search(r"in ([\d.]+) s", text)
    return float(seconds), float(told[1]) if told else float("nan")


def through_the_command(model: Path, folder: Path, out: Path) -> float:
    out.unlink(missing_ok=True)
    to = ["--json", "-o", str(out)]
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "edge", "classify", str(model), str(folder), *to],
        cwd=ROOT,
        check=True,
    )
    return time.perf_counter() - start


def choose(args: argparse.Namespace, scratch: Path) -> Path:
    """A folder with exactly --count photos."""
    assets = os.environ.get("EDGEGRAFT_ASSETS")
    source = args.photos
    if source is None and assets:
        source = Path(assets, "photos", "cats_dogs", "test")
    folder = scratch / "photos"
    folder.mkdir()
    found = sorted(source.rglob("*.jpg"))[: args.count] if source else []
    for number, path in enumerate(found):
        (folder / f"{number:04}.jpg").write_bytes(path.read_bytes())
    for number in range(len(found), args.count):
        from data.sample.picture import picture_file

        drawn = picture_file("cat", seed=2, stream=0, index=number, plain=True)[1]
        (folder / f"{number:04}.jpg").write_bytes(drawn)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="int8 file with a card")
    parser.add_argument("--photos", type=Path, help="a folder of JPEG photos")
    parser.add_argument("--count", type=int, default=500, help="photos (500)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--report", action="store_true", help="exit 0 whatever comes")
    args = parser.parse_args()
    reason = chromium.why_not()
    if reason:
        raise SystemExit(reason)
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        model = (args.model or make_model(place)).resolve()
        folder, archive = choose(args, place), place / "photos.zip"
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(folder.iterdir()):
                file.write(path, path.name)
        (place / "none").mkdir()
        page: list[tuple[float, float]] = []
        edge: list[float] = []
        with (
            serve(command(model, "--artifacts", place / "none"), place / "log") as one,
            sync_playwright() as playwright,
        ):
            browser = chromium.launch(playwright)
            for _ in range(args.rounds):
                page.append(through_the_page(browser, one.address, archive))
                edge.append(through_the_command(model, folder, place / "out.json"))
            browser.close()
    seconds, server = min(p[0] for p in page), min(p[1] for p in page)
    share = min(edge) / seconds
    held = share >= GOAL
    print(
        f"{args.count} photos: page {seconds:.2f} s (server {server:.2f}), "
        f"edge classify {min(edge):.2f} s; {share:.2f} of its speed (goal {GOAL}): "
        f"{'held' if held else 'MISSED'}"
    )
    record = {
        "benchmark": "page_batch",
        "photos": args.count,
        "page_s": [round(p[0], 3) for p in page],
        "page_server_s": [round(p[1], 3) for p in page],
        "edge_s": [round(s, 3) for s in edge],
        "speed_of_edge": round(share, 4),
        "held": held,
        **circumstances(),
    }
    print(json.dumps(record))
    return 0 if held or args.report else 1


if __name__ == "__main__":
    sys.exit(main())
