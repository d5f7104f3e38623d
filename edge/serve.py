"""The verb ``serve``: one model over HTTP, for programs here or in the network.

    POST /classify   a photo, or multipart/form-data with several: the JSON that
                     ``classify --json`` prints
    GET /health      {"status": "ok", ...}
    GET /card        the model's card
    GET /metrics     Prometheus text: answers by label, unknown, time

One model is loaded once; photos are decoded and classified one after another, so that
its threads are not fought over. At most `--queue` requests wait; more get 503 with
Retry-After. It answers this machine alone unless --host says otherwise, and with
--token-file only those who know the token. There is no TLS: outside a trusted network
put a proxy before it that has it.
"""

from __future__ import annotations

import argparse
import errno
import hmac
import io
import json
import signal
import socket
import sys
import threading
import time
from bisect import bisect_left
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate
from types import FrameType
from typing import Any

from edge.camera.service import notify
from edge.classifier import UNKNOWN, Classifier
from edge.classify.cli import classify_item, open_classifier
from edge.classify.output import JsonWriter
from edge.command import ModelOptions, count
from edge.errors import EdgegraftError, PhotoError
from edge.files import first_line

HOST, PORT = "127.0.0.1", 8080
MEGABYTE = 1_000_000
MAX_MEGABYTES = 32  # of one request
MAX_PHOTOS = 100  # of one request
QUEUE = 16  # requests that wait
CONNECTIONS = 256  # that are open at a time
IDLE = 10.0  # seconds until a connection that sends nothing is closed
REQUEST = 30.0  # seconds in which a whole request has to come
RETRY = 1  # seconds after which a client that got 503 may try again
_DRAIN = 2.0  # seconds in which what a refused client still sends is thrown away
_CHUNK = 65536
_METHODS = {"/classify": "POST", "/health": "GET", "/card": "GET", "/metrics": "GET"}
# Upper ends of the latency histogram, seconds: 1-2.5-5, as Prometheus recommends
BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


