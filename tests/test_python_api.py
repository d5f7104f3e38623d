"""`import edgegraft` as a library, and the examples that use it."""

from __future__ import annotations

import csv
import io
import json
import re
import runpy
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgegraft
from backbones.keras import tensorflow
from tests.edge_models import network, with_card
from tests.quantize_room import white_diagrams

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
IMPORT_MS = 30  # beside numpy and Pillow
build = edgegraft.build  # the notebook's tests put a smaller one in its place
HEAVY = ("tensorflow", "tf_keras", "sklearn", "scipy", "matplotlib", "streamlit", "cv2")


@pytest.fixture(scope="module")
def photos(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api") / "photos"
    return Path(shutil.copytree(drawn / "photos", folder))


@pytest.fixture(scope="module")
def notebook(photos: Path) -> Iterator[dict[str, Any]]:
    """What the cells of the notebook leave, run in order on a few drawn photos and
    with a small network, and the pictures they show."""
    shown: list[str] = []
    ipython = types.ModuleType("IPython")
    ipython.version_info = (9, 0)  # type: ignore[attr-defined]  # Matplotlib asks
    ipython.get_ipython = lambda: None  # type: ignore[attr-defined]
    display = types.ModuleType("IPython.display")
    display.Image = lambda filename: filename  # type: ignore[attr-defined]
    display.display = shown.append  # type: ignore[attr-defined]
    whole = edgegraft.build

    def small(*args: Any, **options: Any) -> Any:
        options |= {
            "backbone": "custom_cnn",
            "size": 32,
            "cnn": {"filters": [8, 16]},
            "epochs": 2,
            "ladder": False,
            "layout": "labels",
        }
        return whole(*args, **options)

    # In a notebook AutoGraph prints there what it cannot trace
    tensorflow().autograph.set_verbosity(0, alsologtostdout=True)
    printed = io.StringIO()
    book = json.loads((EXAMPLES / "train.ipynb").read_text("utf-8"))
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch, white_diagrams():
        patch.setitem(sys.modules, "IPython", ipython)
        patch.setitem(sys.modules, "IPython.display", display)
        patch.setattr(edgegraft, "build", small)
        patch.chdir(photos.parent)
        for cell in book["cells"]:
            if cell["cell_type"] == "code":
                with redirect_stdout(printed):
                    exec("".join(cell["source"]), names)
        tensorflow().autograph.set_verbosity(0, alsologtostdout=False)
        yield {**names, "shown": shown, "printed": printed.getvalue()}


@pytest.fixture(scope="module")
def run(notebook: dict[str, Any]) -> Any:
    return notebook["run"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "colours.tflite"
    path.write_bytes(with_card(network()))
    return path


def test_the_import_is_light() -> None:
    code = (
        "import sys, numpy, PIL.Image; before = set(sys.modules); import edgegraft;"
        "print(sorted({m.split('.')[0] for m in set(sys.modules) - before}));"
        "dir(edgegraft); edgegraft.Classifier"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not set(HEAVY) & set(json.loads(done.stdout.replace("'", '"')))


@pytest.mark.slow
def test_build_returns_a_run(run: Any) -> None:
    assert isinstance(run, edgegraft.Run)
    assert set(run.files) == {"float32", "int8"}
    assert run.best in run.files.values()
    assert 0 <= run.metrics["test"]["accuracy"] <= 1
    assert run.best.name in repr(run) and "cat" in repr(run)
    headline = run.metrics["headline"]
    assert f"accuracy {headline['accuracy']:.1%}" in repr(run)


@pytest.mark.slow
def test_a_notebook_shows_the_verdict_and_nothing_of_the_machine(
    notebook: dict[str, Any],
) -> None:
    """TensorFlow once printed all environment variables, with the keys in them."""
    printed = notebook["printed"]
    assert "environ" not in printed and "WARNING" not in printed, printed
    assert "48 photos, 48 usable, 2 labels" in printed  # the audit
    assert f"ship      {notebook['run'].best}" in printed
    assert "accuracy" in printed and "weakest" in printed


@pytest.mark.slow
def test_load_takes_a_run_a_folder_and_a_file(run: Any, photos: Path) -> None:
    photo = next(photos.rglob("*.jpg"))
    predictions = [
        edgegraft.load(source).classify(photo)
        for source in (run, run.folder, run.best, run.best.read_bytes())
    ]
    assert predictions[0].label in ("cat", "dog", "unknown")
    assert predictions == predictions[:1] * 4


def test_classify_takes_what_people_have(model: Path, tmp_path: Path) -> None:
    photo = Image.new("RGB", (40, 30), (200, 0, 0))
    photo.save(tmp_path / "red.png")
    classifier = edgegraft.load(model)
    pixels = np.asarray(photo)
    labels = {
        classifier.classify(source).label
        for source in (
            tmp_path / "red.png",
            str(tmp_path / "red.png"),
            (tmp_path / "red.png").read_bytes(),
            photo,
            pixels,
        )
    }
    assert labels == {"red"}
    assert "red" in repr(classifier)
    for wrong, mend in (
        (pixels.astype(np.float32), "(array).round().astype('uint8')"),
        (pixels.astype(np.float32) / 255, "(array * 255).round().astype('uint8')"),
        (np.dstack([pixels, pixels[..., :1]]), "array[..., :3]"),
        (pixels.transpose(2, 0, 1), "array.transpose(1, 2, 0)"),
        (pixels[..., 0], "PIL.Image.fromarray(array)"),
        (pixels[None], "one photo at a time"),
        (pixels[..., :2], "uint8 [height, width, 3], got uint8 [30, 40, 2]"),
    ):
        with pytest.raises(edgegraft.EdgegraftError, match=re.escape(mend)):
            classifier.classify(wrong)
    for other, message in (
        (["a.png"], "expected one photo: .* got a list"),
        (None, "got a NoneType"),
        (io.StringIO("a photo?"), "opened with 'rb'"),
    ):
        with pytest.raises(edgegraft.EdgegraftError, match=message):
            classifier.classify(other)  # type: ignore[arg-type]
    several = np.stack([classifier.pixels(photo), classifier.pixels(pixels)])
    assert classifier.probabilities(several).shape == (2, len(classifier.labels))
    with pytest.raises(edgegraft.EdgegraftError, match="`pixels` makes them"):
        classifier.probabilities(pixels[None])


@pytest.mark.slow
def test_quantize_adds_a_file_to_a_run(run: Any) -> None:
    results = edgegraft.quantize(
        run.folder, variants=["float16"], quiet=True, overwrite=True
    )
    assert results["float16"].path.is_file()
    assert set(run.files) == {"float32", "float16", "int8"}


@pytest.mark.slow
@white_diagrams()
def test_compare_takes_paths_as_text_and_says_what_fits_no_budget(
    run: Any, photos: Path, tmp_path: Path
) -> None:
    best, measured = run.best, (run.folder / "comparison.json").read_bytes()
    options: dict[str, Any] = {"photos": str(photos), "out": str(tmp_path / "judged")}
    compared = edgegraft.compare(best, quiet=True, **options)
    untaught = len(run.part("test"))
    assert compared.files[0].evaluation.photos == untaught
    assert compared.best is not None and compared.best.samefile(best)
    assert best.stem in repr(compared)
    assert (tmp_path / "judged" / "comparison.json").is_file()
    hopeless = edgegraft.compare(run.folder, budget_ms=1e-6, quiet=True)
    assert hopeless.best is None and "none fits" in repr(hopeless)
    assert run.best is None and "no file within the budget" in repr(run)
    with pytest.raises(edgegraft.EdgegraftError, match=r"run\.files has all"):
        edgegraft.load(run.best)
    assert edgegraft.load(run).labels == ("cat", "dog")
    (run.folder / "comparison.json").write_bytes(measured)
    assert run.best == best


def test_audit(photos: Path, tmp_path: Path) -> None:
    report = edgegraft.audit(photos, out=str(tmp_path / "audit"), quiet=True)
    assert len(report.digests) == 48 and "no findings" in repr(report)
    shutil.copytree(photos / "cat", tmp_path / "one" / "cat")
    one = edgegraft.audit(tmp_path / "one", quiet=True)
    reason = "cannot train: expected two labels or more, got only 'cat'"
    assert reason in repr(one) and reason in str(one).splitlines()
    assert "no findings" not in repr(one)
    assert (tmp_path / "audit" / "audit.csv").is_file()


def test_a_wrong_option_is_one_clear_line(photos: Path) -> None:
    with pytest.raises(edgegraft.EdgegraftError, match="did you mean epochs"):
        edgegraft.build(photos, epoch=2)
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        edgegraft.train  # noqa: B018


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda at: build(at, runtime="x"), "has no option 'runtime'; it takes add,"),
        (lambda at: build(at, budget_ms="30"), "above 0, got '30'"),
        (lambda at: build(at, time_limit="1"), "got the str '1'"),
        (lambda at: build(at, size="96"), "got the str '96'"),
        (lambda at: build(at, augment=None), "--augment to be .*None"),
        (lambda at: build([at]), "photos: expected a path, got"),
        (lambda at: build(at / "gone"), "got nothing there"),
        (lambda at: build(run="r", resume=True), "expected a run folder"),
        (lambda at: build(resume=True), "expected run='NAME'"),
        (lambda at: build(run="r", resume=True, size=32), "got size"),
        (lambda at: edgegraft.finetune(None), "expected a folder, list or archive"),
        (lambda at: edgegraft.audit(None), "expected a folder, list or archive"),
        (lambda at: build(at, folder="x"), "has no option 'folder'"),
        (lambda at: build(at, variants=8), "expected a variant out of .* got 8"),
        (lambda at: build(at, calibration="9"), "a number for calibration, got '9'"),
        (lambda at: build(at, cnn={"kernel": 2}), "kernel to be 1, 3, 5 or 7, got 2"),
        (lambda at: build(at, cnn=[8]), "such as {'filters': .16, 32.}, got .8."),
        (lambda at: build(at, cnn="gone.toml"), "a TOML file .* at gone.toml"),
        (
            lambda at: build(at, cnn={}, backbone="mobilenet_v2_0.35"),
            "the options of a CNN, got mobilenet_v2_0.35",
        ),
        (lambda at: edgegraft.quantize(None), "run: expected a path, got None"),
        (lambda at: edgegraft.compare(None), "a run or file: expected a path"),
        (
            lambda at: edgegraft.compare(at, devices="pi.json"),
            "expected a run folder with run.json",
        ),
        (lambda at: edgegraft.load([at]), "model: expected a path, got"),
        (
            lambda at: edgegraft.search(at, time_limit="3"),
            "--time-limit in minutes above 0, got '3'",
        ),
        (lambda at: edgegraft.compare(at, what=1), "compare has no option 'what'"),
        (lambda at: edgegraft.load(at), "expected a run's folder .with run.json"),
        (lambda at: edgegraft.load(at / "gone"), "which is not there"),
    ],
)
def test_a_bad_call_is_one_clear_line_and_leaves_nothing(
    call: Any, message: str, photos: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(edgegraft.EdgegraftError, match=message) as wrong:
        call(photos)
    assert "\n" not in str(wrong.value)
    shown = wrong.value._render_traceback_()  # what IPython prints
    assert shown == [f"{type(wrong.value).__name__}: {wrong.value}"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("room", ["data", "edge"])
def test_another_package_of_our_name_is_one_line(room: str, tmp_path: Path) -> None:
    (tmp_path / room).mkdir()
    (tmp_path / room / "__init__.py").write_text("")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); sys.path.append(sys.argv[2])\n"
        "import edgegraft; sys.exit(edgegraft.main(['backbones']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(ROOT)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert f"expected the package {room} of edgegraft in {ROOT}" in done.stderr


def example(name: str, *arguments: object) -> None:
    runpy.run_path(str(EXAMPLES / name))["main"](*map(str, arguments))


def test_example_classify_photo(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (40, 30), (0, 0, 200)).save(tmp_path / "sky.png")
    example("classify_photo.py", model, tmp_path / "sky.png")
    assert "sky.png: blue " in capsys.readouterr().out


def test_example_batch_to_csv(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in (("a", (200, 0, 0)), ("b", (0, 200, 0))):
        Image.new("RGB", (40, 30), colour).save(folder / f"{name}.png")
    (folder / "c.png").write_text("no picture")
    example("batch_to_csv.py", model, folder, tmp_path / "out.csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [row["label"] for row in rows] == ["red", "green", ""]
    assert rows[2]["error"]


def test_example_camera_gpio(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against stand-ins for OpenCV's camera and gpiozero's pin."""
    switched: list[str] = []

    class LED:
        def __init__(self, pin: int) -> None:
            switched.append(f"pin {pin}")

        def on(self) -> None:
            switched.append("on")

        def off(self) -> None:
            switched.append("off")

    frames = [(0, 0, 200), (200, 0, 0)]  # BGR: red, then blue

    class VideoCapture:
        def __init__(self, number: int) -> None:
            assert number == 0

        def read(self) -> tuple[bool, Any]:
            return True, np.full((30, 40, 3), frames.pop(0), np.uint8)

        def release(self) -> None:
            switched.append("released")

    cv2, gpiozero = types.ModuleType("cv2"), types.ModuleType("gpiozero")
    cv2.VideoCapture = VideoCapture  # type: ignore[attr-defined]
    cv2.cvtColor = lambda frame, _: frame[..., ::-1].copy()  # type: ignore[attr-defined]
    cv2.COLOR_BGR2RGB = 4  # type: ignore[attr-defined]
    gpiozero.LED = LED  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    monkeypatch.setitem(sys.modules, "gpiozero", gpiozero)
    main = runpy.run_path(str(EXAMPLES / "camera_gpio.py"))["main"]
    main(str(model), "red", "27", frames=2)
    assert switched == ["pin 27", "on", "off", "off", "released"]


@pytest.mark.slow
def test_example_notebook(notebook: dict[str, Any]) -> None:
    assert notebook["run"].best.is_file()
    assert any(path.endswith("confusion.png") for path in notebook["shown"])


def test_small_takes_the_small_network_for_the_sample_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As `edgegraft build --small` does."""
    from quantize import build as pipeline

    jobs = []

    def started(job: Any, *_: Any) -> None:
        jobs.append(job)
        raise edgegraft.EdgegraftError("only the job is looked at")

    monkeypatch.setattr(edgegraft, "_draw_sample", lambda *_: (tmp_path, []))
    monkeypatch.setattr(pipeline, "build", started)
    with pytest.raises(edgegraft.EdgegraftError, match="only the job"):
        build(small=True, artifacts=tmp_path, quiet=True)
    assert jobs[0].settings.backbone == "efficientnet_lite0"
    assert jobs[0].settings.size == 128
