"""Training on several machines, or on several GPUs of one.

Every machine is started with the same command, and with TensorFlow's own `TF_CONFIG`
in its environment:

    {"cluster": {"worker": ["one:2222", "two:2222"]}, "task": {"type": "worker",
     "index": 0}}

Each worker decodes the photos, which have the same path everywhere, and computes the
gradients of its slice of every batch; the gradients are summed
(`tf.distribute.MultiWorkerMirroredStrategy`). Only the chief (the task of that type,
else the first worker) writes the run; the others write to a temporary folder, start
from the chief's weights and follow its decisions. Several GPUs of one machine need no
setting (`tf.distribute.MirroredStrategy`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backbones.keras import tensorflow
from edge.errors import EdgegraftError
from edge.run_folder import RUN_FILE
from finetune.settings import Settings

VARIABLE = "TF_CONFIG"
_EXAMPLE = '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {...}}'
START_TIMEOUT = 120.0  # seconds until all workers are up: people start them by hand
TIMEOUT_VARIABLE = "EDGEGRAFT_WORKERS_TIMEOUT"
_RETRY_PAUSE = 0.2  # seconds between two attempts to reach a worker
_RESUMED = (RUN_FILE, "split.csv", "excluded.csv")  # the files to resume from
_CONNECT_TIMEOUT = 2.0  # seconds


@dataclass(frozen=True)
class Workers:
    """The workers of a training. All of them call every method, in the same order.

    index: of this worker, 0 is the chief; count: of all workers. strategy: the
    `tf.distribute` strategy, None for one device.
    """

    index: int = 0
    count: int = 1
    strategy: Any = None

    @property
    def is_chief(self) -> bool:
        return self.index == 0

    @property
    def several(self) -> bool:
        return self.count > 1

    @property
    def replicas(self) -> int:
        """Devices that share a batch."""
        return 1 if self.strategy is None else int(self.strategy.num_replicas_in_sync)

    def _chiefs(self, values: Any) -> Any:
        """The chief's array, as a sum to which all others add zeros."""
        tf = tensorflow()

        def summand(context: Any) -> Any:
            is_chief = self.is_chief and context.replica_id_in_sync_group == 0
            return tf.constant(values if is_chief else np.zeros_like(values))

        parts = self.strategy.experimental_distribute_values_from_function(summand)
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)

    def agree(self, values: Sequence[float]) -> list[float]:
        """The chief's values, for decisions that must be the same everywhere."""
        if not self.several:
            return list(values)
        return list(map(float, self._chiefs(np.array(values, np.float64)).numpy()))

    def share(self, content: bytes) -> bytes:
        """The chief's bytes; those of the others are ignored."""
        if not self.several:
            return content
        count = int(self.agree([len(content)])[0])
        if count == 0:  # TensorFlow crashes on the sum of empty arrays
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
            message = re.sub(r"\{\{.*?\}\}", "", error.message)  # node names
            reason = " ".join(message.split())[:120]
            raise EdgegraftError(
                f"expected all {self.count} workers until training ended, lost one "
                f"({reason}); the chief's run has its last whole epoch: start all of "
                "them again with --resume"
            ) from error


ALONE = Workers()


def _cluster(text: str) -> tuple[list[str], int]:
    """The workers' addresses, the chief's first, and the index of this worker."""
    try:
        config = json.loads(text)
        cluster: Mapping[str, Any] = config.get("cluster") or {}
        task = config.get("task") or {}
        addresses = [*cluster.get("chief", ()), *cluster.get("worker", ())]
        kind, index = task.get("type", "worker"), int(task.get("index", 0))
        position = index + (len(cluster.get("chief", ())) if kind == "worker" else 0)
        if kind not in ("chief", "worker") or set(cluster) - {"chief", "worker"}:
            raise ValueError("only tasks of type chief and worker train")
        for address in addresses:
            host, _, port = address.rpartition(":")
            if not (host and 0 < int(port) < 2**16):
                raise ValueError(f"{address!r} is no HOST:PORT")
        if addresses and not 0 <= position < len(addresses):
            raise ValueError(f"{kind} {index} is not among {', '.join(addresses)}")
    except (ValueError, TypeError, AttributeError) as error:
        raise EdgegraftError(
            f"expected {VARIABLE} to be like {_EXAMPLE}, got {text!r:.200} ({error})"
        ) from error
    return addresses, position