def add_options(verb: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    verb.description = "Answer over HTTP: POST a photo to /classify."
    verb.epilog = "GET /health, /card and /metrics (Prometheus). docs/home.md has more."
    verb.add_argument("model", metavar="MODEL", help="a .tflite file")
    verb.add_argument(
        "--host",
        default=HOST,
        metavar="ADDRESS",
        help=f"where to listen: 0.0.0.0 for the whole network ({HOST}, this machine)",
    )
    verb.add_argument(
        "--port", type=_port, default=PORT, help=f"0: any free port ({PORT})"
    )
    verb.add_argument(
        "--token-file",
        metavar="FILE",
        help="each request must send its first line: Authorization: Bearer TOKEN",
    )
    verb.add_argument(
        "--max-megabytes",
        type=count,
        default=MAX_MEGABYTES,
        metavar="MB",
        help=f"largest request ({MAX_MEGABYTES})",
    )
    verb.add_argument(
        "--queue",
        type=count,
        default=QUEUE,
        metavar="N",
        help=f"requests that may wait; further ones get 503 ({QUEUE})",
    )
    verb.add_argument(
        "--top-k", type=count, default=3, metavar="K", help="labels in an answer (3)"
    )


def run(args: argparse.Namespace) -> int:
    """The verb."""
    options = ServeOptions(
        ModelOptions.from_args(args),
        args.host,
        args.port,
        args.max_megabytes * MEGABYTE,
        args.queue,
        args.top_k,
        None if args.token_file is None else _token(args.token_file),
    )
    start = time.perf_counter()
    classifier = open_classifier(options.model)
    server = make_server(options, classifier, (time.perf_counter() - start) * 1e3)
    host, port = str(server.server_address[0]), server.server_address[1]
    url_host = f"[{host}]" if ":" in host else host
    print(f"http://{url_host}:{port}/classify", flush=True)
    is_local = host == "::1" or host.startswith("127.")
    if options.token is None and not is_local:
        note = "without --token-file anyone who can reach this address may use it"
        print(f"edgegraft: note: {note}", file=sys.stderr)

    def stop(number: int, frame: FrameType | None) -> None:
        threading.Thread(target=server.shutdown, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    notify("READY=1")
    try:
        server.serve_forever(poll_interval=0.25)
        notify("STOPPING=1")
    finally:
        server.server_close()  # answers accepted requests
    print(
        f"edgegraft: stopped after {server.metrics.requests:,} requests",
        file=sys.stderr,
    )
    return 0


def _port(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"expected 0 to 65535, got {text!r}")
    return number


def _token(path: str) -> str:
    token = first_line(path, "--token-file").strip()
    if not token:
        raise EdgegraftError(
            f"--token-file {path}: expected a token, got an empty line"
        )
    return token


@dataclass(frozen=True)
class ServeOptions:
    """What to serve and where. max_bytes: of a request."""

    model: ModelOptions
    host: str = HOST
    port: int = PORT
    max_bytes: int = MAX_MEGABYTES * MEGABYTE
    queue_size: int = QUEUE
    top_k: int = 3
    token: str | None = None


def make_server(
    options: ServeOptions, classifier: Classifier, load_ms: float = 0.0
) -> Server:
    """A server that listens; EdgegraftError where it cannot."""
    try:
        return Server(options, classifier, load_ms)
    except OSError as error:
        busy = error.errno in (errno.EADDRINUSE, errno.EACCES)
        raise EdgegraftError(
            f"--host {options.host} --port {options.port}: cannot listen there: "
            f"{error.strerror or error}; give another {'--port' if busy else '--host'}"
        ) from None


class Refused(Exception):
    """A request that is not answered, with its status and a line that says why."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Server(ThreadingHTTPServer):
    """A thread for each connection; one request at a time is at the model."""

    daemon_threads = False  # accepted requests are answered before the end
    request_queue_size = 128

    def __init__(
        self, options: ServeOptions, classifier: Classifier, load_ms: float
    ) -> None:
        self.options, self.classifier, self.load_ms = options, classifier, load_ms
        self.metrics = Metrics()
        self.started = time.time()
        self._model = threading.Lock()
        self._lock = threading.Lock()
        self._waiting = 0
        self._open: set[socket.socket] = set()
        self.address_family = socket.getaddrinfo(options.host, None)[0][0]
        super().__init__((options.host, options.port), Handler)

    @property
    def waiting(self) -> int:
        """Requests that are accepted and not answered yet."""
        return self._waiting

    def join_queue(self) -> bool:
        """A place in the queue; False when it is full. `leave_queue` gives it back."""
        with self._lock:
            if self._waiting > self.options.queue_size:
                return False
            self._waiting += 1
            return True

    def leave_queue(self) -> None:
        with self._lock:
            self._waiting -= 1

    def classify(self, photos: list[tuple[str, bytes]]) -> tuple[str, bool]:
        """The JSON document of (name, content), and whether one was classified."""
        out, any_classified = io.StringIO(), False
        model = self.options.model.model
        writer = JsonWriter(out, model, self.classifier, self.load_ms)
        writer.begin()
        for name, content in photos:
            with self._model:
                answer = classify_item(
                    self.classifier,
                    content,  # type: ignore[arg-type]  # bytes are a photo, too
                    top_k=self.options.top_k,
                )
            if isinstance(answer, PhotoError):
                writer.failure(name, answer.reason)
                continue
            prediction, decode_ms, inference_ms = answer[1]
            any_classified = True
            writer.photo(name, prediction, decode_ms, inference_ms)
            self.metrics.answered(prediction.label, (decode_ms + inference_ms) / 1e3)
        writer.end()
        return out.getvalue(), any_classified

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            full = len(self._open) >= CONNECTIONS
            if not full:
                self._open.add(request)
        if full:
            self.metrics.responded(HTTPStatus.SERVICE_UNAVAILABLE)
            text = f"HTTP/1.1 503 Service Unavailable\r\nRetry-After: {RETRY}\r\n"
            text += "Connection: close\r\nContent-Length: 0\r\n\r\n"
            request.setblocking(False)
            with suppress(OSError):
                request.send(text.encode())
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Answer the requests that were accepted, close idle connections."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RD)  # no more requests on it
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours; others cost one line."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            print(
                f"edgegraft: warning: a request failed: {type(error).__name__}: "
                f"{str(error)[:200]}",
                file=sys.stderr,
            )


class Handler(BaseHTTPRequestHandler):
    """One connection, and the requests on it."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "edgegraft", ""
    disable_nagle_algorithm = True
    timeout = IDLE
    server: Server

    def handle_expect_100(self) -> bool:
        """A client that asks before it sends is refused before it sends."""
        try:
            self._check(self._length())
        except Refused as refused:
            self._refuse(refused, drain=False)
            return False
        return super().handle_expect_100()

    def log_message(self, *_: object) -> None:
        """Nothing: /metrics counts, and a log of every photo wears out an SD card."""

    def do_GET(self) -> None:
        server = self.server
        try:
            length = self._length()
            self._check(length)
            path = self._path()
            if path == "/classify":
                self._classify(length)
            elif path == "/metrics":
                text = server.metrics.text(server.classifier.labels, server.waiting)
                self._send(HTTPStatus.OK, text, "text/plain; version=0.0.4")
            elif path == "/card":
                card = server.classifier.card
                if card is None:
                    raise Refused(HTTPStatus.NOT_FOUND, "a foreign model has no card")
                self._send(HTTPStatus.OK, card.to_json())
            else:
                self._send(HTTPStatus.OK, json.dumps(self._health()))
        except Refused as refused:
            self._refuse(refused)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = do_GET

    def _path(self) -> str:
        return self.path.partition("?")[0]

    def _length(self) -> int:
        """Bytes of the body; Refused where the client does not say."""
        if "Transfer-Encoding" in self.headers:
            raise Refused(
                HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length, got chunks"
            )
        text = self.headers.get("Content-Length", "0")
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise Refused(
                HTTPStatus.BAD_REQUEST, f"expected a Content-Length, got {text!r:.40}"
            )
        return int(text)

    def _check(self, length: int) -> None:
        """Refused for a request that no body could make valid."""
        options = self.server.options
        path = self._path()
        if path not in _METHODS:
            paths = ", ".join(_METHODS)
            raise Refused(HTTPStatus.NOT_FOUND, f"expected one of {paths}")
        if options.token is not None and path != "/health":
            header = self.headers.get("Authorization", "").encode()
            if not hmac.compare_digest(header, f"Bearer {options.token}".encode()):
                raise Refused(
                    HTTPStatus.UNAUTHORIZED,
                    "expected the header Authorization: Bearer TOKEN, with the token "
                    "of --token-file",
                )
        if self.command != _METHODS[path]:
            raise Refused(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"expected {_METHODS[path]} {path}, got {self.command}",
            )
        if length > options.max_bytes:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"expected at most {options.max_bytes // MEGABYTE} MB in a request, "
                f"got {length / MEGABYTE:,.0f} MB (--max-megabytes allows more)",
            )

    def _classify(self, length: int) -> None:
        if not length:
            raise Refused(HTTPStatus.BAD_REQUEST, "expected a photo, got nothing")
        if not self.server.join_queue():
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE, "too many requests at a time; try again"
            )
        try:
            body = self._body(length)
            photos = _photos(body, self.headers.get("Content-Type", ""))
            text, any_classified = self.server.classify(photos)
        finally:
            self.server.leave_queue()
        ok, failed = HTTPStatus.OK, HTTPStatus.UNPROCESSABLE_ENTITY
        self._send(ok if any_classified else failed, text)

    def _body(self, length: int) -> bytes:
        """The whole body, if it comes within REQUEST seconds."""
        body, deadline = bytearray(), time.monotonic() + REQUEST
        while len(body) < length:
            try:
                chunk = self.rfile.read1(min(_CHUNK, length - len(body)))
            except TimeoutError:
                chunk = b""
            if not chunk or time.monotonic() > deadline:
                raise Refused(
                    HTTPStatus.REQUEST_TIMEOUT,
                    f"expected {length:,} bytes within {REQUEST:g} s, got "
                    f"{len(body):,}",
                )
            body += chunk
        return bytes(body)

    def _health(self) -> dict[str, object]:
        classifier = self.server.classifier
        card = classifier.card
        return {
            "status": "ok",
            "model": card.name if card else self.server.options.model.model,
            "sha256": classifier.file.digest,
            "labels": list(classifier.labels),
            "seconds": round(time.time() - self.server.started, 1),
        }

    def _refuse(self, refused: Refused, *, drain: bool = True) -> None:
        self.close_connection = True
        self._send(refused.status, json.dumps({"error": refused.reason}))
        if not drain:
            return
        # a client that is still sending would not read the answer
        deadline = time.monotonic() + _DRAIN
        self.connection.settimeout(_DRAIN)
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while time.monotonic() < deadline and self.connection.recv(_CHUNK):
                pass

    def _send(
        self, status: HTTPStatus, text: str, content_type: str = "application/json"
    ) -> None:
        self.server.metrics.responded(status)
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{content_type}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", str(RETRY))
        if status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", _METHODS[self._path()])
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _photos(body: bytes, content_type: str) -> list[tuple[str, bytes]]:
    """(name, content) of a request's photos: one, or the files of a form.

    Refused for a form without files, or with more than MAX_PHOTOS.
    """
    from email.message import Message

    header = Message()
    header["Content-Type"] = content_type or "application/octet-stream"
    if header.get_content_type() != "multipart/form-data":
        return [("photo", body)]
    boundary = header.get_boundary()
    photos = []
    if boundary:
        # RFC 2046: each part stands between two lines of the boundary
        for part in (b"\r\n" + body).split(b"\r\n--" + boundary.encode())[1:-1]:
            headers, _, content = part.partition(b"\r\n\r\n")
            name = _file_name(headers)
            if name is not None:
                photos.append((name, content))
    if not 1 <= len(photos) <= MAX_PHOTOS:
        raise Refused(
            HTTPStatus.BAD_REQUEST,
            f"expected a form with 1 to {MAX_PHOTOS} files, got {len(photos)}",
        )
    return photos


