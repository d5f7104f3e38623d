"""`edge serve`: a model over HTTP, and clients that do everything wrong."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edge import serve as serving
from edge.classifier import Classifier
from edge.cli import main
from edge.command import ModelOptions
from edge.serve import MEGABYTE, ServeOptions, Server, make_server
from tests.edge_models import network, photo, save, with_card

COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}
TOKEN = "t0ken"


def png(label: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 20), COLOURS[label]).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    return save(folder / "m.tflite", with_card(network(), name="colours"))


@pytest.fixture(scope="module")
def classifier(model: str) -> Classifier:
    return Classifier(model)


def started(model: str, classifier: Classifier, **options: Any) -> Server:
    made = make_server(ServeOptions(ModelOptions(model), port=0, **options), classifier)
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    return made


@pytest.fixture
def server(model: str, classifier: Classifier) -> Iterator[Server]:
    made = started(model, classifier)
    yield made
    made.shutdown()
    made.server_close()


def ask(
    server: Server,
    path: str = "/classify",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    method: str | None = None,
) -> tuple[int, Any, Any]:
    """Status, JSON or text, headers."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.server_address[1]}{path}",
        data=body,
        headers=headers or {},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            status, content = response.status, response.read()
            about = response.headers
    except urllib.error.HTTPError as error:
        status, content, about = error.code, error.read(), error.headers
    text = content.decode()
    is_json = about["Content-Type"].startswith("application/json")
    return status, json.loads(text) if is_json else text, about


def form(*files: tuple[str, bytes], boundary: str = "x1y2") -> tuple[bytes, str]:
    body = f'--{boundary}\r\nContent-Disposition: form-data; name="n"\r\n\r\n1\r\n'
    parts = [body.encode()]
    for name, content in files:
        heading = f'Content-Disposition: form-data; name="f"; filename="{name}"'
        parts.append(f"--{boundary}\r\n{heading}\r\n\r\n".encode() + content + b"\r\n")
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


