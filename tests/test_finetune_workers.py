"""Workers that are named and waited for, and what they refuse.

Two that train together, and one that is lost: test_finetune_kill.
"""

from __future__ import annotations

import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

import edgegraft
from edge.errors import EdgegraftError
from finetune import distributed
from finetune.distributed import ALONE, Workers, join
from tests.finetune_helpers import TINY_RUN, drawn, free_ports, tf_config

OPTIONS = ("--backbone", "custom_cnn", "--size", "16", "--run", "r")


def test_a_worker_that_never_comes_up_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ports = free_ports(2)
    monkeypatch.setenv("TF_CONFIG", tf_config(ports, 0))
    monkeypatch.setenv("EDGEGRAFT_WORKERS_TIMEOUT", "0.3")
    photos = drawn(tmp_path / "photos", 4)
    command = ["finetune", str(photos), *OPTIONS, "--artifacts", str(tmp_path / "a")]
    assert edgegraft.main(command) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and not (tmp_path / "a").exists()
    assert f"no answer from worker 1 at 127.0.0.1:{ports[1]}" in told
    assert edgegraft.main([*command, "--repeats", "3"]) == 2
    assert "expected --repeats 1 with TF_CONFIG" in capsys.readouterr().err


def test_everybody_is_waited_for_at_the_listen() -> None:
    ports = free_ports(3)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    failed = []

    def wait(number: int) -> None:
        try:
            # as TensorFlow, whoever has seen all the others keeps his port open
            distributed._wait_for_all(addresses, number, 20)
            with distributed._listen(addresses[number]):
                everybody.wait(20)
        except Exception as error:
            failed.append(error)

    everybody = threading.Barrier(3)
    threads = [threading.Thread(target=wait, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Expecting property name"),
        ('["a"]', "no attribute"),
        ('{"cluster": {"worker": ["a", "b:1"]}}', "'a' is no HOST:PORT"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"index": 2}}', "not among"),
        ('{"cluster": {"ps": ["a:1"], "worker": ["b:1"]}}', "chief and worker train"),
    ],
)
def test_a_wrong_tf_config_is_one_line(
    text: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(EdgegraftError, match="expected TF_CONFIG to be like") as caught:
        join()
    assert why in str(caught.value) and "\n" not in str(caught.value)


def test_a_taken_port_and_a_wrong_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("TF_CONFIG", tf_config([port, free_ports(1)[0]], 0))
        with pytest.raises(EdgegraftError, match=f"expected port {port} .* to be free"):
            join()
    monkeypatch.setenv("EDGEGRAFT_WORKERS_TIMEOUT", "soon")
    with pytest.raises(EdgegraftError, match="TIMEOUT in seconds above 0, got 'soon'"):
        join()


def test_one_worker_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", tf_config(free_ports(1), 0))
    assert join() is ALONE and ALONE.is_chief and not ALONE.several


def test_other_photos_or_settings_than_the_chiefs_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(Workers, "share", lambda self, own: told.setdefault("all", own))
    distributed.refuse_differences(Workers(0, 2), TINY_RUN, "a" * 64)
    distributed.refuse_differences(Workers(1, 2), TINY_RUN, "a" * 64)
    with pytest.raises(EdgegraftError, match=r"chief's photos on every .* on worker 1"):
        distributed.refuse_differences(Workers(1, 2), TINY_RUN, "b" * 64)
    other = type(TINY_RUN).from_dict({**TINY_RUN.to_dict(), "seed": 9})
    with pytest.raises(EdgegraftError, match=r"settings \(seed\)"):
        distributed.refuse_differences(Workers(1, 2), other, "a" * 64)


def test_what_the_others_write_vanishes(tmp_path: Path) -> None:
    with distributed.run_folder(ALONE, tmp_path / "r") as own:
        assert own == tmp_path / "r"
    with distributed.run_folder(Workers(1, 2), tmp_path / "r") as other:
        assert other.name == "r" and Path(tempfile.gettempdir()) in other.parents
        other.mkdir()
    assert not other.parent.exists()
