"""The label over MQTT, and as a device of Home Assistant.

    TOPIC/state     retained: the last change, or the last look, as JSON
    TOPIC/status    retained: online or offline, by the broker when this program dies
    homeassistant/sensor/ID/.../config   retained: what Home Assistant shows (discovery)

The broker may be away at the start and at any time: it is tried again with growing
pauses, changes of the label wait in a queue (QoS 1), and what should be retained is
published again to a broker that comes back empty. Needs paho-mqtt (the extra `mqtt`).
"""

from __future__ import annotations

import json
import os
import queue
import re
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from edge.camera.output import FrameResult, clock
from edge.classifier import FAMILIARITY, UNKNOWN, Classifier
from edge.errors import EdgegraftError
from edge.files import edgegraft_version, first_line

PASSWORD = "EDGEGRAFT_MQTT_PASSWORD"  # the environment variable
PORTS = {"mqtt": 1883, "mqtts": 8883}
DISCOVERY = "homeassistant"
_KEEPALIVE = 30  # seconds: a dead connection is noticed after one and a half of it
_PAUSES = (1, 15)  # seconds between attempts to connect: the first, the longest
_QUEUED = 1000  # changes that wait for a broker that is away
_GOODBYE = 2.0  # seconds for the last message
_POLL = 0.25  # seconds: how soon the end is noticed while the broker is away
_QOS = 1


