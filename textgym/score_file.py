"""The SQLite file of a score cache: rows of bytes by key, shared by processes and threads."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

BUSY_SECONDS = 5.0
"""How long a process waits for another that holds the file."""
_APPLICATION_ID = 0x74677363  # "tgsc", in the header of the file
_PAUSE = 0.02
_abandoned: list[sqlite3.Connection] = []


class ForeignFileError(Exception):
    """A database that somebody else made for something else."""


class ScoreFile:
    """Rows of bytes by key. Every method may raise `sqlite3.Error` or `ForeignFileError`.

    Args:
        path: the file; it is made when first needed.
        max_bytes: the size that the file does not pass.
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._owner = os.getpid()

    def read(self, keys: Sequence[bytes]) -> dict[bytes, object]:
        """Return the rows that the file has, by key."""
        rows: dict[bytes, object] = {}
        with self._own_lock():
            execute = self._open().execute
            for key in keys:
                row = execute("SELECT score FROM scores WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    rows[key] = row[0]
        return rows

    def write(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Add rows in one transaction; a key that is there already keeps its row."""
        rows = list(rows)
        if not rows:
            return
        with self._own_lock():
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            with connection:  # commits, or rolls back where it raises
                connection.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?)", rows)

    def close(self) -> None:
        """Close the connection."""
        with self._own_lock():
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _own_lock(self) -> threading.Lock:
        """After a fork the connection, and a lock that may be held, belong to the other process."""
        if self._owner != os.getpid():
            if self._connection is not None:
                _abandoned.append(self._connection)  # to close it would disturb its owner
                self._connection = None
            self._lock = threading.Lock()
            self._owner = os.getpid()
        return self._lock

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            deadline = time.monotonic() + BUSY_SECONDS
            while self._connection is None:
                try:
                    self._connection = self._connect()
                except sqlite3.OperationalError as error:
                    # The change to WAL mode does not wait for a process that makes the same one.
                    is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                    if not is_busy or time.monotonic() > deadline:
                        raise
                    time.sleep(_PAUSE)
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if _pragma(connection, "application_id") != _APPLICATION_ID:
            self._make(connection)
        # An existing file stays in the mode that it has where this file system cannot do WAL.
        _pragma(connection, "journal_mode = WAL")
        _pragma(connection, "synchronous = NORMAL")  # a power cut may cost the last scores
        pages = self._max_bytes // int(str(_pragma(connection, "page_size")))
        _pragma(connection, f"max_page_count = {max(1, pages)}")

    def _make(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            (num_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if num_tables and _pragma(connection, "application_id") != _APPLICATION_ID:
                raise ForeignFileError("it is a database of another program")
            if not num_tables:
                connection.execute(
                    "CREATE TABLE scores (key BLOB PRIMARY KEY, score BLOB NOT NULL) WITHOUT ROWID"
                )
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")


def _pragma(connection: sqlite3.Connection, statement: str) -> object:
    with closing(connection.execute(f"PRAGMA {statement}")) as cursor:
        row = cursor.fetchone()
    return None if row is None else row[0]
