"""The page's frame and Classify: what they show, how they take bad input."""

from __future__ import annotations

import base64
import io
import os
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("streamlit", reason="the page needs streamlit")

from edge.pack import zipped as zipped_for_device
from edge.preprocess import InputRecipe, load_pixels
from streamlit_app import session
from streamlit_app.model_pool import ModelPool
from streamlit_app.runs import find_models
from tests.edge_models import FLOAT32, network
from tests.page_helpers import (
    APP,
    INT8,
    ROOT,
    drop,
    page,
    photo,
    shown,
    unescaped,
    write_foreign,
    write_run,
    zipped,
)

pytestmark = pytest.mark.slow  # the page runs, a second or more each time


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    write_run(tmp_path / "artifacts")
    return tmp_path / "artifacts"


def headlines(app: Any) -> list[str]:
    found = re.findall(r"<h[23]>(.*?)</h[23]>", shown(app))
    return [unescape(re.sub(r"<.*?>", " ", text)).split()[0] for text in found]


def refused(app: Any) -> dict[str, str]:
    """Name to message of each refused file."""
    messages = [unescaped(error.value) for error in app.error]
    return {text.split("**")[1]: text for text in messages}


def test_without_a_run_the_page_says_how_to_build_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    app = page(monkeypatch, "--artifacts", tmp_path)
    assert not app.exception
    commands = [code.value for code in app.code]
    assert commands == [
        f"edgegraft build PHOTOS --artifacts {tmp_path}",
        f"edgegraft build --artifacts {tmp_path}",
    ]
    model = ("my model.tflite", INT8, "application/octet-stream")
    bad = ("bad.tflite", b"TFL3" * 40, "application/octet-stream")
    app.file_uploader(key="model file").set_value(bad).run()
    assert not app.exception and "bad.tflite" in unescaped(app.error[0].value)
    app.file_uploader(key="model file").set_value(model).run()
    assert not app.exception and not app.error
    assert app.selectbox(key="run").value.endswith("models/my_model.tflite")


