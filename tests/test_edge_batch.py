"""Many photos: in order, over all workers, resumed, from a list on a pipe."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge import terminal
from edge.classify import workers as batch
from edge.cli import main
from edge.errors import PhotoError
from tests.edge_models import network, photo, save, with_card

ROOT = Path(__file__).resolve().parents[1]
COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}


@pytest.fixture
def model(tmp_path: Path) -> str:
    return save(tmp_path / "m.tflite", with_card(network()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """24 photos whose names say what is on them."""
    (tmp_path / "photos").mkdir()
    for number in range(24):
        label = list(COLOURS)[number % 3]
        size = 900 if number == 1 else 20  # one that takes longer
        photo(tmp_path / "photos" / f"{number:02}-{label}.png", COLOURS[label], size)
    return tmp_path / "photos"


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def answers(text: str) -> list[tuple[str, str, str]]:
    return [(row["photo"], row["label"], row["probability"]) for row in rows(text)]


def test_order_is_kept_whoever_is_first() -> None:
    def work(tool: int, item: int) -> tuple[int, int]:
        time.sleep(0.02 if item % 5 == 0 else 0.001)
        return item, tool

    told = list(batch.in_order(range(60), work, [7, 8, 9]))
    assert [item for item, _ in told] == list(range(60))
    assert {tool for _, tool in told} == {7, 8, 9}


def test_a_tool_serves_one_thread_at_a_time() -> None:
    busy = {7: threading.Lock(), 8: threading.Lock()}

    def work(tool: int, item: int) -> int:
        assert busy[tool].acquire(blocking=False)
        time.sleep(0.002)
        busy[tool].release()
        return item

    assert len(list(batch.in_order(range(40), work, [7, 8]))) == 40


def test_only_a_few_items_are_under_way() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    told = batch.in_order(items(), lambda tool, item: item, [1, 2])
    assert [next(told) for _ in range(3)] == [0, 1, 2]
    time.sleep(0.05)
    assert len(taken) <= 3 + 2 * batch.AHEAD + 1
    told.close()  # type: ignore[attr-defined]
    assert len(taken) <= 3 + 2 * batch.AHEAD + 2


def test_errors_come_after_the_answers_before_them() -> None:
    def work(tool: int, item: int) -> int:
        if item == 3:
            raise KeyError(item)
        return item

    seen = []
    with pytest.raises(KeyError):
        for item in batch.in_order(range(9), work, [1, 2]):
            seen.append(item)
    assert seen == [0, 1, 2]

    def items() -> Iterator[int]:
        yield 1
        raise OSError("list is gone")

    told = batch.in_order(items(), lambda tool, item: item, [1, 2])
    assert next(told) == 1
    with pytest.raises(OSError, match="list is gone"):
        next(told)


def test_workers_say_what_one_says(
    model: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "05b-bad.png").write_text("no photo")
    told = []
    for workers in ("1", "3"):
        argv = ["classify", model, str(folder), "--csv", "--workers", workers]
        assert main(argv) == 2
        out, err = capsys.readouterr()
        assert err.count("\n") == 1 and "05b-bad.png: expected a photo" in err
        told.append(answers(out))
    assert told[0] == told[1] and len(told[0]) == 24
    assert all(name.endswith(f"{label}.png") for name, label, _ in told[0])


def test_options_stand_anywhere(
    model: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = str(folder / "00-red.png"), str(folder / "01-green.png")
    assert main(["classify", "--json", model, one, "--top-k", "1", two]) == 0
    told = json.loads(capsys.readouterr().out)["photos"]
    assert [entry["photo"] for entry in told] == [one, two]


@pytest.mark.parametrize("between", [b"\n", b"\0"])
def test_a_list_on_standard_input(between: bytes, model: str, folder: Path) -> None:
    paths = sorted(str(path) for path in folder.iterdir())
    odd = photo(folder / "with space \u00fc.png", COLOURS["blue"])
    done = subprocess.run(
        [sys.executable, "-m", "edge", "classify", model, "-", "--csv"],
        input=between.join(os.fsencode(path) for path in [*paths, odd]),
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    told = rows(done.stdout.decode())
    assert [row["photo"] for row in told] == [*paths, odd]
    assert told[-1]["label"] == "blue"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_photo_in_place_of_a_list(kind: str, model: str) -> None:
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)
    Image.fromarray(noise).save(content, kind)
    done = subprocess.run(
        [sys.executable, "-m", "edge", "classify", model, "-", "--json"],
        input=content.getvalue(),
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    reason = "expected a list of photos, got a photo; save it to a file"
    assert done.returncode == 2
    assert done.stderr.decode() == f"edgegraft: error: -: {reason}\n"
    assert json.loads(done.stdout)["failures"] == [{"photo": "-", "reason": reason}]


def test_a_pipe_that_waits_is_answered_at_once(model: str, folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "edge", "classify", model, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        for name in ("00-red", "01-green"):
            process.stdin.write(f"{folder / name}.png\n")
            process.stdin.flush()
            assert process.stdout.readline().startswith(name[3:])
        process.stdin.close()
        assert process.wait(20) == 0


def test_resume_goes_on_where_it_stopped(
    model: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "out.csv"
    argv = ["classify", model, str(folder), "--csv", "-o", str(table)]
    assert main(argv) == 0
    assert capsys.readouterr() == ("", f"{table}: 24 photos classified\n")
    whole = table.read_text()
    lines = whole.splitlines(keepends=True)
    table.write_text("".join(lines[:9]) + lines[9][:20])  # the power went
    assert main(argv) == 2
    assert "exists; continue it with --resume" in capsys.readouterr().err
    assert main([*argv, "--resume"]) == 0
    assert capsys.readouterr().err == f"{table}: 16 photos classified, 8 before\n"
    resumed = table.read_text()
    assert resumed.splitlines()[:9] == whole.splitlines()[:9]  # not done again
    assert answers(resumed) == answers(whole)
    assert main([*argv, "--resume"]) == 0
    assert table.read_text() == resumed  # nothing was left to do
    table.write_text("")
    assert main([*argv, "--resume"]) == 0
    assert answers(table.read_text()) == answers(whole)
    table.write_text("photo,what\n")
    assert main([*argv, "--resume"]) == 2
    assert "expected a CSV with the columns photo,label" in capsys.readouterr().err
    table.write_text("".join(lines[:3]) + "a,b\n")
    assert main([*argv, "--resume"]) == 2
    assert "out.csv:4: expected 11 columns, got 2" in capsys.readouterr().err
    assert main([*argv[:3], "--resume"]) == 2
    assert "--resume needs --csv and -o FILE" in capsys.readouterr().err


def test_the_ending_of_the_file_is_its_format(
    model: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, document = tmp_path / "out.csv", tmp_path / "out.JSON"
    for target in (table, document):
        assert main(["classify", model, str(folder), "-o", str(target)]) == 0
    with open(table, newline="") as file:
        assert len(list(csv.DictReader(file))) == 24
    assert len(json.loads(document.read_text())["photos"]) == 24
    wrong = tmp_path / "other.csv"
    assert main(["classify", model, str(folder), "--json", "-o", str(wrong)]) == 2
    err = capsys.readouterr().err
    assert "expected a name that ends in .json with --json, got .csv" in err
    assert not wrong.exists()


def test_a_photo_named_twice_is_answered_once(
    model: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = sorted(folder.rglob("*.png"))[0]
    argv = ["classify", model, str(one), str(folder), f"{folder}/*", "--csv"]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    photos = [row["photo"] for row in csv.DictReader(out.splitlines())]
    assert photos[0] == str(one) and len(photos) == len(set(photos)) == 24
    assert err == "25 repeats left out: each photo is classified once\n"


def test_a_document_is_written_whole(
    model: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.json"
    argv = ["classify", model, str(folder), "--json", "-o", str(target)]
    assert main(argv) == 0
    assert len(json.loads(target.read_text())["photos"]) == 24
    assert capsys.readouterr() == ("", f"{target}: 24 photos classified\n")
    assert main(argv) == 2
    assert "exists; remove it" in capsys.readouterr().err
    assert capsys.readouterr().out == ""
    missing = ["classify", model, str(folder), "-o", str(tmp_path / "no" / "x.txt")]
    assert main(missing) == 2
    told = f"expected a folder {tmp_path / 'no'} to write to, got none; make it: mkdir"
    assert told in capsys.readouterr().err
    bad = tmp_path / "bad.png"
    bad.write_text("no photo")
    told = ["classify", model, str(bad), "-o", str(tmp_path / "x.txt")]
    assert main(told) == 2
    error, last = capsys.readouterr().err.splitlines()
    assert error.startswith(f"edgegraft: error: {bad}: expected a photo")
    assert last == f"{tmp_path / 'x.txt'}: 0 photos classified, 1 not (named above)"
    assert not list(tmp_path.glob("*.part"))


def test_a_bar_for_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[bytes] = []
    monkeypatch.setattr(terminal, "EVERY", 0.0)
    monkeypatch.setattr(os, "write", lambda fd, text: drawn.append(text))
    silent = terminal.Progress(4, live=False)
    silent.step()
    silent.clear()
    assert drawn == []
    bar = terminal.Progress(4, live=True, initial=1, title="decoding")
    bar.step()
    bar.step()
    bar.clear()
    assert b"decoding [############............] 2/4, " in drawn[0]
    assert b" 3/4, " in drawn[1] and b" left" in drawn[1]
    assert drawn[2] == b"\r\033[K"
    with terminal.Progress(None, live=True) as unknown:
        unknown.step()
    assert b"1 photos " in drawn[3]
    assert drawn[4] == b"\r\033[K"


def test_ray_is_named_when_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    model = save(tmp_path / "m.tflite", with_card(network()))
    shot = photo(tmp_path / "a.png", (200, 0, 0))
    assert main(["classify", model, shot, "--engine", "ray"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "pip install 'ray[data]'" in error


def test_a_worker_of_the_cluster_answers_as_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What travels over the cluster, without the cluster (the leg `ray` has one)."""
    from functools import partial

    from edge.classifier import Classifier
    from edge.classify.cli import classify_item
    from edge.classify.ray import Worker

    monkeypatch.chdir(tmp_path)
    model = with_card(network())
    shots = [photo(tmp_path / f"{n}.png", (0, 40 * n, 90)) for n in range(5)]
    items = [*shots, PhotoError("gone.png", "no such file"), str(tmp_path / "no.png")]
    packed = pickle.dumps((partial(Classifier, model), partial(classify_item, top_k=2)))
    batch = np.empty(len(items), dtype=object)
    batch[:] = [pickle.dumps(item) for item in items]
    told = Worker(packed, str(tmp_path))({"item": batch})["answer"]
    answers = [pickle.loads(answer) for answer in told]
    here = [classify_item(Classifier(model), item, top_k=2) for item in items]
    for there, mine in zip(answers, here, strict=True):
        if isinstance(mine, PhotoError):
            assert isinstance(there, PhotoError) and str(there) == str(mine)
        else:
            assert there[0] == mine[0] and there[1][0] == mine[1][0]
