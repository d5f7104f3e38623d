"""The device's command as a person and as a program use it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edge.cli import main
from edge.command import guard
from edge.files import sha256
from tests.edge_models import BOTH, network, photo, photo_folder, save, tiny, with_card

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def model(tmp_path: Path) -> str:
    return tiny(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photo_folder(tmp_path)


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    """As a device runs it: a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "edge", *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_one_photo_loads_few_modules_of_ours(tmp_path: Path) -> None:
    """Each costs a device a file to read and run before the first label. Packages,
    which hold a docstring alone, are not counted."""
    model = save(tmp_path / "m.tflite", with_card(network()))
    shot = photo(tmp_path / "x.png", (0, 90, 0))
    code = (
        "import sys, edge.cli\n"
        "code = edge.cli.main(sys.argv[1:])\n"
        "ours = [name for name, module in sys.modules.items()\n"
        "    if name.startswith('edge.') and not hasattr(module, '__path__')]\n"
        "print(code, len(ours), sorted(ours))"
    )
    for _ in range(2):  # the first time the file is tried in a child process
        done = subprocess.run(
            [sys.executable, "-c", code, "classify", model, shot],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    exit_code, count, names = done.stdout.splitlines()[-1].split(maxsplit=2)
    assert exit_code == "0" and int(count) <= 12, names


def test_photos_that_trained_the_model_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its run lies around it; a split that cannot be read says nothing."""
    exports = tmp_path / "run" / "exports"
    exports.mkdir(parents=True)
    model = save(exports / "int8.tflite", with_card(network()))
    digests = []
    for number in range(3):
        (tmp_path / "photos" / "red").mkdir(parents=True, exist_ok=True)
        path = photo(tmp_path / "photos" / "red" / f"{number}.png", (250, 0, number))
        digests.append(sha256(Path(path).read_bytes()))
    rows = zip(("train", "val", "test"), digests, strict=True)
    split = "path,label,split,sha256\n"
    split += "".join(f"{part}.png,red,{part},{digest}\n" for part, digest in rows)
    command = ["evaluate", model, str(tmp_path / "photos")]
    for text, count in ((split, 2), ("path,label\na.png,red\n", 0), ("\xff", 0)):
        (tmp_path / "run" / "split.csv").write_text(text, encoding="latin-1")
        assert main(command) == 0
        note = f"note: {count} of these 3 photos trained this model: expect less"
        assert (note in capsys.readouterr().err) == bool(count)


def test_a_person_reads_one_line(model: str, tmp_path: Path) -> None:
    done = run("classify", model, photo(tmp_path / "x.png", (20, 80, 60)))
    assert done.returncode == 0
    name = re.escape(str(tmp_path / "x.png"))
    line = rf"green    70\.\d%  {name}  \(blue 25\.\d%; red \d\.\d%\)\n"
    assert re.fullmatch(line, done.stdout), done.stdout
    assert done.stderr == ""  # nothing of the interpreter's chatter


def test_folders_globs_and_files(
    model: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*paths: str) -> list[list[str]]:
        assert main(["classify", model, *paths, "--top-k", "1"]) == 0
        return [line.split() for line in capsys.readouterr().out.splitlines()]

    a, b = str(folder / "red" / "a.png"), str(folder / "green" / "deep" / "b.JPG")
    assert [row[0] for row in told(str(folder))] == ["green", "red"]
    assert [row[2] for row in told(str(folder))] == [b, a]
    assert [row[2] for row in told(a, b, a)] == [a, b]
    assert [row[2] for row in told(f"{folder}/*/*.png")] == [a]
    assert [row[2] for row in told(f"{folder}/**/*")] == [b, a]
    assert [row[2] for row in told(f"{folder}/gr*")] == [b]


def test_a_photo_in_a_folder_needs_no_ending(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a file holds decides, as in training; a pipe is not waited for."""
    inside = tmp_path / "photos"
    inside.mkdir()
    (inside / "IMG_1").write_bytes(
        Path(photo(tmp_path / "a.png", (200, 0, 0))).read_bytes()
    )
    (inside / "notes.txt").write_text("no photo")
    os.mkfifo(inside / "pipe")
    for argument in (inside, inside / "*"):
        assert main(["classify", model, str(argument), "--top-k", "1"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[::2] for line in lines] == [["red", str(inside / "IMG_1")]]


def test_a_name_with_brackets_is_a_file_first(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = photo(tmp_path / "a[1]*.png", (0, 0, 200))
    assert main(["classify", model, odd]) == 0
    assert capsys.readouterr().out.startswith("blue")


def test_json_is_one_document(
    model: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", model, str(folder), "--json", "--top-k", "2"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["model"] == model and out["name"] == "tiny"
    assert out["runtime"] in ("litert", "tflite-runtime", "tf.lite")
    assert out["failures"] == [] and out["load_ms"] > 0
    green, red = out["photos"]
    assert green["photo"].endswith("b.JPG") and green["label"] == "green"
    assert red["label"] == "red" and red["known"] is True
    assert red["familiarity"] is None
    assert [entry["label"] for entry in red["ranking"]] == ["red", "green"]
    assert red["ranking"][0]["probability"] == red["probability"] > 0.9
    assert red["decode_ms"] > 0 and red["inference_ms"] > 0


def test_csv_has_a_row_for_each_photo(
    model: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", model, str(folder), "--csv", "--top-k", "2"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["label"] for row in rows] == ["green", "red"]
    assert float(rows[0]["probability"]) > 0.9
    assert set(rows[0]) >= {"photo", "label_2", "probability_2", "decode_ms", "known"}


@pytest.mark.parametrize("shape", ["", "--json", "--csv"])
def test_one_bad_photo_among_many(
    shape: str,
    model: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = folder / "red" / "b.png"
    bad.write_text("no photo")
    gone, empty = str(folder / "gone.png"), folder / "empty"
    empty.mkdir()
    good = photo(tmp_path / "good.png", (200, 10, 10))
    argv = ["classify", model, str(folder), gone, str(empty), f"{folder}/*.none", good]
    assert main([*argv, *filter(None, [shape])]) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(f"edgegraft: error: {bad}: expected a photo")
    assert lines[1] == f"edgegraft: error: {gone}: no such file"
    assert lines[2] == f"edgegraft: error: {empty}: expected photos here, found none"
    assert lines[3].endswith("*.none: expected photos here, found none")
    if shape == "--json":
        record = json.loads(out)
        assert len(record["photos"]) == 3
        assert [entry["photo"] for entry in record["failures"]] == [
            str(bad),
            gone,
            str(empty),
            f"{folder}/*.none",
        ]
    else:
        assert len(out.splitlines()) == 3 + (shape == "--csv")


def test_unknown_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat = with_card(
        network(familiarity=True), outputs=BOTH, familiarity_threshold=100.0
    )
    model = save(tmp_path / "m.tflite", flat)
    dark = photo(tmp_path / "d.png", (0, 50, 0))
    assert main(["classify", model, dark]) == 0
    out = capsys.readouterr().out
    assert out.startswith("unknown ") and "familiarity 50; green" in out
    assert main(["classify", model, dark, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["photos"][0]
    assert told["label"] == "unknown" and told["known"] is False
    assert told["familiarity"] == 50 and told["ranking"][0]["label"] == "green"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["classify", "none.tflite", "x.png"], "none.tflite: no such model file"),
        (["classify", "MODEL"], "required: PATH"),
        (["classify", "MODEL", "x", "--top-k", "0"], "expected 1 or more, got '0'"),
        (["classify", "MODEL", "x", "--threads", "two"], "expected 1 or more"),
        (["classify", "MODEL", "x", "--threads", "99999"], "256 threads at most"),
        (["classify", "MODEL", "x", "--json", "--csv"], "not allowed with"),
        (["classify", "MODEL", "x", "--mean", "1"], "--mean and --std together"),
        (["classify", "MODEL", "x", "--labels", "none.txt"], "none.txt: No such file"),
        (["classify", "MODEL", "x", "--runtime", "onnx"], "invalid choice"),
        (["bogus"], "invalid choice: 'bogus'"),
        (["info", "none.tflite"], "no such model file"),
        (["bench", "none.tflite"], "no such model file"),
        (["bench", "none.tflite", "none.tflite"], "no such model file"),
        (["evaluate", "MODEL", "nowhere"], "nowhere: expected a folder"),
    ],
)
def test_bad_commands_cost_one_line(
    argv: list[str], message: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [model if word == "MODEL" else word for word in argv]
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("edgegraft: error: ") and err.count("\n") == 1
    assert message in err


def test_debug_shows_where(model: str) -> None:
    done = run("classify", "none.tflite", "x.png", "--debug")
    assert done.returncode != 0 and "Traceback" in done.stderr


def test_xnnpack_can_be_left_out(
    model: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for option in ([], ["--no-xnnpack"]):
        assert main(["classify", model, str(folder), "--json", *option]) == 0
        told.append(json.loads(capsys.readouterr().out)["photos"])
    assert [row["label"] for row in told[0]] == [row["label"] for row in told[1]]
    assert main(["bench", model, model, "--runs", "5", "--no-xnnpack", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)["models"]
    assert [record["xnnpack"] for record in records] == [False, False]


def test_a_closed_pipe_is_no_error(model: str, folder: Path, tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(400):  # more lines than a pipe's reader takes at once
        os.link(folder / "red" / "a.png", many / f"{number}.png")
    command = f'"{sys.executable}" -m edge classify "{model}" "{many}" | head -1'
    done = subprocess.run(
        command, shell=True, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.count("\n") == 1 and done.stderr == ""


def test_another_broken_pipe_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a worker that died, say: it had ended the command with 0 and no word."""

    def verb() -> int:
        reader, writer = os.pipe()
        os.close(reader)
        try:
            return os.write(writer, b"a")
        finally:
            os.close(writer)

    assert guard(verb) == 70
    assert "unexpected BrokenPipeError" in capsys.readouterr().err
    assert not sys.stderr.closed


@pytest.mark.parametrize("outputs", ["2>&1 | cat", "2>&1 >&-"])
def test_a_broken_pipe_beside_a_working_output(outputs: str) -> None:
    """Somebody reads stdout, or there is none: another pipe has broken."""
    code = """
from edge.command import guard
def verb():
    raise BrokenPipeError(32, "Broken pipe")
raise SystemExit(guard(verb))
"""
    command = f'set -o pipefail; "{sys.executable}" -c "$CODE" {outputs}'
    environment = {**os.environ, "CODE": code}
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True
    )
    assert done.returncode == 70
    assert b"unexpected BrokenPipeError" in done.stdout


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_both_outputs_may_be_closed(unbuffered: str) -> None:
    code = """
from edge.command import guard
def verb():
    for _ in range(100_000):
        print("a line")
    return 0
raise SystemExit(guard(verb))
"""
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered, "CODE": code}
    command = f'set -o pipefail; "{sys.executable}" -c "$CODE" 2>&1 | head -1'
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"a line\n", b"", 0)


def test_ctrl_c_counts_while_python_tidies_up() -> None:
    """An exception in a weak reference's callback is dropped by Python."""
    code = """
import signal, time, weakref
from edge.command import guard
signal.signal(signal.SIGINT, signal.default_int_handler)  # not a job's, which ignores
class Thing: pass
def verb():
    thing = Thing()
    kept = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
    del thing
    time.sleep(20)
    return 0
raise SystemExit(guard(verb))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 130
    assert done.stderr == "edgegraft: stopped; no half-written file is left\n"


def test_help_states_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "--help"], prog="edgegraft edge") == 0
    out = capsys.readouterr().out
    assert "usage: edgegraft edge classify" in out and "exit code: 0" in out


def test_one_photo_imports_only_what_it_needs(model: str, tmp_path: Path) -> None:
    path = photo(tmp_path / "x.jpg", (200, 0, 0))
    code = (
        "import sys; from edge.cli import main\n"
        f"assert main(['classify', {model!r}, {path!r}]) == 0\n"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    unneeded = {"csv", "concurrent.futures", "asyncio"}
    if sys.version_info < (3, 13):  # from 3.13 on, pathlib itself imports it
        unneeded.add("glob")
    unneeded |= {"tensorflow", "cv2", "google.protobuf", "flatbuffers", "matplotlib"}
    unneeded |= {"edge.bench", "edge.info", "edge.evaluate"}
    assert loaded & unneeded == set()


def test_googles_classifiers_run(assets: Path) -> None:
    """Files that edgegraft did not make, with their label file."""
    folder = assets / "reference_tflite"
    photos = ("cat_720p.jpg", "parrot.jpg", "sunflower.bmp")
    for name, cats in (
        ("mobilenet_v2_1.0_224_quant", {"Egyptian cat"}),
        ("mobilenet_v1_0.25_128_quant", {"tiger cat", "Egyptian cat"}),
    ):
        done = run(
            "classify",
            str(folder / f"{name}.tflite"),
            *(str(folder / photo_name) for photo_name in photos),
            "--labels",
            str(folder / "imagenet_labels.txt"),
            "--json",
        )
        assert done.returncode == 0, done.stderr
        told = [entry["label"] for entry in json.loads(done.stdout)["photos"]]
        assert told[0] in cats and told[1:] == ["macaw", "daisy"]


def test_names_that_are_formulas_are_quoted_in_a_csv(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = ("=1+1", "dog", "@x")
    model = save(tmp_path / "m.tflite", with_card(network(), labels=labels))
    photo(tmp_path / "=a.png", (200, 0, 0))
    monkeypatch.chdir(tmp_path)
    command = ["classify", model, "=a.png", "--csv", "--top-k", "1"]
    assert main(command) == main([*command, "--raw"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("'=a.png,'=1+1,") and lines[3].startswith("=a.png,=1+1,")
    for raw in ([], ["--raw"]):
        to = ["-o", f"out{len(raw)}.csv", *raw]
        assert main([*command, *to]) == main([*command, *to, "--resume"]) == 0
        assert len(Path(to[1]).read_text().splitlines()) == 2
    assert main([*command[:3], "--raw"]) == 2