def _start_timeout() -> float:
    text = os.environ.get(TIMEOUT_VARIABLE, str(START_TIMEOUT))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise EdgegraftError(
            f"expected {TIMEOUT_VARIABLE} in seconds above 0, got {text!r}"
        )
    return seconds


def _listen(address: str) -> socket.socket:
    """A socket that listens on this worker's port, so that the others can connect."""
    port = int(address.rpartition(":")[2])
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("", port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise EdgegraftError(
            f"expected port {port} of {VARIABLE} to be free on this machine, got: "
            f"{error.strerror}; end what uses it, or choose another port"
        ) from error
    return listener


def _is_reachable(address: str) -> bool:
    host, _, port = address.rpartition(":")
    target = host.strip("[]"), int(port)
    try:
        socket.create_connection(target, timeout=_CONNECT_TIMEOUT).close()
    except OSError:
        return False
    return True


def _wait_for_all(addresses: Sequence[str], index: int, seconds: float) -> None:
    """Wait until every other worker is reachable; EdgegraftError after `seconds`.

    TensorFlow would wait forever, or end the process.
    """
    deadline = time.monotonic() + seconds
    missing = {i: a for i, a in enumerate(addresses) if i != index}
    with _listen(addresses[index]):
        while True:
            missing = {i: a for i, a in missing.items() if not _is_reachable(a)}
            if not missing:
                return
            if time.monotonic() > deadline:
                workers = ", ".join(f"{i} at {a}" for i, a in missing.items())
                raise EdgegraftError(
                    f"expected all {len(addresses)} workers of {VARIABLE} within "
                    f"{seconds:g} s, got no answer from worker {workers}; start the "
                    "same command there (0 is the chief), or open the port"
                )
            time.sleep(_RETRY_PAUSE)


def join() -> Workers:
    """The workers of `TF_CONFIG`, once all are reachable; else this one alone.

    Call it before any other TensorFlow function.
    """
    text = os.environ.get(VARIABLE, "").strip()
    addresses, index = _cluster(text) if text else ([], 0)
    if len(addresses) < 2:
        return ALONE
    _wait_for_all(addresses, index, _start_timeout())
    strategy = tensorflow().distribute.MultiWorkerMirroredStrategy()
    return Workers(index, len(addresses), strategy)


def on_all_gpus(workers: Workers) -> Workers:
    """These workers; a single one uses all of its GPUs."""
    tf = tensorflow()
    if workers.strategy is not None or len(tf.config.list_physical_devices("GPU")) < 2:
        return workers
    return replace(workers, strategy=tf.distribute.MirroredStrategy())


@contextlib.contextmanager
def run_folder(workers: Workers, folder: Path) -> Iterator[Path]:
    """The folder this worker writes: the chief the run, the others a temporary one."""
    if workers.is_chief:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="edgegraft-worker-") as temporary:
        yield Path(temporary) / folder.name


def share_run(workers: Workers, folder: Path) -> None:
    """Copy the files of a resumed run from the chief to the other workers."""
    for name in _RESUMED:
        path = folder / name
        exists = workers.is_chief and path.is_file()
        content = workers.share(path.read_bytes() if exists else b"")
        if content and not workers.is_chief:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def refuse_differences(workers: Workers, settings: Settings, fingerprint: str) -> None:
    """EdgegraftError on a worker with other photos or settings than the chief's."""
    local = json.dumps([settings.to_dict(), fingerprint], sort_keys=True).encode()
    chiefs = workers.share(local)
    if chiefs == local:
        return
    chief_settings, chief_fingerprint = json.loads(chiefs)
    names = [
        name
        for name, value in json.loads(local)[0].items()
        if value != chief_settings.get(name)
    ]
    what = f"settings ({', '.join(names)})" if names else "photos"
    raise EdgegraftError(
        f"expected the chief's {what} on every worker, got others on worker "
        f"{workers.index} (data fingerprint {fingerprint[:12]}, the chief's "
        f"{chief_fingerprint[:12]}); give all workers the same command and the same "
        "photos"
    )
