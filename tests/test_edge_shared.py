"""What all rooms share: files written whole, text made safe, native code kept quiet."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.classifier import tenths
from edge.errors import EdgegraftError
from edge.files import new_folder, sha256, sha256_of_file, write_atomic, write_csv
from edge.records import RUN, parse_record, read_record
from edge.terminal import native_stderr_hidden, silenced, without_chatter
from edge.text import columns, csv_cell, json_text, plural, printable

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()])
def test_a_full_disk_or_interrupt_leaves_the_old_file(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "metrics.json"
    path.write_text("old")

    def write(to: Path) -> None:
        to.write_text("half")
        raise error

    kind = EdgegraftError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(kind):
        write_atomic(path, write)
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]
    assert path.read_text() == "old"


def test_files_are_written_as_given(tmp_path: Path) -> None:
    path = tmp_path / "new" / ("n" * 240 + ".csv")
    write_csv(path, ("path", "label"), [("a\udcff.jpg", "ä,b")])
    assert path.read_bytes() == b'path,label\na\xff.jpg,"\xc3\xa4,b"\n'
    write_atomic(path, "text\n")
    assert path.read_bytes() == b"text\n"
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert sha256_of_file(path) == sha256(b"text\n")
    assert sha256(b"text\n") == hashlib.sha256(b"text\n").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError), new_folder(tmp_path / "set") as folder:
        (folder / "half").touch()
        raise ValueError
    assert not list(tmp_path.iterdir())
    (tmp_path / "set").mkdir()
    with new_folder(tmp_path / "set") as folder:
        (folder / "whole").touch()
    assert [p.name for p in tmp_path.rglob("*")] == ["set", "whole"]
    with pytest.raises(OSError), new_folder(tmp_path / "set") as folder:
        (folder / "other").touch()
    assert [p.name for p in tmp_path.rglob("*")] == ["set", "whole"]


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("Katze 猫.jpg", "Katze 猫.jpg"),
        ("a\x1b[31m\n.jpg", "a\\x1b[31m\\n.jpg"),
        ("cat\u202egpj.exe", "cat\\u202egpj.exe"),
        ("\udcff", "\\udcff"),
        ("👩‍🌾", "👩‍🌾"),
    ],
)
def test_text_of_a_file_is_safe_on_a_terminal(text: str, safe: str) -> None:
    assert printable(text) == safe


def test_columns_line_up() -> None:
    assert columns([["int8", "9"], ["float32", "10"]], ["file", "MB"], rule=True) == [
        "file     MB",
        "-------  --",
        "int8      9",
        "float32  10",
    ]
    assert columns([]) == []
    assert [plural(1, "photo"), plural(2000, "photo")] == ["1 photo", "2,000 photos"]


def test_native_lines_are_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    with without_chatter():
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate\nreal\n")
    assert capfd.readouterr() == ("", "real\n")
    with silenced():
        os.write(1, b"converter\n")
    assert capfd.readouterr() == ("", "")


def test_python_is_heard_while_native_code_is_not(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(2, "w", closefd=False) as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        with native_stderr_hidden():
            os.write(2, b"native\n")
            print("a progress bar", file=sys.stderr)
        assert sys.stderr is stderr
        later = io.StringIO()
        with native_stderr_hidden():  # in a thread that outlives a redirection
            monkeypatch.setattr(sys, "stderr", later)
        assert sys.stderr is later
    assert capfd.readouterr().err == "a progress bar\n"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_a_formula_becomes_text_for_a_spreadsheet(text: str) -> None:
    assert csv_cell(text) == f"'{text}"
    assert csv_cell(f"a{text}") == f"a{text}"


def test_a_cell_of_a_csv_moves_no_terminal() -> None:
    assert csv_cell("a\n\x1b[2J\u202egpj") == r"a\n\x1b[2J\u202egpj"
    assert csv_cell("\t=1") == r"\t=1"


def test_json_on_a_terminal_means_the_same_and_moves_nothing() -> None:
    record = {"Ärger 猫 👩\u200d🌾": ["\u202egpj", "\x9b2J", "\ud800", "a\nb"]}
    text = json_text(record, indent=1)
    assert json.loads(text) == record
    assert all(c.isprintable() or c in "\n\u200d" for c in text)
    assert "猫" in text and text.isascii() is False


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1]", "r.json: expected an object, got"),
        (b'{"labels": "x"}', "r.json: labels: expected a list, got 'x'"),
        (b'{"labels": ["a", 1]}', r"r.json: labels\[1\]: expected text, got 1"),
        (b'{"calibration": {"temperature": NaN}}', "temperature: expected a number"),
        (b'{"x": ' + b"[" * 40 + b"]" * 40 + b"}", "a depth of 32 at most"),
        (b'{"x": ' + b"[" * 99_999 + b"]" * 99_999 + b"}", "a depth of 32 at most"),
        (b'{"x": [' + b"0," * 6_100_000 + b"0]}", "6,000,000 values at most"),
        (b'{"x": ' + b"1" * 5000 + b"}", "expected JSON"),
        (b"{" + b" " * (64 << 20), "65,536 KiB at most"),
        (b"", "expected JSON, got a damaged or half-written file"),
    ],
    ids=range(10),
)
def test_records_are_read_within_limits(content: bytes, message: str) -> None:
    with pytest.raises(EdgegraftError, match=message) as caught:
        parse_record(content, RUN, "r.json")
    assert "\n" not in str(caught.value)


def test_a_record_is_a_file_inside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "secret.json").write_text("{}")
    link, pipe = tmp_path / "run" / "link.json", tmp_path / "run" / "pipe.json"
    link.symlink_to(tmp_path / "secret.json")
    os.mkfifo(pipe)
    for path, why in ((link, "got a link"), (pipe, "got a pipe or device")):
        with pytest.raises(EdgegraftError, match=why):
            read_record(path, RUN)
    with pytest.raises(EdgegraftError, match="leads out of"):
        read_record(tmp_path / "secret.json", RUN, inside=tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    path.write_bytes(b'{"photos": "caf\xe9"}')  # a folder's name that is no UTF-8
    assert os.fsencode(str(read_record(path, RUN)["photos"])) == b"caf\xe9"


@pytest.mark.parametrize(
    ("fractions", "shown"),
    [
        # of an int8 file: rounded one by one they add up to 100.1 and 99.9 %
        (
            [0.788, 0.1216, 0.0392, 0.02355, 0.02355, 0.0041],
            [78.8, 12.2, 3.9, 2.4, 2.3, 0.4],
        ),
        ([0.5, 0.3333, 0.1667], [50.0, 33.3, 16.7]),
        ([0.3334, 0.3334, 0.3332], [33.4, 33.3, 33.3]),
        ([1.0, 0.0], [100.0, 0.0]),
        ([0.6123, 0.2], [61.2, 20.0]),  # a part of all labels
        ([], []),
    ],
)
def test_probabilities_add_up_as_printed(
    fractions: list[float], shown: list[float]
) -> None:
    assert [float(f"{100 * value:.1f}") for value in tenths(fractions)] == shown


def test_probabilities_of_many_labels_add_up_as_printed() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        steps = np.sort(random.multinomial(256, random.dirichlet(np.ones(9))))[::-1]
        exact = (steps / 256).tolist()
        rounded = tenths(exact)
        assert sum(round(1000 * value) for value in rounded) == 1000
        assert rounded == sorted(rounded, reverse=True)
        assert max(abs(a - b) for a, b in zip(exact, rounded, strict=True)) < 0.0011
