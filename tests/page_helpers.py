"""What the page's tests share: tiny models, runs, photos, ZIP files."""

from __future__ import annotations

import io
import json
import re
import sys
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edge.files import sha256
from tests.edge_models import FLOAT32, LABELS, network, with_card

ROOT = Path(__file__).resolve().parents[1]
APP = ROOT / "streamlit_app" / "app.py"
INT8 = with_card(
    network(),
    measured={"test": {"accuracy": 0.9, "interval": [0.8, 0.95], "photos": 50}},
)
FLOAT = with_card(network(FLOAT32), variant="float32")


def photo(colour: Any, size: tuple[int, int] = (64, 48), kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def zipped(**files: bytes) -> bytes:
    """A ZIP; two underscores in a name stand for a dot."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "."), content)
    return file.getvalue()


def write_run(
    artifacts: Path, name: str = "pets", labels: tuple[str, ...] = LABELS
) -> Path:
    """A finished and measured run whose photos are three plain colours."""
    run = artifacts / name
    (run / "exports").mkdir(parents=True)
    int8 = with_card(network(), labels=labels, measured={})
    (run / "exports" / "int8.tflite").write_bytes(int8 if labels != LABELS else INT8)
    (run / "exports" / "float32.tflite").write_bytes(FLOAT)
    photos = artifacts.parent / "photos"
    photos.mkdir(exist_ok=True)
    (photos / "a.png").write_bytes(photo("red"))
    config = {
        "status": "trained",
        "labels": list(labels),
        "photos": str(photos),
        "settings": {"backbone": "custom_cnn", "weights": "none"},
        "data": {"parts": {"train": 30, "val": 6, "test": 9}},
    }
    evaluation = {
        "labels": list(labels),
        "photos": 9,
        "accuracy": 8 / 9,
        "confusion": [[3, 0, 0], [0, 3, 0], [1, 0, 2]],
        "calibration_error": 0.04,
        "per_class": [
            {"label": label, "precision": 0.9, "recall": 1.0, "photos": 3}
            for label in labels
        ],
    }
    shared = {"accuracy_low": 0.6, "accuracy_high": 0.99, "photos": 9}
    files = [
        {**shared, "variant": "float32", "file": "float32.tflite", "accuracy": 1.0,
         "timings": [timing("a board", 2.0), timing("a Pi", 9.0)],
         "size_bytes": 4000, "drop": 0.0, "agreement": 1.0},
        {**shared, "variant": "int8", "file": "int8.tflite", "accuracy": 8 / 9,
         "timings": [timing("a board", 1.0), timing("a Pi", 5.0)],
         "size_bytes": 1000, "drop": 1 / 9, "agreement": 8 / 9,
         "evaluation": evaluation,
         "float_right_this_wrong": [["a.png", "red", "blue", 0.6],
                                    ["../secret.png", "red", "blue", 0.6]]},
    ]  # fmt: skip
    comparison = {"labels": list(labels), "host": {"board": "a board"}, "files": files}
    (run / "run.json").write_text(json.dumps(config))
    (run / "comparison.json").write_text(json.dumps(comparison))
    bins = [{"low": 0.9, "high": 1.0, "photos": 9, "confidence": 0.95, "accuracy": 0.9}]
    metrics = {
        "test": evaluation,
        "calibration": {"test": {"error_after": 0.04, "bins_after": bins}},
        "familiarity": {
            "threshold": 0.5,
            "test": {"photos": 9, "passed": 8, "share": 8 / 9},
        },
    }
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "history.csv").write_text(
        "epoch,train_accuracy,val_accuracy\n0,,0.5\n1,0.7,0.6\n"
    )
    (run / "split.csv").write_text(
        "path,label,split,sha256\n"
        + "".join(f"{n}.png,red,train,{sha256(photo('red'))}\n" for n in "abc")
    )
    return run


def timing(host: str, ms: float) -> dict[str, Any]:
    return {"host": host, "runtime": "litert 2.3.0", "threads": 1, "p50_ms": ms}


def page(
    monkeypatch: pytest.MonkeyPatch, *arguments: str | Path, at: str = "", **query: str
) -> Any:
    """The page, run once; `at` is another page's file."""
    from streamlit.components.v2 import manifest_scanner
    from streamlit.testing.v1 import AppTest, app_test, local_script_runner

    # Half of each run otherwise, where a server does both once: compiling the page
    # anew, and reading what every installed package says of itself
    compiled, found = _scripts(), _components()
    for module in (app_test, local_script_runner):
        monkeypatch.setattr(module, "ScriptCache", lambda: compiled)
    monkeypatch.setattr(manifest_scanner, "scan_component_manifests", lambda: found)
    monkeypatch.setattr(sys, "argv", ["app.py", *map(str, arguments)])
    app = AppTest.from_file(str(APP), default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    return app.switch_page(at).run() if at else app


@cache
def _scripts() -> Any:
    from streamlit.runtime.scriptrunner.script_cache import ScriptCache

    return ScriptCache()


@cache
def _components() -> Any:
    from streamlit.components.v2.manifest_scanner import scan_component_manifests

    return scan_component_manifests()


def drop(app: Any, *files: tuple[str, bytes], key: str = "photos") -> Any:
    dropped = [(name, content, "image/png") for name, content in files]
    return app.file_uploader(key=key).set_value(dropped).run()


def shown(app: Any) -> str:
    """All text of the page, the HTML pieces as they are, Markdown unescaped."""
    parts = [*app.html, *app.caption, *app.error, *app.warning, *app.info]
    parts += [*app.markdown, *app.code]
    text = "\n".join(part.value for part in parts if "<style>" not in part.value)
    return unescaped(text)


def unescaped(markdown: str) -> str:
    """Markdown without the backslashes before punctuation."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown)


def write_foreign(folder: Path) -> tuple[Path, Path]:
    """A model that holds no labels, and a file of names for its three."""
    foreign, labels = folder / "foreign.tflite", folder / "my labels.txt"
    foreign.write_bytes(network())
    labels.write_text("rosso\nverde\nblu\n")
    return foreign, labels
