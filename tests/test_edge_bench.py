"""The benchmark: what it times, and what it says about a spoiled measurement."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge import bench, machine
from edge.bench import Probe
from edge.cli import main
from tests.edge_models import FLOAT32, network, photo, save, with_card


@pytest.fixture
def model(tmp_path: Path) -> str:
    return save(tmp_path / "m.tflite", with_card(network()))


def test_threads_photos_pace_and_minutes(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        photo(folder / f"{number}.png", (200, 0, 0), 60)
    (folder / "bad.png").write_text("no photo")
    argv = ["bench", model, "--runs", "9", "--threads", "1,2", "--json"]
    argv += ["--photos", str(folder), "--minutes", "0.003"]
    assert main(argv) == 0
    records = json.loads(capsys.readouterr().out)["models"]
    assert [record["threads"] for record in records] == [1, 2]
    for record in records:
        assert record["p50_ms"] <= record["p95_ms"] <= record["p99_ms"]
        assert record["variant"] == "int8" and record["model"] == model
        work = record["photos"]
        assert work["photos"] == 6  # the bad one is not counted
        parts = sum(
            work[part]["p50_ms"] for part in ("decode", "resize", "inference", "rest")
        )
        assert 0 < parts <= work["total"]["p99_ms"] * 4
        assert work["batched"]["photos_per_second"] > 0
        sample = record["sustained"]["samples"][0]
        assert {"p50_ms", "temperature_c", "clock_mhz", "throttled"} <= set(sample)
    assert main(["bench", model, "--runs", "3", "--photos", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "p99 ms" in out and "6 photos, p50 ms: decode " not in out
    assert "3 photos, p50 ms: decode " in out and " photos a second with " in out


def test_all_is_every_number_of_threads(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("edge.runtime.cores", lambda: 2)
    assert main(["bench", model, "--runs", "1", "--threads", "all", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)["models"]
    assert [record["threads"] for record in records] == [1, 2]
    documented = bench.__doc__ or ""
    for record in records:
        unnamed = {key for key in record if f"`{key}`" not in documented}
        assert not unnamed  # `compare --with` reads them: each is documented


class Clock:
    """Time that passes only when somebody sleeps."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_pace_is_kept_and_lateness_counted(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe, clock = Probe(model), Clock()
    monkeypatch.setattr(bench, "time", clock)
    told = bench.bench_paced(probe, 20, seconds=0.5)
    assert told["asked_fps"] == 20 and told["late"] == 0
    assert told["fps"] == pytest.approx(20)
    probe.once = lambda: clock.sleep(0.06) or 60.0  # type: ignore
    slow = bench.bench_paced(probe, 20, seconds=0.5)
    assert slow["late"] == 8 and slow["p50_ms"] == 60.0
    assert slow["fps"] == pytest.approx(8 / 0.5)


def test_a_sustained_run_is_sampled(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        machine,
        "state",
        lambda: {"temperature_c": 61.0, "clock_mhz": 1500.0, "throttled": []},
    )
    told = bench.bench_sustained(Probe(model), 0.01, every=0.2)
    assert 1 <= len(told["samples"]) <= 4 and told["slower"] > 0
    assert told["samples"][0]["temperature_c"] == 61.0


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's files, and a vcgencmd that says what the test wrote."""
    cpu = tmp_path / "cpu" / "cpu0" / "cpufreq"
    zone = tmp_path / "thermal" / "thermal_zone0"
    cpu.mkdir(parents=True)
    zone.mkdir(parents=True)
    (cpu / "scaling_governor").write_text("ondemand\n")
    (cpu / "scaling_cur_freq").write_text("1500000\n")
    (zone / "temp").write_text("82100\n")
    command = tmp_path / "bin" / "vcgencmd"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\necho throttled=0x50005\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(machine, "_CPU", str(tmp_path / "cpu"))
    monkeypatch.setattr(machine, "_THERMAL", str(tmp_path / "thermal"))
    monkeypatch.setattr(machine, "_STAT", str(tmp_path / "stat"))
    return tmp_path


def test_what_a_board_tells(board: Path) -> None:
    assert machine.state() == {
        "temperature_c": pytest.approx(82.1),
        "clock_mhz": 1500.0,
        "throttled": ["the supply voltage is low", "the processor is throttled"],
    }
    notes = machine.timing_warnings()
    assert "the CPU governor is ondemand" in notes[0] and "sudo tee" in notes[0]
    assert notes[1] == "the supply voltage is low: times may be too long"
    assert len(notes) == 3


def test_a_quiet_machine_has_no_warnings(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    governor = board / "cpu" / "cpu0" / "cpufreq" / "scaling_governor"
    governor.write_text("performance\n")
    (board / "bin" / "vcgencmd").write_text("#!/bin/sh\necho nonsense\n")
    assert machine.timing_warnings() == []
    stat = board / "stat"
    for worked, told in ((20, []), (80, ["other programs are running (80% of"])):
        stat.write_text("cpu  100 0 100 900 50 0 0 0 7 0\ncpu0 1 2 3\n")
        line = f"cpu  {100 + worked} 0 100 {1000 - worked} 50 0 0 0 99 0\n"
        # Not time.sleep itself: subprocess, which asks vcgencmd before, sleeps too.
        clock = SimpleNamespace(sleep=lambda _, line=line: stat.write_text(line))
        monkeypatch.setattr(machine, "time", clock)
        notes = machine.timing_warnings()
        assert len(notes) == len(told)
        assert all(note.startswith(told[0]) for note in notes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"runtime": "tflite-runtime"}, "run: pip install ai-edge-litert"),
        ({"xnnpack": False}, "leave --no-xnnpack out"),
        ({"fast": False}, "no 8-bit dot product"),
        ({}, "fixed costs"),
    ],
)
def test_why_int8_is_slower(
    changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "fast_int8", lambda: changes.get("fast", True))
    record = {"runtime": "litert", "runtime_version": "1", "xnnpack": True, **changes}
    assert words in bench._why_int8_is_slow(record)


def test_a_slower_int8_is_explained(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:

    flat = with_card(network(FLOAT32), variant="float32")
    other = save(tmp_path / "f.tflite", flat)
    found = iter((2.0, 1.0))
    real = bench.bench_in_subprocess

    def timed(name: str, **options: Any) -> dict[str, Any]:
        return {**real(name, **options), "p50_ms": next(found)}

    monkeypatch.setattr(bench, "bench_in_subprocess", timed)
    assert main(["bench", model, other, "--runs", "2"]) == 0
    assert f"warning: {model} is slower than {other}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--photos", "nowhere"], "nowhere: expected a folder of photos"),
        (["--threads", "1,x"], "expected 1 or more, got 'x'"),
        (["--fps", "0"], "expected more than 0, got '0'"),
        (["--minutes", "soon"], "expected more than 0, got 'soon'"),
    ],
)
def test_bad_options(
    argv: list[str],
    message: str,
    model: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bench", model, "--runs", "2", *argv]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_percentiles_are_of_all_times(model: str) -> None:
    from edge.bench import percentiles

    told = percentiles(np.arange(101.0))
    assert told == {"p50_ms": 50.0, "p95_ms": 95.0, "p99_ms": 99.0}
