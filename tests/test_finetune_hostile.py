"""Runs from somebody else: no code of theirs runs, odd records are one line."""

from __future__ import annotations

import ast
import os
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.errors import EdgegraftError
from finetune import familiarity
from finetune import model as networks
from finetune.distill import open_teacher
from finetune.run import Run, locked
from tests import quantize_room as room

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("edge", "data", "backbones", "finetune", "quantize", "streamlit_app")
# Each can run a program that a file brings along
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
# Between the processes of one Ray cluster, which pickles anyway; no files
BETWEEN_PROCESSES = "edge/classify/ray.py"
LOADERS = {"load_model", "model_from_json", "from_config", "unsafe_load"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    photos = room.write_photos(tmp_path / "photos", 6)
    made: Run = room.write_run(tmp_path / "run", photos, room.colour_network())
    return made


def test_a_record_of_negatives_that_is_none_is_one_line(run: Run) -> None:
    record = run.folder / familiarity.NEGATIVES
    for content in (b"path\na\n", b"\xff\xfe\n"):
        record.write_bytes(content)
        with pytest.raises(
            EdgegraftError, match=r"negatives\.csv: expected a CSV with"
        ):
            familiarity.negatives_of(run)
    record.write_text("path,sha256\na.jpg,00\n")
    assert familiarity.negatives_of(run) == {"00"}


def test_weights_come_back_to_the_bit(run: Run) -> None:
    want = room.colour_network().get_weights()
    for mine, theirs in zip(networks.load(run).get_weights(), want, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with zipfile.ZipFile(run.network_file) as file:
        assert all(name.endswith(".npy") for name in file.namelist())


def old_form(run: Run) -> Path:
    """The network as a run of schema 1 has it; the path of its file."""
    path = run.folder / "model" / "model.keras"
    networks.load(run).save(str(path), save_format="keras_v3")
    run.network_file.unlink()
    return path


def test_the_first_editions_network_is_read_as_weights_alone(run: Run) -> None:
    want = networks.load(run).get_weights()
    path = old_form(run)
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    parts["config.json"] = b'{"class_name": "Lambda", "module": "os"}'  # never read
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)
    for mine, theirs in zip(networks.load(run).get_weights(), want, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_hdf5_with_a_lambda_runs_nothing(
    run: Run, tmp_path: Path, assets: Path
) -> None:
    run.network_file.unlink()
    marker = tmp_path / "marker"
    case = assets / "cases" / "keras_hdf5_lambda.py"
    before = sys.argv
    try:
        sys.argv = [str(case), str(run.folder), str(marker)]
        runpy.run_path(str(case))
    finally:
        sys.argv = before
    with pytest.raises(
        EdgegraftError, match=r"model\.keras, got: .*not a ZIP"
    ) as error:
        networks.load(run)
    assert "model.keras" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(EdgegraftError, match="not a ZIP"):
        open_teacher(run.folder, run.labels)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"0000": np.zeros(3, np.float32)}, "1 arrays instead of 6"),
        ({f"{n:04d}": np.zeros(3, np.float32) for n in range(6)}, "for conv/kernel"),
        (
            {f"{n:04d}": np.array([print], object) for n in range(6)},
            "Object arrays cannot be loaded",
        ),
        (
            {f"{n:04d}": np.zeros(1 << 20, np.float32) for n in range(6)},
            "larger arrays than the network has",
        ),
    ],
    ids=("too few", "another shape", "pickled", "too large"),
)
def test_weights_that_are_not_the_networks(
    run: Run, arrays: dict[str, Any], why: str
) -> None:
    np.savez(run.network_file, **arrays)
    with pytest.raises(EdgegraftError, match="expected the weights of") as error:
        networks.load(run)
    assert why in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": 5},
        {"labels": [[1], {}]},
        {"settings": []},
        {"settings": {"size": "large"}},
        {"settings": {"backbone": 7}},
        {"settings": {"epochs": 1.5}},
        {"data": []},
        {"status": ["x"]},
        {"photos": 7},
        {"calibration": 1},
        {"edgegraft_run": 99},
    ],
    ids=str,
)
def test_a_record_of_wrong_types_is_one_line(run: Run, change: dict[str, Any]) -> None:
    run.write_json("run.json", {**run.config, **change})
    field = "schema version" if "edgegraft_run" in change else next(iter(change))
    with pytest.raises(EdgegraftError, match=rf"run\.json: .*{field}.*got") as error:
        Run.open(run.folder)
    assert "\n" not in str(error.value)


def test_a_deep_record_is_one_line(run: Run) -> None:
    (run.folder / "run.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(EdgegraftError, match=r"run\.json: expected a depth of 32"):
        Run.open(run.folder)


def test_a_record_of_schema_1_has_todays_names(run: Run) -> None:
    old = {
        **run.config,
        "edgegraft_run": 1,
        "doubts": {"photos": 9},
        "calibration": {"photos": 9, "refit": {"strength": 1.0, "right": 8}},
        "best": {"epoch": 3, "share": 0.75, "way": [{"share": 0.0, "val_loss": 1.0}]},
    }
    run.write_json("run.json", old)
    again = Run.open(run.folder)
    assert again.cross_fitted and again.config["label_issues"] == {"photos": 9}
    assert again.config["best"]["alpha"] == 0.75
    assert again.config["best"]["wise_ft"] == [{"alpha": 0.0, "val_loss": 1.0}]


def _calls_and_imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module.split(".")[0])
        elif isinstance(node, ast.Attribute):
            names.append(node.attr)
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            names += [] if ast.unparse(node.value) == "False" else ["allow_pickle"]
    return names


def test_nothing_deserializes_programs() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for room_name in PRODUCT
        for path in sorted((ROOT / room_name).rglob("*.py"))
        if path != ROOT / BETWEEN_PROCESSES
        for name in _calls_and_imports(path)
        if name in FORBIDDEN | LOADERS | {"allow_pickle"}
    ]
    assert not wrong


# -- one writer at a time --------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from finetune.run import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "runs" / "one"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with (
            pytest.raises(EdgegraftError, match=f"process {other.pid} since 2"),
            locked(folder),
        ):
            pass
        other.kill()
        other.wait()
    assert (folder / "run.lock").exists()  # stale
    with locked(folder), locked(folder):  # a holder may take it again
        assert (folder / "run.lock").read_text().split()[0] == str(os.getpid())
    assert not (folder / "run.lock").exists()


def test_a_lock_leaves_no_empty_folders(tmp_path: Path) -> None:
    with locked(tmp_path / "runs" / "one"):
        pass
    assert not (tmp_path / "runs").exists()
