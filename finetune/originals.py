"""Whether the photos of a run are still those that it was made with.

Figures on other photos would be mixed up with the run's; split.csv has each photo's
sha256.

Does not know: how photos are decoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from data.split import Row
from edge.errors import EdgegraftError
from finetune.run import Run


def refuse_unreadable(run: Run, path: Path, reason: str) -> None:
    """EdgegraftError: this photo of the run cannot be read."""
    raise EdgegraftError(
        f"expected the photos of {run.folder / 'split.csv'}, got {path}: "
        f"{reason}; put it back, or train again"
    )


def refuse_changed(run: Run, rows: Sequence[Row], digests: Mapping[Path, str]) -> None:
    """EdgegraftError for the first photo whose sha256 is another now.

    digests: of the files as they are, hexadecimal, for each photo of `rows`.
    """
    for photo, _, sha256 in rows:
        if digests[photo.path] != sha256:
            raise EdgegraftError(
                f"expected the photos of {run.folder / 'split.csv'}, got another "
                f"file at {photo.path} (sha256 differs); put the old one back, or "
                "train again"
            )


def check(run: Run, rows: Sequence[Row]) -> None:
    """Read the files of `rows`: EdgegraftError when one is missing or changed."""
    digests = {}
    for photo, *_ in rows:
        try:
            digests[photo.path] = hashlib.sha256(photo.path.read_bytes()).hexdigest()
        except FileNotFoundError:
            refuse_unreadable(run, photo.path, "no such file")
        except OSError as error:
            refuse_unreadable(run, photo.path, error.strerror or str(error))
    refuse_changed(run, rows, digests)
