"""The model over HTTP, for programs on this machine or in the network.

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

import errno
import hmac
import io
import json
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edge.classifier import Classifier
from edge.classify.cli import classify_item
from edge.classify.output import JsonWriter
from edge.command import ModelOptions
from edge.errors import EdgegraftError, PhotoError
from edge.serve.metrics import Metrics

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
