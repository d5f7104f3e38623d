"""The verb ``serve``."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from types import FrameType

from edge.camera.service import notify
from edge.classify.cli import open_classifier
from edge.command import ModelOptions, count
from edge.errors import EdgegraftError
from edge.files import first_line
from edge.serve.server import (
    HOST,
    MAX_MEGABYTES,
    MEGABYTE,
    PORT,
    QUEUE,
    ServeOptions,
    make_server,
)


def _token(path: str) -> str:
    token = first_line(path, "--token-file").strip()
    if not token:
        raise EdgegraftError(
            f"--token-file {path}: expected a token, got an empty line"
        )
    return token


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


def _port(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"expected 0 to 65535, got {text!r}")
    return number


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
