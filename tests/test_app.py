"""The page: which models it lists, what it shows, and how it takes bad input."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("streamlit", reason="the page needs streamlit")
from streamlit.testing.v1 import AppTest

from edge.errors import PhotoError
from streamlit_app import cli
from streamlit_app.models import Model, find_models

ROOT = Path(__file__).resolve().parents[1]
APP = ROOT / "streamlit_app" / "app.py"
LABELS = ("cat", "dog", "a_fish*")


@pytest.fixture(scope="session")
def model_bytes() -> bytes:
    """An int8 file with three labels: it answers by the photo's mean colour."""
    from backbones.keras import keras
    from edge.card import ModelCard
    from edge.preprocess import InputRecipe
    from quantize.convert import convert
    from quantize.metadata import embed

    k = keras()
    image = k.Input((16, 16, 3), name="image")
    x = k.layers.GlobalAveragePooling2D()(k.layers.Rescaling(1 / 255)(image))
    out = k.layers.Dense(
        3,
        activation="softmax",
        name="probabilities",
        kernel_initializer=k.initializers.Constant(8 * np.eye(3)),
    )(x)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    pixels[:3] = 255 * np.eye(3, dtype=np.uint8)[:, None, None]  # the full range
    card = ModelCard(
        labels=LABELS,
        input=InputRecipe(16, 16),
        variant="int8",
        measured={"test": {"accuracy": 0.9, "interval": [0.8, 0.95], "photos": 50}},
    )
    return embed(convert(k.Model(image, out), "int8", calibration=pixels), card)


@pytest.fixture
def artifacts(tmp_path: Path, model_bytes: bytes) -> Path:
    """A folder of runs with one finished run."""
    exports = tmp_path / "artifacts" / "pets" / "exports"
    exports.mkdir(parents=True)
    (exports / "int8.tflite").write_bytes(model_bytes)
    return tmp_path / "artifacts"


