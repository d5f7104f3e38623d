"""A visitor of the page, from a ZIP of photos to a device: says how long it took.

Headless Chromium drops 60 photos of 3 labels (TrashNet) on Train, presses the button,
reloads, and finds the training again after the server was stopped and started anew.
The page then classifies a photo it never saw; the folder for a device, unpacked in an
environment with its own requirements.txt alone, has to give the same answer.

    python -m tests.legs.page UV
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from tests import browser as chromium
from tests import page_server

LABELS, EACH = ("cardboard", "glass", "paper"), 20
INPUT = '[data-testid="stFileUploaderDropzoneInput"]'
REQUIREMENTS = "requirements.txt"  # of the folder for a device
WAIT_S = 420  # for the training, on a machine that does other things, too


def main(uv: str) -> int:
    from playwright.sync_api import sync_playwright

    assets = Path(os.environ["EDGEGRAFT_ASSETS"])
    os.environ["KERAS_HOME"] = str(assets / "keras_home")
    trashnet = assets / "photos" / "trashnet"
    unseen = sorted((trashnet / "test" / LABELS[1]).iterdir())[0]
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        folder = Path(scratch)
        artifacts = folder / "artifacts"
        artifacts.mkdir()
        command = page_server.page("--artifacts", artifacts)
        browser = chromium.launch(playwright)
        page = browser.new_context().new_page()
        page.set_default_timeout(WAIT_S * 1000)
        start = time.monotonic()
        with page_server.serve(command, folder / "log.txt") as served:
            page.goto(f"{served.address}/train")
            rest(page)
            drop(page, "photos.zip", photos(trashnet / "train"))
            page.get_by_text(f"{EACH} photos").nth(len(LABELS) - 1).wait_for()
            rest(page)
            page.get_by_role("button", name="Train", exact=True).click()
            page.get_by_text("You can close this page").wait_for()
            page.reload()
            page.get_by_text("You can close this page").wait_for()
        with page_server.serve(command, folder / "log2.txt") as served:
            page.goto(f"{served.address}/train")
            page.get_by_text(re.compile("You can close|is ready")).first.wait_for()
            page.get_by_role("heading", name="is ready").wait_for()
            trained = time.monotonic() - start
            rest(page)
            with page.expect_download() as waiting:
                page.get_by_role("button", name="Device folder").click()
            archive = folder / "device.zip"
            waiting.value.save_as(archive)
            page.get_by_role("button", name="Try it").click()
            page.get_by_text("Drop photos or a ZIP").first.wait_for()
            rest(page)
            drop(page, unseen.name, unseen.read_bytes())
            page.locator(f'img[alt^="{unseen.name}"]').first.wait_for()
            rest(page)
            shown = page.locator("ul.eg-bars").first.locator("li").first.inner_text()
        label, percent = shown.split("\n")[0], shown.split("\n")[-1]
        answer = on_device(uv, archive, unseen)
        seconds = time.monotonic() - start
    best = answer["ranking"][0]
    there = f"{best['label']} {100 * best['probability']:.1f} %"
    here = f"{label} {percent}"
    if here.replace("\xa0", " ") != there:
        raise SystemExit(f"expected the page's answer {here}, the device has {there}")
    print(
        f"{len(LABELS) * EACH} photos trained in {trained:.0f} s through a reload and "
        f"a restart of the server; the device answers {there} as the page does, after "
        f"{seconds:.0f} s in all on {os.cpu_count()} cores"
    )
    return 0


def photos(folder: Path) -> bytes:
    """A ZIP with a folder for each label."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for label in LABELS:
            for path in sorted((folder / label).iterdir())[:EACH]:
                archive.write(path, f"trash/{label}/{path.name}")
    return file.getvalue()


def drop(page: Any, name: str, content: bytes) -> None:
    page.wait_for_selector(INPUT, state="attached")
    file = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    page.set_input_files(INPUT, [file])


def rest(page: Any) -> None:
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')


def on_device(uv: str, archive: Path, photo: Path) -> dict[str, Any]:
    """The answer of the unpacked folder, with the packages it names alone."""
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(archive.parent)
    device, python = archive.parent / "device", archive.parent / "venv/bin/python"
    tool = Path(shutil.which(uv) or uv).absolute()
    for command in (
        [tool, "venv", "--quiet", "--python", sys.executable, python.parent.parent],
        [tool, "pip", "install", "--quiet", "--python", python, "-r", REQUIREMENTS],
        [python, "edge.pyz", "classify", "model.tflite", photo, "--json"],
    ):
        done = subprocess.run(
            [str(part) for part in command],
            cwd=device,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{command[0]}: {done.stderr.strip()[-300:]}")
    document = json.loads(done.stdout)
    answer: dict[str, Any] = document["photos"][0]
    return answer


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
