"""Leases: which machine has which slot of a network. A slot decides address, MAC and tap (see `net.plan`)."""

from __future__ import annotations

from firkin.store.db import Database


class Leases:
    """The `leases` table."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def take(self, network: str, machine_id: str) -> int:
        """Give the machine the lowest free slot, in one transaction."""
        with self._db.transaction() as connection:
            rows = connection.execute("SELECT slot FROM leases WHERE network = ? ORDER BY slot", (network,))
            slot = 0
            for (taken,) in rows:
                if taken != slot:
                    break
                slot += 1
            connection.execute("INSERT INTO leases VALUES (?, ?, ?)", (network, slot, machine_id))
        return slot

    def slot(self, machine_id: str) -> int | None:
        """The machine's slot, if it has one."""
        row = self._db.connection.execute("SELECT slot FROM leases WHERE machine_id = ?", (machine_id,)).fetchone()
        return None if row is None else int(row[0])

    def release(self, machine_id: str) -> None:
        self._db.connection.execute("DELETE FROM leases WHERE machine_id = ?", (machine_id,))

    def count(self, network: str) -> int:
        """How many machines use the network."""
        row = self._db.connection.execute("SELECT count(*) FROM leases WHERE network = ?", (network,)).fetchone()
        return int(row[0])
