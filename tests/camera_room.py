"""What the camera's tests share: a source made of arrays, and a broker; both can be
taken away."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge.camera.frames import LatestFrameReader
from edge.camera.sources import Picture, Source, SourceError

COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}
LOST, HANG = "lost", "hang"
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


def picture(label: str, size: tuple[int, int] = (40, 30)) -> Picture:
    made = np.zeros((size[1], size[0], 3), np.uint8)
    made[:] = COLOURS[label]
    return made


class Fake(Source):
    """A live source that does what a list says: a label, LOST or HANG."""

    live = True
    name = "fake"

    def __init__(self, script: list[str], pause: float = 0.005) -> None:
        self.script, self.pause = list(script), pause
        self.present = True
        self.opened = self.closed = self.retrieved = 0
        self.released = threading.Event()

    def open(self) -> None:
        if not self.present:
            raise SourceError("fake: no such camera")
        self.opened += 1

    def grab(self) -> bool:
        time.sleep(self.pause)
        if not self.present:
            return False
        self.word = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if self.word == HANG:
            self.released.wait(20)
        return self.word not in (HANG, LOST)

    def retrieve(self) -> Picture | None:
        self.retrieved += 1
        return picture(self.word)

    def close(self) -> None:
        self.closed += 1


def until(true: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def taken(reader: LatestFrameReader) -> Iterator[tuple[int, Picture]]:
    while True:
        if (shot := reader.next(0.05)) is not None:
            yield shot


class Mosquitto:
    """A broker that keeps nothing over a restart, and what a subscriber to it sees."""

    def __init__(self, folder: Path, *lines: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._config = folder / "mosquitto.conf"
        text = [f"listener {self.port} 127.0.0.1", "user root", *lines]
        self._config.write_text("\n".join(text) + "\n", "utf-8")
        self._process: subprocess.Popen[bytes] | None = None
        self.retained: dict[str, str] = {}
        self.messages: list[tuple[str, str]] = []

    def start(self) -> None:
        self._process = subprocess.Popen(
            [str(MOSQUITTO), "-c", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def answers() -> bool:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                return False
            return True

        until(answers, 20)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def listen(self, **auth: Any) -> Any:
        """A client that gets every message, and again after each restart."""
        import paho.mqtt.client as paho

        client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        client.reconnect_delay_set(1, 1)
        if auth:
            client.username_pw_set(auth["user"], auth["password"])
        client.on_connect = lambda client, *rest: client.subscribe("#", 1)
        client.on_message = self._note
        client.connect_async("127.0.0.1", self.port)
        client.loop_start()
        until(client.is_connected, 20)
        return client

    def _note(self, client: Any, data: Any, message: Any) -> None:
        text = message.payload.decode()
        self.messages.append((message.topic, text))
        self.retained[message.topic] = text
