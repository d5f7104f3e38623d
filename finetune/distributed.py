"""Several machines, or several GPUs of one, that train a network together.

Every machine is started with the same command, and with TensorFlow's own `TF_CONFIG`
in its environment:

    {"cluster": {"worker": ["one:2222", "two:2222"]}, "task": {"type": "worker",
     "index": 0}}

Each decodes the photos, which lie under the same path everywhere, computes the
gradients of its share of every batch, and all add them up
(`tf.distribute.MultiWorkerMirroredStrategy`). The chief (the task of that type, else
the first worker) is the only one to write the run; what the others write goes to a
temporary folder. They begin with the chief's weights and follow its decisions. Several
GPUs of one machine need no setting (`tf.distribute.MirroredStrategy`).

Does not know: networks, photos, what is shared.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backbones.keras import tensorflow
from edge.errors import EdgegraftError

VARIABLE = "TF_CONFIG"
SOME_CLUSTER = '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {...}}'
PATIENCE = 120.0  # seconds until all are there: people start them by hand
PATIENCE_VARIABLE = "EDGEGRAFT_WORKERS_TIMEOUT"
_PAUSE = 0.2  # between two calls at a door
_CALL = 2.0  # seconds until a door that does not answer counts as closed


@dataclass(frozen=True)
class Workers:
    """Who trains. Every method is called by all of them, in the same order.

    number: this one's, 0 is the chief; count: how many there are. strategy: the
    `tf.distribute` strategy, None for one device.
    """

    number: int = 0
    count: int = 1
    strategy: Any = None

    @property
    def is_chief(self) -> bool:
        return self.number == 0

    @property
    def several(self) -> bool:
        return self.count > 1

    @property
    def replicas(self) -> int:
        """Devices that share a batch."""
        return 1 if self.strategy is None else int(self.strategy.num_replicas_in_sync)

    def _chiefs(self, values: Any) -> Any:
        """The chief's array: everybody's sum, where the others give zeros."""
        tf = tensorflow()

        def own(context: Any) -> Any:
            mine = self.is_chief and context.replica_id_in_sync_group == 0
            return tf.constant(values if mine else np.zeros_like(values))

        parts = self.strategy.experimental_distribute_values_from_function(own)
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)

    def agree(self, numbers: Sequence[float]) -> list[float]:
        """The chief's numbers, for a decision that all must take alike."""
        if not self.several:
            return list(numbers)
        found = self._chiefs(np.array(numbers, np.float64))
        return [float(number) for number in found.numpy()]

    def share(self, content: bytes) -> bytes:
        """The chief's bytes; what the others give is not looked at."""
        if not self.several:
            return content
        count = int(self.agree([len(content)])[0])
        if count == 0:  # TensorFlow ends the process when it adds up nothing
            return b""
        words = np.zeros(-(-count // 4), np.int32)
        if self.is_chief:
            padded = content + bytes(4 * len(words) - count)
            words = np.frombuffer(padded, np.int32)
        return bytes(self._chiefs(words).numpy().tobytes()[:count])

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """EdgegraftError when a worker is lost meanwhile."""
        if not self.several:
            yield
            return
        errors = tensorflow().errors
        lost = (
            errors.UnavailableError,
            errors.AbortedError,
            errors.InternalError,
            errors.DeadlineExceededError,
            errors.CancelledError,
        )
        try:
            yield
        except lost as error:
            told = re.sub(r"\{\{.*?\}\}", "", error.message)  # node names
            reason = " ".join(told.split())[:120]
            raise EdgegraftError(
                f"expected all {self.count} workers until training ended, lost one "
                f"({reason}); the chief's run has its last whole epoch: start all of "
                "them again with --resume"
            ) from error


ALONE = Workers()


def _cluster(text: str) -> tuple[list[str], int]:
    """The workers' addresses, the chief's first, and which of them this one is."""
    try:
        config = json.loads(text)
        cluster: Mapping[str, Any] = config.get("cluster") or {}
        task = config.get("task") or {}
        addresses = [*cluster.get("chief", ()), *cluster.get("worker", ())]
        kind, index = task.get("type", "worker"), int(task.get("index", 0))
        number = index + (len(cluster.get("chief", ())) if kind == "worker" else 0)
        if kind not in ("chief", "worker") or set(cluster) - {"chief", "worker"}:
            raise ValueError("only tasks of type chief and worker train")
        for address in addresses:
            host, _, port = address.rpartition(":")
            if not (host and 0 < int(port) < 2**16):
                raise ValueError(f"{address!r} is no HOST:PORT")
        if addresses and not 0 <= number < len(addresses):
            raise ValueError(f"{kind} {index} is not among {', '.join(addresses)}")
    except (ValueError, TypeError, AttributeError) as error:
        raise EdgegraftError(
            f"expected {VARIABLE} to be like {SOME_CLUSTER}, got {text!r:.200} "
            f"({error})"
        ) from error
    return addresses, number


def _patience() -> float:
    text = os.environ.get(PATIENCE_VARIABLE, str(PATIENCE))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise EdgegraftError(
            f"expected {PATIENCE_VARIABLE} in seconds above 0, got {text!r}"
        )
    return seconds


def _door(address: str) -> socket.socket:
    """A listening socket at this worker's own port, so that the others can see it."""
    port = int(address.rpartition(":")[2])
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind(("", port))
        door.listen()
    except OSError as error:
        door.close()
        raise EdgegraftError(
            f"expected port {port} of {VARIABLE} to be free on this machine, got: "
            f"{error.strerror}; end what uses it, or choose another port"
        ) from error
    return door


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CALL).close()
    except OSError:
        return False
    return True


def _wait_for_all(addresses: Sequence[str], number: int, seconds: float) -> None:
    """Until every other worker's port answers; EdgegraftError after `seconds`.

    TensorFlow would wait for ever, or end the process.
    """
    end = time.monotonic() + seconds
    missing = {n: a for n, a in enumerate(addresses) if n != number}
    with _door(addresses[number]):
        while missing:
            for other, address in list(missing.items()):
                if _answers(address):
                    del missing[other]
            if missing and time.monotonic() > end:
                named = ", ".join(f"{n} at {a}" for n, a in missing.items())
                raise EdgegraftError(
                    f"expected all {len(addresses)} workers of {VARIABLE} within "
                    f"{seconds:g} s, got no answer from worker {named}; start the same "
                    "command there (0 is the chief), or open the port"
                )
            time.sleep(_PAUSE if missing else 0)


def join() -> Workers:
    """The workers that `TF_CONFIG` names, once all are there; else this one alone.

    To be called before anything else is done with TensorFlow.
    """
    text = os.environ.get(VARIABLE, "").strip()
    addresses, number = _cluster(text) if text else ([], 0)
    if len(addresses) < 2:
        return ALONE
    _wait_for_all(addresses, number, _patience())
    strategy = tensorflow().distribute.MultiWorkerMirroredStrategy()
    return Workers(number, len(addresses), strategy)


def on_all_gpus(workers: Workers) -> Workers:
    """One worker with several GPUs uses all of them."""
    tf = tensorflow()
    if workers.strategy is not None or len(tf.config.list_physical_devices("GPU")) < 2:
        return workers
    return replace(workers, strategy=tf.distribute.MirroredStrategy())
