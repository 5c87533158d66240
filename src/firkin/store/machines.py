"""Machines we made: what was asked for, how far it got, and which process it is."""

from __future__ import annotations

import sqlite3
import time
from enum import StrEnum
from typing import Any

import msgspec

from firkin.errors import NameTaken
from firkin.host.process import ProcessRef
from firkin.spec import MachineSpec
from firkin.store.db import Database


class State(StrEnum):
    """A machine's life. Failed starts leave no row: their error goes to whoever asked."""

    CREATED = "created"
    STARTING = "starting"
    READY = "ready"  # forked, paused, and a pool's until somebody claims it
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


class Lifetime(StrEnum):
    """When a machine is removed without being asked."""

    KEPT = "kept"  # only by `rm`
    UNTIL_STOPPED = "until-stopped"  # `--rm`: as soon as it stops
    SESSION = "session"  # with the process that made it, at the latest


class MachineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One row. Times are seconds since the epoch; `timeline` maps a phase to milliseconds since the start."""

    id: str
    name: str
    state: State
    spec: MachineSpec
    lifetime: Lifetime
    engine: str
    network: str | None = None
    snapshot: str | None = None  # id of the one it was forked from; None for a machine that booted
    pool: str | None = None  # id of the pool that holds it ready
    address: str | None = None
    pid: int | None = None
    pid_started: int | None = None
    timeline: dict[str, float] = msgspec.field(default_factory=dict)
    created_at: float = msgspec.field(default_factory=time.time)
    started_at: float | None = None
    stopped_at: float | None = None

    @property
    def up(self) -> bool:
        """Whether its engine should be there."""
        return self.state in (State.RUNNING, State.PAUSED)

    @property
    def process(self) -> ProcessRef | None:
        """The engine's process, if it was started."""
        if self.pid is None or self.pid_started is None:
            return None
        return ProcessRef(self.pid, self.pid_started)


class Machines:
    """The `machines` table."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, record: MachineRecord) -> None:
        """Remember a new machine.

        Raises:
            NameTaken: another machine goes by that name.
        """
        row = _row(record)
        names, marks = ", ".join(row), ", ".join(f":{key}" for key in row)
        try:
            self._db.connection.execute(f"INSERT INTO machines ({names}) VALUES ({marks})", row)
        except sqlite3.IntegrityError as error:
            raise NameTaken(
                f"machine {record.name!r}: the name is taken",
                hint=f"firkin rm --force {record.name}, or choose another --name",
            ) from error

    def update(self, machine_id: str, **changes: Any) -> MachineRecord:
        """Change some columns; answers the row as it is then."""
        values = {key: _plain(value) for key, value in changes.items()}
        assignments = ", ".join(f"{key} = :{key}" for key in values)
        self._db.connection.execute(f"UPDATE machines SET {assignments} WHERE id = :_id", values | {"_id": machine_id})
        record = self.get(machine_id)
        assert record is not None  # the caller holds the machine's lock, so nobody removed it
        return record

    def get(self, machine_id: str) -> MachineRecord | None:
        row = self._db.connection.execute("SELECT * FROM machines WHERE id = ?", (machine_id,)).fetchone()
        return _record(row) if row else None

    def find(self, name: str) -> list[MachineRecord]:
        """Machines whose name is `name`, or else whose id starts with it."""
        rows = self._db.connection.execute("SELECT * FROM machines WHERE name = ?", (name,)).fetchall()
        if not rows:
            query = "SELECT * FROM machines WHERE substr(id, 1, length(:name)) = :name"
            rows = self._db.connection.execute(query, {"name": name}).fetchall()
        return [_record(row) for row in rows]

    def all(self) -> list[MachineRecord]:
        return [_record(row) for row in self._db.connection.execute("SELECT * FROM machines ORDER BY created_at")]

    def members(self, pool_id: str) -> list[MachineRecord]:
        """Machines that a pool holds ready, the oldest first."""
        rows = self._db.connection.execute("SELECT * FROM machines WHERE pool = ? ORDER BY created_at", (pool_id,))
        return [_record(row) for row in rows]

    def enter(self, machine_id: str, pool_id: str) -> bool:
        """Make a machine a member, which no longer ends with its maker; False if the pool is gone."""
        cursor = self._db.connection.execute(
            "UPDATE machines SET pool = :pool, state = :state, lifetime = :lifetime"
            " WHERE id = :id AND EXISTS (SELECT 1 FROM pools WHERE id = :pool)",
            {"id": machine_id, "pool": pool_id, "state": State.READY, "lifetime": Lifetime.UNTIL_STOPPED},
        )
        return cursor.rowcount == 1

    def claim(self, machine_id: str, lifetime: Lifetime) -> bool:
        """Take a member out of its pool, as a machine that is starting; False if somebody else did."""
        cursor = self._db.connection.execute(
            "UPDATE machines SET pool = NULL, state = ?, lifetime = ? WHERE id = ? AND state = ?",
            (State.STARTING, lifetime, machine_id, State.READY),
        )
        return cursor.rowcount == 1

    def remove(self, machine_id: str) -> None:
        self._db.connection.execute("DELETE FROM machines WHERE id = ?", (machine_id,))


def _plain(value: Any) -> Any:
    return msgspec.json.encode(value).decode() if isinstance(value, dict | MachineSpec) else value


def _row(record: MachineRecord) -> dict[str, Any]:
    return {key: _plain(value) for key, value in msgspec.structs.asdict(record).items()}


def _record(row: sqlite3.Row) -> MachineRecord:
    values = dict(row)
    values["spec"] = msgspec.json.decode(values["spec"], type=MachineSpec)
    values["timeline"] = msgspec.json.decode(values["timeline"], type=dict[str, float])
    values["state"], values["lifetime"] = State(values["state"]), Lifetime(values["lifetime"])
    return MachineRecord(**values)
