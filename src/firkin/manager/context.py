"""What every part of the manager needs: settings, the store's tables, the ledger and the locks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from firkin.host.lock import locked, try_lock
from firkin.settings import Settings
from firkin.store.blobs import Blobs
from firkin.store.db import Database
from firkin.store.images import Images
from firkin.store.journal import Journal
from firkin.store.kernels import Kernels
from firkin.store.leases import Leases
from firkin.store.machines import Machines
from firkin.store.pools import Pools
from firkin.store.snapshots import Snapshots

if TYPE_CHECKING:
    from firkin.manager.changes import Ledger
    from firkin.vmm.console import Console
    from firkin.vmm.zygote import Zygote

DEFAULT_HOMES = ("/var/lib/firkin",)


class Context:
    """One open store. Threads may share it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.paths = settings.paths
        self.db = Database(settings.paths.database)
        self.machines = Machines(self.db)
        self.leases = Leases(self.db)
        self.kernels = Kernels(self.db)
        self.images = Images(self.db)
        self.snapshots = Snapshots(self.db)
        self.pools = Pools(self.db)
        self.blobs = Blobs(settings.paths)
        self.journal = Journal(self.db)

    def close(self) -> None:
        self.db.close()

    @cached_property
    def ledger(self) -> Ledger:
        """Does and undoes changes. Made on first use: listing machines needs none of the rooms behind it."""
        from firkin.manager.changes import Ledger

        return Ledger(self.journal)

    def console(self, machine_id: str) -> Console:
        """A machine's serial console on this host."""
        from firkin.vmm.console import Console

        run, home = self.paths.machine_run(machine_id), self.paths.machine_home(machine_id)
        return Console(machine_id=machine_id, run=run, home=home, limit=self.settings.console_log_mib * 2**20)

    @property
    def zygote(self) -> Zygote | None:
        """The warm process of which engines are forked, whether it runs or not; None if none is wanted."""
        from firkin.vmm.zygote import Zygote

        return Zygote(self.paths.zygotes, self.settings.zygote) if self.settings.zygote else None

    @property
    def tag(self) -> str:
        """Tells the host objects of several homes apart: empty for root's own home, else six hexadecimal digits."""
        import hashlib

        home = str(self.paths.home)
        return "" if home in DEFAULT_HOMES else hashlib.sha256(home.encode()).hexdigest()[:6]

    def machine_lock(self, machine_id: str) -> Path:
        """Held while a machine changes its state."""
        return self.paths.locks / f"machine-{machine_id}"

    def snapshot_lock(self, snapshot_id: str) -> Path:
        """Held while a snapshot comes, goes or is merged."""
        return self.paths.locks / f"snapshot-{snapshot_id}"

    def session_lock(self, machine_id: str) -> Path:
        """Held by the process with whose life a machine ends."""
        return self.paths.locks / f"session-{machine_id}"

    @contextmanager
    def network_locked(self, name: str) -> Iterator[None]:
        """Hold a network still while it is made, used or taken down."""
        with locked(self.paths.locks / f"network-{name}"):
            yield

    def is_free(self, lock: Path) -> bool:
        """Whether nobody holds this lock, so whoever should hold it died."""
        fd = try_lock(lock)
        if fd is None:
            return False
        os.close(fd)
        return True