def photo(colour: str, size: tuple[int, int] = (64, 48)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def page(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> AppTest:
    monkeypatch.setattr(sys, "argv", ["app.py", *map(str, arguments)])
    return AppTest.from_file(str(APP), default_timeout=30).run()


def drop(app: AppTest, *files: tuple[str, bytes]) -> AppTest:
    dropped = [(name, content, "image/png") for name, content in files]
    return app.file_uploader(key="photos").set_value(dropped).run()


def shown(app: AppTest) -> str:
    parts = [*app.subheader, *app.caption, *app.error, *app.markdown]
    return "\n".join(part.value for part in parts)


def test_without_a_run_the_page_says_how_to_make_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    app = page(monkeypatch, "--artifacts", tmp_path)
    assert not app.exception
    assert [code.value for code in app.code] == ["edgegraft build PHOTOS"]
    assert not app.file_uploader


def test_photos_are_answered_and_bad_ones_named(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    app = page(monkeypatch, "--artifacts", artifacts)
    assert app.selectbox[0].options == ["pets / int8"]
    assert "90.0% (80.0% to 95.0%), 50 photos" in shown(app)
    whole = photo("lime")
    drop(
        app,
        ("red.png", photo("red")),
        ("lime.png", whole),
        ("cut.png", whole[:60]),
        ("text.png", b"not a photo"),
    )
    assert not app.exception
    answers = [found.value for found in app.subheader]
    assert [answer.split(",")[0] for answer in answers] == ["cat", "dog"]
    errors = sorted(found.value.split(":")[0] for found in app.error)
    assert errors == ["**cut.png**", "**text.png**"]
    assert "2 could not be read" in shown(app)
    assert "answered in" in shown(app)


def test_labels_and_file_names_are_not_taken_for_markdown(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    app = page(monkeypatch, "--artifacts", artifacts)
    drop(app, ("[blue](x).png", photo("blue")))
    assert app.subheader[0].value.startswith(r"a\_fish\*,")
    assert r"\[blue\]\(x\).png" in shown(app)


def test_many_photos_come_in_pages(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    app = page(monkeypatch, "--artifacts", artifacts)
    drop(app, *((f"{n}.png", photo("red")) for n in range(13)))
    assert len(app.subheader) == 12
    app.number_input[0].set_value(2).run()
    assert len(app.subheader) == 1
    assert "12.png" in shown(app)


def test_a_broken_model_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"TFL3" * 4)
    app = page(monkeypatch, broken, "--artifacts", artifacts)
    assert not app.exception
    assert len(app.error) == 1
    assert "broken.tflite" in app.error[0].value
    app.selectbox[0].select_index(1).run()
    assert not app.error


def test_newest_run_first_and_rejected_files_left_out(
    tmp_path: Path, model_bytes: bytes
) -> None:
    for age, run in enumerate(("new", "old")):
        exports = tmp_path / run / "exports"
        exports.mkdir(parents=True)
        for name in ("float32.tflite", "int8.tflite", "int8.rejected.tflite"):
            (exports / name).write_bytes(model_bytes)
            os.utime(exports / name, (1e9 - age, 1e9 - age))
    given = tmp_path / "old" / "exports" / "int8.tflite"
    assert [found.name for found in find_models(tmp_path)] == [
        "new / int8",
        "new / float32",
        "old / int8",
        "old / float32",
    ]
    assert [found.name for found in find_models(tmp_path, [given])] == [
        str(given),
        "new / int8",
        "new / float32",
        "old / float32",
    ]


def test_visitors_at_once_get_their_own_answers(artifacts: Path) -> None:
    model = Model(artifacts / "pets" / "exports" / "int8.tflite")
    asked = {"red": "cat", "lime": "dog", "blue": "a_fish*"}
    wrong: list[Any] = []

    def visit(colour: str) -> None:
        for _ in range(20):
            told = model.answer(photo(colour), 1).prediction.label
            if told != asked[colour]:
                wrong.append((colour, told))

    visitors = [threading.Thread(target=visit, args=(c,)) for c in asked]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert not wrong


def test_what_the_page_shows_is_what_the_model_saw(artifacts: Path) -> None:
    model = Model(artifacts / "pets" / "exports" / "int8.tflite")
    content = photo("red", (300, 100))
    answer = model.answer(content, 2)
    from edge.preprocess import load_pixels

    assert np.array_equal(answer.seen, load_pixels(content, model.classifier.recipe))
    assert len(answer.prediction.ranking) == 2
    assert answer.decode_ms > 0
    assert answer.inference_ms > 0
    with pytest.raises(PhotoError):
        model.answer(b"", 2)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["missing.tflite"], "missing.tflite"),
        (["--port", "0"], "--port from 1 to 65535, got 0"),
    ],
)
def test_the_command_refuses_in_one_line(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("edgegraft: error: ")
    assert told in error
    assert error.count("\n") == 1


def test_the_command_keeps_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []

    def stand_in(_path: str, command: list[str], _environment: object) -> None:
        called.append(command)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "execve", stand_in)
    assert cli.main(["--artifacts", "here", "--no-browser"]) == 130
    assert called[0][:4] == [sys.executable, "-m", "streamlit", "run"]
    assert "--server.address=localhost" in called[0]
    assert "--browser.gatherUsageStats=false" in called[0]
    assert called[0][-3:] == ["--", "--artifacts", "here"]


def test_settings_are_the_same_in_the_file_and_the_command() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
    tables = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text("utf-8"))
    flat: dict[str, str] = {}
    for section, table in tables.items():
        for name, value in table.items():
            inner = value if isinstance(value, dict) else {"": value}
            for key, found in inner.items():
                path = ".".join(filter(None, (section, name, key)))
                flat[path] = (
                    str(found).lower() if found in (True, False) else str(found)
                )
    assert flat == cli.SETTINGS
