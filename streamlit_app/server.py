"""The server process of `edgegraft app`: Streamlit, within this machine's limits.

Streamlit holds three file descriptors (an event loop) of each visitor who left, for
minutes; with `ulimit -n 256` 82 visits in a row would exhaust them. This module keeps
few such sessions and shuts the others down, answers connections beyond the limit with
"503 Service Unavailable", and ends the process within seconds of SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import OrderedDict
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

KEPT_SESSIONS = 8  # disconnected ones, which a reload within seconds resumes
MAX_DESCRIPTORS = 65_536  # the soft limit to set, where the hard limit allows it
# A websocket, three of the event loop, and two for open files
DESCRIPTORS_PER_VISITOR = 6
RESERVED_DESCRIPTORS = 64  # Python, Streamlit, model files
GRACE_S = 2  # for open connections after SIGTERM
END_S = 4.0  # after SIGTERM the process ends, even if threads still run


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


def is_full() -> bool:
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


def prepare() -> None:
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


def main() -> None:
    from streamlit.web import cli

    prepare()
    sys.argv[0] = "streamlit"
    cli.main(prog_name="streamlit")


if __name__ == "__main__":
    main()
