"""The facts of photos, cached by content: a second audit decodes only new photos.

One SQLite file; the key is the sha256 of the photo's bytes, so moving or renaming a
photo does not matter. Several processes may use the file at once: they wait for each
other, and each version of the facts has its own table (an older one is dropped). A
damaged file is replaced by a new one, one that another process has deleted is opened
again; where it cannot be written, `problem` says why and the audit goes on without.
"""

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import TypeVar

from data.audit import local_features
from data.audit.facts import PhotoFacts

VERSION = 4  # of the facts: a new number when `data.audit.facts` measures anything else
BATCH = 500  # photos that are written at once
MAX_PHOTOS = 50_000  # 1.5 GB; beyond it, the oldest ones are deleted
PATIENCE = 10.0  # seconds for another process to finish writing; 500 rows take 0.01

Result = TypeVar("Result")


def _table(version: int | None = None) -> str:
    return f"looks_{VERSION if version is None else version}"


class FactCache:
    """Facts, and reasons why there are none. Use it as a context manager.

    `get` may be called from any thread.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.problem = ""
        self._lock = Lock()
        self._new: dict[str, tuple[str, bytes, bytes]] = {}
        self._file: sqlite3.Connection | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._opened()
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def get(self, sha256: str) -> PhotoFacts | str | None:
        """The cached facts of a photo, the reason why there are none, or None."""

        def query(file: sqlite3.Connection) -> PhotoFacts | str | None:
            row = file.execute(
                f"select facts, thumb, features from {_table()} where sha256 = ?",
                (sha256,),
            ).fetchone()
            if row is None:
                return None
            facts = json.loads(row[0])
            if isinstance(facts, str):
                return facts
            if local_features.available() and not row[2]:
                return None  # cached when OpenCV was not installed
            return PhotoFacts(**facts, thumb=row[1], features=row[2])

        with self._lock:
            return self._tried(query)

    def put(self, sha256: str, facts: PhotoFacts | str) -> None:
        """Cache facts, or the reason why there are none."""
        if isinstance(facts, str):
            self._new[sha256] = (json.dumps(facts), b"", b"")
        else:
            record = asdict(facts)
            thumb, features = record.pop("thumb"), record.pop("features")
            self._new[sha256] = (json.dumps(record), thumb, features)
        if len(self._new) >= BATCH:
            self._write()

    def _write(self) -> None:
        rows = [(sha256, *row) for sha256, row in self._new.items()]
        self._new.clear()

        def insert(file: sqlite3.Connection) -> None:
            with file:
                file.executemany(
                    f"insert or replace into {_table()} values (?, ?, ?, ?)", rows
                )
                file.execute(
                    f"delete from {_table()} where rowid <= "
                    f"(select max(rowid) from {_table()}) - {MAX_PHOTOS}"
                )

        with self._lock:
            self._tried(insert)

    def _tried(self, work: Callable[[sqlite3.Connection], Result]) -> Result | None:
        """work(file), and once more with the file opened again, since another process
        may have deleted it or its table; None after the second failure."""
        for last in (False, True):
            if self._file is None:
                return None
            try:
                return work(self._file)
            except (sqlite3.Error, ValueError, TypeError) as error:
                if last or "locked" in str(error):
                    self._give_up(error)
                    return None
            try:
                self._file.close()
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._opened()
            except (OSError, sqlite3.Error) as error:
                self._give_up(error)
        return None

    def _opened(self) -> sqlite3.Connection:
        try:
            return self._connected()
        except sqlite3.OperationalError:  # locked, read only, no space
            raise
        except sqlite3.DatabaseError:  # not such a file
            # A journal left behind would be played back into the new file
            Path(f"{self.path}-journal").unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
            return self._connected()

    def _connected(self) -> sqlite3.Connection:
        file = sqlite3.connect(self.path, timeout=PATIENCE, check_same_thread=False)
        try:
            tables = file.execute(
                "select name from sqlite_master where type = 'table'"
            ).fetchall()
            for old in {name for (name,) in tables} & set(map(_table, range(VERSION))):
                file.execute(f"drop table if exists {old}")
            file.execute(
                f"create table if not exists {_table()} "
                "(sha256 text primary key, facts text, thumb blob, features blob)"
            )
            file.execute(
                f"select sha256, facts, thumb, features from {_table()}"
            ).fetchone()
        except sqlite3.Error:
            file.close()
            raise
        return file

    def _give_up(self, error: Exception) -> None:
        self.problem = f"{self.path}: {getattr(error, 'strerror', None) or error}"
        if self._file is not None:
            with suppress(sqlite3.Error):
                self._file.close()
        self._file = None

    def close(self) -> None:
        """Write what is new and close the file."""
        self._write()
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = None

    def __enter__(self) -> "FactCache":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
