"""Running as a systemd service: ends on SIGTERM, notifies."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType
from typing import Any

_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")


class Service:
    """While entered, SIGTERM, SIGINT and SIGHUP set `stopped` instead of killing."""

    def __init__(self) -> None:
        self.stopped = False
        self._original: dict[int, Any] = {}  # handlers

    def __enter__(self) -> Service:
        for name in _SIGNALS:
            number = getattr(signal, name, None)
            if number is not None:
                self._original[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        notify("STOPPING=1")
        for number, handler in self._original.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True


def notify(state: str) -> None:
    """sd_notify(3): ``READY=1``, ``WATCHDOG=1``; nothing without systemd."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    import socket

    if address.startswith("@"):
        address = "\0" + address[1:]
    with (
        suppress(OSError),  # systemd notices by itself
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
    ):
        sender.sendto(state.encode(), address)
