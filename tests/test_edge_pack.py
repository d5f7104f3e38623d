"""The folder for a device: what is in it, and that it runs alone."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge.pack
from edge.card import digest
from edge.classifier import Classifier
from edge.cli import main
from edge.errors import ModelError
from edge.model_file import ModelFile
from edge.pack import pack, zipped
from edge.preprocess import InputRecipe
from tests.edge_models import INT8, network, photo, save, with_card, with_files

PARTS = {"model.tflite", "edge.pyz", "requirements.txt", "README.md"}
PARTS |= {"edgegraft.service", "install.sh", "requirements-camera.txt"}


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    exports = tmp_path / "run" / "exports"
    exports.mkdir(parents=True)
    save(exports / "int8.tflite", with_card(network(), name="tiny"))
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same program with the same model is tried out once, not in every test."""
    real = edge.pack._run_packed

    def run_packed(model: str, parts: dict[str, bytes], foreign: Any) -> None:
        key = (parts[edge.pack.MODEL], parts[edge.pack.PROGRAM])
        if foreign is not None or key not in TRIED:
            real(model, parts, foreign)
            TRIED.add(key)

    monkeypatch.setattr(edge.pack, "_run_packed", run_packed)


TRIED: set[tuple[bytes, bytes]] = set()


def test_the_packed_program_runs_alone_and_says_unknown(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unknown from the card alone: the second output and its threshold are in it."""
    both = {"probabilities": "probabilities", "familiarity": "familiarity"}
    content = with_card(
        network(familiarity=True), outputs=both, familiarity_threshold=100.0
    )
    save(run_folder / "exports" / "int8.tflite", content)
    folder = tmp_path / "device"
    assert main(["pack", str(run_folder), "-o", str(folder)]) == 0
    assert "next: scp -r" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} >= PARTS
    known = photo(tmp_path / "known.png", (0, 200, 0))
    strange = photo(tmp_path / "strange.png", (0, 50, 0))

    def run_it(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", "edge.pyz", *argv],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )

    done = run_it("classify", "model.tflite", known, strange)
    first, second = done.stdout.splitlines()
    assert done.returncode == 0 and done.stderr == ""
    assert first.startswith("green ") and second.split()[:2] == ["unknown", "-"]
    assert "(familiarity 50; green" in second
    # two models: each is timed by the program in a process of its own
    done = run_it("bench", "model.tflite", "model.tflite", "--runs", "3")
    assert done.returncode == 0 and "p95" in done.stdout, done.stderr
    wrong = run_it("bogus")
    assert wrong.returncode == 2 and "python edge.pyz -h" in wrong.stderr


def test_ctrl_c_while_it_starts_shows_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(**_: str) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("edge.cli.main", interrupted)
    program = zipfile.ZipFile(io.BytesIO(edge.pack.program())).read("__main__.py")
    with pytest.raises((SystemExit, KeyboardInterrupt)) as ended:
        exec(program)
    assert getattr(ended.value, "code", None) == 130


def test_a_shifted_region_is_in_the_commands(run_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "device"
    argv = ["pack", str(run_folder), "-o", str(folder), "--region", "0,0,.5,1"]
    assert main(argv) == 0
    unit = (folder / "edgegraft.service").read_text()
    assert "camera model.tflite --region=0,0,0.5,1 " in unit
    assert (
        "classify model.tflite --region=0,0,0.5,1" in (folder / "README.md").read_text()
    )


def test_the_zip_holds_the_folder(run_folder: Path, tmp_path: Path) -> None:
    model, folder = run_folder / "exports" / "int8.tflite", tmp_path / "device"
    pack(model, folder)
    content = zipped(model, "device")
    assert content == zipped(model, "device")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
        modes = {entry.external_attr >> 16 for entry in archive.infolist()}
    assert inside == {f"device/{p.name}": p.read_bytes() for p in folder.iterdir()}
    assert modes == {0o644}
    bare = save(tmp_path / "bare.tflite", network())
    with pytest.raises(ModelError, match="a model with labels inside, got one without"):
        zipped(bare, "device")


def test_a_packed_program_packs_itself(run_folder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    assert main(["pack", str(run_folder), "-o", str(first)]) == 0
    argv = [sys.executable, "-I", first / "edge.pyz", "pack", first / "model.tflite"]
    subprocess.run([*argv, "-o", second], check=True, capture_output=True)
    for name in PARTS:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    names = zipfile.ZipFile(second / "edge.pyz").namelist()
    assert "__main__.py" in names and "edge/preprocess.py" in names
    others = [name for name in names if not name.endswith(".py")]
    assert others == ["edgegraft-packed.dist-info/METADATA"]  # its version


def test_the_readme_is_short_and_names_the_model(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pack", str(run_folder), "-o", str(tmp_path / "d")]) == 0
    text = (tmp_path / "d" / "README.md").read_text("utf-8")
    assert text.startswith("# tiny (int8, 0.0 MB): red, green, blue\n")
    assert text.count("\n") <= 24
    unit = (tmp_path / "d" / "edgegraft.service").read_text("utf-8")
    command = unit.replace("\\\n", "").split("edge.pyz ")[1].splitlines()[0]
    assert command.endswith(" $EDGEGRAFT_OPTIONS")
    argv = command.replace("model.tflite", "none.tflite").split()[:-1]
    assert main(argv) == 2  # the options are real, only this model is not there
    assert capsys.readouterr().err.count("none.tflite: no such model file") == 1
    needs = (tmp_path / "d" / "requirements.txt").read_text("utf-8")
    assert "tensorflow" not in needs and "ai-edge-litert" in needs


def test_the_installer_is_short_and_shows_what_it_would_do(
    run_folder: Path, tmp_path: Path
) -> None:
    assert main(["pack", str(run_folder), "-o", str(tmp_path / "d")]) == 0
    script = tmp_path / "d" / "install.sh"
    assert script.read_text().count("\n") <= 30

    def run_it(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(script), *words], capture_output=True, text=True, check=False
        )

    shown = run_it("--dry-run").stdout
    assert shown.count("\n") == 8 and all(x[0] == "+" for x in shown.splitlines())
    for part in ("cp ./model.tflite ./edge.pyz ", "-r /opt/edgegraft/requirements-"):
        assert part in shown
    assert shown.endswith("+ systemctl enable --now edgegraft\n")
    undone = run_it("--uninstall", "--dry-run").stdout
    assert "rm -rf /opt/edgegraft /etc/systemd/system/edgegraft.service" in undone
    assert not Path("/opt/edgegraft").exists()  # nothing was done
    wrong = run_it("--what")
    assert wrong.returncode == 2 and "got --what" in wrong.stderr


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze"
)
def test_the_unit_is_hardened(run_folder: Path, tmp_path: Path) -> None:
    assert main(["pack", str(run_folder), "-o", str(tmp_path / "d")]) == 0
    unit = tmp_path / "d" / "edgegraft.service"
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(unit)],
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_COLORS": "0", "LC_ALL": "C.UTF-8"},
        check=False,
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("needs systemd 250 or newer")
    level = re.search(r"exposure level .*: ([\d.]+)", done.stdout)
    assert level and float(level[1]) <= 4, done.stdout[-300:] + done.stderr


def test_frigate_gets_what_it_feeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fed as Frigate 0.17 does: cut out, stretched to 224, uint8, first output."""
    cv2 = pytest.importorskip("cv2", reason="needs opencv-python-headless")
    from edge.runtime import open_interpreter

    recipe = InputRecipe(224, 224, region=(0.5, 0, 0.5, 1))
    model = with_card(network(side=224), name="Front door", input=recipe)
    path = save(tmp_path / "m.tflite", model)
    out = tmp_path / "frigate"
    assert main(["pack", path, "--for", "frigate", "-o", str(out)]) == 0
    assert {p.name for p in out.iterdir()} == {
        "model.tflite",
        "labelmap.txt",
        "frigate.yml",
    }
    config = (out / "frigate.yml").read_text()
    assert "\n    front_door:\n" in config and "crop: [0.5, 0, 1, 1]" in config
    labels = (out / "labelmap.txt").read_text().split("\n")[:-1]
    _, interpreter = open_interpreter(ModelFile.read(out / "model.tflite").flatbuffer)
    frame = np.zeros((480, 640, 3), np.uint8)
    frame[:, :320], frame[:, 320:] = (200, 0, 0), (0, 0, 200)
    left, right = int(0.5 * 640), (1 * 640)
    fed = cv2.resize(frame[:, left:right], (224, 224))
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], fed[None])
    interpreter.invoke()
    scores = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
    shares = scores / scores.sum()
    ours = Classifier(path).classify(frame)
    assert labels[int(shares.argmax())] == ours.ranking[0][0] == "blue"
    assert shares.max() == pytest.approx(ours.probability, abs=0.01)
    capsys.readouterr()
    for wrong, message in (
        (with_card(network()), "expected an input of 224 x 224, stretched"),
        (network(side=224), "expected a model of edgegraft"),
        (
            with_card(network(side=224, familiarity=True), input=InputRecipe(224, 224)),
            "3 probabilities as first output for Frigate, got uint8 in and uint8 [1]",
        ),
        (
            with_card(network(INT8, side=224), input=InputRecipe(224, 224)),
            "expected uint8 pixels in and 3 probabilities",
        ),
    ):
        bad = save(tmp_path / "bad.tflite", wrong)
        assert main(["pack", bad, "--for", "frigate", "-o", str(tmp_path / "x")]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
        assert not (tmp_path / "x").exists()


def test_nothing_is_overwritten_unasked(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "README.md").write_text("mine")
    (folder / "other.txt").write_text("mine")
    assert main(["pack", str(run_folder), "-o", str(folder)]) == 2
    err = capsys.readouterr().err
    assert "README.md: is there already; give --overwrite" in err
    assert {path.name for path in folder.iterdir()} == {"README.md", "other.txt"}
    assert main(["pack", str(run_folder), "-o", str(folder), "--overwrite"]) == 0
    assert (folder / "other.txt").read_text() == "mine"
    assert {path.name for path in folder.iterdir()} >= PARTS | {"other.txt"}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no-run", "expected a run's folder or a .tflite file, got no-run, which"),
        ("run --variant float32", "expected exports/float32.tflite in this run, got"),
        ("foreign.tflite", "expected a model with labels inside"),
        ("damaged.tflite", "damaged.tflite"),
        ("run/exports/int8.tflite -o file", "expected a folder to write to, got a f"),
        (
            "run/exports/int8.tflite -o file/in",
            "file/in/model.tflite: cannot be written: Not a dir",
        ),
    ],
)
def test_bad_input(
    what: str,
    message: str,
    run_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "foreign.tflite", network())
    save(tmp_path / "damaged.tflite", with_card(network())[:300])
    (tmp_path / "file").write_text("x")
    before = set(tmp_path.iterdir())
    assert main(["pack", "-o", "out", *what.split()]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


def test_what_is_packed_is_what_the_comparison_recommends(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*more: str) -> str:
        argv = ["pack", str(run_folder), "-o", str(tmp_path / "d"), "--overwrite"]
        assert main([*argv, *more]) == 0
        assert (tmp_path / "d" / "model.tflite").read_bytes() in contents.values()
        return capsys.readouterr().out.splitlines()[0]

    exports = run_folder / "exports"
    contents = {
        name: with_card(network(), name="tiny", variant=name)
        for name in ("int8", "float16")
    }
    for name, content in contents.items():
        save(exports / f"{name}.tflite", content)
    assert told().startswith("int8.tflite: which to ship was not measured: edgegraft c")
    files = [
        {"title": n, "file": f"{n}.tflite", "model_sha256": digest(c)}
        for n, c in contents.items()
    ]
    record = {"files": files, "ship": {"file": "float16"}}
    (run_folder / "comparison.json").write_text(json.dumps(record))
    assert told() == "float16.tflite: the one that the run's comparison recommends"
    packed = (tmp_path / "d" / "model.tflite").read_bytes()
    assert packed == contents["float16"]
    other = told("--variant", "int8")
    assert other == "int8.tflite: the run's comparison recommends float16"
    # another file under that name since: nobody measured it
    contents["float16"] = with_card(network(familiarity=True), name="tiny")
    save(exports / "float16.tflite", contents["float16"])
    assert told().startswith("int8.tflite: which to ship was not measured")
    record["ship"] = {"file": None}  # none within the budget
    (run_folder / "comparison.json").write_text(json.dumps(record))
    assert told() == "int8.tflite: the run's comparison recommends no file"


def test_labels_of_metadata_are_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = with_files(network(), labels_txt="red\ngreen\nblue")
    model = save(tmp_path / "m.tflite", flat)
    assert main(["pack", model, "-o", str(tmp_path / "d")]) == 0
    picture = photo(tmp_path / "x.png", (0, 0, 200))
    capsys.readouterr()
    packed = str(tmp_path / "d" / "model.tflite")
    assert main(["classify", packed, picture, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["photos"][0]["label"] == "blue"
