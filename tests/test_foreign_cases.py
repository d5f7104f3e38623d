"""Model files that people brought, through every command: all say the same.

The files are made by the generators of $EDGEGRAFT_ASSETS/cases, each from a public
report; what they need beside their metadata is given as a user would.
"""

from __future__ import annotations

import csv
import io
import json
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("tensorflow", reason="needs the extra 'train'")
pytest.importorskip("streamlit", reason="the page needs streamlit")
pytest.importorskip("cv2", reason="needs the extra 'camera'")

import cv2

import edgegraft
from edge import bench
from edge.command import numbers, width_and_height
from edge.foreign import ForeignOptions
from streamlit_app import answer
from streamlit_app.model_pool import ClassifierPool, ForeignSettings

SCALED = {"mean": "0", "std": "255"}
CASES = {  # generator and file -> options
    ("any-size", "any"): {**SCALED, "input-size": "64x64"},
    ("channels-first", "m"): SCALED,
    ("logits", "m"): SCALED,
    ("one-sigmoid", "m"): SCALED,
    ("normalization-in-metadata", "m"): {},
    ("normalization-in-metadata", "m01"): {},
    ("labels-by-another-name", "m"): {},
    ("labels-by-another-name", "two"): {},
}
QUICK = ("--threads=1", "--rounds=1", "--runs=2", "--seconds=0.02", "--json")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, assets: Path) -> Path:
    """A folder for each generator, each with photos/LABEL."""
    root = tmp_path_factory.mktemp("cases")
    before = sys.argv
    for name in dict.fromkeys(name for name, _ in CASES):
        script = assets / "cases" / f"tflite-{name}.py"
        if not script.is_file():
            pytest.skip(f"EDGEGRAFT_ASSETS has no cases/{script.name}")
        sys.argv = [str(script), str(root / name)]
        try:
            runpy.run_path(str(script), run_name="__main__")
        finally:
            sys.argv = before
    red = root / "labels-by-another-name" / "photos" / "red"
    red.mkdir(parents=True)
    shutil.copy(red.parents[1] / "red.png", red)
    return root


Out = Callable[..., str]


@pytest.fixture
def out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Out]:
    """What a command prints that succeeds."""
    monkeypatch.setattr(bench, "WARM_SECONDS", 0.0)

    def printed(*words: str | Path) -> str:
        assert edgegraft.main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    yield printed


def options_of(name: str, file: str) -> list[str]:
    return [f"--{option}={value}" for option, value in CASES[name, file].items()]


@pytest.mark.parametrize(("name", "file"), CASES, ids=map("-".join, CASES))
def test_classify_evaluate_and_info_take_the_file_alike(
    made: Path, out: Out, name: str, file: str
) -> None:
    model, photos = made / name / f"{file}.tflite", made / name / "photos"
    options = options_of(name, file)
    paths = sorted(photos.rglob("*.png"))
    truth = [path.parent.name for path in paths]

    rows = csv.DictReader(
        io.StringIO(out("edge", "classify", model, photos, "--csv", *options))
    )
    answers = {row["photo"]: row["label"] for row in rows}
    assert [answers[str(path)] for path in paths] == truth

    evaluation = out("edge", "evaluate", model, photos, "--json", *options)
    assert json.loads(evaluation)["accuracy"] == 1
    described = json.loads(out("edge", "info", model, "--json", *options))
    assert described["feeding"] is not None


# A size and a range given, an output that is no softmax, labels that are in the file
KINDS = [("any-size", "any"), ("one-sigmoid", "m"), ("labels-by-another-name", "two")]


@pytest.mark.parametrize(("name", "file"), KINDS, ids=map("-".join, KINDS))
def test_every_other_command_and_the_page_take_the_file_alike(
    made: Path, tmp_path: Path, out: Out, name: str, file: str
) -> None:
    """They open it as `classify` does, most of them in processes of their own."""
    model, photos = str(made / name / f"{file}.tflite"), made / name / "photos"
    given, options = CASES[name, file], options_of(name, file)
    paths = sorted(photos.rglob("*.png"))
    truth = [path.parent.name for path in paths]

    timed = out("edge", "bench", model, "--runs", "2", "--json", *options)
    assert json.loads(timed)["models"][0]["p50_ms"] > 0
    assert "model.tflite" in out("edge", "pack", model, "-o", tmp_path / "p", *options)

    compared = out("compare", model, "--photos", photos, *options, *QUICK)
    assert [row["accuracy"] for row in json.loads(compared)["files"]] == [1]

    frame = cv2.imread(str(paths[0]))
    clip = str(tmp_path / "clip.avi")
    size = (frame.shape[1], frame.shape[0])
    writer = cv2.VideoWriter(clip, cv2.VideoWriter_fourcc(*"MJPG"), 5.0, size)
    for _ in range(3):
        writer.write(frame)
    writer.release()
    frames = out("edge", "camera", model, clip, "--smooth=0", "--csv", *options)
    labels = [row["label"] for row in csv.DictReader(io.StringIO(frames))]
    assert labels == [truth[0]] * 3

    said = ForeignOptions(
        size=width_and_height(given["input-size"]) if "input-size" in given else None,
        mean=numbers(given["mean"]) if given else None,
        std=numbers(given["std"]) if given else None,
    )
    names = made / name / "labels.txt"
    pool = ClassifierPool(
        Path(model).read_bytes(),
        size=1,
        labels=names if names.is_file() else None,
        foreign=ForeignSettings(options=said) if given else ForeignSettings(),
    )
    for path, label in zip(paths, truth, strict=True):
        assert answer.answer(pool, path.read_bytes()).prediction.label == label
    grey = io.BytesIO()
    Image.new("L", (9, 9), 120).save(grey, "PNG")
    assert answer.answer(pool, grey.getvalue()).prediction.label in pool.facts.labels
