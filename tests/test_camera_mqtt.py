"""`edge camera --mqtt` against a real mosquitto, which dies and comes back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from edge.camera import mqtt
from edge.camera.mqtt import PASSWORD, Broker, Publisher
from edge.camera.output import FrameResult
from edge.classifier import Classifier, Prediction
from edge.cli import main
from edge.errors import EdgegraftError
from tests.camera_room import MOSQUITTO, Mosquitto, until
from tests.edge_models import network, save, with_card

pytestmark = pytest.mark.slow  # a broker is started, stopped and waited for

pytest.importorskip("paho.mqtt.client", reason="needs the extra mqtt")
needs_broker = pytest.mark.skipif(
    MOSQUITTO is None, reason="needs mosquitto (apt-get install mosquitto)"
)
TOPIC = "home/front door"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    made = Mosquitto(tmp_path, "allow_anonymous true")
    made.start()
    yield made
    made.kill()


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(with_card(network(), name="door"))


def result(label: str, changed: bool = True) -> FrameResult:
    prediction = Prediction(label, 0.9, ((label, 0.9),), None, True)
    return FrameResult(1, 0.0, label, changed, prediction, prediction, 1.0, 1.0)


def at(broker: Mosquitto, **more: Any) -> Broker:
    return Broker("127.0.0.1", broker.port, TOPIC, **more)


def labels(broker: Mosquitto) -> list[str]:
    states = [text for topic, text in broker.messages if topic == f"{TOPIC}/state"]
    return [json.loads(text)["label"] for text in states]


@needs_broker
def test_home_assistant_finds_the_device(
    broker: Mosquitto, classifier: Classifier
) -> None:
    notes: list[str] = []
    publisher = Publisher(at(broker), classifier, notes.append, 60)
    publisher.publish(result("red"))
    until(lambda: notes, 20)
    listener = broker.listen()  # later: what it sees was retained
    prefix = "homeassistant/sensor/edgegraft_home_front_door"
    until(lambda: f"{TOPIC}/state" in broker.retained, 20)
    until(lambda: f"{prefix}/probability/config" in broker.retained, 20)
    assert notes == [f"mqtt 127.0.0.1:{broker.port}: connected"]
    label = json.loads(broker.retained[f"{prefix}/label/config"])
    assert label["device_class"] == "enum"
    assert label["options"] == list(classifier.labels)
    assert label["state_topic"] == f"{TOPIC}/state"
    assert label["availability_topic"] == f"{TOPIC}/status"
    digest = classifier.file.digest[:12]
    assert label["device"]["model"] == f"door int8 (sha256 {digest})"
    assert label["device"]["sw_version"][0].isdigit()
    assert f"{prefix}/familiarity/config" not in broker.retained  # it has none
    state = json.loads(broker.retained[f"{TOPIC}/state"])
    assert state["label"] == "red" and state["probability"] == 0.9
    assert broker.retained[f"{TOPIC}/status"] == "online"
    publisher.set_online(False)  # the camera is lost
    until(lambda: broker.retained[f"{TOPIC}/status"] == "offline")
    publisher.set_online(True)
    until(lambda: broker.retained[f"{TOPIC}/status"] == "online")
    publisher.close()
    until(lambda: broker.retained[f"{TOPIC}/status"] == "offline")
    listener.disconnect()
    listener.loop_stop()


@needs_broker
def test_a_broker_that_dies_gets_every_change_when_it_is_back(
    broker: Mosquitto, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "_PAUSES", (2, 2))  # the listener is back before
    notes: list[str] = []
    publisher = Publisher(at(broker), classifier, notes.append, 0.0)
    listener = broker.listen()
    until(lambda: notes, 20)
    publisher.publish(result("red"))
    until(lambda: labels(broker) == ["red"], 20)
    until(publisher._is_delivered, 20)  # a heartbeat waits for no acknowledgement
    publisher.publish(result("red", changed=False))  # the heartbeat, here at once
    until(lambda: labels(broker) == ["red", "red"], 20)
    broker.kill()
    until(lambda: any("lost" in note for note in notes), 20)
    for label in ("green", "blue", "green"):
        publisher.publish(result(label))
        publisher.publish(result(label, changed=False))  # waits for no broker
    broker.messages.clear()
    broker.retained.clear()
    broker.start()

    def changes() -> list[str]:
        return [label for label, _ in groupby(labels(broker))]

    until(lambda: len(changes()) >= 3, 30)  # QoS 1: one may come twice
    assert changes() == ["green", "blue", "green"]
    until(lambda: broker.retained.get(f"{TOPIC}/status") == "online")
    assert any(topic.endswith("label/config") for topic in broker.retained)
    assert json.loads(broker.retained[f"{TOPIC}/state"])["label"] == "green"
    assert [note.split(": ")[1] for note in notes][:2] == [
        "connected",
        "lost; trying again",
    ]
    assert notes[-1].endswith(": connected") and len(notes) <= 4
    publisher.close()
    listener.disconnect()
    listener.loop_stop()


@needs_broker
def test_the_broker_says_when_it_dies(broker: Mosquitto, tmp_path: Path) -> None:
    model = save(tmp_path / "m.tflite", with_card(network()))
    listener = broker.listen()
    url = f"mqtt://127.0.0.1:{broker.port}/porch"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "edge", "camera", model, "rtsp://127.0.0.1:1/x"),
            *("--wait", "--mqtt", url),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: "porch/status" in broker.retained, 60)
        # it waits for its camera: nothing is to be seen
        until(lambda: broker.retained["porch/status"] == "offline", 20)
        assert any(topic.endswith("label/config") for topic in broker.retained)
        os.kill(process.pid, signal.SIGKILL)
        broker.messages.clear()
        until(lambda: ("porch/status", "offline") in broker.messages, 20)
    finally:
        process.kill()
        process.wait()
        listener.disconnect()
        listener.loop_stop()


@needs_broker
def test_the_last_change_of_a_short_run_arrives(
    broker: Mosquitto, classifier: Classifier
) -> None:
    publisher = Publisher(at(broker), classifier, print, 60)
    publisher.publish(result("blue"))  # before it is connected
    publisher.close()
    listener = broker.listen()
    until(lambda: labels(broker) == ["blue"], 20)
    until(lambda: broker.retained.get(f"{TOPIC}/status") == "offline", 20)
    listener.disconnect()
    listener.loop_stop()


@needs_broker
def test_a_password_over_tls(
    tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    openssl = shutil.which("openssl")
    tool = shutil.which("mosquitto_passwd")
    if openssl is None or tool is None:
        pytest.skip("needs openssl and mosquitto_passwd")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    users = tmp_path / "users"
    subprocess.run([tool, "-b", "-c", str(users), "cam", "right"], check=True)
    broker = Mosquitto(
        tmp_path,
        f"certfile {certificate}",
        f"keyfile {key}",
        f"password_file {users}",
        "allow_anonymous false",
    )
    broker.start()
    secret = tmp_path / "secret"
    try:
        for password, ca, message in (
            ("wrong", str(certificate), "(user or password?); trying again"),
            ("right", None, "its certificate is not trusted; trying again"),
            ("right", str(certificate), "connected"),
        ):
            secret.write_text(password + "\n", "utf-8")
            url = f"mqtts://cam@127.0.0.1:{broker.port}/x"
            notes: list[str] = []
            where = Broker.from_url(url, "", str(secret), ca)
            publisher = Publisher(where, classifier, notes.append, 60)
            until(lambda notes=notes: notes, 20)  # type: ignore[misc]
            publisher.close()
            assert notes[0].endswith(message)
            assert not any(password in note for note in notes)
    finally:
        broker.kill()


def test_a_wrong_broker_costs_one_line_and_no_answer(
    classifier: Classifier,
) -> None:
    notes: list[str] = []
    where = Broker("127.0.0.1", 1, "x")
    publisher = Publisher(where, classifier, notes.append, 60)
    publisher.publish(result("red"))
    until(lambda: notes)
    time.sleep(1.2)  # it is tried again by then
    publisher.close()
    assert notes == ["mqtt 127.0.0.1:1: cannot be reached; trying again"]
    assert not any(t.name.startswith("paho") for t in threading.enumerate())


def test_a_broker_is_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD, raising=False)
    plain = Broker.from_url("mqtt://host", "edgegraft/m", None, None)
    assert plain == Broker("host", 1883, "edgegraft/m")
    monkeypatch.setenv(PASSWORD, "s3cret")
    full = Broker.from_url("mqtts://me@h:99/a/b/", "x", None, None)
    assert full == Broker("h", 99, "a/b", True, "me", "s3cret")
    for url, message in (
        ("mqtt://me:s3cret@host/x", "expected no password in the URL"),
        ("http://host", "expected mqtt://USER@HOST:PORT/TOPIC"),
        ("mqtt://host:port", "expected mqtt://USER@HOST:PORT/TOPIC"),
        ("mqtt://host/a/#", "expected mqtt://USER@HOST:PORT/TOPIC"),
        ("mqtt://host/x", "expected a user with the password"),
    ):
        with pytest.raises(EdgegraftError, match=message) as caught:
            Broker.from_url(url, "x", None, None)
        assert "s3cret" not in str(caught.value)
    with pytest.raises(EdgegraftError, match=r"mqtt-password-file .*: No such file"):
        Broker.from_url("mqtt://me@h", "x", str(tmp_path / "none"), None)
    with pytest.raises(EdgegraftError, match=r"mqtt-ca .*: no such file"):
        Broker.from_url("mqtts://me@h", "x", None, str(tmp_path / "none"))


def test_options_that_need_mqtt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save(tmp_path / "m.tflite", with_card(network()))
    assert main(["camera", model, "0", "--mqtt-ca", "x"]) == 2
    assert "expected --mqtt with" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "paho.mqtt", None)
    assert main(["camera", model, "0", "--mqtt", "mqtt://127.0.0.1:1"]) == 2
    assert "pip install 'paho-mqtt>=2'" in capsys.readouterr().err
