"""What quantize and compare say of runs and options they cannot use."""

from __future__ import annotations

import shutil

import pytest

from edge.errors import ModelError
from finetune.run import Run
from quantize.cli import main
from quantize.comparison.compare import compare
from tests.quantize_room import colour_network, copied, write_photos, write_run

pytest.importorskip("tensorflow", reason="needs the extra 'train'")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run before its export."""
    folder = tmp_path_factory.mktemp("trained")
    return write_run(folder / "colours", write_photos(folder / "p"), colour_network())


def test_a_damaged_file_is_named_and_nothing_written(trained, tmp_path):
    run = copied(trained, tmp_path)
    run.exports.mkdir()
    (run.exports / "int8.tflite").write_bytes(b"\x1c\0\0\0TFL3" + b"\0" * 90)
    with pytest.raises(ModelError, match=r"int8\.tflite: damaged"):
        compare(run)
    assert not (run.folder / "comparison.json").exists()


def test_bad_input_is_one_line_and_exit_code_2(trained, tmp_path, capsys):
    fresh = str(copied(trained, tmp_path).folder)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(fresh, unfinished)
    shutil.rmtree(unfinished / "model")
    for command, words in (
        ([str(tmp_path / "nowhere")], "expected a run folder"),
        ([fresh, "--variants", "int4"], "int16x8, got 'int4'"),
        ([fresh, "--variants", ","], "at least one variant"),
        ([fresh, "--calibration", "0"], "--calibration to be 1 or more, got 0"),
        ([fresh, "--max-drop", "-3"], "from 0 to 100 points"),
        ([str(unfinished)], "expected a run with its network"),
        ([fresh, "--variants", "float32", "--target", "edgetpu"], "edgetpu takes"),
        (["compare", fresh], "make them with: edgegraft quantize"),
        (["compare", fresh, "--rounds", "0"], "--rounds to be 1 or more"),
        (["compare", fresh, "--threads", "2,2"], "--threads to be different numbers"),
        (["compare", fresh, "--seconds", "0"], "--seconds to be more than 0"),
    ):
        assert main(command) == 2, command
        told = capsys.readouterr().err
        assert words in told and told.count("\n") == 1, told


def test_a_run_that_was_interrupted_or_mistyped_says_how_to_go_on(
    trained, tmp_path, capsys, monkeypatch
):
    (tmp_path / "artifacts").mkdir()
    run = Run.open(shutil.copytree(trained.folder, tmp_path / "artifacts" / "first"))
    run.update(status="training")
    monkeypatch.chdir(tmp_path)
    for verb in ("compare", "quantize"):
        words = [*(["compare"] if verb == "compare" else []), "artifacts/first"]
        assert main(words) == 2
        told = capsys.readouterr().err
        assert "resume it with: edgegraft finetune --run first --resume" in told, told
    monkeypatch.chdir("/")  # the same run, seen from elsewhere
    assert main([str(run.folder)]) == 2
    assert f"--run first --artifacts {run.folder.parent} --" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    for name in ("first", "artifacts/frist"):
        assert main([name]) == 2
        assert "did you mean artifacts/first?" in capsys.readouterr().err
    assert main(["elsewhere"]) == 2
    assert "build PHOTOS" in capsys.readouterr().err
