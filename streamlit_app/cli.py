"""`edgegraft app [MODEL...]`: checks its arguments, then serves the page within this
machine's limits.

The command ends in a second process, `python -m streamlit_app.cli run APP`: Streamlit,
bounded. Streamlit holds three file descriptors (an event loop) of each visitor who
left, for minutes; with `ulimit -n 256` 82 visits in a row would exhaust them. So few
such sessions are kept and the others shut down, connections beyond the limit get "503
Service Unavailable", and the process ends within seconds of SIGTERM.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

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
    "logger.hideWelcomeMessage": "true",  # it advertises; `_start` prints the address
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
KEPT_SESSIONS = 8  # disconnected ones, which a reload within seconds resumes
MAX_DESCRIPTORS = 65_536  # the soft limit to set, where the hard limit allows it
# A websocket, three of the event loop, and two for open files
DESCRIPTORS_PER_VISITOR = 6
RESERVED_DESCRIPTORS = 64  # Python, Streamlit, model files
GRACE_S = 2  # for open connections after SIGTERM
END_S = 4.0  # after SIGTERM the process ends, even if threads still run


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
    return guard(lambda: _start(args), debug=args.debug)


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
        *(sys.executable, "-m", "streamlit_app.cli", "run", str(HERE / "app.py")),
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


def _start(args: argparse.Namespace) -> int:
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


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files as far as allowed; returns it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return MAX_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = MAX_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        target = min(target, hard)
    if soft < target:
        with suppress(OSError, ValueError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
            return target
    return soft


def most_connections(descriptors: int) -> int:
    """The number of connections that fit into a limit of open files."""
    return max((descriptors - RESERVED_DESCRIPTORS) // DESCRIPTORS_PER_VISITOR, 4)


def server_is_full() -> bool:
    """Whether few open files are left, so that new visitors have to come back later."""
    try:
        import resource

        open_files = len(os.listdir("/proc/self/fd"))
    except (ImportError, OSError):  # no such limit, or no count of them
        return False
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return open_files > limit - RESERVED_DESCRIPTORS // 2


class BoundedSessions:
    """A Streamlit SessionStorage: the last few disconnected sessions.

    A removed session is shut down, which closes its event loop; Streamlit's own storage
    only drops the reference.
    """

    def __init__(self, max_sessions: int = KEPT_SESSIONS, **_: Any) -> None:
        self._max_sessions = max_sessions
        self._sessions: OrderedDict[str, Any] = OrderedDict()

    def get(self, session_id: str) -> Any | None:
        return self._sessions.get(session_id)

    def save(self, session_info: Any) -> None:
        self._sessions[session_info.session.id] = session_info
        self._sessions.move_to_end(session_info.session.id)
        while len(self._sessions) > self._max_sessions:
            _, oldest = self._sessions.popitem(last=False)
            oldest.session.shutdown()

    def delete(self, session_id: str) -> None:
        del self._sessions[session_id]

    def list(self) -> list[Any]:
        return list(self._sessions.values())


def _end_soon(signum: int, frame: FrameType | None, handler: Any) -> None:
    """Call the signal's previous `handler`, which stops the server; after `END_S` end
    the process even if threads still run."""
    timer = threading.Timer(END_S, os._exit, (0,))
    timer.daemon = True
    timer.start()
    if callable(handler):
        handler(signum, frame)


def bound_streamlit() -> None:
    """Replace Streamlit's session storage, connection limit and signal handlers."""
    from streamlit.web import bootstrap
    from streamlit.web.server import server
    from streamlit.web.server.starlette import starlette_server

    limit = most_connections(raise_descriptor_limit())
    vars(server)["MemorySessionStorage"] = BoundedSessions
    options = starlette_server._get_uvicorn_config_kwargs
    starlette_server._get_uvicorn_config_kwargs = lambda: {
        **options(),
        "limit_concurrency": limit,
        "timeout_graceful_shutdown": GRACE_S,
    }
    install = bootstrap._set_up_signal_handler

    def with_deadline(server: server.Server) -> None:
        install(server)
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, partial(_end_soon, handler=signal.getsignal(signum)))

    bootstrap._set_up_signal_handler = with_deadline


def serve() -> None:
    """The server process: `streamlit` with the arguments of this one, bounded."""
    from streamlit.web import cli

    bound_streamlit()
    sys.argv[0] = "streamlit"
    cli.main(prog_name="streamlit")


if __name__ == "__main__":
    serve()
