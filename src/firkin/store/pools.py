"""Pools: from which snapshot how many machines are held ready. Its members are machines, of state ready."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import asdict, dataclass, field

from firkin.errors import NameTaken
from firkin.store.db import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRecord:
    """One row. The id tells it from a former pool of the same name."""

    id: str
    name: str
    size: int
    snapshot: str
    network: str
    created_at: float = field(default_factory=time.time)


class Pools:
    """The `pools` table."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, record: PoolRecord) -> None:
        """Remember a new pool.

        Raises:
            NameTaken: another one goes by that name.
        """
        row = asdict(record)
        names, marks = ", ".join(row), ", ".join(f":{key}" for key in row)
        try:
            self._db.connection.execute(f"INSERT INTO pools ({names}) VALUES ({marks})", row)
        except sqlite3.IntegrityError as error:
            hint = f"firkin pool rm {record.name}, or choose another name"
            raise NameTaken(f"pool {record.name!r}: the name is taken", hint=hint) from error

    def get(self, pool_id: str) -> PoolRecord | None:
        return self._one("id = ?", pool_id)

    def named(self, name: str) -> PoolRecord | None:
        return self._one("name = ?", name)

    def all(self) -> list[PoolRecord]:
        return [PoolRecord(**row) for row in self._db.connection.execute("SELECT * FROM pools ORDER BY created_at")]

    def remove(self, pool_id: str) -> None:
        self._db.connection.execute("DELETE FROM pools WHERE id = ?", (pool_id,))

    def _one(self, condition: str, value: str) -> PoolRecord | None:
        row = self._db.connection.execute(f"SELECT * FROM pools WHERE {condition}", (value,)).fetchone()
        return PoolRecord(**row) if row else None
