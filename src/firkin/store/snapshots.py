"""Snapshots we have: which machine at which instant, and what it takes to bring it back."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

import msgspec

from firkin.errors import NameTaken, NotFound, UsageError
from firkin.spec import MachineSpec
from firkin.store.db import Database

_POOLS = "SELECT name FROM pools WHERE snapshot = ?"


class SnapshotRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One row. Immutable but for `used_at`; times are seconds since the epoch.

    `digests` maps the files of its folder (`state`, `memory`) to their sha256, once they are known.
    """

    id: str
    name: str
    machine: str  # what it was taken of
    spec: MachineSpec
    engine: str
    kernel_digest: str
    image_digest: str
    mac: str  # of the guest's interface, as the snapshot has it
    sshd: bool = False  # whether its image has an SSH server that knows our key
    parent: str | None = None  # the snapshot whose memory this one is a difference from
    origin: str | None = None  # the snapshot that its machine was forked from
    template: str | None = None  # key of a template that `run` made for itself; None for a person's own
    digests: dict[str, str] = msgspec.field(default_factory=dict)
    created_at: float = msgspec.field(default_factory=time.time)
    used_at: float = msgspec.field(default_factory=time.time)


class Snapshots:
    """The `snapshots` table."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, record: SnapshotRecord) -> None:
        """Remember a snapshot whose files are whole.

        Raises:
            NameTaken: another snapshot goes by that name, or is the template of the same key.
            NotFound: its parent went meanwhile.
        """
        row = {key: _plain(value) for key, value in msgspec.structs.asdict(record).items()}
        names, marks = ", ".join(row), ", ".join(f":{key}" for key in row)
        try:
            self._db.connection.execute(f"INSERT INTO snapshots ({names}) VALUES ({marks})", row)
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorname == "SQLITE_CONSTRAINT_FOREIGNKEY":
                raise NotFound("snapshot", record.parent or "") from error
            hint = f"firkin snapshot rm {record.name}, or choose another name"
            raise NameTaken(f"snapshot {record.name!r}: the name is taken", hint=hint) from error

    def get(self, snapshot_id: str) -> SnapshotRecord | None:
        return self._one("id = ?", snapshot_id)

    def template(self, key: str) -> SnapshotRecord | None:
        """The template of this key."""
        return self._one("template = ?", key)

    def find(self, name: str) -> list[SnapshotRecord]:
        """Snapshots whose name is `name`, or else whose id starts with it."""
        rows = self._db.connection.execute("SELECT * FROM snapshots WHERE name = ?", (name,)).fetchall()
        if not rows:
            query = "SELECT * FROM snapshots WHERE substr(id, 1, length(:name)) = :name"
            rows = self._db.connection.execute(query, {"name": name}).fetchall()
        return [_record(row) for row in rows]

    def all(self) -> list[SnapshotRecord]:
        """All, oldest first."""
        return [_record(row) for row in self._db.connection.execute("SELECT * FROM snapshots ORDER BY created_at")]

    def image_digests(self) -> set[str]:
        """Images without which a snapshot that somebody took cannot be loaded. Templates are made anew."""
        rows = self._db.connection.execute("SELECT DISTINCT image_digest FROM snapshots WHERE template IS NULL")
        return {row[0] for row in rows}

    def children(self, snapshot_id: str) -> list[SnapshotRecord]:
        """Snapshots that are differences from this one."""
        rows = self._db.connection.execute("SELECT * FROM snapshots WHERE parent = ?", (snapshot_id,))
        return [_record(row) for row in rows]

    def touch(self, snapshot_id: str) -> None:
        """Note that it was used now."""
        self._db.connection.execute("UPDATE snapshots SET used_at = ? WHERE id = ?", (time.time(), snapshot_id))

    def seal(self, snapshot_id: str, digests: dict[str, str]) -> None:
        """Note what its files hold."""
        self._db.connection.execute("UPDATE snapshots SET digests = ? WHERE id = ?", (_plain(digests), snapshot_id))

    def remove(self, snapshot_id: str) -> None:
        """Forget it.

        Raises:
            UsageError: others are differences from it, or a pool is made of it.
        """
        pools = [row[0] for row in self._db.connection.execute(_POOLS, (snapshot_id,))]
        if pools:
            raise UsageError(
                f"snapshot {snapshot_id!r}: pools of it: {', '.join(pools)}", hint=f"firkin pool rm {' '.join(pools)}"
            )
        if names := [child.name for child in self.children(snapshot_id)]:
            record = self.get(snapshot_id)
            raise UsageError(
                f"snapshot {record.name if record else snapshot_id!r}: differences from it: {', '.join(names)}",
                hint=f"firkin snapshot rm {' '.join(names)}",
            )
        self._db.connection.execute("DELETE FROM snapshots WHERE id = ?", (snapshot_id,))

    def _one(self, condition: str, value: str) -> SnapshotRecord | None:
        row = self._db.connection.execute(f"SELECT * FROM snapshots WHERE {condition}", (value,)).fetchone()
        return _record(row) if row else None


def _plain(value: Any) -> Any:
    return msgspec.json.encode(value).decode() if isinstance(value, dict | MachineSpec) else value


def _record(row: sqlite3.Row) -> SnapshotRecord:
    values = dict(row)
    values["sshd"] = bool(values["sshd"])
    values["spec"] = msgspec.json.decode(values["spec"], type=MachineSpec)
    values["digests"] = msgspec.json.decode(values["digests"], type=dict[str, str])
    return SnapshotRecord(**values)
