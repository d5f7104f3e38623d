"""`edgegraft app [MODEL...]`: checks its arguments, then serves the page."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from edge.command import Parser, guard
from edge.errors import EdgegraftError, ModelError
from edge.run_folder import ARTIFACTS, file_inside
from edge.tflite import read_label_file

HERE = Path(__file__).resolve().parent
# Streamlit's own settings. The same stand in .streamlit/config.toml, which an
# installed package does not have beside it.
SETTINGS = {
    "browser.gatherUsageStats": "false",
    "server.maxUploadSize": "1024",
    "server.fileWatcherType": "none",
    "server.showEmailPrompt": "false",
    "logger.hideWelcomeMessage": "true",  # it advertises; `_serve` names the address
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
PORT = 8501  # Streamlit's usual one
PORTS_TRIED = 100  # above a taken port, to name a free one
ANY_ADDRESS = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Options:
    """What `edgegraft app` was given."""

    models: tuple[Path, ...] = ()
    artifacts: Path | None = None
    labels: Path | None = None
    host: str = "localhost"
    port: int = PORT
    browser: bool = True
    shared: bool = False


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
    options = Options(
        tuple(args.models),
        args.artifacts,
        args.labels,
        args.host,
        args.port,
        not args.no_browser,
        args.shared,
    )
    return guard(lambda: _serve(options), debug=args.debug)


def command(options: Options) -> list[str]:
    """The command line of the server process."""
    shown = "localhost" if options.host in ANY_ADDRESS else options.host
    settings = {
        **SETTINGS,
        "server.port": str(options.port),
        "server.address": options.host,
        "server.headless": str(not options.browser).lower(),
        # Without it Streamlit asks an external server for this machine's address.
        "browser.serverAddress": shown,
    }
    return [
        *(sys.executable, "-m", "streamlit_app.server", "run", str(HERE / "app.py")),
        *(f"--{name}={value}" for name, value in settings.items()),
        # absolute: the commands that the page shows work in any folder
        *("--", "--artifacts", str(Path(options.artifacts or ARTIFACTS).absolute())),
        *(("--labels", str(options.labels)) if options.labels else ()),
        *(("--shared",) if options.shared else ()),
        *(str(model) for model in options.models),
    ]


def _check(options: Options) -> None:
    """EdgegraftError for what cannot be served."""
    for model in options.models:
        if not model.is_file():
            got = "which does not exist"
            if model.is_dir():
                got = f"a folder{file_inside(str(model))}"
            raise ModelError(f"expected a .tflite file, got {model}, {got}")
    if options.labels is not None:
        read_label_file(options.labels)
    # The default folder appears with the first run; one that was named must exist.
    folder = options.artifacts
    if folder is not None and not folder.is_dir():
        got = "which is a file" if folder.exists() else "which does not exist"
        raise EdgegraftError(
            f"--artifacts: expected a folder of runs, got {folder}, {got}; to create "
            f"it: edgegraft build PHOTOS --artifacts {folder}"
        )
    if not 1 <= options.port <= 65535:
        raise EdgegraftError(f"expected --port from 1 to 65535, got {options.port}")
    if find_spec("streamlit") is None:
        raise EdgegraftError(
            "the page needs streamlit; run in the checkout: pip install -e '.[app]' "
            "(or: make app)"
        )
    refuse_taken_port(options.host, options.port)


def _serve(options: Options) -> int:
    _check(options)
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)}
    shown = "localhost" if options.host in ANY_ADDRESS else options.host
    print(f"the page: http://{shown}:{options.port} (Ctrl-C ends it)", flush=True)
    if os.name == "posix":  # replaces this process, so that signals reach the server
        os.execve(sys.executable, command(options), environment)
    return subprocess.call(command(options), env=environment)


def refuse_taken_port(host: str, port: int) -> None:
    """EdgegraftError where the port is in use (names a free one) or unavailable."""
    try:
        if _is_free(host, port):
            return
        above = range(port + 1, min(port + PORTS_TRIED, 65535) + 1)
        other = next((number for number in above if _is_free(host, number)), None)
    except OSError as error:
        raise EdgegraftError(
            f"cannot serve at --host {host} --port {port}: {error.strerror or error}"
        ) from None
    raise EdgegraftError(
        f"port {port} is already in use on {host}; try: "
        f"--port {other if other else 'NUMBER'}"
    )


def _is_free(host: str, port: int) -> bool:
    """Whether a server can listen there, on every address of `host`.

    OSError where `host` is not an address of this machine or the port is reserved.
    Another program may still take the port before the server does; Streamlit then
    reports it.
    """
    usable, problem = False, None
    for family, kind, _, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        try:
            with socket.socket(family, kind) as probe:
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
