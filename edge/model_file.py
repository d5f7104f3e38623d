"""A `.tflite` file, read once: bytes, digest, card, labels, and an interpreter for it.

Native code trusts a model file, and a damaged or hostile one ends the process that
opens it. So a file is opened here only after it ran in a child process of its own
(`edge.subprocess_run`). Files that ran are remembered by content, in a record that
only this machine writes; what a file says of itself proves nothing.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.card import CARD_NAME, LABELS_NAME, ModelCard, attached, flatbuffer_of
from edge.errors import ModelError
from edge.runtime import Runtime, find, open_interpreter

if TYPE_CHECKING:
    import zipfile

    from edge.tflite import Metadata, Table

_MAX_ATTACHED = 16 << 20  # bytes of one file in the zip; a card has some thousands
_RECORD = "proven"

# Keys of files that ran, for this process, where no record can be written
_proven: set[str] = set()
# Key to reason of files that did not: on the page each visitor asks again
_refused: dict[str, str] = {}


class ModelFile:
    """The bytes of a `.tflite` file, and what they say.

    `where` names the file in messages. Everything else is read when it is first
    asked for, and then kept. ModelError for a file that cannot be read.
    """

    def __init__(self, content: bytes, where: str = "model") -> None:
        self.content = content
        self.where = where

    @classmethod
    def read(cls, model: ModelFile | str | os.PathLike[str] | bytes) -> ModelFile:
        """From a path or from bytes; a `ModelFile` is given back as it is."""
        if isinstance(model, ModelFile):
            return model
        if isinstance(model, bytes):
            return cls(model)
        where = os.fspath(model)
        from edge.files import read_regular

        try:
            return cls(read_regular(model, links=True), where)
        except IsADirectoryError:
            from edge.run_folder import file_inside

            raise ModelError(
                f"{where}: expected a .tflite file, got a folder{file_inside(where)}"
            ) from None
        except FileNotFoundError:
            raise ModelError(f"{where}: no such model file") from None
        except OSError as error:
            raise ModelError(f"{where}: {error.strerror or error}") from None

    def __repr__(self) -> str:
        return f"ModelFile({self.where!r}, {len(self.content):,} bytes)"

    @cached_property
    def flatbuffer(self) -> bytes:
        """What interpreters get: the file without the zip behind it."""
        return flatbuffer_of(self.content, self._zip)

    @cached_property
    def digest(self) -> str:
        """sha256 of the flatbuffer: figures may be added to the card behind it."""
        import hashlib

        return hashlib.sha256(self.flatbuffer).hexdigest()

    @cached_property
    def card(self) -> ModelCard | None:
        """The card that edgegraft wrote into the file; None for a foreign file.

        ModelError for a damaged card, and where the network is not the card's.
        """
        text = self.attached(CARD_NAME)
        if text is None:
            return None
        try:
            card = ModelCard.from_json(text)
        except ModelError as error:
            raise ModelError(f"{self.where}: {error}") from None
        if card.model_sha256 not in (None, self.digest):
            raise ModelError(
                f"{self.where}: the network is not the one its card was written for "
                f"(digest {self.digest[:12]}, not {str(card.model_sha256)[:12]}): it "
                "was changed or damaged since; copy or export it again"
            )
        return card

    @cached_property
    def labels(self) -> tuple[str, ...] | None:
        """Those of the card, else of TFLite Metadata; None where it has neither."""
        if self.card is not None:
            return self.card.labels
        outputs = range(max(len(self.metadata.label_files), 1))
        return next(filter(None, map(self.labels_of, outputs)), None)

    def labels_of(self, output: int) -> tuple[str, ...] | None:
        """Those of one output, from the label file that TFLite Metadata names."""
        from edge.tflite import parse_labels

        by_output = self.metadata.label_files
        names = by_output[output] if output < len(by_output) else ()
        for name in (*names, LABELS_NAME):
            content = self.attached(name)
            if content is not None:
                return parse_labels(content, f"{self.where}: {name}")
        return None

    @cached_property
    def metadata(self) -> Metadata:
        """TFLite Metadata; empty where the file has none."""
        from edge.tflite import read_metadata

        return read_metadata(self.structure)

    @cached_property
    def structure(self) -> Table:
        """The root table of the flatbuffer, its skeleton checked.

        ModelError for what is no whole TFLite flatbuffer.
        """
        from edge.tflite import check

        return check(self.flatbuffer, self.where)

    def checked(self) -> ModelFile:
        """Itself; ModelError for what is no whole TFLite flatbuffer."""
        _ = self.structure
        return self

    def attached(self, name: str) -> bytes | None:
        """One file of the zip behind the flatbuffer; None when it is not there."""
        if self._zip is None or name not in self._zip.NameToInfo:
            return None
        import zipfile
        import zlib

        try:
            size = self._zip.NameToInfo[name].file_size
            if size > _MAX_ATTACHED:
                raise ModelError(
                    f"{self.where}: expected at most {_MAX_ATTACHED >> 20} MiB of "
                    f"{name} in the model file, got {size:,} bytes"
                )
            return self._zip.read(name)
        except (zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise ModelError(
                f"{self.where}: damaged {name} in the model file ({error}); copy or "
                "export it again"
            ) from None
        except (RuntimeError, NotImplementedError, ValueError) as error:
            raise ModelError(
                f"{self.where}: cannot read {name} in the model file ({error}); export "
                "it again"
            ) from None

    @cached_property
    def _zip(self) -> zipfile.ZipFile | None:
        return attached(self.content)

    def open(
        self, *, runtime: str = "auto", threads: int | None = None, **options: Any
    ) -> tuple[Runtime, Any]:
        """The runtime, and an interpreter with its tensors allocated.

        `options`: xnnpack, delegate and size, as `edge.runtime.open_interpreter`. A
        file that is not known on this machine first runs in a child process (0.3 s).
        ModelError for a file that cannot be run.
        """
        self.prove(runtime=runtime, **options)
        return self._interpreter(
            runtime=runtime, threads=threads, where=self.where, **options
        )

    def _interpreter(self, **options: Any) -> tuple[Runtime, Any]:
        """An interpreter in this process, for a proven file."""
        return open_interpreter(self.flatbuffer, **options)

    def prove(
        self,
        *,
        runtime: str = "auto",
        xnnpack: bool = True,
        delegate: str | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        """ModelError unless the file ran in a process of its own, now or earlier."""
        key = self._key(runtime, xnnpack, delegate, size)
        if key in _proven or _recorded(key):
            return
        if key in _refused:
            raise ModelError(f"{self.where}: {_refused[key]}")
        self.checked()  # says what a torn or other file is, in plain words
        from edge.subprocess_run import run_in_subprocess

        try:
            run_in_subprocess(
                self.flatbuffer,
                runtime=runtime,
                xnnpack=xnnpack,
                delegate=delegate,
                size=size,
                where=self.where,
            )
        except ModelError as error:
            _refused[key] = str(error).removeprefix(f"{self.where}: ")
            raise
        _remember(key)

    def trust(self) -> None:
        """Record a file that this program has just built itself, and run."""
        _remember(self._key("auto", True, None, None))

    def _key(
        self,
        runtime: str,
        xnnpack: bool,
        delegate: str | None,
        size: tuple[int, int] | None,
    ) -> str:
        """Identifies the file and the native code that runs it."""
        loaded, _ = find(runtime)
        parts = [self.digest, loaded.name, loaded.version]
        if not xnnpack:
            parts.append("plain")
        if delegate is not None:
            parts.append(os.path.basename(delegate))
        if size is not None:
            parts.append(f"{size[0]}x{size[1]}")
        return "-".join(parts).replace(os.sep, "_")[:200]


def _record_folder() -> Path:
    # systemd's CacheDirectory= for a service without a home
    cache = os.environ.get("EDGEGRAFT_CACHE") or os.environ.get("CACHE_DIRECTORY")
    if cache:
        return Path(cache, _RECORD)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "edgegraft", _RECORD)


def _recorded(key: str) -> bool:
    """Whether the record has the key; one that others can write to does not count."""
    try:
        folder = _record_folder()
        info = os.stat(folder)
        owned = not hasattr(os, "geteuid") or info.st_uid == os.geteuid()
        return owned and not info.st_mode & 0o022 and os.path.exists(folder / key)
    except OSError:
        return False


def _remember(key: str) -> None:
    _proven.add(key)
    try:
        folder = _record_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / key).touch(mode=0o600)
    except OSError:
        return  # read-only, full, no home: proven for this process alone
