"""The device's other verbs: info, doctor, bench, evaluate."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge import machine
from edge.cli import main
from tests.edge_models import (
    BOTH,
    card,
    network,
    photo,
    photo_folder,
    save,
    tiny,
    with_card,
)


@pytest.fixture
def model(tmp_path: Path) -> str:
    return tiny(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photo_folder(tmp_path)


def test_info_for_people_and_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = {
        "test": {
            "accuracy": 0.961,
            "interval": [0.94, 0.97],
            "photos": 600,
            "weakest_label": "green",
            "weakest_recall": 0.9,
        },
        "unknown": {
            "unknown_photos": 60,
            "unknown_refused": 0.98333,
            "known_refused": 0.045,
            "auroc": 0.99734,
        },
    }
    provenance = {
        "seed": 7,
        "versions": {"edgegraft": "0.1.0", "numpy": "2.4.6"},
        "ran_on": ["litert 2.3.0", "tf.lite 2.21"],
        "refused_by": {},
    }
    flat = with_card(network(), measured=measured, provenance=provenance)
    model = save(tmp_path / "m.tflite", flat)
    assert main(["info", model]) == 0
    out = capsys.readouterr().out
    for text in (
        "red, green, blue",
        "8 x 8, stretch, bilinear",
        "uint8 [1, 8, 8, 3] scale 1 zero 0",
        "accuracy 96.1% (95 % interval 94.0% to 97.0%) on 600 photos; weakest: green "
        "(90.0% found)",
        "98.3% of 60 photos of other things refused, and 4.5% of the test photos; AU",
        "edgegraft 0.1.0, numpy 2.4.6",
        "litert 2.3.0, tf.lite 2.21",
        "seed",
    ):
        assert text in out
    assert not set("{}") & set(out) and "refused_by" not in out
    assert main(["info", model, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["card"] == json.loads(
        card(measured=measured, provenance=provenance).to_json()
    )
    assert record["inputs"][0]["scale"] == 1.0
    assert record["size_bytes"] == os.path.getsize(model)


def test_info_of_a_foreign_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", save(tmp_path / "m.tflite", network())]) == 0
    out = capsys.readouterr().out
    assert "none: a foreign file, classify needs --labels" in out


@pytest.fixture
def no_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is installed, doctor imports it, which takes seconds."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)


@pytest.mark.usefixtures("no_tensorflow")
def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "works (used)" in out and "numpy" in out and "Python" in out
    assert main(["doctor", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["used"] in [entry["name"] for entry in record["runtimes"]]
    assert record["cores"] >= 1 and record["board"]
    assert record["more"].keys() == {"OpenCV", "HEIF", "MQTT"}


@pytest.mark.usefixtures("no_tensorflow")
def test_doctor_says_what_the_machine_is_ready_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = machine.find_spec
    monkeypatch.setattr(
        machine, "find_spec", lambda name: None if name == "cv2" else found(name)
    )
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"OpenCV +not installed, for camera: pip install opencv", out)
    assert re.search(r"ready for +photos; not yet: camera", out)


def test_the_command_alone_lists_the_commands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert "classify" in out and "camera" in out and err == ""


@pytest.mark.parametrize(
    "argv", [["doctor"], ["classify", "m", "p"], ["serve", "m"], ["camera", "m"]]
)
def test_a_python_without_numpy_is_named(argv: list[str]) -> None:
    """As where edge.pyz is run with the system's python: -S leaves out packages."""
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); import edge.cli as c; "
    code += "sys.exit(c.main())"
    root = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, root, *argv],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert f" is not installed for {sys.executable}; " in done.stderr
    assert done.stderr.startswith("edgegraft: error: ")
    assert done.stderr.count("\n") == 1
    assert "venv/bin/python" in done.stderr and "pip install numpy" in done.stderr


def test_bench(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", model, model, "--runs", "5"]) == 0
    out = capsys.readouterr().out
    assert out.count(model) == 2 and "peak MiB   size MB" in out


def check_bench(record: dict[str, Any], model: str) -> None:
    assert 0 < record["p50_ms"] <= record["p95_ms"]
    assert record["load_ms"] > 0 and record["first_ms"] > 0
    assert record["runs"] == 5 and record["threads"] == 1
    assert record["size_bytes"] == os.path.getsize(model)
    assert 10 < record["peak_memory_mb"] < 200
    assert record["host"] and record["runtime_version"]


def test_bench_apart_measures_its_own_memory(model: str) -> None:
    """Not that of a parent that holds much: Linux hands ru_maxrss down."""
    from edge.bench import bench_in_subprocess

    ballast = bytearray(os.urandom(1024)) * (300 * 1024)
    record = bench_in_subprocess(model, runs=5)
    check_bench(record, model)
    assert len(ballast) == 300 * 1024 * 1024


def test_evaluate(model: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "blue").mkdir()
    photo(folder / "blue" / "wrong.png", (200, 0, 0))
    assert main(["evaluate", model, str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("accuracy 66.7% on 3 photos (95 % interval 20.8% to 93.9%)")
    assert main(["evaluate", model, str(folder), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["confusion"] == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    (folder / "red" / "bad.png").write_text("no photo")
    assert main(["evaluate", model, str(folder), "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["failures"][0]["photo"].endswith("bad.png")
    assert err.count("\n") == 1


def test_evaluate_counts_what_is_refused(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "blue").mkdir()
    strange = tmp_path / "strange"
    strange.mkdir()
    photo(strange / "grey.png", (40, 40, 40))
    photo(strange / "light.png", (220, 220, 220))
    content = with_card(
        network(familiarity=True), outputs=BOTH, familiarity_threshold=100.0
    )
    model = save(tmp_path / "familiar.tflite", content)
    command = ["evaluate", model, str(folder), "--unknown", str(strange)]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "calibration error 0.0" in out
    told = "called unknown although known: 0 of 2; the right label is the answer for 2"
    assert told in out and "the likeliest label, also of" not in out
    assert "called unknown of 2 unknown photos: 1 (50.0%" in out
    assert main([*command, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["unknown"]["refused"] == 1 and record["refused"] == 0
    assert 0 <= record["calibration_error"] < 0.05
    photo(folder / "red" / "dark.png", (90, 10, 10))  # right, and called unknown
    assert main(["evaluate", model, str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("accuracy 100.0% on 3 photos")
    assert lines[1].endswith("1 of 3; the right label is the answer for 2 (66.7%)")
    assert lines[-1].endswith("the likeliest label, also of what is called unknown")
    command[-1] = str(tmp_path / "nope")
    assert main(command) == 2
    assert "nope: expected a folder of photos, got nothing" in capsys.readouterr().err
    plain = save(tmp_path / "plain.tflite", with_card(network()))
    assert main(["evaluate", plain, str(folder), "--unknown", str(strange)]) == 2
    assert "this model cannot say unknown" in capsys.readouterr().err


def test_evaluate_wants_the_models_labels(
    model: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pink").mkdir()
    assert main(["evaluate", model, str(folder)]) == 2
    err = capsys.readouterr().err
    assert "one folder for each label (red, green, blue), got a folder 'pink'" in err