def _file_name(headers: bytes) -> str | None:
    """The name of a part that is a file; None for another field."""
    from email.parser import BytesHeaderParser

    name = BytesHeaderParser().parsebytes(headers.lstrip()).get_filename()
    return None if name is None else str(name)[:255] or "photo"


class Metrics:
    """Counts since the start, as Prometheus reads them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests = 0
        self._statuses: Counter[int] = Counter()
        self._labels: Counter[str] = Counter()
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def answered(self, label: str, seconds: float) -> None:
        """A photo: what it was called, and the time of decoding and inference."""
        with self._lock:
            self._labels[label] += 1
            self._seconds += seconds
            self._buckets[bisect_left(BUCKETS, seconds)] += 1

    def responded(self, status: int) -> None:
        """A request."""
        with self._lock:
            self.requests += 1
            self._statuses[status] += 1

    def text(self, labels: tuple[str, ...], waiting: int) -> str:
        """Prometheus' text format, version 0.0.4."""
        with self._lock:
            lines = _metric_header(
                "requests_total", "counter", "HTTP requests by status"
            )
            lines += [
                f'edgegraft_requests_total{{status="{status}"}} {number}'
                for status, number in sorted(self._statuses.items())
            ]
            lines += _metric_header("answers_total", "counter", "photos by label")
            lines += [
                f'edgegraft_answers_total{{label="{_escaped_label(label)}"}} '
                f"{self._labels[label]}"
                for label in dict.fromkeys((*labels, UNKNOWN))
            ]
            photos = sum(self._buckets)
            unknown = self._labels[UNKNOWN] / photos if photos else 0.0
            lines += _metric_header(
                "unknown_share", "gauge", "share of photos called unknown"
            )
            lines.append(f"edgegraft_unknown_share {unknown:.6g}")
            lines += _metric_header(
                "waiting", "gauge", "requests that wait for the model"
            )
            lines.append(f"edgegraft_waiting {waiting}")
            name = "photo_seconds"
            lines += _metric_header(
                name, "histogram", "decoding and inference of a photo"
            )
            for end, total in zip(BUCKETS, accumulate(self._buckets), strict=False):
                lines.append(f'edgegraft_{name}_bucket{{le="{end}"}} {total}')
            lines.append(f'edgegraft_{name}_bucket{{le="+Inf"}} {photos}')
            lines.append(f"edgegraft_{name}_sum {self._seconds:.6f}")
            lines.append(f"edgegraft_{name}_count {photos}")
        return "\n".join(lines) + "\n"


def _metric_header(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP edgegraft_{name} {text}", f"# TYPE edgegraft_{name} {kind}"]


def _escaped_label(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