def test_an_answer_is_that_of_classify(
    server: Server, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = photo(tmp_path / "x.png", COLOURS["green"])
    assert main(["classify", model, path, "--json"]) == 0
    want = json.loads(capsys.readouterr().out)
    status, got, _ = ask(server, body=Path(path).read_bytes())
    assert status == 200 and got.keys() == want.keys()
    assert got["runtime"] == want["runtime"] and got["model"] == want["model"]
    (one,), (other,) = got["photos"], want["photos"]
    for key in ("label", "probability", "known", "familiarity", "ranking"):
        assert one[key] == other[key]
    assert one["label"] == "green"


def test_a_form_has_several_photos_and_a_bad_one_blocks_none(server: Server) -> None:
    body, kind = form(
        ("a b.png", png("red")), ("no.txt", b"text\r\n--x"), ("c.png", png("blue"))
    )
    status, got, _ = ask(server, body=body, headers={"Content-Type": kind})
    assert status == 200
    assert [(p["photo"], p["label"]) for p in got["photos"]] == [
        ("a b.png", "red"),
        ("c.png", "blue"),
    ]
    (failure,) = got["failures"]
    assert failure["photo"] == "no.txt" and "expected a photo" in failure["reason"]


def test_health_card_and_metrics(server: Server, classifier: Classifier) -> None:
    for label in ("red", "red", "blue"):
        ask(server, body=png(label))
    ask(server, "/nowhere")
    status, health, _ = ask(server, "/health")
    assert status == 200 and health["status"] == "ok" and health["model"] == "colours"
    assert health["sha256"] == classifier.file.digest
    assert ask(server, "/card")[1]["labels"] == list(classifier.labels)
    status, text, about = ask(server, "/metrics")
    assert about["Content-Type"].startswith("text/plain; version=0.0.4")
    values = dict(
        line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")
    )
    assert values['edgegraft_answers_total{label="red"}'] == "2"
    assert values['edgegraft_answers_total{label="unknown"}'] == "0"
    assert values["edgegraft_photo_seconds_count"] == "3"
    assert values['edgegraft_photo_seconds_bucket{le="+Inf"}'] == "3"
    assert float(values["edgegraft_photo_seconds_sum"]) > 0
    assert values['edgegraft_requests_total{status="404"}'] == "1"
    buckets = [int(v) for k, v in values.items() if "_bucket" in k]
    assert buckets == sorted(buckets)


@pytest.mark.parametrize(
    ("path", "body", "headers", "method", "status", "message"),
    [
        ("/classify", b"some text", {}, None, 422, "expected a photo"),
        ("/classify", b"", {}, "POST", 400, "expected a photo, got nothing"),
        ("/classify", None, {}, "GET", 405, "expected POST /classify, got GET"),
        ("/health", b"x", {}, None, 405, "expected GET /health, got POST"),
        ("/x", None, {}, None, 404, "expected one of /classify, /health"),
        ("/classify", b"x", {"Content-Length": "-5"}, None, 400, "Content-Length"),
        (
            "/classify",
            b"x",
            {"Content-Type": "multipart/form-data; boundary=q"},
            None,
            400,
            "expected a form with 1 to 100 files, got 0",
        ),
    ],
)
def test_bad_requests_cost_one_line(
    path: str,
    body: bytes | None,
    headers: dict[str, str],
    method: str | None,
    status: int,
    message: str,
    server: Server,
) -> None:
    got, answer, _ = ask(server, path, body, headers, method)
    assert got == status and message in json.dumps(answer)
    assert ask(server, body=png("red"))[0] == 200  # and the process lives


def test_200_megabytes_are_refused_without_keeping_them(server: Server) -> None:
    """A client that sends all the same reads the answer; one that asks, before."""
    port = server.server_address[1]
    size = 200 * MEGABYTE
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest("POST", "/classify")
    connection.putheader("Content-Length", str(size))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    assert json.loads(response.read())["error"] == (
        "expected at most 32 MB in a request, got 200 MB (--max-megabytes allows more)"
    )
    connection.close()
    with socket.create_connection(("127.0.0.1", port), 20) as raw:
        head = f"POST /classify HTTP/1.1\r\nContent-Length: {size}\r\n"
        raw.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 413 ")
    with socket.create_connection(("127.0.0.1", port), 20) as raw:
        raw.sendall(b"POST /classify HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 411 ")
    assert ask(server, body=png("red"))[0] == 200


def test_a_full_queue_says_when_to_try_again(
    model: str, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = started(model, classifier, queue_size=1)
    go = threading.Event()
    slow = serving.classify_item

    def waits(*args: Any, **named: Any) -> Any:
        go.wait(20)
        return slow(*args, **named)

    monkeypatch.setattr(serving, "classify_item", waits)
    statuses: list[int] = []
    clients = [
        threading.Thread(target=lambda: statuses.append(ask(made, body=png("red"))[0]))
        for _ in range(2)
    ]
    for client in clients:
        client.start()
    end = time.monotonic() + 20
    while made.waiting < 2 and time.monotonic() < end:
        time.sleep(0.01)
    status, answer, about = ask(made, body=png("red"))
    assert status == 503 and about["Retry-After"] == "1"
    assert "too many requests" in answer["error"]
    go.set()
    for client in clients:
        client.join(20)
    assert statuses == [200, 200]
    made.shutdown()
    made.server_close()


def test_only_who_knows_the_token_is_answered(
    model: str, classifier: Classifier
) -> None:
    made = started(model, classifier, token=TOKEN)
    right = {"Authorization": f"Bearer {TOKEN}"}
    for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": TOKEN}):
        status, answer, about = ask(made, body=png("red"), headers=headers)
        assert status == 401 and about["WWW-Authenticate"] == "Bearer"
        assert TOKEN not in answer["error"]
    assert ask(made, body=png("red"), headers=right)[0] == 200
    assert ask(made, "/metrics")[0] == 401 and ask(made, "/health")[0] == 200
    made.shutdown()
    made.server_close()


def test_100_connections_that_never_send_hold_nobody_up(
    model: str, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving.Handler, "timeout", 1.0)
    monkeypatch.setattr(serving, "CONNECTIONS", 110)
    made = started(model, classifier)
    address = ("127.0.0.1", made.server_address[1])
    idle = [socket.create_connection(address, 20) for _ in range(100)]
    assert ask(made, body=png("blue"))[1]["photos"][0]["label"] == "blue"
    more = [socket.create_connection(address, 20) for _ in range(20)]
    refused = 0
    for connection in more:
        connection.settimeout(0.5)
        with suppress(TimeoutError):
            refused += connection.recv(100).startswith(b"HTTP/1.1 503 ")
    assert refused >= 9  # 110 are open
    for connection in idle:
        connection.settimeout(10)
        assert connection.recv(1) == b""  # closed after a second
    assert ask(made, body=png("red"))[0] == 200
    for connection in (*idle, *more):
        connection.close()
    made.shutdown()
    made.server_close()


def test_a_sender_that_stops_is_given_up(
    model: str, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving.Handler, "timeout", 0.5)
    made = started(model, classifier)
    with socket.create_connection(("127.0.0.1", made.server_address[1]), 20) as raw:
        raw.sendall(b"POST /classify HTTP/1.1\r\nContent-Length: 1000\r\n\r\nabc")
        answer = raw.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408 ") and made.waiting == 0
    made.shutdown()
    made.server_close()


def test_the_command_serves_and_stops_gracefully(model: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edge", "serve", model, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/classify", address)
    assert found, process.stderr and process.stderr.read()
    idle = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=20)
    idle.request("POST", "/classify", png("green"))
    assert json.load(idle.getresponse())["photos"][0]["label"] == "green"
    start = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)  # while a connection is kept alive
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0 and time.monotonic() - start < 5
    assert errors == "edgegraft: stopped after 1 requests\n"


def test_bad_commands_cost_one_line(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for argv, message in (
            (["--port", port], f"--port {port}: cannot listen there: Address already"),
            (["--port", "70000"], "expected 0 to 65535, got '70000'"),
            (["--token-file", str(tmp_path / "no")], "no: No such file"),
            (["--token-file", str(empty)], "expected a token, got an empty line"),
            (["--host", "no.such.host.invalid"], "; give another --host"),
        ):
            assert main(["serve", model, *argv]) == 2
            err = capsys.readouterr().err
            assert message in err and err.count("\n") == 1
