"""Kernels we have: a name, where it came from, and its blobs."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field

from firkin.store.db import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """An uncompressed `vmlinux`. `modules_digest` names a newc cpio to append to the initramfs, if it needs one."""

    name: str
    provider: str
    version: str  # as `uname -r` prints it
    source: str  # what it was made of; the same source makes the same kernel
    digest: str
    modules_digest: str | None
    size_bytes: int
    created_at: float = field(default_factory=time.time)


class Kernels:
    """The `kernels` table."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def put(self, kernel: Kernel) -> None:
        """Remember a kernel; one of the same name is replaced."""
        row = asdict(kernel)
        names, marks = ", ".join(row), ", ".join(f":{key}" for key in row)
        self._db.connection.execute(f"INSERT OR REPLACE INTO kernels ({names}) VALUES ({marks})", row)

    def get(self, name: str) -> Kernel | None:
        row = self._db.connection.execute("SELECT * FROM kernels WHERE name = ?", (name,)).fetchone()
        return Kernel(**row) if row else None

    def all(self) -> list[Kernel]:
        return [Kernel(**row) for row in self._db.connection.execute("SELECT * FROM kernels ORDER BY name")]

    def remove(self, name: str) -> None:
        self._db.connection.execute("DELETE FROM kernels WHERE name = ?", (name,))
