"""Is the port free at which the page wants to be served?

Asked before Streamlit is started, which would end with a line and an exit code of its
own. Somebody may take the port in between: then Streamlit says so after all.

It does not know: the page.
"""

from __future__ import annotations

import errno
import os
import socket

from edge.errors import EdgegraftError

LOOKED_AT = 100  # ports above a taken one, of which the first free one is named


def free(host: str, port: int) -> bool:
    """Whether the page can be served there: nobody else is, at any of its addresses.

    OSError where the host is not this machine, or the port not for us.
    """
    served, wrong = False, None
    for family, kind, _, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        try:
            with socket.socket(family, kind) as trial:
                if os.name == "posix":  # a port just left is free, as for the page
                    trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                trial.bind(address)
                served = True
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            wrong = error  # such as ::1 where there is no IPv6
    if not served and wrong is not None:
        raise wrong
    return True


def refuse_taken(host: str, port: int) -> None:
    """EdgegraftError where the port is in use (names a free one), or not to be had."""
    try:
        if free(host, port):
            return
        above = range(port + 1, min(port + LOOKED_AT, 65535) + 1)
        other = next((one for one in above if free(host, one)), None)
    except OSError as error:
        raise EdgegraftError(
            f"expected --host {host} and --port {port} to serve the page at, got: "
            f"{error.strerror or error}"
        ) from None
    raise EdgegraftError(
        f"expected a free port, got {port}, which is in use on {host} (by another "
        f"page?); give {f'--port {other}' if other else 'another --port'}"
    )
