"""What MediaPipe's ImageClassifier says in a browser: a model file and photos.

Serves the unpacked npm package @mediapipe/tasks-vision, the model and the photos from
this machine to a headless Chromium, and prints one JSON document as
mediapipe_answers.py does. A request to any other machine ends it.

    browser_answers.py PACKAGE MODEL PHOTOS COUNT
"""

from __future__ import annotations

import io
import json
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
TYPES = {
    ".mjs": "text/javascript",
    ".js": "text/javascript",
    ".wasm": "application/wasm",
}
TIMEOUT_MS = 240_000

PAGE = """<!doctype html><link rel="icon" href="data:,"><script type="module">
import { ImageClassifier } from "/package/vision_bundle.mjs";
const wasm = {
  wasmLoaderPath: "/package/wasm/vision_wasm_internal.js",
  wasmBinaryPath: "/package/wasm/vision_wasm_internal.wasm",
};
async function run() {
  const file = await (await fetch("/model")).arrayBuffer();
  const baseOptions = { modelAssetBuffer: new Uint8Array(file), delegate: "CPU" };
  const classifier = await ImageClassifier.createFromOptions(wasm, { baseOptions });
  const out = [];
  for (let n = 0; n < COUNT; n++) for (const size of ["input", "full"]) {
    const photo = new Image();
    photo.src = `/${size}/${n}`;
    await photo.decode();
    const heads = classifier.classify(photo).classifications.map((head) =>
      [head.headName, head.categories.map((c) => [c.categoryName, c.score])]);
    out.push([size, n, heads]);
  }
  return out;
}
run().then((answers) => { window.done = { answers }; })
  .catch((error) => { window.done = { error: String(error) }; });
</script>"""


def main(package: str, model: str, folder: str, count: str) -> int:
    sys.path.insert(0, str(ROOT))
    from edge.classify.sources import photos
    from edge.model_file import ModelFile
    from edge.preprocess import fit, open_photo
    from tests import browser as chromium

    card = ModelFile.read(model).card
    assert card is not None
    every = list(photos([folder]))
    paths = every[:: max(1, len(every) // int(count))][: int(count)]

    def picture(size: str, number: int) -> bytes:
        """The photo upright, as PNG, so that the browser decodes the same pixels."""
        image = open_photo(paths[number])
        if size == "input":
            image = Image.fromarray(fit(image, card.input))
        stream = io.BytesIO()
        image.save(stream, "PNG")
        return stream.getvalue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            kind, _, rest = path.lstrip("/").partition("/")
            if kind == "package":
                file = Path(package, rest).resolve()
                inside = file.is_relative_to(Path(package).resolve())
                found = file.read_bytes() if inside and file.is_file() else None
                told = TYPES.get(file.suffix, "application/octet-stream")
            elif kind == "model":
                found, told = Path(model).read_bytes(), "application/octet-stream"
            elif kind in ("input", "full"):
                found, told = picture(kind, int(rest)), "image/png"
            else:
                found, told = (
                    PAGE.replace("COUNT", str(len(paths))).encode(),
                    "text/html",
                )
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", told)
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{server.server_port}/"
    strangers: list[str] = []

    def note(home: str, request: Any) -> None:
        if not request.url.startswith((home, "data:", "blob:")):
            strangers.append(request.url)

    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = chromium.launch(playwright)
        page = browser.new_page()
        page.on("request", partial(note, home))
        page.goto(home)
        page.wait_for_function("window.done", timeout=TIMEOUT_MS)
        done = page.evaluate("window.done")
        browser.close()
    if strangers or "error" in done:
        print(done.get("error") or f"asked for {strangers}", file=sys.stderr)
        return 1
    print(json.dumps(_document(done["answers"], paths, package)))
    return 0


def _document(answers: list[Any], paths: list[str], package: str) -> dict[str, Any]:
    version = json.loads(Path(package, "package.json").read_text())["version"]
    found: dict[str, Any] = {"input": {}, "full": {}}
    labels: set[str] = set()
    for size, number, heads in answers:
        named = dict(heads)
        labels.update(label for label, _ in named["probabilities"])
        seen = named.get("familiarity")
        best = named["probabilities"][0][0]
        found[size][paths[number]] = (best, seen[0][1] if seen else None)
    client = f"tasks-vision {version} in Chromium"
    return {"client": client, "labels": sorted(labels), **found}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
