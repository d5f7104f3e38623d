"""What the chief of several workers tells the others, and where these write.

Does not know: how workers reach each other, training.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge.errors import EdgegraftError
from finetune.distributed import Workers
from finetune.run import RUN_FILE
from finetune.settings import Settings

_RESUMED = (RUN_FILE, "split.csv", "excluded.csv")  # what a resumed run starts from


@contextlib.contextmanager
def place(workers: Workers, folder: Path) -> Iterator[Path]:
    """Where this worker writes: the chief the run, the others what vanishes."""
    if workers.is_chief:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="edgegraft-worker-") as temporary:
        yield Path(temporary) / folder.name


def hand_over(workers: Workers, folder: Path) -> None:
    """Give the others what the chief's `folder` says of the run that goes on."""
    for name in _RESUMED:
        path = folder / name
        there = workers.is_chief and path.is_file()
        content = workers.share(path.read_bytes() if there else b"")
        if content and not workers.is_chief:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def refuse_others(workers: Workers, settings: Settings, fingerprint: str) -> None:
    """EdgegraftError on a worker with other photos or settings than the chief's."""
    own = json.dumps([settings.to_dict(), fingerprint], sort_keys=True).encode()
    chiefs = workers.share(own)
    if chiefs == own:
        return
    theirs, photos = json.loads(chiefs)
    mine = json.loads(own)[0]
    names = [name for name in mine if mine[name] != theirs.get(name)]
    what = f"settings ({', '.join(names)})" if names else "photos"
    raise EdgegraftError(
        f"expected the chief's {what} on every worker, got others on worker "
        f"{workers.number} (data fingerprint {fingerprint[:12]}, the chief's "
        f"{photos[:12]}); give all workers the same command and the same photos"
    )
