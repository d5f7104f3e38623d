"""The page's parts without Streamlit: pool, uploads, heat map, queue, downloads."""

from __future__ import annotations

import gc
import io
import os
import re
import signal
import subprocess
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge.errors import EdgegraftError, ModelError, PhotoError
from streamlit_app import answer, dropzone, model_process, style
from streamlit_app.app import measured
from streamlit_app.charts import time_ticks
from streamlit_app.dropzone import Photo, unpacked
from streamlit_app.feedback import UNCERTAIN, WRONG, Feedback
from streamlit_app.model_pool import ClassifierPool, ForeignSettings, ModelPool
from streamlit_app.model_process import ProcessInterpreter
from streamlit_app.views import batch, classify
from tests.page_helpers import FLOAT, INT8, photo, unescaped, zipped


@dataclass(frozen=True)
class File:
    name: str
    content: bytes

    @property
    def file_id(self) -> str:
        return self.name

    def getvalue(self) -> bytes:
        return self.content


def test_visitors_at_once_get_their_own_answers_from_few_interpreters() -> None:
    pool = ClassifierPool(INT8, size=3)
    asked = {"red": "red", "lime": "green", "blue": "blue", "#ff2020": "red"}
    wrong: list[tuple[str, str]] = []

    def visit(colour: str) -> None:
        content = photo(colour)
        for _ in range(30):
            label = answer.answer(pool, content, 1).prediction.label
            if label != asked[colour]:
                wrong.append((colour, label))

    visitors = [threading.Thread(target=visit, args=(c,)) for c in (*asked, *asked)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert not wrong
    assert 1 <= pool.opened <= 3


def _process_of(pool: ClassifierPool) -> subprocess.Popen[bytes]:
    interpreter = pool.facts._interpreter
    assert isinstance(interpreter, ProcessInterpreter)
    assert interpreter._child is not None
    return interpreter._child.process


def test_a_model_that_crashes_costs_one_answer_and_starts_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = ClassifierPool(INT8, size=1)
    content = photo("red")
    first = answer.answer(pool, content).prediction
    process = _process_of(pool)
    process.send_signal(signal.SIGSEGV)
    process.wait(10)
    with pytest.raises(ModelError) as crashed:
        answer.answer(pool, content)
    assert re.fullmatch(
        "model: .* failed on it: the interpreter crashes on it, or runs out of "
        "memory; it starts again for the next photo",
        str(crashed.value),
    )
    assert answer.answer(pool, content).prediction == first
    stuck = _process_of(pool)
    stuck.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(model_process, "ANSWER_S", 0.3)
    with pytest.raises(ModelError, match=r"it did not answer within 0 s; it starts"):
        answer.answer(pool, content)
    assert stuck.poll() is not None
    monkeypatch.undo()
    assert answer.answer(pool, content).prediction == first


def test_a_model_that_is_closed_leaves_no_process() -> None:
    pool = ClassifierPool(INT8, size=1)
    process = _process_of(pool)
    assert process.poll() is None
    del pool
    gc.collect()
    assert process.poll() is not None


@pytest.mark.slow
def test_a_file_that_takes_all_memory_on_some_photo_gets_one_line() -> None:
    """It runs on the two pictures that every file has to pass, and on a white one
    fills 5 GB."""
    tf = pytest.importorskip("tensorflow", reason="needs TensorFlow to make it")

    @tf.function(input_signature=[tf.TensorSpec([1, 8, 8, 3], tf.uint8)])  # type: ignore[untyped-decorator]
    def greedy(x: Any) -> Any:
        means = tf.reduce_mean(tf.cast(x, tf.float32), axis=[1, 2])
        white = tf.cast(tf.reshape(x, [-1])[:3], tf.int32) > 250
        filled = tf.fill(1 + tf.where(white, 1100, 0), means[0, 0])
        return tf.nn.softmax(means / 50 + tf.reduce_max(filled))

    make = tf.lite.TFLiteConverter.from_concrete_functions
    model = make([greedy.get_concrete_function()], greedy).convert()
    pool = ClassifierPool(
        model, size=1, foreign=ForeignSettings(("red", "green", "blue"))
    )
    with pytest.raises(ModelError, match="failed on it"):
        answer.answer(pool, photo("white"))
    assert answer.answer(pool, photo("blue")).prediction.label == "blue"


def test_models_are_opened_once_for_each_content(tmp_path: Path) -> None:
    models = ModelPool(max_models=2)
    paths = [tmp_path / name for name in ("a.tflite", "b.tflite", "c.tflite")]
    paths[0].write_bytes(INT8)
    paths[1].write_bytes(INT8)  # the same content under another name
    paths[2].write_bytes(FLOAT)
    one = models.open(paths[0], (1, 1))
    assert models.open(paths[0], (1, 1)) is one
    assert models.open(paths[1], (1, 1)) is one
    paths[0].write_bytes(FLOAT)
    assert models.open(paths[0], (1, 1)) is one  # the stamp says it has not changed
    other = models.open(paths[0], (2, 2))
    assert other is not one and other is models.open(paths[2], (1, 1))
    from tests.edge_models import network, with_card

    paths[1].write_bytes(with_card(network(), name="third"))
    models.open(paths[1], (2, 2))
    assert len(models) == 2


def test_accuracy_on_test_photos_comes_first_and_that_on_training_never() -> None:
    from tests.edge_models import card

    figures = {"accuracy": 0.9, "interval": [0.8, 0.95], "photos": 50}
    folds = "cross-validated before export"
    parts = ("train", "photos it learned from", "validation", "test", folds)
    made = card(measured=dict.fromkeys(parts, figures))
    text = "90.0 % (80.0 % to 95.0 %), 50 photos"
    assert measured(made) == [(part, text) for part in (folds, "test", "validation")]


def test_an_answer_is_light() -> None:
    pool = ClassifierPool(INT8)
    content = photo("red", (300, 100))
    found = answer.answer(pool, content, 2)
    assert len(found.prediction.ranking) == 2
    assert Image.open(io.BytesIO(found.view)).size[0] <= answer.VIEW_SIDE
    assert found._photo is None  # let go of
    with pytest.raises(PhotoError):
        answer.answer(pool, b"", 2)


def test_the_heat_map_points_to_what_the_answer_hangs_on() -> None:
    pool = ClassifierPool(INT8, size=2)
    pixels = np.full((8, 8, 3), 90, np.uint8)
    pixels[4:, :4] = (255, 0, 0)
    drops = answer.occlude(pool, pixels)
    assert drops.label == "red"
    assert drops.heat.shape == (8, 8)
    assert drops.heat[4:, :4].mean() > 3 * drops.heat[:4, 4:].mean()
    assert 0 < drops.max_drop <= drops.probability
    picture = answer.overlay(pixels, drops)
    assert picture.shape == pixels.shape and picture.dtype == np.uint8


def test_a_slow_network_gets_a_coarser_map_not_a_longer_wait() -> None:
    assert answer._grid(0.003, 2, 1.2) == 14
    assert answer._grid(0.050, 2, 1.2) == 5
    assert answer._grid(9.0, 1, 1.2) == 3
    boxes = answer._boxes(224, 160, 7)
    covered = np.zeros((224, 160), bool)
    for top, bottom, left, right in boxes:
        covered[top:bottom, left:right] = True
    assert len(boxes) == 49 and covered.all()


def bomb() -> bytes:
    """An entry that claims more than a photo may have."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.png", bytes(dropzone.MAX_PHOTO_BYTES + 1))
        archive.writestr("ok.png", b"x")
    return file.getvalue()


def link() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        entry = zipfile.ZipInfo("link.png")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "names", "reasons"),
    [
        (bomb(), ["ok.png"], ["expected at most 64 MB"]),
        (link(), [], ["a link or a device"]),
        (b"PK\x03\x04cut", [], ["damaged ZIP file"]),
        (zipped(readme__txt=b"x"), [], ["expected photos in the ZIP, got none"]),
        (zipped(IMG_1=photo("red"), notes__txt=b"x"), ["IMG_1"], []),
        (
            zipped(**{"C:/x__png": b"", "/y__png": b""}),
            [],
            ["leads outside", "leads outside"],
        ),
    ],
)
def test_zip_tricks(content: bytes, names: list[str], reasons: list[str]) -> None:
    drop = unpacked([File("x.zip", content)])
    assert [found.name for found in drop.photos] == names
    assert len(drop.refused) == len(reasons)
    for (_, message), reason in zip(drop.refused, reasons, strict=True):
        assert reason in message


@pytest.mark.parametrize("head", [b"Filename;Class", b"img_path;species"])
def test_a_list_beside_the_photos_labels_them(head: bytes) -> None:
    content = b"\xef\xbb\xbf" + head + b"\r\nin/a.png;Caf\xc3\xa9\r\n"
    drop = unpacked([File("in/a.png", photo("red")), File("list.csv", content)])
    assert drop.label(drop.photos[0]) == "Café" and drop.refused == []


@pytest.mark.parametrize(
    "content",
    [
        b"path,label\na.png,caf\xe9\n",
        b"path,label\n" + b"x" * 200_000,
        b"",
        b"a,b\nc,d",
    ],
)
def test_a_list_that_cannot_be_read_is_named(content: bytes) -> None:
    drop = unpacked([File("a.png", photo("red")), File("list.csv", content)])
    assert drop.listed == {} and len(drop.photos) == 1
    ((name, reason),) = drop.refused
    assert name == "list.csv" and "in UTF-8 with the columns path and label" in reason


def test_a_damaged_entry_is_an_error_when_it_is_read() -> None:
    content = bytearray(zipped(a__png=photo("red")))
    content[60] ^= 0xFF
    (found,) = unpacked([File("x.zip", bytes(content))]).photos
    with pytest.raises(OSError, match="damaged in the ZIP"):
        found.read()


def test_sorted_photos_cannot_leave_their_folder_or_lose_one_another() -> None:
    pool = ClassifierPool(INT8)
    content = photo("red")
    names = ["../../a.png", "b/a.png", "..\\a.png", ""]
    row = answer.row(pool, content, 3)
    done = [(Photo(name, name, lambda: content), row) for name in names]
    with zipfile.ZipFile(io.BytesIO(batch.sorted_zip(done))) as archive:
        assert archive.namelist() == [
            "red/a.png",
            "red/a-2.png",
            "red/a-3.png",
            "red/photo",
        ]
        assert archive.read("red/a-2.png") == content


def test_an_int8_files_zero_is_shown_as_less_than_a_step() -> None:
    """Its surest answer and its least one add up."""
    pool = ClassifierPool(INT8, size=1)
    with pool.borrow() as classifier:
        scales = [entry["quantization"][0] for entry in classifier._outputs.values()]
    assert scales == [style.STEP]
    bars = style.bars([("cat", 255 / 256), ("dog", 0.0), ("fox", 1e-4)], False)
    shares = re.findall("<em>(.*?)</em>", bars)
    assert shares == ["99.6 %", "&lt;0.4 %", "&lt;0.1 %"]


def test_a_covered_part_that_takes_all_away(monkeypatch: pytest.MonkeyPatch) -> None:
    heat = np.zeros((64, 48), np.float32)
    drops = answer.OcclusionMap("red", 255 / 256, heat, 255 / 256, 9, 1.0)
    monkeypatch.setattr(answer, "occlude", lambda *_: drops)
    monkeypatch.setattr(answer, "overlay", lambda pixels, _: pixels)
    pool, red = ClassifierPool(INT8, size=1), photo("red")
    _, text = classify.why(pool, Photo("a", "a", lambda: red))
    assert "drops from 99.6 % to <0.4 %" in unescaped(text)


@pytest.mark.parametrize(
    ("times", "ticks"),
    [
        ([0.70, 0.23], [0.2, 0.3, 0.4, 0.5, 0.7, 1.0]),
        ([0.14, 0.23, 0.7], [0.1, 0.2, 0.5, 1.0]),
        ([5.0], [4.0, 5.0, 7.0]),
        ([1.0, 30.0], [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0]),
    ],
)
def test_ticks_reach_beyond_every_file(times: list[float], ticks: list[float]) -> None:
    assert time_ticks(times) == ticks


def test_the_queue_keeps_a_photo_once_and_refuses_odd_labels(tmp_path: Path) -> None:
    pool = ClassifierPool(INT8)
    content = photo("red", kind="JPEG")
    prediction = answer.row(pool, content, 3).prediction
    queue = Feedback(tmp_path / "feedback")
    digest = queue.add(content, "a.jpg", UNCERTAIN, "m", prediction)
    assert digest and queue.add(content, "copy.jpg", UNCERTAIN, "m", prediction) is None
    queue.add(content, "a.jpg", WRONG, "m", prediction, "blue")
    (waiting,) = queue.waiting()
    assert (waiting.why, waiting.suggested) == (WRONG, "blue")
    with pytest.raises(PhotoError):
        queue.add(b"no photo", "b.jpg", UNCERTAIN, "m", prediction)
    for label in ("../out", ".hidden", "a/b", " "):
        with pytest.raises(EdgegraftError, match="can name a folder"):
            queue.label(waiting, label)
    place = queue.label(waiting, "blue")
    assert place.read_bytes() == content and place.suffix == ".jpg"
    assert queue.labelled() == {"blue": 1}
    assert (
        queue.add(content, "a.jpg", WRONG, "m", prediction) is None
    )  # labelled already
    with pytest.raises(EdgegraftError, match="already labelled or removed"):
        queue.label(waiting, "red")
    (queue.folder / ".queue" / "broken.json").write_text("{")
    assert queue.waiting() == []
    assert sorted(os.listdir(queue.folder)) == [".labelled", ".queue", "blue"]
