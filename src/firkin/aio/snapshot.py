"""A handle on one snapshot, to await: the twin of `firkin.Snapshot`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from firkin.aio.threads import in_thread, threaded
from firkin.manager import snapshot as blocking

if TYPE_CHECKING:
    from firkin.aio.machine import Machine
    from firkin.manager.snapshot_files import Sizes
    from firkin.store.snapshots import SnapshotRecord


class Snapshot:
    """One snapshot of the store. As a context manager it is removed at the end of its scope."""

    def __init__(self, snapshot: blocking.Snapshot) -> None:
        self.sync = snapshot
        self.id = snapshot.id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await asyncio.shield(in_thread(self.sync.remove))

    async def fork(self, n: int = 1, *, names: Sequence[str] = (), detach: bool = False) -> list[Machine]:
        """As `firkin.Snapshot.fork`. Cancelled, it ends once the forks that were begun are undone."""
        from firkin.aio.machine import forked  # whose module needs this one

        return await forked(lambda: self.sync.fork(n, names=names, detach=detach))

    verify = threaded(blocking.Snapshot.verify)
    export = threaded(blocking.Snapshot.export)
    remove = threaded(blocking.Snapshot.remove)

    @property
    def record(self) -> SnapshotRecord:
        """The row as it is now.

        Raises:
            NotFound: the snapshot was removed.
        """
        return self.sync.record

    @property
    def name(self) -> str:
        return self.sync.name

    @property
    def sizes(self) -> Sizes:
        """What it takes."""
        return self.sync.sizes
