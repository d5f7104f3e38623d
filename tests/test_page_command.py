"""The command that serves the page: what it refuses, how it starts Streamlit."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("streamlit", reason="the page needs streamlit")

from streamlit_app import cli
from tests import page_server
from tests.page_client import Client
from tests.page_helpers import INT8, ROOT


def _any_free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.tflite"], "missing.tflite"),
        (["--port", "0"], "--port from 1 to 65535, got 0"),
    ],
)
def test_the_command_refuses_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("edgegraft: error: ")
    assert message in error
    assert error.count("\n") == 1


def test_the_command_names_what_does_not_exist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, none = tmp_path / "m.tflite", tmp_path / "none"
    model.write_bytes(INT8)
    for arguments, message in (
        ([str(model), "--labels", str(none)], str(none)),
        (
            ["--artifacts", str(none)],
            f"expected a folder of runs, got {none}, which does not exist",
        ),
        (["--artifacts", str(model)], f"got {model}, which is a file"),
        ([str(tmp_path)], f"expected a .tflite file, got {tmp_path}, a folder"),
    ):
        assert cli.main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have served the page."""
    called: list[list[str]] = []

    def stand_in(_path: str, command: list[str], _environment: object) -> None:
        called.append(command)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "execve", stand_in)
    return called


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "0.0.0.0"])
def test_a_taken_port_is_refused_before_streamlit_starts(
    host: str, started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        assert cli.main(["--host", host, "--port", str(taken)]) == 2
        error = capsys.readouterr().err
    assert f"port {taken} is already in use on {host}" in error
    assert error.count("\n") == 1 and not started
    free = int(error.rpartition("--port ")[2])
    assert free > taken
    assert cli.main(["--host", host, "--port", str(free)]) == 130 and started


def test_a_host_that_is_not_this_machine(
    started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """An address for documentation (RFC 5737), which nobody has."""
    assert cli.main(["--host", "192.0.2.1"]) == 2
    error = capsys.readouterr().err
    assert "cannot serve at --host 192.0.2.1 --port 8501" in error
    assert error.count("\n") == 1 and not started


def test_the_command_keeps_to_this_machine(
    started: list[list[str]], tmp_path: Path
) -> None:
    called, port = started, str(_any_free())
    here = ["--artifacts", str(tmp_path), "--port", port]
    assert cli.main([*here, "--no-browser"]) == 130
    assert called[0][:4] == [sys.executable, "-m", "streamlit_app.cli", "run"]
    assert "--server.address=localhost" in called[0]
    assert "--browser.gatherUsageStats=false" in called[0]
    assert called[0][-3:] == ["--", "--artifacts", str(tmp_path)]
    assert cli.main(["--port", port]) == 130  # the default one comes with a first run
    assert called[1][-3:] == ["--", "--artifacts", str(Path("artifacts").absolute())]


def test_the_server_shuts_down_the_sessions_that_it_forgets() -> None:
    class Session:
        def __init__(self, number: int) -> None:
            self.id, self.open = str(number), True

        def shutdown(self) -> None:
            self.open = False

    sessions = [Session(number) for number in range(20)]
    kept = cli.BoundedSessions(max_sessions=3)
    for session in sessions:
        kept.save(SimpleNamespace(session=session))
    assert [session.open for session in sessions] == [False] * 17 + [True] * 3
    assert kept.get("0") is None and kept.get("19") is not None
    assert cli.most_connections(256) * cli.DESCRIPTORS_PER_VISITOR < 256


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
@pytest.mark.slow
def test_visits_leave_no_open_files_and_one_signal_ends_the_server(
    tmp_path: Path,
) -> None:
    """20 visits, where 120 files may be open: each took three for minutes before."""
    limited = ["sh", "-c", 'ulimit -n 120; exec "$@"', "sh"]
    command = [*limited, *page_server.page("--artifacts", tmp_path)]
    with page_server.serve(command, tmp_path / "log.txt") as served:
        files = Path(f"/proc/{served.process.pid}/fd")
        before = len(list(files.iterdir()))
        for _ in range(20):
            Client(served.address).close()
        time.sleep(1)
        after = len(list(files.iterdir()))
        assert after - before <= 3 * cli.KEPT_SESSIONS + 6
        visitor = Client(served.address)
        start = time.monotonic()
        served.process.terminate()
        served.process.wait(10)
        assert time.monotonic() - start < 5
        visitor.close()


def test_settings_are_the_same_in_the_file_and_the_command() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
    tables = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text("utf-8"))
    flat: dict[str, str] = {}

    def walk(inner: dict[str, Any], path: tuple[str, ...]) -> None:
        for key, found in inner.items():
            if isinstance(found, dict):
                walk(found, (*path, key))
            else:
                text = str(found).lower() if isinstance(found, bool) else str(found)
                flat[".".join((*path, key))] = text

    walk(tables, ())
    assert flat == cli.SETTINGS
