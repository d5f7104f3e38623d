"""The server process of `edgegraft app`: Streamlit, within this machine's limits.

Streamlit keeps three file descriptors (an event loop) of each visitor who left, for
minutes; with `ulimit -n 256` 82 visits in a row would lock everybody out. Here few such
sessions are kept, each is shut down when it goes, connections beyond what the limit
allows get "503 Service Unavailable", and SIGTERM ends the process in seconds.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import OrderedDict
from functools import partial
from types import FrameType
from typing import Any

KEPT_SESSIONS = 8  # disconnected ones, which a reload within seconds takes up again
MOST_DESCRIPTORS = 65_536  # the soft limit asked for, where the hard limit allows it
# Of one visitor: a websocket, an event loop's three, and a share of what files take.
DESCRIPTORS_PER_VISITOR = 6
RESERVED_DESCRIPTORS = 64  # Python, Streamlit, model files
GRACE_S = 2  # for open connections after SIGTERM
END_S = 4.0  # after SIGTERM the process ends, whatever still runs


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files as far as allowed; returns it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return MOST_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = MOST_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        target = min(target, hard)
    if soft < target:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        except (OSError, ValueError):  # macOS allows less than it says
            target = soft
    return max(soft, target)


def most_connections(descriptors: int) -> int:
    """How many connections fit into a limit of open files."""
    return max((descriptors - RESERVED_DESCRIPTORS) // DESCRIPTORS_PER_VISITOR, 4)


def open_descriptors() -> int:
    """Files this process has open; 0 where the system does not say."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def is_full() -> bool:
    """Whether few open files are left: new visitors should come back later."""
    try:
        import resource
    except ImportError:
        return False
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return open_descriptors() > limit - RESERVED_DESCRIPTORS // 2


class BoundedSessions:
    """A Streamlit SessionStorage: the last few disconnected sessions.

    One that has to go is shut down, which closes its event loop; Streamlit's own
    storage only forgets it.
    """

    def __init__(self, most: int = KEPT_SESSIONS, **_: Any) -> None:
        self._most = most
        self._sessions: OrderedDict[str, Any] = OrderedDict()

    def get(self, session_id: str) -> Any | None:
        return self._sessions.get(session_id)

    def save(self, session_info: Any) -> None:
        self._sessions[session_info.session.id] = session_info
        self._sessions.move_to_end(session_info.session.id)
        while len(self._sessions) > self._most:
            _, oldest = self._sessions.popitem(last=False)
            oldest.session.shutdown()

    def delete(self, session_id: str) -> None:
        del self._sessions[session_id]

    def list(self) -> list[Any]:
        return list(self._sessions.values())


def _end_soon(number: int, frame: FrameType | None, before: Any) -> None:
    """Stop the server; end the process even where a thread goes on."""
    timer = threading.Timer(END_S, os._exit, (0,))
    timer.daemon = True
    timer.start()
    if callable(before):
        before(number, frame)


def prepare() -> None:
    """Replace the parts of Streamlit that this module is about."""
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
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, partial(_end_soon, before=signal.getsignal(number)))

    bootstrap._set_up_signal_handler = with_deadline


def main() -> None:
    from streamlit.web import cli

    prepare()
    sys.argv[0] = "streamlit"
    cli.main(prog_name="streamlit")


if __name__ == "__main__":
    main()
