"""What audits found out about photos, remembered by content: a second audit decodes
only what is new. One SQLite file; the key is the sha256 of the photo's bytes.

A file that is damaged or of another version is thrown away and begun anew; where it
cannot be written, `problem` says why and the audit goes on without.

It does not know paths: a photo that was moved or renamed is known all the same.
"""

import json
import os
import sqlite3
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from threading import Lock

from data.look import Look

VERSION = 2  # of the facts: a new number when `data.look` measures anything else
WRITTEN_AT = 500  # photos that wait to be written


class Memory:
    """Looks, and reasons why there is none. Use it as a context manager.

    `recall` may be called from any thread.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.problem = ""
        self._lock = Lock()
        self._new: dict[str, tuple[str, bytes]] = {}
        self._file: sqlite3.Connection | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._opened()
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def recall(self, sha256: str) -> Look | str | None:
        """What is known of a photo: its look, the reason why not, or None."""
        with self._lock:
            if self._file is None:
                return None
            try:
                row = self._file.execute(
                    "select facts, thumb from looks where sha256 = ?", (sha256,)
                ).fetchone()
                if row is None:
                    return None
                facts = json.loads(row[0])
                if isinstance(facts, str):
                    return facts
                return Look(**facts, thumb=row[1])
            except (sqlite3.Error, ValueError, TypeError) as error:
                self._give_up(error)
                return None

    def remember(self, sha256: str, known: Look | str) -> None:
        """Keep a look, or the reason why there is none."""
        thumb = b""
        facts: object = known
        if isinstance(known, Look):
            facts, thumb = asdict(known), known.thumb
            del facts["thumb"]
        self._new[sha256] = (json.dumps(facts), thumb)
        if len(self._new) >= WRITTEN_AT:
            self._write()

    def _write(self) -> None:
        rows = [(sha256, *row) for sha256, row in self._new.items()]
        self._new.clear()
        with self._lock:
            if self._file is None:
                return
            try:
                with self._file:
                    self._file.executemany(
                        "insert or replace into looks values (?, ?, ?)", rows
                    )
            except sqlite3.Error as error:
                self._give_up(error)

    def _opened(self) -> sqlite3.Connection:
        try:
            return self._connected()
        except sqlite3.OperationalError:  # locked, read only, no space
            raise
        except sqlite3.DatabaseError:  # not such a file, or of another version
            self.path.unlink()
            return self._connected()

    def _connected(self) -> sqlite3.Connection:
        file = sqlite3.connect(self.path, timeout=5, check_same_thread=False)
        try:
            (version,) = file.execute("pragma user_version").fetchone()
            if version not in (0, VERSION):
                raise sqlite3.DatabaseError(f"version {version}")
            with file:
                file.execute(
                    "create table if not exists looks "
                    "(sha256 text primary key, facts text, thumb blob) without rowid"
                )
                file.execute(f"pragma user_version = {VERSION}")
            file.execute("select sha256, facts, thumb from looks limit 1").fetchone()
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

    def __enter__(self) -> "Memory":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
