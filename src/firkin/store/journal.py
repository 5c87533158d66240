"""The journal: every change to the host, written before the act and struck out after its undoing."""

from __future__ import annotations

from dataclasses import dataclass

from firkin.store.db import Database


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of `owner` (a machine's id, or `network:NAME`) as JSON; later entries have higher numbers."""

    number: int
    owner: str
    value: str


class Journal:
    """The `changes` table."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def write(self, owner: str, value: str) -> int:
        cursor = self._db.connection.execute("INSERT INTO changes (owner, value) VALUES (?, ?)", (owner, value))
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def strike(self, number: int) -> None:
        self._db.connection.execute("DELETE FROM changes WHERE id = ?", (number,))

    def strike_kind(self, owner: str, kind: str) -> None:
        query = "DELETE FROM changes WHERE owner = ? AND json_extract(value, '$.kind') = ?"
        self._db.connection.execute(query, (owner, kind))

    def newest_first(self, owner: str) -> list[Entry]:
        rows = self._db.connection.execute("SELECT * FROM changes WHERE owner = ? ORDER BY id DESC", (owner,))
        return [Entry(row["id"], row["owner"], row["value"]) for row in rows]

    def owners(self) -> list[str]:
        return [row[0] for row in self._db.connection.execute("SELECT DISTINCT owner FROM changes")]

    def holds(self, owner: str, kind: str) -> bool:
        """Whether the owner has a change of this kind."""
        query = "SELECT 1 FROM changes WHERE owner = ? AND json_extract(value, '$.kind') = ?"
        return self._db.connection.execute(query, (owner, kind)).fetchone() is not None
