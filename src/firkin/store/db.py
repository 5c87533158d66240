"""One SQLite file in WAL mode: many readers, one writer, crash-safe, no daemon.

A connection carries one transaction at a time, so each thread has its own; the file's locks order their writes.
"""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from firkin.errors import HostError
from firkin.store.migrations import MIGRATIONS

BUSY_TIMEOUT_S = 10.0


class _Connection(sqlite3.Connection):
    """Closed with the thread that opened it: its last reference goes then."""

    def __del__(self) -> None:
        self.close()


class Database:
    """The store's file with its schema up to date. Any thread may use it; after `close` none may.

    Raises:
        HostError: the file was written by a newer firkin, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._own = threading.local()
        self._all: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._lock = threading.Lock()  # guards _all and _closed
        self._closed = False
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._migrate(path)

    @property
    def connection(self) -> sqlite3.Connection:
        """The calling thread's own connection, opened on first use.

        Raises:
            HostError: it cannot be opened, or the store was closed.
        """
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None or self._closed:
            connection = self._own.connection = self._open()
        return connection

    def _open(self) -> sqlite3.Connection:
        with self._lock:
            if self._closed:
                raise HostError(f"{self._path}: the store was closed", hint="open it again: firkin.Firkin()")
            try:
                # Only `close` touches it from another thread.
                connection = sqlite3.connect(
                    self._path,
                    timeout=BUSY_TIMEOUT_S,
                    isolation_level=None,
                    check_same_thread=False,
                    factory=_Connection,
                )
                connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.Error as error:
                raise HostError(
                    f"{self._path}: cannot open the store: {error}", hint="df -h; ls -l; set FIRKIN_HOME"
                ) from error
            self._all.add(connection)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys=ON")
        # The kernel has each write when it returns, so `kill -9` loses none. A power cut may lose the last ones, and
        # takes with it what they told of: processes, taps, namespaces.
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of this scope's writes, or none."""
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def close(self) -> None:
        """Close every thread's connection. Closing twice is fine."""
        with self._lock:
            self._closed = True
            for connection in self._all:
                connection.close()

    def _version(self) -> int:
        return int(self.connection.execute("PRAGMA user_version").fetchone()[0])

    def _migrate(self, path: Path) -> None:
        if self._version() > len(MIGRATIONS):
            raise HostError(f"{path}: written by a newer firkin", hint="upgrade firkin, or set FIRKIN_HOME elsewhere")
        if self._version() == len(MIGRATIONS):
            return
        with self.transaction() as connection:
            # Read again under the write lock: another process may have migrated meanwhile.
            for number, statements in enumerate(MIGRATIONS[self._version() :], start=self._version() + 1):
                for statement in statements:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={number}")
