"""`edgegraft app [MODEL...]`: checks its arguments, then serves the page."""

from __future__ import annotations

import argparse
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from edge.command import Parser, guard
from edge.errors import EdgegraftError, ModelError
from edge.run_folder import ARTIFACTS, file_inside
from edge.subprocess_run import child_environment
from edge.tflite import read_label_file

HERE = Path(__file__).resolve().parent
# Streamlit's settings, the same as in .streamlit/config.toml, which an installed
# package does not contain.
SETTINGS = {
    "browser.gatherUsageStats": "false",
    "server.maxUploadSize": "1024",
    "server.fileWatcherType": "none",
    "server.showEmailPrompt": "false",
    "logger.hideWelcomeMessage": "true",  # it advertises; `_serve` prints the address
    "client.toolbarMode": "minimal",
    "theme.baseRadius": "0.6rem",
    "theme.light.primaryColor": "#115e59",
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#f3f7f6",
    "theme.light.textColor": "#0b1311",
    "theme.dark.primaryColor": "#14b8a6",
    "theme.dark.backgroundColor": "#0f1514",
    "theme.dark.secondaryBackgroundColor": "#182220",
    "theme.dark.textColor": "#e8efed",
}
PORT = 8501  # Streamlit's default
PORTS_TRIED = 100  # above a taken port, to suggest a free one
ANY_ADDRESS = ("0.0.0.0", "::")


def main(argv: Sequence[str] | None = None, prog: str = "edgegraft app") -> int:
    """Serve the page until Ctrl-C; returns the exit code."""
    parser = Parser(prog=prog, description="Serve the web page on this machine.")
    parser.add_argument(
        "models", nargs="*", type=Path, metavar="MODEL", help=".tflite files to list"
    )
    parser.add_argument(
        "--artifacts",
        type=Path,
        metavar="DIR",
        help=f"the folder of runs to list (default: {ARTIFACTS})",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="one label per line, for a MODEL that contains no labels",
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}")
    parser.add_argument(
        "--host",
        default="localhost",
        help="default: localhost; 0.0.0.0 accepts other machines of your network",
    )
    parser.add_argument(
        "--shared",
        action="store_true",
        help="let all visitors see the photos and runs of each other; without it they "
        "belong to the browser they came from",
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="do not open a browser window"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback")
    args = parser.parse_args(argv)
    return guard(lambda: _serve(args), debug=args.debug)


def _command(args: argparse.Namespace) -> list[str]:
    """The command line of the server process."""
    settings = {
        **SETTINGS,
        "server.port": str(args.port),
        "server.address": args.host,
        "server.headless": str(args.no_browser).lower(),
        # Without it Streamlit asks an external server for this machine's address.
        "browser.serverAddress": _shown_host(args.host),
    }
    return [
        *(sys.executable, "-m", "streamlit_app.server", "run", str(HERE / "app.py")),
        *(f"--{name}={value}" for name, value in settings.items()),
        # Absolute, so that the commands on the page work in any folder
        *("--", "--artifacts", str(Path(args.artifacts or ARTIFACTS).absolute())),
        *(("--labels", str(args.labels)) if args.labels else ()),
        *(("--shared",) if args.shared else ()),
        *map(str, args.models),
    ]


def _shown_host(host: str) -> str:
    """The host in the address for the browser."""
    return "localhost" if host in ANY_ADDRESS else host


def _check(args: argparse.Namespace) -> None:
    """EdgegraftError for what cannot be served."""
    for model in args.models:
        if not model.is_file():
            got = "which does not exist"
            if model.is_dir():
                got = f"a folder{file_inside(str(model))}"
            raise ModelError(f"expected a .tflite file, got {model}, {got}")
    if args.labels is not None:
        read_label_file(args.labels)
    # The first run creates the default folder; a named one must exist
    folder = args.artifacts
    if folder is not None and not folder.is_dir():
        got = "which is a file" if folder.exists() else "which does not exist"
        raise EdgegraftError(
            f"--artifacts: expected a folder of runs, got {folder}, {got}; to create "
            f"it: edgegraft build PHOTOS --artifacts {folder}"
        )
    if not 1 <= args.port <= 65535:
        raise EdgegraftError(f"expected --port from 1 to 65535, got {args.port}")
    if find_spec("streamlit") is None:
        raise EdgegraftError(
            "the page needs streamlit; run in the checkout: pip install -e '.[app]' "
            "(or: make app)"
        )
    _refuse_taken_port(args.host, args.port)


def _serve(args: argparse.Namespace) -> int:
    _check(args)
    environment = child_environment()
    address = f"http://{_shown_host(args.host)}:{args.port}"
    print(f"the page: {address} (Ctrl-C ends it)", flush=True)
    if os.name == "posix":  # replaces this process, so that signals reach the server
        os.execve(sys.executable, _command(args), environment)
    return subprocess.call(_command(args), env=environment)


def _refuse_taken_port(host: str, port: int) -> None:
    """EdgegraftError where the port is in use (suggests a free one) or unavailable."""
    try:
        if _is_free(host, port):
            return
        candidates = range(port + 1, min(port + PORTS_TRIED, 65535) + 1)
        free = next((str(p) for p in candidates if _is_free(host, p)), "NUMBER")
    except OSError as error:
        raise EdgegraftError(
            f"cannot serve at --host {host} --port {port}: {error.strerror or error}"
        ) from None
    raise EdgegraftError(f"port {port} is already in use on {host}; try: --port {free}")


def _is_free(host: str, port: int) -> bool:
    """Whether a server can listen there, on every address of `host`.

    OSError where `host` is not an address of this machine or the port is reserved.
    Another program may still take the port before the server does; Streamlit then
    reports it.
    """
    usable, problem = False, None
    for family, socket_type, _, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        try:
            with socket.socket(family, socket_type) as probe:
                if os.name == "posix":  # a port in TIME_WAIT counts as free
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
                usable = True
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            problem = error  # such as ::1 on a machine without IPv6
    if not usable and problem is not None:
        raise problem
    return True
