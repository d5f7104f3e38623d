"""What audits found out about photos, remembered by content: a second audit decodes
only what is new. One SQLite file; the key is the sha256 of the photo's bytes.

Several processes may use the file at once: they wait for each other, and each version
of the facts has a table of its own (an older one is dropped). A file that is damaged is
thrown away and begun anew, one that another process has thrown away is opened again;
where it cannot be written, `problem` says why and the audit goes on without.

It does not know paths: a photo that was moved or renamed is known all the same.
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
WRITTEN_AT = 500  # photos that wait to be written
MOST = 50_000  # photos kept: 1.5 GB; of more, the ones noted first are forgotten
PATIENCE = 10.0  # seconds for another process to finish writing; 500 rows take 0.01

Found = TypeVar("Found")


def _table(version: int | None = None) -> str:
    return f"looks_{VERSION if version is None else version}"


class FactCache:
    """Facts, and reasons why there are none. Use it as a context manager.

    `recall` may be called from any thread.
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

    def recall(self, sha256: str) -> PhotoFacts | str | None:
        """What is known of a photo: its facts, the reason why not, or None."""

        def found(file: sqlite3.Connection) -> PhotoFacts | str | None:
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
                return None  # noted when OpenCV was not installed
            return PhotoFacts(**facts, thumb=row[1], features=row[2])

        with self._lock:
            return self._tried(found)

    def remember(self, sha256: str, known: PhotoFacts | str) -> None:
        """Keep facts, or the reason why there are none."""
        thumb = features = b""
        facts: object = known
        if isinstance(known, PhotoFacts):
            facts, thumb, features = asdict(known), known.thumb, known.features
            del facts["thumb"], facts["features"]
        self._new[sha256] = (json.dumps(facts), thumb, features)
        if len(self._new) >= WRITTEN_AT:
            self._write()

    def _write(self) -> None:
        rows = [(sha256, *row) for sha256, row in self._new.items()]
        self._new.clear()

        def written(file: sqlite3.Connection) -> None:
            with file:
                file.executemany(
                    f"insert or replace into {_table()} values (?, ?, ?, ?)", rows
                )
                file.execute(
                    f"delete from {_table()} where rowid <= "
                    f"(select max(rowid) from {_table()}) - {MOST}"
                )

        with self._lock:
            self._tried(written)

    def _tried(self, work: Callable[[sqlite3.Connection], Found]) -> Found | None:
        """work(file), and once more with the file opened again, since another process
        may have thrown it or its table away. Then it is given up: None."""
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
        """Write what is new and let go of the file."""
        self._write()
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = None

    def __enter__(self) -> "FactCache":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
