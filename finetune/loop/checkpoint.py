"""A training's state on disk, whole after every epoch, for an exact resume.

    checkpoint/
        state.json          history, plan, which of the files below belong to it
        epoch-<n>.*         weights, optimisers' slots, averages after epoch n
        kept-<n>.npz        the best weights so far

state.json is renamed into place last and names the other files, so a kill at any
moment leaves the state of the last complete epoch. Random numbers are drawn from (seed,
epoch, step), so there is no generator state to store.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import EdgegraftError
from edge.files import write_atomic

STATE = "state.json"


class Checkpoint:
    """The folder `folder`; `tracked` is a tf.train.Checkpoint of the variables."""

    def __init__(self, folder: Path, tracked: Any) -> None:
        self.folder = folder
        self._tracked = tracked

    @property
    def exists(self) -> bool:
        return (self.folder / STATE).is_file()

    def kept_file(self, epoch: int) -> Path:
        return self.folder / f"kept-{epoch}.npz"

    def keep(self, epoch: int, weights: list[Any]) -> None:
        """Write the best weights, those of `epoch`."""
        write_atomic(self.kept_file(epoch), lambda to: np.savez(to, *weights))

    def kept(self, epoch: int) -> list[Any]:
        """The weights that `keep` wrote; EdgegraftError when they can't be read."""
        path = self.kept_file(epoch)
        try:
            with np.load(path, allow_pickle=False) as stored:
                return [stored[name] for name in stored.files]
        except Exception as error:  # numpy and zipfile raise many kinds
            raise self._damaged(error) from error

    def save(self, epoch: int, state: Mapping[str, Any], needed: set[int]) -> None:
        """Write the state after `epoch`; delete kept weights of epochs not `needed`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        prefix = f"epoch-{epoch}"
        self._tracked.write(str(self.folder / prefix))
        text = json.dumps({"variables": prefix, **state}, indent=1)
        write_atomic(self.folder / STATE, text + "\n")
        kept = {self.kept_file(kept_epoch).name for kept_epoch in needed}
        for path in [*self.folder.glob("epoch-*"), *self.folder.glob("kept-*.npz")]:
            if not (path.name.startswith(prefix + ".") or path.name in kept):
                path.unlink()

    def load(self) -> dict[str, Any]:
        """Restore the variables, return the state; EdgegraftError if it is damaged."""
        try:
            state = json.loads((self.folder / STATE).read_text())
            status = self._tracked.read(str(self.folder / state["variables"]))
            status.assert_existing_objects_matched()
            status.assert_consumed()
        except Exception as error:  # TensorFlow raises many kinds for a damaged file
            raise self._damaged(error) from error
        return dict(state)

    def pack(self) -> bytes:
        """All files of the folder as a ZIP, for `unpack` on another machine."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as file:
            for path in sorted(self.folder.iterdir()):
                file.write(path, path.name)
        return packed.getvalue()

    def unpack(self, packed: bytes) -> None:
        """Replace the folder's files by those of another machine."""
        self.clear()
        self.folder.mkdir(parents=True)
        with zipfile.ZipFile(io.BytesIO(packed)) as file:
            file.extractall(self.folder)

    def _damaged(self, error: Exception) -> EdgegraftError:
        reason = " ".join(str(error).split())[:120]
        return EdgegraftError(
            f"expected a checkpoint of this run in {self.folder}, got one that can't "
            f"be read ({reason}); start again with --overwrite"
        )

    def clear(self) -> None:
        """Remove the folder, once the result is written."""
        shutil.rmtree(self.folder, ignore_errors=True)
