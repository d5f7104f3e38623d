"""Interpreters are found in order, and never see a damaged file."""

from __future__ import annotations

import hashlib
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from edge import cli, model_file, runtime, subprocess_run, tflite
from edge.errors import ModelError, RuntimeMissing
from edge.model_file import ModelFile
from edge.run_folder import resume_command
from edge.subprocess_run import memory_for
from tests.edge_models import network, photo, save, with_card

ROOT = Path(__file__).resolve().parents[1]


def fake(folder: Path, package: str, code: str, version: str = "9.9") -> None:
    """A package that can be imported from `folder`, in place of a runtime."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text(f"__version__ = {version!r}\n")
    (folder / package / "interpreter.py").write_text(code)
    facts = folder / f"{package}-{version}.dist-info"
    facts.mkdir()
    text = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    (facts / "METADATA").write_text(text)


def python(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    """A fresh Python that has no runtime but those in `paths`."""
    faked = {child.name for path in paths for child in path.iterdir()}
    real = {"ai_edge_litert", "tflite_runtime", "tensorflow"} - faked
    hide = f"import sys; sys.modules.update(dict.fromkeys({real!r}))\n"
    return subprocess.run(
        [sys.executable, "-c", hide + code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *paths)))},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_first_that_works_is_taken() -> None:
    found, interpreter = runtime.find()
    assert found.name in runtime.NAMES and found.version[0].isdigit()
    assert hasattr(interpreter, "allocate_tensors")
    assert runtime.find(found.name)[0] == found
    listed = {name: version for name, version, problem, _ in runtime.diagnose()}
    assert listed[found.name] == found.version


def test_order_is_litert_then_tflite_runtime(tmp_path: Path) -> None:
    fake(tmp_path / "a", "ai_edge_litert", "class Interpreter: pass")
    fake(tmp_path / "b", "tflite_runtime", "class Interpreter: pass", "2.14.0")
    code = (
        "import numpy; numpy.__version__ = '1.26.4'\n"
        "from edge.runtime import find; print(find()[0])"
    )
    both = python(code, tmp_path / "b", tmp_path / "a")
    assert both.stdout == "litert 9.9\n", both.stderr
    one = python(code, tmp_path / "b")
    assert one.stdout == "tflite-runtime 2.14.0\n", one.stderr


def test_a_broken_runtime_is_passed_over_and_told(tmp_path: Path) -> None:
    fake(tmp_path, "ai_edge_litert", "raise ImportError('libm: GLIBC_2.99 not found')")
    fake(tmp_path, "tflite_runtime", "class Interpreter: pass", "2.14.0")
    code = (
        "import numpy; numpy.__version__ = '1.26.4'\n"
        "from edge.runtime import *\n"
        "print(find()[0]); print(diagnose()[0])\n"
        "from edge.errors import RuntimeMissing\n"
        "try: find('litert')\n"
        "except RuntimeMissing as error: print(error)"
    )
    done = python(code, tmp_path)
    lines = done.stdout.splitlines()
    assert lines[0] == "tflite-runtime 2.14.0", done.stderr
    assert "GLIBC_2.99" in lines[1] and "too old" in lines[1]
    assert lines[2].startswith("litert: libm: GLIBC_2.99")


def test_numpy_2_beside_tflite_runtime_is_recognised(tmp_path: Path) -> None:
    fake(tmp_path, "tflite_runtime", "raise SystemExit('never imported')", "2.14.0")
    code = (
        "import numpy; numpy.__version__ = '2.1.0'\n"
        "from edge.runtime import *\n"
        "print(diagnose()[1])\n"
        "from edge.errors import RuntimeMissing\n"
        "try: find()\n"
        "except RuntimeMissing as error: print(error)"
    )
    done = python(code, tmp_path)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    for line in lines:
        assert "numpy 2" in line and "numpy<2" in line
    assert "'2.14.0'" in lines[0]


def test_none_installed_says_what_to_install() -> None:
    code = (
        "from edge.runtime import *\n"
        "from edge.errors import RuntimeMissing\n"
        "print([problem for _, _, problem, _ in diagnose()])\n"
        "try: find()\n"
        "except RuntimeMissing as error: print(error)\n"
        "import edge.cli; print(edge.cli.main(['doctor']))"
    )
    done = python(code)
    lines = done.stdout.splitlines()
    assert lines[0] == str(["not installed"] * 3), done.stderr
    assert lines[1].startswith("no TFLite interpreter is installed: run: pip install")
    assert lines[-1] == "2"
    assert "no TFLite interpreter works here" in done.stderr


def test_an_unknown_runtime_lists_the_known() -> None:
    with pytest.raises(RuntimeMissing, match=r"litert, tflite-runtime, tf\.lite"):
        runtime.find("onnx")


def test_open_from_path_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(network())
    for model in (path, str(path), path.read_bytes()):
        found, interpreter = ModelFile.read(model).open(threads=1)
        assert found == runtime.find()[0]
        assert list(interpreter.get_input_details()[0]["shape"]) == [1, 8, 8, 3]
    with pytest.raises(ModelError, match="threads from 1 to 256, got 0"):
        ModelFile.read(path).open(threads=0)
    assert 1 <= runtime.default_threads() <= runtime.MAX_THREADS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got an empty file"),
        (b"PK\x03\x04" + bytes(100), "got a ZIP archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"hello", "expected a .tflite model, got text"),
        (b"\x1c\0\0\0TFL3", "damaged or truncated"),
        (b"\xff\xff\xff\xffTFL3" + bytes(200), "damaged or truncated"),
        (random.Random(3).randbytes(5000), "got something else"),
        (b"\x10\0\0\0TFL3" + random.Random(3).randbytes(5000), "damaged or truncated"),
    ],
)
def test_what_is_no_model_is_told(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        ModelFile.read(path).open()
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_unusable_paths(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        ModelFile.read(tmp_path / "none.tflite")
    with pytest.raises(ModelError, match=r"got a folder$"):
        ModelFile.read(tmp_path)


def test_the_command_that_goes_on_is_told_from_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "artifacts" / "first"
    run.mkdir(parents=True)
    for here, named, more in (
        (tmp_path, "artifacts/first", ""),
        (run.parent, "first", " --artifacts ."),
        (run, ".", " --artifacts .."),
        (Path("/"), f"{run}/", f" --artifacts {run.parent}"),
    ):
        monkeypatch.chdir(here)
        told = f"edgegraft build --run first{more} --resume"
        assert resume_command(named, "build") == told


def test_of_a_run_the_file_inside_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "exports").mkdir()
    (tmp_path / "run.json").write_text("{}")
    for verb in ("info", "bench", "evaluate", "classify"):
        more = ["photo.jpg"] if verb in ("evaluate", "classify") else []
        assert cli.main([verb, str(tmp_path), *more]) == 2
        told = capsys.readouterr().err
        assert told.endswith(f"make them: edgegraft quantize {tmp_path}\n"), told
    (tmp_path / "run.json").write_text('{"status": "training"}')
    for verb in ("info", "pack"):
        assert (
            cli.main([verb, str(tmp_path), *["-o", "x"][: 2 * (verb == "pack")]]) == 2
        )
        told = capsys.readouterr().err
        resume = f"--run {tmp_path.name} --artifacts {tmp_path.parent} --resume (its"
        assert f"edgegraft finetune {resume} training was interrupted)" in told
        assert told.count("\n") == 1
    for name in ("float32", "int8"):  # int8, where it is there
        file = tmp_path / "exports" / f"{name}.tflite"
        file.write_bytes(network())
        for verb in ("info", "bench"):
            assert cli.main([verb, str(tmp_path)]) == 2
            told = capsys.readouterr().err
            assert told.endswith(f"got a folder; this run's file is {file}\n")
            assert told.count("\n") == 1


def test_more_threads_than_cores_are_remarked_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "cores", lambda: 2)
    model = tmp_path / "m.tflite"
    model.write_bytes(with_card(network()))
    shot = photo(tmp_path / "x.png", (0, 90, 0))
    told = "--threads 3 on 2 cores: more threads than cores wait for each other"
    for argv in (["classify", str(model), shot], ["bench", str(model), "--runs", "1"]):
        assert cli.main([*argv, "--threads", "3"]) == 0
        assert capsys.readouterr().err.count(told) == 1
        assert cli.main([*argv, "--threads", "2"]) == 0
        assert told[:10] not in capsys.readouterr().err


def test_every_truncation_is_caught_before_native_code() -> None:
    model = network(familiarity=True)
    tflite.check(model, "m")
    tflite.check(with_card(model), "m")
    for length in range(len(model) - 8):
        with pytest.raises(ModelError):
            tflite.check(model[:length], "m")


def test_every_offset_out_of_range_is_caught() -> None:
    """A huge value in any place either is refused or was no offset at all."""
    model = network(familiarity=True)
    refused = 0
    for at in range(8, len(model) - 4, 4):
        broken = bytearray(model)
        struct.pack_into("<I", broken, at, 0x7FFF_FF00)
        try:
            tflite.check(bytes(broken), "m")
        except ModelError:
            refused += 1
    assert refused > 200


def test_indices_out_of_range_are_caught() -> None:
    model = network()
    for old, new in (
        ([1, 2], [1, 99]),  # the inputs of RESHAPE
        ([1, 2], [-2, 2]),
        ([3], [99]),  # the input of SOFTMAX
    ):
        plain = struct.pack(f"<I{len(old)}i", len(old), *old)
        assert plain in model
        broken = model.replace(plain, struct.pack(f"<I{len(new)}i", len(new), *new))
        with pytest.raises(ModelError, match="tensor that is not there"):
            tflite.check(broken, "m")


def killer() -> bytes:
    """A whole flatbuffer that ends an interpreter: RESHAPE's second input, its new
    shape, is left out."""
    model = bytearray(network())
    inputs = struct.pack("<Iii", 2, 1, 2)
    struct.pack_into("<i", model, model.index(inputs) + 8, -1)
    return bytes(model)


def test_a_file_that_ends_the_interpreter_ends_no_verb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether a card vouches for it or not: what the file says proves nothing."""
    shot = photo(tmp_path / "x.png", (0, 90, 0))
    flat = killer()
    digest = hashlib.sha256(flat).hexdigest()
    for content in (flat, with_card(flat, model_sha256=digest)):
        path = save(tmp_path / "m.tflite", content)
        labels = ["--labels", str(tmp_path / "labels.txt")]
        (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
        for argv in (
            ["classify", path, shot, *labels],
            ["bench", path, "--runs", "1"],
            ["pack", path, "-o", str(tmp_path / "out"), *labels],
        ):
            assert cli.main(argv) == 2
            error = capsys.readouterr().err
            assert "m.tflite" in error and "crashes on it" in error
            assert "damaged" not in error  # which is more than it shows
            assert error.count("\n") == 1
        assert cli.main(["info", path]) == 0  # its card and labels are worth reading
        assert "crashes on it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_ran_once_is_remembered_by_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []
    monkeypatch.setattr(model_file, "_proven", set())
    monkeypatch.setenv("EDGEGRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        subprocess_run, "run_in_subprocess", lambda *a, **k: runs.append(k["where"])
    )
    first, other = with_card(network()), with_card(network(familiarity=True))
    for turn in range(2):  # the second has the record alone
        monkeypatch.setattr(model_file, "_proven", set())
        ModelFile(first, "first").open(threads=1)
        ModelFile(first, "same").open(threads=2)
        assert runs == ["first"], turn
    ModelFile(other, "other").open(threads=1)
    ModelFile(first, "plain").open(threads=1, xnnpack=False)  # other native code
    assert runs == ["first", "other", "plain"]
    os.chmod(tmp_path / "cache" / "proven", 0o777)  # now it proves nothing
    monkeypatch.setattr(model_file, "_proven", set())
    ModelFile(first, "again").open(threads=1)
    assert runs[-1] == "again"


def test_where_nothing_can_be_kept_a_file_is_proven_for_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGEGRAFT_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(model_file, "_proven", set())
    model = ModelFile(network())
    model.prove()
    monkeypatch.setattr(subprocess_run, "run_in_subprocess", None)  # not needed again
    model.prove()


def test_a_file_may_take_half_of_a_small_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1 << 17}  # a Pi Zero: 512 MiB
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    assert memory_for(bytes(1000)) == (256 << 20) + 8 * 1000
    pages["SC_PHYS_PAGES"] <<= 6
    assert memory_for(b"") == 1 << 30
