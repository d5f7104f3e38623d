"""What goes wrong on a device: a clear line each, and on with the rest.

Missing cameras and videos: test_camera, test_camera_video; a disk too full for frames:
test_camera_steady; damaged models and numpy 2 beside tflite-runtime: test_edge_runtime.
"""

from __future__ import annotations

import csv
import ctypes
import os
import stat
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge import classifier, runtime
from edge.camera import output, sources
from edge.classifier import Classifier
from edge.cli import main
from edge.command import guard
from edge.errors import EdgegraftError, ModelError
from edge.model_file import ModelFile
from edge.preprocess import load_pixels
from tests.edge_models import network, photo, save, with_card

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def model(tmp_path: Path) -> str:
    return save(tmp_path / "m.tflite", with_card(network()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """photos/{1,2,3}/{a,b}.png"""
    for name in "123":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for shot in "ab":
            photo(tmp_path / "photos" / name / f"{shot}.png", (200, 0, 0))
    return tmp_path / "photos"


def told(capsys: pytest.CaptureFixture[str]) -> tuple[list[str], list[str]]:
    out, err = capsys.readouterr()
    return out.splitlines(), err.splitlines()


def test_a_photo_that_vanishes_while_the_folder_is_read(
    model: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lost = folder / "2" / "a.png"

    def reading(path: Any, recipe: Any) -> Any:
        lost.unlink(missing_ok=True)
        return load_pixels(path, recipe)

    monkeypatch.setattr(classifier, "load_pixels", reading)
    assert main(["classify", model, str(folder)]) == 2
    out, err = told(capsys)
    assert len(out) == 5 and err == [f"edgegraft: error: {lost}: no such file"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "Permission denied"), "permission denied (chmod +rx it)"),
        (FileNotFoundError(2, "No such file or directory"), "No such file"),
    ],
)
def test_a_folder_inside_that_cannot_be_read(
    error: OSError,
    reason: str,
    model: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Told in its place; the photos before and after it are answered."""
    listing, shut = os.listdir, str(folder / "2")

    def listdir(path: Any) -> list[str]:
        if str(path) == shut:
            raise error
        return listing(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert main(["classify", model, str(folder)]) == 2
    out, err = told(capsys)
    assert [line.split()[2] for line in out] == [
        str(folder / name / f"{shot}.png") for name in "13" for shot in "ab"
    ]
    assert len(err) == 1 and err[0].startswith(f"edgegraft: error: {shut}: {reason}")
    assert main(["classify", model, shut]) == 2
    out, err = told(capsys)
    assert out == [] and len(err) == 1 and reason in err[0]


def test_a_photo_without_permission(
    model: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shut = folder / "1" / "b.png"
    shut.chmod(0)
    if os.access(shut, os.R_OK):  # root reads everything
        from PIL import Image

        opening = Image.open

        def opened(source: Any, **options: Any) -> Any:
            if not stat.S_IMODE(os.stat(source).st_mode):
                raise PermissionError(13, "Permission denied")
            return opening(source, **options)

        monkeypatch.setattr(Image, "open", opened)
    assert main(["classify", model, str(folder)]) == 2
    out, err = told(capsys)
    assert len(out) == 5 and len(err) == 1
    assert err[0] == f"edgegraft: error: {shut}: permission denied (chmod +r the file)"


def test_a_bomb_among_the_photos(
    model: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bomb = folder / "1" / "bomb.ppm"
    bomb.write_bytes(b"P6 60000 60000 255\n" + bytes(100))  # 10 GB promised
    assert main(["classify", model, str(folder)]) == 2
    out, err = told(capsys)
    assert len(out) == 6 and len(err) == 1
    assert str(bomb) in err[0] and "128,000,000 pixels" in err[0]


LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (600, resource.RLIM_INFINITY))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.parametrize("kind", ["--csv", "--json"])
def test_a_disk_that_fills_up_while_answers_are_written(
    kind: str, tmp_path: Path
) -> None:
    """A limit of the file's size stands for the disk; the system says it alike."""
    model = save(tmp_path / "m.tflite", with_card(network()))
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(20):
        photo(folder / f"{number:02}.png", (200, 0, 0))
    out = tmp_path / "answers"
    words = ["-m", "edge", "classify", model, str(folder), kind, "-o", str(out)]
    limited = [sys.executable, "-c", LIMITED, *words]
    done = subprocess.run(
        limited, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"{out}: File too large; make room" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == (
        ["answers", "m.tflite"] if kind == "--csv" else ["m.tflite"]
    )
    if kind == "--csv":
        subprocess.run([sys.executable, *words, "--resume"], cwd=ROOT, check=True)
        rows = list(csv.DictReader(out.open(encoding="utf-8")))
        assert [Path(row["photo"]).stem for row in rows] == [
            f"{number:02}" for number in range(20)
        ]


def test_a_camera_in_use(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What OpenCV says of a busy camera: it does not open, and no more than that."""

    class Busy:
        def __init__(self, *where: object) -> None:
            self.where = where

        def isOpened(self) -> bool:
            return False

        def release(self) -> None:
            pass

    fake = types.SimpleNamespace(VideoCapture=Busy, CAP_V4L2=200)
    monkeypatch.setitem(sys.modules, "cv2", fake)
    monkeypatch.setattr(sources.Capture, "_check_device", lambda self: None)
    assert main(["camera", model, "/dev/video0"]) == 2
    out, err = told(capsys)
    assert out == [] and len(err) == 1
    assert "/dev/video0: not a camera, or in use by another program" in err[0]


def test_a_numpy_that_does_not_load(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """numpy's own message has thirty lines; the last says what is missing."""

    def broken() -> int:
        raise ImportError(
            "\n\nIMPORTANT: PLEASE READ THIS\n\nOriginal error was: libblas.so.3: "
            "cannot open shared object file\n"
        )

    assert guard(broken) == 2
    out, err = told(capsys)
    assert out == [] and len(err) == 1
    assert "(Original error was: libblas.so.3: cannot open shared object" in err[0]
    with pytest.raises(ImportError):
        guard(broken, debug=True)


# -- delegates -------------------------------------------------------------------------


def test_a_delegate_that_cannot_be_loaded(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "libedgetpu.so.1"
    library.write_text("no library")
    shot = photo(tmp_path / "a.png", (200, 0, 0))
    for argument, message in (
        (str(library), f"--delegate {library}: cannot be loaded ("),
        ("libc.so.6", "cannot be loaded (it has no tflite_plugin_create_delegate)"),
        (f"{library},device", "expected LIBRARY,KEY=VALUE,... got 'device'"),
    ):
        assert main(["classify", model, shot, "--delegate", argument]) == 2
        out, err = told(capsys)
        assert out == [] and len(err) == 1 and message in err[0]
    assert main(["bench", model, "--runs", "1", "--delegate", str(library)]) == 2
    _, err = told(capsys)
    assert len(err) == 1 and "is the accelerator plugged in" in err[0]


def test_a_delegate_gets_its_options_and_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, interpreter = runtime.find()
    seen: dict[str, Any] = {}

    class Watching(interpreter):  # type: ignore[misc, valid-type]
        def __init__(self, **options: Any) -> None:
            seen["delegates"] = options.pop("experimental_delegates", None)
            super().__init__(**options)

    module = types.ModuleType("watching")
    module.load_delegate = lambda *told: told  # type: ignore[attr-defined]
    library = types.SimpleNamespace(tflite_plugin_create_delegate=None)
    monkeypatch.setattr(ctypes, "CDLL", lambda path: library)
    Watching.__module__ = "watching"
    monkeypatch.setitem(sys.modules, "watching", module)
    monkeypatch.setattr(runtime, "find", lambda name: (found, Watching))
    monkeypatch.setattr(ModelFile, "prove", lambda self, **options: None)
    Classifier(with_card(network()), delegate="lib.so,device=usb,speed=max")
    assert seen["delegates"] == [("lib.so", {"device": "usb", "speed": "max"})]
    Classifier(with_card(network()))
    assert seen["delegates"] is None


def test_an_edge_tpu_file_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    found, interpreter = runtime.find()

    class Refusing(interpreter):  # type: ignore[misc, valid-type]
        def allocate_tensors(self) -> None:
            raise RuntimeError("Encountered unresolved custom op: edgetpu-custom-op.")

    Refusing.__module__ = interpreter.__module__
    monkeypatch.setattr(runtime, "find", lambda name: (found, Refusing))
    monkeypatch.setattr(ModelFile, "prove", lambda self, **options: None)
    with pytest.raises(ModelError, match=r"give --delegate libedgetpu\.so\.1"):
        Classifier(with_card(network()))


# -- the preview window ----------------------------------------------------------------


def test_a_preview_without_a_display(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert main(["camera", model, "clip.mp4", "--preview"]) == 2
    out, err = told(capsys)
    assert out == [] and len(err) == 1 and "--preview: expected a display" in err[0]
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(EdgegraftError, match="sudo apt install python3-tk"):
        output.Preview("camera")


def test_a_preview_shows_frames_until_it_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against a Tk of our own: there is no display where tests run."""
    shown: list[tuple[tuple[int, int], str]] = []
    window: dict[str, Any] = {}

    class Tk:
        def title(self, text: str) -> None:
            window["title"] = text

        def protocol(self, name: str, call: Any) -> None:
            window[name] = call

        def update(self) -> None:
            pass

        def destroy(self) -> None:
            window["destroyed"] = True

    class Label:
        def __init__(self, *parent: Any, **options: Any) -> None:
            pass

        def pack(self) -> None:
            pass

        def configure(self, *, image: Any, text: str) -> None:
            shown.append((image.size, text))

    tk = types.SimpleNamespace(Tk=Tk, Label=Label, TclError=RuntimeError)
    image_tk = types.ModuleType("PIL.ImageTk")
    image_tk.PhotoImage = lambda image, master: image  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tkinter", tk)
    monkeypatch.setitem(sys.modules, "PIL.ImageTk", image_tk)
    monkeypatch.setattr("PIL.ImageTk", image_tk, raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    view = output.Preview("door")
    frame = np.zeros((1440, 1920, 3), np.uint8)
    assert view.show(frame, "cat  99.0%")
    assert window["title"] == "door" and shown == [((960, 720), "cat  99.0%")]
    window["WM_DELETE_WINDOW"]()
    assert not view.show(frame, "dog") and len(shown) == 1
    view.close()
    assert window["destroyed"]


def test_pipes_are_no_photos_and_no_models(
    model: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(folder / "1" / "c.png")
    assert main(["classify", model, str(folder), "--csv"]) == 2
    out, err = told(capsys)
    assert len(out) == 1 + 6 and len(err) == 1
    assert err[0].endswith("c.png: not an ordinary file")
    os.mkfifo(tmp_path / "pipe.tflite")
    assert main(["info", str(tmp_path / "pipe.tflite")]) == 2
    assert "expected a file, got a pipe or device" in told(capsys)[1][0]


def test_folders_a_thousand_deep(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    photo(Path("a.png"), (200, 0, 0))
    os.chdir(tmp_path)
    try:
        assert main(["classify", model, "d"]) in (0, 2)
        assert "Traceback" not in capsys.readouterr().err
    finally:  # pytest's own removal recurses: it fails, in this run or in a later one
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def test_an_error_that_is_ours_has_a_code_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def verb() -> int:
        raise ZeroDivisionError("\x1b[2J")

    assert guard(verb) == 70
    line = capsys.readouterr().err
    assert line.startswith("edgegraft: error: unexpected ZeroDivisionError: \\x1b[2J")
    with pytest.raises(ZeroDivisionError):
        guard(verb, debug=True)