@dataclass(frozen=True)
class Broker:
    """Where to publish to. ca: a file of certificates, for a broker with its own."""

    host: str
    port: int
    topic: str
    tls: bool = False
    user: str | None = None
    password: str | None = None
    ca: str | None = None

    @classmethod
    def from_url(
        cls, url: str, default_topic: str, password_file: str | None, ca: str | None
    ) -> Broker:
        """From mqtt://USER@HOST:PORT/TOPIC (mqtts: with TLS). EdgegraftError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.password is not None:
            raise EdgegraftError(
                "--mqtt: expected no password in the URL (others can read a command "
                f"line); put it into ${PASSWORD} or --mqtt-password-file FILE"
            )
        topic = unquote(parts.path).strip("/") or default_topic
        wildcard = "#" in url or re.search(r"[+\0]", topic)
        if parts.scheme not in PORTS or not parts.hostname or wildcard:
            raise EdgegraftError(
                "--mqtt: expected mqtt://USER@HOST:PORT/TOPIC (mqtts with TLS), got "
                f"{url!r:.80}"
            )
        if ca is not None and not os.path.isfile(ca):
            raise EdgegraftError(f"--mqtt-ca {ca}: no such file")
        user = None if parts.username is None else unquote(parts.username)
        if password_file is None:
            password = os.environ.get(PASSWORD)
        else:
            password = first_line(password_file, "--mqtt-password-file").rstrip("\r\n")
        if password is not None and user is None:
            raise EdgegraftError(
                "--mqtt: expected a user with the password: mqtt://USER@HOST"
            )
        tls = parts.scheme == "mqtts"
        return cls(
            parts.hostname, port or PORTS[parts.scheme], topic, tls, user, password, ca
        )

    @property
    def where(self) -> str:
        return f"mqtt {self.host}:{self.port}"


class Publisher:
    """Publishes results while it is open; never waits for the broker.

    `note` gets messages for a person. heartbeat: seconds after which a state that has
    not changed is published again.
    """

    def __init__(
        self,
        broker: Broker,
        classifier: Classifier,
        note: Callable[[str], None],
        heartbeat: float,
    ) -> None:
        try:
            from paho.mqtt import client as mqtt
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError as error:
            raise EdgegraftError(
                f"--mqtt: paho-mqtt is needed ({error}); run: pip install "
                "'paho-mqtt>=2'"
            ) from None
        self._broker, self._note, self._heartbeat = broker, note, heartbeat
        self._state_topic = f"{broker.topic}/state"
        self._status_topic = f"{broker.topic}/status"
        self._discovery = discovery(broker.topic, classifier)
        self._state: str | None = None
        # paho's own queue can be overtaken by what is published while it connects
        self._queue: queue.Queue[str | None] = queue.Queue(_QUEUED)
        self._is_sending = False
        self._is_closing = False
        self._connection = threading.Event()
        self._online = True  # the camera sends
        self._published = float("-inf")
        self._problem = ""
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{identifier(broker.topic)}_{secrets.token_hex(4)}",
        )
        client.will_set(self._status_topic, "offline", _QOS, retain=True)
        client.reconnect_delay_set(*_PAUSES)
        if broker.user is not None:
            client.username_pw_set(broker.user, broker.password)
        if broker.tls:
            try:
                client.tls_set(ca_certs=broker.ca)
            except OSError as error:  # ssl.SSLError is one
                raise EdgegraftError(f"--mqtt-ca {broker.ca}: {error}") from None
        client.on_connect = self._connected
        client.on_connect_fail = self._unreachable
        client.on_disconnect = self._disconnected
        self._client = client
        client.connect_async(broker.host, broker.port, _KEEPALIVE)
        client.loop_start()
        self._sender = threading.Thread(
            target=self._send_all, name="mqtt states", daemon=True
        )
        self._sender.start()

    def publish(self, result: FrameResult) -> None:
        """A result: at once where the label has changed, else each heartbeat."""
        now = time.monotonic()
        if not (result.changed or now - self._published >= self._heartbeat):
            return
        self._state = state(result)
        self._published = now
        if result.changed or (self._client.is_connected() and self._is_delivered()):
            self._enqueue(self._state)

    def _enqueue(self, text: str | None) -> None:
        """Add to the queue; when it is full, drop the oldest."""
        while True:
            try:
                self._queue.put_nowait(text)
                return
            except queue.Full:
                with suppress(queue.Empty):
                    self._queue.get_nowait()

    def _is_delivered(self) -> bool:
        return self._queue.empty() and not self._is_sending

    def _send_all(self) -> None:
        """Each state once the one before has been acknowledged: in order, whatever
        happens to the connection."""
        while (text := self._queue.get()) is not None:
            self._is_sending = True
            while not self._is_closing:
                if not self._connection.wait(_POLL):
                    continue
                message = self._client.publish(
                    self._state_topic, text, _QOS, retain=True
                )
                try:
                    while not (message.is_published() or self._is_closing):
                        message.wait_for_publish(_POLL)
                    break
                except (RuntimeError, ValueError):  # lost just now: once more
                    time.sleep(_POLL)
            self._is_sending = False

    def set_online(self, is_sending: bool) -> None:
        """Whether the camera sends; without it the device is shown as offline."""
        if is_sending == self._online:
            return
        self._online = is_sending
        if self._client.is_connected():
            self._publish_status()

    def close(self) -> None:
        """Say goodbye; what the broker does not take within 2 s is left."""
        self._enqueue(None)
        self._sender.join(_GOODBYE)
        self._is_closing = True
        if self._client.is_connected():
            message = self._publish_status("offline")
            with suppress(RuntimeError, ValueError):  # the broker's will says it
                message.wait_for_publish(_GOODBYE)
        self._client.disconnect()
        self._client.loop_stop()

    def _publish_status(self, status: str = "") -> Any:
        status = status or ("online" if self._online else "offline")
        return self._client.publish(self._status_topic, status, _QOS, retain=True)

    def _connected(
        self, client: Any, data: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        if reason.is_failure:
            self._say(f"refused: {reason} (user or password?); trying again")
            return
        for topic, payload in self._discovery.items():
            client.publish(topic, payload, _QOS, retain=True)
        self._publish_status()
        if self._state is not None and self._is_delivered():
            self._enqueue(self._state)  # to a broker that may have come back empty
        self._connection.set()
        self._say("connected")

    def _unreachable(self, client: Any, data: Any) -> None:
        hint = ", or its certificate is not trusted" if self._broker.tls else ""
        self._say(f"cannot be reached{hint}; trying again")

    def _disconnected(
        self, client: Any, data: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        self._connection.clear()
        if reason.is_failure and self._problem == "connected":
            self._say("lost; trying again")

    def _say(self, text: str) -> None:
        """Print a change of state once, however often the connection is tried."""
        if text != self._problem:
            self._problem = text
            self._note(f"{self._broker.where}: {text}")


def state(result: FrameResult) -> str:
    """A result as JSON, as it is retained."""
    prediction = result.reported
    return json.dumps(
        {
            "label": result.label,
            "probability": round(prediction.probability, 4),
            "known": prediction.known,
            "familiarity": prediction.familiarity,
            "ranking": {
                label: round(probability, 4)
                for label, probability in prediction.ranking
            },
            "time": clock(),
        },
        ensure_ascii=False,
    )


def discovery(topic: str, classifier: Classifier) -> dict[str, str]:
    """Topic to payload of what Home Assistant shows: a sensor for the label, one for
    its probability and, where the model has it, one for familiarity."""
    card, name = classifier.card, topic.replace("/", " ")
    digest = classifier.file.digest[:12]
    model = f"{card.name} {card.variant}" if card else "foreign model"
    unique = identifier(topic)
    has_familiarity = FAMILIARITY in classifier.roles
    options = [*classifier.labels, *[UNKNOWN] * has_familiarity]
    shared = {
        "state_topic": f"{topic}/state",
        "availability_topic": f"{topic}/status",
        "device": {
            "identifiers": [unique],
            "name": name,
            "manufacturer": "edgegraft",
            "model": f"{model} (sha256 {digest})",
            "sw_version": edgegraft_version() or "unknown",
        },
    }
    sensors: dict[str, dict[str, object]] = {
        "label": {
            "name": "Label",
            "device_class": "enum",
            "options": options,
            "value_template": "{{ value_json.label }}",
            "json_attributes_topic": f"{topic}/state",
        },
        "probability": {
            "name": "Probability",
            "unit_of_measurement": "%",
            "state_class": "measurement",
            "value_template": "{{ (value_json.probability * 100) | round(1) }}",
        },
    }
    if has_familiarity:
        sensors["familiarity"] = {
            "name": "Familiarity",
            "state_class": "measurement",
            "value_template": "{{ value_json.familiarity | round(3) }}",
        }
    return {
        f"{DISCOVERY}/sensor/{unique}/{key}/config": json.dumps(
            {**sensor, "unique_id": f"{unique}_{key}", **shared}, ensure_ascii=False
        )
        for key, sensor in sensors.items()
    }


def identifier(topic: str) -> str:
    """The device's identifier: letters, digits and underscores."""
    return "edgegraft_" + re.sub(r"[^A-Za-z0-9_]+", "_", topic)
