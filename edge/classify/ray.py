"""Photos over a Ray cluster: the classifier of one machine, on many.

Ray Data (the extra `ray`) hands batches of paths to workers that each hold the model;
the answers come back in the order of the photos. The model and this package are sent
with the job; the photos are not: every machine must see them under the same path, and
must have numpy, Pillow and an interpreter. The cluster is the one in $RAY_ADDRESS,
else the one running on this machine, else a new one of its cores.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from edge.classifier import Classifier
from edge.errors import EdgegraftError

Answer = TypeVar("Answer")

BATCH = 16  # photos a worker takes at a time
BLOCK = 64  # photos in a block: the unit that Ray moves and keeps in order
LIST = 100_000  # paths in one job; longer lists are several, so memory stays bounded


class Worker:
    """On a node: opens the model once, answers batches. `packed`: (build, work)."""

    def __init__(self, packed: bytes, folder: str) -> None:
        with suppress(OSError):  # paths may be relative to where the command runs
            os.chdir(folder)
        build, self._work = pickle.loads(packed)
        self._classifier: Classifier = build()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Pickled items in, pickled answers out, in the same order."""
        import numpy as np

        items = map(pickle.loads, batch["item"])
        answers = np.empty(len(batch["item"]), dtype=object)
        answers[:] = [pickle.dumps(self._work(self._classifier, i)) for i in items]
        return {"answer": answers}


def in_order(
    items: Iterable[Any],
    work: Callable[[Classifier, Any], Answer],
    build: Callable[[], Classifier],
    *,
    workers: int | None = None,
    threads: int = 1,
) -> Iterator[Answer]:
    """work(classifier, item) of every item, in order, on the cluster.

    `build` opens a classifier and `work` uses it; both must be picklable. A worker
    takes `threads` of a node's cores; as many workers as fit, unless `workers` is
    given. EdgegraftError when Ray is missing or the cluster does not answer.
    """
    ray = _connected()
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    cores = int(ray.cluster_resources().get("CPU", 0))
    count = workers or cores // threads
    if not 1 <= count * threads <= cores:
        raise EdgegraftError(
            f"--engine ray: the cluster has {cores} cores, expected at least "
            f"{max(count, 1) * threads} ({max(count, 1)} workers of {threads})"
        )
    packed = pickle.dumps((build, work))
    source = iter(items)
    try:
        while paths := [pickle.dumps(item) for item in islice(source, LIST)]:
            blocks = -(-len(paths) // BLOCK)
            rows = ray.data.from_items(
                [{"item": path} for path in paths], override_num_blocks=blocks
            )
            answers = rows.map_batches(
                Worker,
                fn_constructor_args=(packed, os.getcwd()),
                compute=ray.data.ActorPoolStrategy(size=min(count, blocks)),
                batch_size=BATCH,
                num_cpus=threads,
            )
            for row in answers.iter_rows():
                yield pickle.loads(row["answer"])
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise EdgegraftError(f"--engine ray: {reason[-1]:.300}") from error
    finally:
        ray.shutdown()


def _connected() -> Any:
    """The module ray, connected and quiet."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # no warning
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise EdgegraftError(
            f"--engine ray needs Ray Data ({error}); run: pip install 'ray[data]'"
        ) from None
    package = Path(__file__).resolve().parents[1]
    if not package.is_dir():
        raise EdgegraftError(
            "--engine ray: expected the package edge as a folder, got one file; run "
            "it in a checkout of edgegraft, or pip install that"
        )
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        ray.init(
            logging_level=logging.ERROR,
            log_to_driver=False,
            include_dashboard=False,
            runtime_env={"py_modules": [str(package)]},
        )
    except Exception as error:  # Ray raises many kinds, Exception itself among them
        where = os.environ.get("RAY_ADDRESS", "on this machine")
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EdgegraftError(f"no Ray cluster {where}: {reason:.300}") from None
    return ray
