"""One SQLite file in WAL mode: many readers, one writer, crash-safe, no daemon."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from firkin.errors import HostError
from firkin.store.migrations import MIGRATIONS

BUSY_TIMEOUT_S = 10.0


class Database:
    """A connection with its schema up to date.

    Raises:
        HostError: the file was written by a newer firkin, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        try:
            self.connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            self.connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.Error as error:
            raise HostError(f"{path}: cannot open the store: {error}", hint="df -h; ls -l; set FIRKIN_HOME") from error
        self.connection.row_factory = sqlite3.Row
        self.connection.execute("PRAGMA foreign_keys=ON")
        self._migrate(path)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of this scope's writes, or none."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def close(self) -> None:
        self.connection.close()

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