def test_photos_are_answered_and_bad_ones_named(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    app = page(monkeypatch, "--artifacts", artifacts)
    assert "90.0 % (80.0 % to 95.0 %), 50 photos" in shown(app)
    whole = photo("lime")
    drop(
        app,
        ("red.png", photo("red")),
        ("lime.png", whole),
        ("cut.png", whole[:60]),
        ("text.jpg", b"not a photo"),
        ("empty.jpg", b""),
        ("phone.heic", b"\0\0\0\x18ftypheic" + bytes(40)),
        ("huge.png", huge_png()),
    )
    assert not app.exception
    assert headlines(app) == ["red", "green"]
    errors = refused(app)
    bad = {"cut.png", "text.jpg", "empty.jpg", "phone.heic", "huge.png"}
    assert set(errors) == bad
    assert "an empty file" in errors["empty.jpg"]
    assert "pixels" in errors["huge.png"]
    assert "2 photos" not in shown(app) and "5 could not be read" in shown(app)


def huge_png() -> bytes:
    """200 megapixels in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    head = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def test_one_photo_has_room_views_and_a_reason(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    app = drop(page(monkeypatch, "--artifacts", artifacts), ("r.png", photo("red")))
    assert headlines(app) == ["red"]
    assert 'alt="r.png, upright"' in shown(app)
    view = app.button_group(key="view")
    view.set_value("Model input").run()
    assert "8 × 8 pixels, stretch" in shown(app)
    source = re.search(r'src="data:image/png;base64,([^"]+)" alt="r.png as', shown(app))
    assert source
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(source[1]))))
    assert np.array_equal(pixels, load_pixels(photo("red"), InputRecipe(8, 8)))
    app.button_group(key="view").set_value("Why?").run()
    assert not app.exception
    assert 'alt="What matters for red"' in shown(app)
    assert re.search(r"\d+ patches, each run through this file", shown(app))
    app.slider(key="threshold").set_value(100).run()
    assert "uncertain" in shown(app)
    assert "below the threshold of 100.0 %" in shown(app)


def test_an_unknown_photo_is_refused_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tests.edge_models import with_card

    outputs = {"probabilities": "probabilities", "familiarity": "familiarity"}
    model = tmp_path / "knows.tflite"
    model.write_bytes(
        with_card(
            network(familiarity=True), outputs=outputs, familiarity_threshold=200.0
        )
    )
    app = page(monkeypatch, model, "--artifacts", tmp_path)
    drop(app, ("dim.png", photo((90, 20, 20))))
    assert headlines(app) == ["unknown"]
    assert "Not like the training photos" in shown(app)
    assert "Closest label: red" in shown(app)


def test_labels_and_file_names_are_not_taken_for_markup(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    labels = ("<b>x</b>", "a_fish*", "c")
    write_run(tmp_path / "artifacts", labels=labels)
    app = page(monkeypatch, "--artifacts", tmp_path / "artifacts")
    drop(app, ("<img src=x>.png", photo("red")), ("[b](x).png", b"bad"))
    text = "\n".join(part.value for part in (*app.html, *app.caption, *app.markdown))
    assert "<b>x</b>" not in text and "<img src=x>" not in text
    assert "&lt;b&gt;x&lt;/b&gt;" in text
    assert r"\[b\]\(x\)\.png" in app.error[0].value


def test_many_photos_come_in_pages_and_stay_on_the_next_page(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    app = page(monkeypatch, "--artifacts", artifacts)
    drop(app, *((f"{n}.png", photo("red")) for n in range(13)))
    assert len(headlines(app)) == 12
    app.number_input[0].set_value(2).run()
    assert len(headlines(app)) == 1
    assert "12.png" in shown(app)
    app.switch_page("views/batch.py").run()
    assert "13 photos" in shown(app)
    assert "13 still loaded" in shown(app)


def test_a_zip_is_opened_in_memory_and_its_tricks_refused(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    app = page(monkeypatch, "--artifacts", artifacts)
    inner = zipped(a__png=photo("red"))
    files = {"a__png": photo("red"), "deep/b__png": photo("blue"), "notes__txt": b"x"}
    files |= {"../out__png": photo("red"), "in__zip": inner}
    drop(app, ("all.zip", zipped(**files)))
    assert sorted(headlines(app)) == ["blue", "red"]
    errors = refused(app)
    assert "leads outside the ZIP" in errors["all.zip: ../out.png"]
    assert "a ZIP inside a ZIP" in errors["all.zip: in.zip"]
    assert "Ignored 1 file in the ZIP" in shown(app)


def test_an_animated_gif_shows_its_first_frame_and_says_so(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    file = io.BytesIO()
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    app = drop(page(monkeypatch, "--artifacts", artifacts), ("m.gif", file.getvalue()))
    assert headlines(app) == ["red"]
    assert "only the first frame" in shown(app)


def test_a_link_chooses_run_and_variant(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    app = page(monkeypatch, "--artifacts", artifacts, run="pets", variant="float32")
    assert app.button_group(key="variant pets").value == "float32"
    assert app.query_params["variant"] == "float32"
    app.button_group(key="variant pets").set_value("int8").run()
    assert app.query_params["variant"] == "int8"
    gone = page(monkeypatch, "--artifacts", artifacts, run="gone")
    assert "No run **gone** here" in gone.warning[0].value
    assert not gone.exception


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"TFL3" * 4, "broken.tflite"), (network(), "contains no labels")],
)
def test_a_bad_model_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    artifacts: Path,
    tmp_path: Path,
    content: bytes,
    message: str,
) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(content)
    app = page(monkeypatch, broken, "--artifacts", artifacts)
    assert not app.exception
    assert len(app.error) == 1
    assert message in unescaped(app.error[0].value)
    app.selectbox(key="run").set_value("pets").run()
    assert not app.error


def test_labels_from_a_file_for_a_model_that_holds_none(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path, tmp_path: Path
) -> None:
    foreign, labels = write_foreign(tmp_path)
    given = (foreign, "--labels", labels, "--artifacts", artifacts)
    app = page(monkeypatch, *given)
    drop(app, ("a.png", photo("red")))
    assert not app.exception and not app.error
    assert "<h2>rosso <b>" in shown(app)
    app.selectbox(key="run").set_value("pets").run()
    assert "<h2>red <b>" in shown(app)  # what a file holds goes before
    labels.write_text("rosso\nverde\n")
    monkeypatch.setattr(session, "models", lambda: ModelPool(labels))
    app = page(monkeypatch, *given)
    assert "expected 3 labels, got 2 from" in unescaped(app.error[0].value)


def test_a_file_without_a_card_is_fed_as_the_sidebar_says(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes(network(FLOAT32))
    app = page(monkeypatch, foreign, "--artifacts", artifacts)
    assert "How photos are read" in [part.label for part in app.expander]
    assert "a float model without a card" in unescaped(app.error[0].value)

    def apply(**texts: str) -> None:
        for name, text in texts.items():
            field = app.text_area if name == "labels" else app.text_input
            field(key=f"{name} of {foreign}").set_value(text)
        next(b for b in app.button if b.label == "Apply").click().run()
        assert not app.exception

    apply(mean="nonsense", std="1")
    assert "expected one number, or three" in unescaped(app.sidebar.error[0].value)
    apply(mean="0,-300,0", std="1")  # more green than any red
    assert "contains no labels" in unescaped(app.error[0].value)
    apply(labels="rosso\nverde\nblu")
    assert not app.error
    drop(app, ("a.png", photo("red")))
    assert "<h2>verde <b>" in shown(app)
    packed = zipped_for_device(foreign, "d", labels=("r", "g", "b"))
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.read("d/labels.txt") == b"r\ng\nb\n"


def test_newest_run_first_and_rejected_files_left_out(tmp_path: Path) -> None:
    for age, run in enumerate(("new", "old")):
        exports = tmp_path / run / "exports"
        exports.mkdir(parents=True)
        for name in ("float32.tflite", "int8.tflite", "int8.rejected.tflite"):
            (exports / name).write_bytes(INT8)
            os.utime(exports / name, (1e9 - age, 1e9 - age))
    given = tmp_path / "old" / "exports" / "int8.tflite"
    names = ["new / int8", "new / float32", "old / int8", "old / float32"]
    assert [found.name for found in find_models([tmp_path])] == names
    assert [found.name for found in find_models([tmp_path], [given])] == [
        str(given),
        "new / int8",
        "new / float32",
        "old / float32",
    ]


_ALONE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ImportError(name + " is not here")
sys.meta_path.insert(0, Refuse())
from streamlit.testing.v1 import AppTest
sys.argv = ["app.py", "--artifacts", {artifacts!r}]
app = AppTest.from_file({app!r}, default_timeout=60).run()
for page in ("classify", "batch", "compare", "model", "review"):
    page = f"views/{{page}}.py"
    app.switch_page(page).run()
    assert not app.exception, (page, app.exception)
    assert not app.error, (page, app.error)
print("all pages")
"""


def test_the_page_needs_streamlit_and_what_edge_needs_alone(artifacts: Path) -> None:
    names = {"tensorflow", "keras", "tf_keras", "tensorflow_hub", "sklearn", "scipy"}
    names |= {"matplotlib", "cv2", "data", "backbones", "finetune", "quantize", "tests"}
    script = _ALONE.format(names=names, artifacts=str(artifacts), app=str(APP))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all pages\n"
