"""Which targets take a file, and the words for what stands in the way."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys

import pytest

from edge.errors import EdgegraftError
from edge.model_file import ModelFile
from finetune.run import Run
from quantize.cli import main
from quantize.conversion.convert import Conversion
from quantize.tflite import flatbuffer, metadata, targets
from quantize.tflite.verify import find_old_runtime
from tests.quantize_room import colour_network, pixels, write_photos, write_run

pytest.importorskip("tensorflow", reason="needs the extra 'train'")


@pytest.fixture(scope="module")
def files():
    conversion = Conversion(colour_network(), calibration=pixels(8))
    return {n: conversion.make(n) for n in ("float32", "dynamic", "int8", "int16x8")}


def test_int8_is_for_every_target(files):
    assert {name: targets.check(files["int8"], name) for name in targets.TARGETS} == (
        dict.fromkeys(targets.TARGETS, ())
    )


def test_the_operator_in_the_way_is_named(files):
    output = "; ".join(targets.check(files["float32"], targets.EDGE_TPU))
    assert "CAST is unknown to it" in output
    assert "CAST works on FLOAT32, it takes INT32, INT8, UINT8" in output
    assert any("FLOAT32" in why for why in targets.check(files["dynamic"], "edgetpu"))
    assert "INT16" in str(targets.check(files["int16x8"], targets.EDGE_TPU))
    assert targets.check(files["float32"], targets.GENERIC) == ()
    assert targets.refused([("FlexBetainc", 1)], targets.GENERIC)


def test_a_microcontroller_has_little_room(files):
    tree = flatbuffer.parse(files["int8"])
    assert targets.refusals(tree, 1 << 20, targets.MICROCONTROLLER) == ()
    (reason,) = targets.refusals(tree, (1 << 20) + 1, targets.MICROCONTROLLER)
    assert reason.startswith("1,048,577 bytes, it takes up to 1,048,576")


def test_the_oldest_runtime_is_that_of_the_newest_operator(files):
    def oldest(name: str, **versions: int) -> str | None:
        tree = flatbuffer.parse(files[name])
        for code in tree.operatorCodes:
            code.version = versions.get(flatbuffer.op_name(code), code.version)
        return targets.oldest_runtime(tree)

    assert oldest("int8") == "1.14"
    assert oldest("int8", CONV_2D=5) == "2.4"
    assert oldest("int16x8") == "2.4"
    # 2.11 is newer than 2.4, though its text sorts before
    assert oldest("int8", CONV_2D=5, FULLY_CONNECTED=10) == "2.11"
    assert oldest("int8", FULLY_CONNECTED=99) is None
    assert targets.release(("STABLEHLO_ADD", 1)) is None


def test_what_2_14_knows_is_not_newer_than_2_14():
    """Two tables from two sources: the wheel, and the releases."""
    for name, version in targets.operators(targets.TFLITE_RUNTIME).items():
        found = targets.release((name, version or 1))
        assert found is None or found <= (2, 14)


def test_an_unknown_target_lists_the_known():
    with pytest.raises(EdgegraftError, match=r"generic, edgetpu, .* got 'pico'"):
        targets.target("pico")


def test_check_command(files, tmp_path, capsys):
    for name in ("int8", "float32"):
        (tmp_path / f"{name}.tflite").write_bytes(files[name])
    paths = [str(tmp_path / f"{name}.tflite") for name in ("int8", "float32")]
    assert main(["check", *paths]) == 0
    output = capsys.readouterr().out
    assert output.count("edgetpu: runs it") == 1 and "TensorFlow Lite 1.14 on" in output
    assert main(["check", *paths, "--target", "edgetpu", "--json"]) == 3
    record = json.loads(capsys.readouterr().out)
    assert record[paths[0]]["targets"] == {"edgetpu": []}
    assert record[paths[1]]["targets"]["edgetpu"]
    (tmp_path / "cut.tflite").write_bytes(files["int8"][:900])
    assert main(["check", str(tmp_path / "cut.tflite")]) == 2
    output = capsys.readouterr().err
    assert "damaged or truncated" in output and output.count("\n") == 1
    assert metadata.split(files["int8"])[1] == b""


# -- really loaded --------------------------------------------------------------------


def python_that(folder, *, version: str, runs: bool):
    """Stands in for a Python with tflite-runtime: says its version, runs models."""
    path = folder / f"python-{runs}"
    answer = "exit 0" if runs else "echo 'no op CONV_2D version 99' >&2; exit 2"
    path.write_text(f'#!/bin/sh\n[ "$1" = -c ] && echo {version} && exit\n{answer}\n')
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    photos = write_photos(folder / "photos", per_label=10)
    return write_run(folder / "run", photos, colour_network())


def test_a_file_is_run_on_the_old_runtime_too(trained, tmp_path, capsys):
    shutil.copytree(trained.folder, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    works, fails = (
        python_that(tmp_path, version="2.14.0", runs=runs) for runs in (True, False)
    )
    command = [str(run.folder), "--variants", "int8", "--tflite-runtime"]
    assert main([*command, str(works)]) == 0
    output = capsys.readouterr().out
    assert (
        "and tflite-runtime 2.14.0; its operators need TensorFlow Lite 1.14" in output
    )
    card = ModelFile.read(run.exports / "int8.tflite").card
    assert card is not None and card.provenance["ran_on"][1] == "tflite-runtime 2.14.0"
    # known operators are not enough when it does not run
    target = ["--overwrite", "--target", "tflite-runtime-2.14"]
    assert main([*command, str(fails), *target]) == 2
    output = capsys.readouterr().err
    assert "2.14.0 does not run it: no op CONV_2D version 99" in output
    assert output.count("\n") == 1


def test_a_python_without_the_runtime_is_refused(trained, tmp_path, capsys):
    nobody = tmp_path / "nobody"
    for python, words in ((nobody, "No such file"), (sys.executable, "tflite-runtime")):
        assert main([str(trained.folder), "--tflite-runtime", str(python)]) == 2
        output = capsys.readouterr().err
        assert "expected a Python with tflite-runtime" in output and words in output
        assert output.count("\n") == 1 and not trained.exports.exists()


def test_one_that_is_installed_here_is_asked(monkeypatch):
    assert find_old_runtime(None) is None  # LiteRT's environment
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(EdgegraftError, match="expected a Python with tflite-runtime"):
        find_old_runtime(None)  # said to be there, and is not
